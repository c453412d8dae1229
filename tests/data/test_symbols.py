"""Symbols: every spelling comes to one, nothing is guessed, and the facts cover the real market."""

from datetime import date
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import UnknownSymbolError
from data.symbols import (
    BOARDS,
    EXCHANGES,
    FACTS,
    KINDS,
    board,
    canonical,
    canonical_many,
    canonical_or_none,
    fact_of,
    kind,
    sina_code,
)

SPELLINGS = {
    "600519.SH": "sh600519 SH600519 600519 600519.XSHG sh.600519 SH.600519 600519.SS 600519.sh 600519.SSE SHSE.600519",
    "000001.SZ": "sz000001 000001 000001.SZ 000001.XSHE sz.000001 000001.sz SZSE.000001",
    "000001.SH": "sh000001 000001.SH 000001.XSHG",
    "920118.BJ": "bj920118 920118 920118.BJ 920118.XBSE bj.920118",
    "510300.SH": "sh510300 510300.SH",
    "159915.SZ": "sz159915 159915.SZ",
    "899050.BJ": "bj899050",
    "689009.SH": "689009 sh689009",
    "430047.BJ": "430047 bj430047",
    "900952.SH": "900952",
    "201872.SZ": "201872 sz201872",
    "140001.SZ": "140001",
    "302132.SZ": "302132",
}


@pytest.mark.parametrize(("symbol", "text"), [(s, t) for s, texts in SPELLINGS.items() for t in texts.split()])
def test_every_spelling_comes_to_the_canonical_symbol(symbol: str, text: str) -> None:
    assert canonical(text) == symbol
    assert canonical(f"  {text}\n") == symbol


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("600519.SZ", r"names the exchange SZ, which has no such code; it is 600519\.SH \(a_share\)"),
        ("sz600519", "names the exchange SZ"),
        ("sh920118", r"it is 920118\.BJ \(a_share\)"),
        ("510300", r"needs its exchange, for it is not a stock: 510300\.SH \(etf\)"),
        ("399001", r"needs its exchange, .* 399001\.SZ \(index\)"),
        ("1", "fewer than six digits"),
        ("2594", "spreadsheet has cut leading zeros"),
        ("700001", r"no known range covers \(700001\)"),
        ("bj880001", "no known range covers"),
        ("600519.HK", "is not a code of six digits"),
        ("sh600519.SH", "is not a code of six digits"),
        ("6005190", "is not a code of six digits"),
        ("６００５１９", "is not a code of six digits"),
        ("600 519", "is not a code of six digits"),
        ("600519.0", "is not a code of six digits"),
        ("", "is not a code of six digits"),
        ("贵州茅台", "is not a code of six digits"),
    ],
)
def test_an_error_names_the_text_the_reason_and_the_remedy(text: str, reason: str) -> None:
    with pytest.raises(UnknownSymbolError, match=reason) as caught:
        canonical(text)
    assert repr(text) in str(caught.value)
    assert "Write 600519.SH, sh600519" in str(caught.value)
    assert canonical_or_none(text) is None


@given(st.text(max_size=12) | st.from_regex(r"\A(sh|SZ|bj)?\.?[0-9]{5,7}(\.(SH|xshe|BJ))?\Z"))
def test_any_text_is_a_symbol_of_a_known_fact_or_an_error(text: str) -> None:
    symbol = canonical_or_none(text)
    if symbol is None:
        with pytest.raises(UnknownSymbolError):
            canonical(text)
        return
    assert canonical(symbol) == symbol
    assert symbol[:6] in text
    assert symbol[7:] in EXCHANGES
    assert kind(symbol) in KINDS
    assert board(symbol) in BOARDS
    assert canonical(sina_code(symbol)) == symbol


def test_many_gives_none_for_what_is_unknown() -> None:
    assert canonical_many(["sh600519", "700001", "000001"]) == ["600519.SH", None, "000001.SZ"]
    assert canonical_many([]) == []


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        ("600519.SH", ("a_share", "main")),
        ("605499.SH", ("a_share", "main")),
        ("000001.SZ", ("a_share", "main")),
        ("002594.SZ", ("a_share", "main")),
        ("003816.SZ", ("a_share", "main")),
        ("300750.SZ", ("a_share", "chinext")),
        ("301269.SZ", ("a_share", "chinext")),
        ("302132.SZ", ("a_share", "chinext")),
        ("688981.SH", ("a_share", "star")),
        ("689009.SH", ("cdr", "star")),
        ("920118.BJ", ("a_share", "bse")),
        ("835305.BJ", ("a_share", "bse")),
        ("900901.SH", ("b_share", "b_share")),
        ("200002.SZ", ("b_share", "b_share")),
        ("140001.SZ", ("preferred", "preferred")),
        ("360001.SH", ("preferred", "preferred")),
        ("588000.SH", ("etf", "etf")),
        ("161725.SZ", ("etf", "etf")),
        ("000300.SH", ("index", "index")),
        ("399006.SZ", ("index", "index")),
        ("899050.BJ", ("index", "index")),
    ],
)
def test_kind_and_board(symbol: str, expected: tuple[str, str]) -> None:
    assert (kind(symbol), board(symbol)) == expected


@pytest.mark.parametrize(
    "text", ["600519", "600519.SZ", "sh600519", "600519.sh", "", "600519.SHX", "600519-SH", "600abc.SH", "700001.SH"]
)
def test_facts_are_only_of_canonical_symbols(text: str) -> None:
    with pytest.raises(UnknownSymbolError, match="not the canonical one of a known code"):
        fact_of(text)


def test_the_table_of_facts_is_sound() -> None:
    keys = [(fact.exchange, fact.prefix) for fact in FACTS]
    assert len(set(keys)) == len(keys)
    stocks: dict[str, str] = {}
    for fact in FACTS:
        assert fact.exchange in EXCHANGES
        assert fact.kind in KINDS
        assert fact.board in BOARDS
        assert fact.prefix.isdigit()
        assert len(fact.prefix) in (2, 3)
        assert fact.source.startswith("https://")
        assert date(1990, 12, 19) <= fact.since < (fact.until or date.max)
        if fact.kind in ("a_share", "b_share", "cdr", "preferred"):
            for other in stocks:
                assert not fact.prefix.startswith(other), "six bare digits would mean two stocks"
                assert not other.startswith(fact.prefix), "six bare digits would mean two stocks"
            stocks[fact.prefix] = fact.exchange


def test_the_facts_cover_the_real_market(market: Path) -> None:
    table = pq.read_table(market / "ashare_daily_2020_2025.parquet", columns=["symbol", "date"])
    spans = table.group_by("symbol").aggregate([("date", "min"), ("date", "max")])
    symbols = spans["symbol"].to_pylist()
    assert canonical_many(symbols) == symbols
    assert canonical_many([symbol[:6] for symbol in symbols]) == symbols
    assert canonical_many([sina_code(symbol) for symbol in symbols]) == symbols
    for symbol, first, last in zip(symbols, spans["date_min"].to_pylist(), spans["date_max"].to_pylist(), strict=True):
        fact = fact_of(symbol)
        assert fact.since <= first, symbol
        assert last <= (fact.until or date.max), symbol
    assert {kind(symbol) for symbol in symbols} == {"a_share", "b_share", "cdr", "preferred"}
    files = [path.stem for path in (market / "csv").glob("*.csv")]
    assert set(canonical_many(files)) <= set(symbols)
    assert pc.count_distinct(table["symbol"]).as_py() == len(symbols)
