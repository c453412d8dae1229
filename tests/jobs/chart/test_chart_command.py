"""`mystocks-scan chart`."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

import jobs.commands.chart
from data.errors import ExpressionError, SettingsError, StaleDataError, UsageError
from data.store import BarStore
from jobs.cli import cli


def run(store: BarStore, *args: str) -> Result:
    return CliRunner().invoke(cli, ["chart", "--store", str(store.root), *args], catch_exceptions=False)


def charted(store: BarStore, *args: str) -> dict[str, Any]:
    result = run(store, *args, "--json")
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_symbol_in_any_spelling_and_by_its_name(simulated: BarStore) -> None:
    symbol = simulated.symbols("1d")[4]
    name = simulated.names()[symbol][0]
    spellings = [symbol, symbol[:6], symbol[7:].lower() + symbol[:6], name]
    for spelling in spellings:
        assert charted(simulated, spelling, "--bars", "3")["symbol"] == symbol
    chart = charted(simulated, symbol)
    assert (chart["name"], chart["frame"], len(chart["close"])) == (name, "1d", 250)
    assert [pane["title"] for pane in chart["panes"]] == ["MACD(12,26,9)", "KDJ(9,3,3)"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["00015", "--json"], "nearest"),
        (["nobody", "--json"], "no symbol and no name of one"),
        (["SYMBOL", "--strategy", "macd_golden_cros", "--json"], "there are macd_golden_cross"),
        (["SYMBOL", "--since", "2025-05-27", "--until", "2025-05-26", "--json"], "before"),
        (["SYMBOL", "-o", "x.gif"], ".png"),
        (["SYMBOL", "-o", "x.png", "--terminal"], "contradict"),
        (["SYMBOL", "--terminal", "--json"], "contradict"),
        (["SYMBOL"], "stdout is no terminal"),
        (["SYMBOL", "-o", "nowhere/x.png"], "nowhere/x.png cannot be written: No such file"),
    ],
)
def test_what_makes_no_sense_is_refused(simulated: BarStore, args: list[str], words: str) -> None:
    symbol = simulated.symbols("1d")[0]
    with pytest.raises(UsageError, match=words):
        run(simulated, *[symbol if arg == "SYMBOL" else arg for arg in args])


def test_the_nearest_symbols_are_named(simulated: BarStore) -> None:
    symbol = simulated.symbols("1d")[0]
    with pytest.raises(UsageError, match=symbol):
        run(simulated, symbol[:5], "--json")
    names = [name for name, _ in simulated.names().values()]
    char, number = Counter(char for name in names for char in set(name)).most_common(1)[0]
    assert number > 1
    with pytest.raises(UsageError, match=f"is the name of {number} symbols"):
        run(simulated, char, "--json")


def test_other_errors(simulated: BarStore) -> None:
    symbol = simulated.symbols("1d")[0]
    with pytest.raises(StaleDataError, match="it has 1m, 1d: --frame 1m"):
        run(simulated, symbol, "--frame", "30m", "--json")
    with pytest.raises(ExpressionError, match="column 9"):
        run(simulated, symbol, "--indicators", "SMA(5), NOPE(3)", "--json")
    with pytest.raises(StaleDataError, match="none of any frame"):
        run(simulated, "688999", "--json")


def test_files(simulated: BarStore, tmp_path: Path) -> None:
    symbol = simulated.symbols("1d")[0]
    html, png = tmp_path / "chart.html", tmp_path / "chart.PNG"
    for path in (html, png):
        result = run(simulated, symbol, "-o", str(path), "--strategy", "macd_golden_cross")
        assert (result.exit_code, result.stdout) == (0, "")
        assert str(path) in result.stderr
    assert html.read_text(encoding="utf-8").startswith("<!doctype html>")
    with Image.open(png) as image:
        assert image.format == "PNG"
        assert image.width == 1200


def test_colors_by_flag_and_by_setting(simulated: BarStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    symbol = simulated.symbols("1d")[0]

    def drawn(*args: str) -> bytes:
        run(simulated, symbol, "-o", str(tmp_path / "x.png"), "--bars", "5", "--indicators", "SMA(2)", *args)
        return (tmp_path / "x.png").read_bytes()

    usual = drawn()
    western = drawn("--colors", "western")
    assert usual != western
    assert drawn("--theme", "dark") != usual
    monkeypatch.setenv("MYSTOCKS_SCAN__CHART__COLORS", "western")
    assert drawn() == western
    assert drawn("--colors", "cn") == usual
    monkeypatch.setenv("MYSTOCKS_SCAN__CHART__COLORS", "blue")
    with pytest.raises(SettingsError, match="colors"):
        drawn()


def test_a_strategy_brings_its_frame(simulated: BarStore, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("strategies:\n  - {name: mine, frame: [5m, 1m], when: close > open, action: BUY}\n")
    chart = charted(simulated, simulated.symbols("1d")[0], "--strategies", str(path), "--strategy", "mine")
    assert (chart["frame"], chart["panes"]) == ("1m", [])
    assert {signal["action"] for signal in chart["signals"]} == {"BUY"}


def test_the_terminal(simulated: BarStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = run(simulated, simulated.symbols("1d")[0], "--terminal", "--indicators", "RSI(14)")
    lines = result.stdout.splitlines()
    assert "RSI(14) " in lines[-1]
    assert max(map(len, lines)) <= 80


def test_open_shows_a_page_in_the_browser(simulated: BarStore, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(jobs.commands.chart.webbrowser, "open", lambda address: seen.append(address) or False)
    result = run(simulated, simulated.symbols("1d")[0], "--open", "--bars", "5")
    assert result.exit_code == 0
    assert seen[0].startswith("file:///")
    assert seen[0].endswith(".html")
    assert Path(seen[0].removeprefix("file://")).is_file()
    assert "nothing here to show" in result.stderr


def test_days_bound_it(simulated: BarStore) -> None:
    symbol = simulated.symbols("1d")[0]
    times = charted(simulated, symbol)["time"]
    assert charted(simulated, symbol, "--since", times[100], "--until", times[120])["time"] == times[100:121]
    assert charted(simulated, symbol, "--until", times[120], "--bars", "2")["time"] == times[119:121]
