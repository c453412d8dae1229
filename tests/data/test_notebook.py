"""What notebooks show."""

from data.notebook import html_table
from data.signal import Signal
from scanner.decide import Hit
from scanner.market import SHOWN, ScanResult

EVIL = "<script>alert(1)</script>"


def test_a_signal_is_a_table_of_text() -> None:
    values = {"RSI(14)": 71.23456789, EVIL: None}
    shown = Signal(
        EVIL, "v1", "600519.SH", "1d", 0, "BUY", 0.8, 1523.5, "talib", 0, values, name="贵州茅台"
    )._repr_html_()
    assert "<script" not in shown
    assert "<td>贵州茅台</td>" in shown
    assert "<tr><td>RSI(14)</td><td>71.2346</td></tr>" in shown
    assert "<tr><td>bar_end</td><td>1970-01-01T00:00:00Z</td></tr>" in shown


def test_a_scan_shows_its_first_hits() -> None:
    hits = tuple(Hit(f"s{n}", "600519.SH", "SELL", 0.5, 10.25, {}, 0) for n in range(SHOWN + 1))
    shown = ScanResult("1d", 0, "vector", 5000, 4900, 250, 7, hits, (), {})._repr_html_()
    assert f"{SHOWN + 1} hits among 5000 symbols (1d, engine vector), {SHOWN} of them here" in shown
    assert shown.count("<tr>") == SHOWN + 1
    assert "<td>s0</td><td>SELL</td><td>600519.SH</td><td>10.25</td><td>0.5</td>" in shown
    assert f"s{SHOWN}<" not in shown
    assert "of them" not in ScanResult("1d", 0, "vector", 1, 1, 1, 1, hits[:1], (), {})._repr_html_()


def test_a_caption_and_a_head_are_text_too() -> None:
    assert html_table([], ["a & b"], EVIL).count("&") == 5
