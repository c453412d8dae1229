"""Terms: equal parts are one, in every process."""

import pickle
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.language import parse
from scanner.terms import order, text

NUMBERS = st.one_of(
    st.integers(-1000, 10**7).map(str),
    st.floats(1e-6, 1e12, allow_nan=False).map(repr),
    st.sampled_from(["1_000", "2e7", ".5", "0.1"]),
)
FIELDS = st.sampled_from(["open", "close", "volume", "amount", "prev_close", "pct_change", "limit_up", "bars_listed"])


def indicators(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    n = st.integers(2, 60)
    return st.one_of(
        st.sampled_from(["RSI", "MACD.hist", "MACD(5, 10, 3).dea", "KDJ(9, 3, 3).j", "STDDEV(5, 1)", "OBV()", "ATR"]),
        st.builds("BBANDS({}, {}, 2, nbdevdn=1.5).upperband".format, values, n),
        st.builds("SMA({}, {})".format, values, n),
        st.builds("RSI(timeperiod={})".format, n),
        st.builds("WILLR(high, low, {}, {})".format, values, n),
    )


def numbers(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*"), inner),
        st.builds("{} / 3".format, inner.map("({})".format)),
        st.builds("-{}".format, inner.map("({})".format)),
        st.builds("{}(close, {})".format, st.sampled_from(["prev", "highest", "lowest"]), st.integers(1, 300)),
        st.builds("rank({})".format, inner),
        st.builds("abs({})".format, inner),
        indicators(st.one_of(FIELDS, inner.map("(close + {})".format))),
    )


values = st.recursive(st.one_of(NUMBERS, FIELDS), numbers, max_leaves=6)


def conditions(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner),
        st.builds("{0} and {1} and {0}".format, inner.map("({})".format), inner.map("({})".format)),
        st.builds("not ({})".format, inner),
        st.builds("count({}, {}) > 2".format, inner, st.integers(1, 30)),
        st.builds("every({}, {})".format, inner, st.integers(1, 30)),
        st.builds("bars_since({}) <= 5".format, inner),
    )


comparisons = st.one_of(
    st.builds("{} {} {}".format, values, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), values),
    st.builds("{} < {} <= {}".format, values, values, values),
    st.builds("{}({}, {})".format, st.sampled_from(["cross_over", "cross_under"]), values, values),
    st.sampled_from(["at_limit_up", "is_st", "board == 'star'", "board != 'bse'", "board not in ['main', 'star']"]),
)
expressions = st.one_of(values, st.recursive(comparisons, conditions, max_leaves=4))


@settings(max_examples=300)
@given(expressions)
def test_a_term_parses_back_from_its_text(expression: str) -> None:
    term = parse(expression)
    again = parse(text(term))
    assert again == term
    assert (text(again), hash(again), again.kind) == (text(term), hash(term), term.kind)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("MACD", "MACD(12, 26, 9)"),
        ("SMA(close, 20)", "SMA(20)"),
        ("SMA(timeperiod=20)", "SMA(20.0)"),
        ("RSI.rsi", "RSI(14)"),
        ("MACD.diff", "MACD().macd"),
        ("2 * 3 * close", "6 * close"),
        ("close>0", "close  >  -0.0"),
        ("board == 'star'", "board in ['star', 'star']"),
        ("prev(close)", "prev(close, n=1)"),
    ],
)
def test_different_spellings_are_one_term(first: str, second: str) -> None:
    assert parse(first) == parse(second)
    assert text(parse(first)) == text(parse(second))


def test_what_is_needed_comes_first_and_once() -> None:
    term = parse("cross_over(EMA(RSI(14), 5), RSI(14)) and RSI(14) < 70")
    found = [text(part) for part in order([term])]
    assert sorted(found) == sorted(
        ["close", "RSI(14)", "EMA(RSI(14),5)", "cross_over(EMA(RSI(14),5),RSI(14))", "70", "RSI(14) < 70", text(term)]
    )
    places = {part: place for place, part in enumerate(order([term]))}
    assert all(places[arg] < places[part] for part in places for arg in part.args)


def test_known_terms_and_what_only_they_need_are_left_out() -> None:
    term, rsi = parse("SMA(RSI(14), 5) > close"), parse("RSI(14)")
    assert [text(part) for part in order([term], {rsi})] == ["SMA(RSI(14),5)", "close", text(term)]


def test_a_pickled_term_is_found_in_another_process() -> None:
    """Texts hash differently in each process: a hash that travelled would make equal terms two."""
    term = parse("MACD(12,26,9).macd > 0 and board == 'star'")
    hash(term)
    code = """
import pickle, sys
from scanner.language import parse
term = pickle.load(sys.stdin.buffer)
mine = parse("MACD(12,26,9).macd > 0 and board == 'star'")
print(mine in {term}, term.args[0].args[0] in {mine.args[0].args[0]}, term.kind)
"""
    ran = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(term), capture_output=True, check=True)
    assert ran.stdout.decode().split() == ["True", "True", "condition"]
