"""The language is a whitelist: what is not in it is refused at its place, and nothing is ever evaluated."""

import ast
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import ExpressionError
from scanner.language import parse, parse_value
from scanner.terms import Term

NOT_OF_IT = "is not part of the language: it has fields, indicators, functions, + - * /, comparisons, and, or, not"


@pytest.mark.parametrize(
    ("expression", "canonical"),
    [
        ("close > open > prev(close)", "(close > open) and (open > prev(close,1))"),
        ("not close > open", "not (close > open)"),
        ("close > 1.5 * SMA(volume, 20)", "close > (1.5 * SMA(volume,20))"),
        ("close / (3 - 3) > 1", "(close / 0) > 1"),
        ("cross_over(MACD.diff, MACD(12,26,9).dea)", "cross_over(MACD(12,26,9).macd,MACD(12,26,9).signal)"),
        ("STDDEV(close, 5, nbdev=2) > 1", "STDDEV(5,2) > 1"),
        ("volume >= 20_000_000", "volume >= 2e+07"),
        ("close > 1  # a comment: 'quoted\n  and volume > 3", "(close > 1) and (volume > 3)"),
        ("board in ('star', 'bse')", "board in ['bse', 'star']"),
        ("board not in ['bse']", "not (board in ['bse'])"),
        ("-close < -(-2)", "(-close) < 2"),
        ("+close > 3", "close > 3"),
        ("(" * 150 + "close" + ")" * 150, "close"),
    ],
)
def test_what_is_of_the_language(expression: str, canonical: str) -> None:
    assert str(parse(expression)) == canonical


@pytest.mark.parametrize(
    ("expression", "column", "message"),
    [
        ("", 1, "an expression must not be empty"),
        ("  # nothing", 1, "an expression must not be empty"),
        ("clsoe > 3", 1, "unknown name 'clsoe'; did you mean 'close'?"),
        ("close > prv(close)", 9, "unknown name 'prv'; did you mean 'prev'?"),
        ("rsi(14) > 3", 1, "unknown name 'rsi'; did you mean 'RSI'?"),
        ("STDEV(5) > 3", 1, "unknown name 'STDEV'; did you mean 'STDDEV'?"),
        ("volume >\n\n  qqqq", 13, "unknown name 'qqqq'; see `mystocks-scan indicators --all`"),
        ("close >", 8, "invalid syntax: 'close >'"),
        ("close > (3", 9, "'(' was never closed: 'close > (3'"),
        ("   close)", 9, "unmatched ')': 'close)'"),
        ("close; open", 6, "invalid syntax: 'close; open'"),
        ("MACD > 3", 1, "MACD(12,26,9) has 3 outputs; name one: MACD(12,26,9).macd, of macd, signal, hist"),
        ("MACD.histo > 3", 1, "MACD has no output 'histo'; did you mean 'hist'?"),
        ("close.high > 3", 1, ".high asks for an output, which only an indicator has; close is none"),
        ("1 < close and RSI(1) > 3", 15, "RSI timeperiod must be an integer in [2, 100000]; got 1"),
        ("RSI(14, 3) > 3", 1, "RSI takes at most 1: timeperiod; got 14, 3"),
        ("RSI(n=14) > 3", 1, "RSI has no parameter 'n'; it takes timeperiod"),
        ("RSI(timeperiod=close) > 3", 16, "RSI timeperiod must be a number; got close"),
        ("SMA(20, close) > 3", 9, "SMA: inputs stand before parameters; close comes after 20"),
        ("WILLR(high, 14) > 3", 1, "WILLR takes 3 inputs (high, low, close), all or none; got 1"),
        ("SMA(close > 3, 5) > 3", 5, "'SMA' takes a number; got the condition close > 3"),
        ("SMA(MACD, 5) > 3", 5, "MACD(12,26,9) has 3 outputs; name one: MACD(12,26,9).macd, of macd, signal, hist"),
        ("highest(close) > 3", 1, "highest is used as highest(x, n); got 1 arguments"),
        ("prev(close, 0) > 3", 13, "prev n must be an integer in [1, 10000]; got 0"),
        ("prev(close, 1.5) > 3", 13, "prev n must be an integer in [1, 10000]; got 1.5"),
        ("prev(close, open) > 3", 13, "prev n must be an integer in [1, 10000]; got open"),
        ("prev(close, m=2) > 3", 1, "prev has no parameter 'm'; it is used as prev(x, n)"),
        ("count(close, 3) > 1", 7, "'count' takes a condition; got the number close"),
        ("close and open > 3", 1, "'and' takes a condition; got the number close"),
        ("not 3", 5, "'not' takes a condition; got the number 3"),
        ("(close > 3) + 1 > 2", 2, "'+' takes a number; got the condition close > 3"),
        ("(close > 3) > 2", 2, "'>' takes a number; got the condition close > 3"),
        ("3 / 0 > close", 1, "division by zero"),
        ("1e400 > close", 1, "a number must be finite; got 1e400"),
        ("1e308 * 1e308 > close", 1, "a number must be finite; got 1e308 * 1e308"),
        ("9" * 400 + " > close", 1, f"a number must be finite; got {'9' * 57}..."),
        ("True", 1, "True and False are no values of the language; write a comparison"),
        ("None", 1, f"'None' {NOT_OF_IT}"),
        ("board == 'mian'", 10, "board is one of main, chinext, star, bse, b_share, preferred, etf, index;"
         " got 'mian'; did you mean 'main'?"),
        ("board in ['main', 3]", 19, "board is one of main, chinext, star, bse, b_share, preferred, etf, index; got 3"),
        ("board > 'main'", 1, "texts are compared as in board == 'star' and board in ['main', 'star']"),
        ("close in ['main']", 1, "texts are compared as in board == 'star' and board in ['main', 'star']"),
        ("'main' == board", 1, "a text stands to the right of a field that is one: board == 'star'"),
        ("close == 'main'", 10, "a text stands to the right of a field that is one: board == 'star'"),
        ("board + 3 > 1", 1, "'+' takes a number; got the text board"),
        ("close is open", 1, "comparisons are > >= < <= == != and, for texts, `in`"),
        ("cross_over > 3", 1, "cross_over is a function, used as cross_over(x, y): x > y, and x <= y a bar ago"),
        ("close(3) > 3", 1, "close is a value, not a function: write it without the parentheses"),
        ("MACD.macd(3) > 3", 1, "'MACD.macd' cannot be called; only indicators and functions can"),
        ("SMA(*close) > 3", 1, "SMA: * and ** are not part of the language"),
        ("prev(**close) > 3", 1, "prev: * and ** are not part of the language"),
        ("'涨' < close < clsoe", 1, "a text stands to the right of a field that is one: board == 'star'"),
        ("涨 > clsoe", 1, "unknown name '涨'; see `mystocks-scan indicators --all`"),
        ("close > 0 and\n涨停 < 1", 15, "unknown name '涨停'; see `mystocks-scan indicators --all`"),
        ("close ** 2 > 1", 1, f"'close ** 2' {NOT_OF_IT}"),
        ("close % 2 > 1", 1, f"'close % 2' {NOT_OF_IT}"),
        ("close > x if x else y", 1, f"'close > x if x else y' {NOT_OF_IT}"),
        ("[c for c in close]", 1, f"'[c for c in close]' {NOT_OF_IT}"),
        ("close > (lambda: 3)()", 9, "'lambda: 3' cannot be called; only indicators and functions can"),
        ("(a := 3) > 1", 2, f"'a := 3' {NOT_OF_IT}"),
        ("f'{close}' > 1", 1, None),
        ("close[0] > 1", 1, f"'close[0]' {NOT_OF_IT}"),
        ("close.__class__.__bases__ > 1", 1, ".__class__ asks for an output, which only an indicator has; close is"
         " none"),
        ("__import__('os').system('ls')", 1, '"__import__(\'os\').system" cannot be called; only'
         " indicators and functions can"),
        ("await close", 1, None),
        ("1, 2", 1, f"'1, 2' {NOT_OF_IT}"),
        ("1or 2", 1, None),
        (r"'\d' == board", 1, None),
        ("close\x00 > 1", None, None),
        ("(" * 300 + "1" + ")" * 300, None, None),
        ("-" * 5000 + "1", 1, "too deeply nested: at most 100 levels"),
        ("not " * 2000 + "at_limit_up", 1, "too deeply nested: at most 100 levels"),
        ("+".join(["close"] * 150), 1, "an expression must have at most 1000 parts on 100 levels; got 299 on 150"),
        ("+".join(["close"] * 2000), 1, "an expression must have at most 10000 characters"),
        ("+".join(["close"] * 900), 1, "too deeply nested: at most 100 levels"),
    ],
)  # fmt: skip
def test_what_is_not_is_refused_at_its_place(expression: str, column: int | None, message: str | None) -> None:
    with pytest.raises(ExpressionError) as refusal:
        parse(expression)
    if message is not None:
        assert str(refusal.value) == message
    if column is not None:
        assert refusal.value.column == column


def test_several_outputs_are_a_value_only_by_name() -> None:
    assert parse("MACD").kind == "outputs"
    with pytest.raises(ExpressionError, match="has 3 outputs; name one"):
        parse_value("MACD")


def test_names_of_let_stand_for_terms() -> None:
    names = {"macd": parse("MACD(12, 26, 9)"), "fast": parse("EMA(5)")}
    assert str(parse("macd.hist > fast", names)) == "MACD(12,26,9).hist > EMA(5)"
    with pytest.raises(ExpressionError, match="unknown name 'mcad'; did you mean 'macd'"):
        parse("mcad.hist > 0", names)
    with pytest.raises(ExpressionError, match="unknown name 'qqq'") as refusal:
        parse("均线 > 0 and qqq > 1", {"均线": parse("SMA(20)")})
    assert refusal.value.column == 12, "counted in characters"
    with pytest.raises(ExpressionError, match="macd is a value, not a function"):
        parse("macd(3).hist > 0", names)


def test_let_cannot_write_out_more_than_there_may_be() -> None:
    """Doubling forty times over, an expression of a few words would fill the memory of whoever writes it out."""
    term = parse("close + close")
    for _ in range(7):
        term = parse("x + x", {"x": term})
    with pytest.raises(ExpressionError, match="at most 1000 parts on 100 levels; got 1023 on 10"):
        parse("x + x", {"x": term})


WORDS = """
    close RSI(14) MACD.hist cross_over(close,open) 3 1e308 'main' board ( ) [ ] { } , : := . .. lambda lambda: for x in
    close await yield * ** + - ~ @ // % > <= == = != -> f' f'{close}' b'x' __class__ .__class__ __import__('os') print
    exec eval('1') globals() # ' " ; ` $ ? ! é 涨 0x 1j ... None True and or not is if else
"""
BLANKS = [" ", " and ", " or ", " not ", " in ", "\n", "\t", "\\", "\x00", "9" * 30, "(" * 40]
pieces = st.sampled_from([*WORDS.split(), *BLANKS])


@settings(max_examples=500)
@given(st.one_of(st.lists(pieces, max_size=12).map("".join), st.text(max_size=30)))
def test_whatever_is_written_is_a_term_or_refused(expression: str) -> None:
    found = term_or_refusal(expression)
    if isinstance(found, ExpressionError):
        assert found.column is not None
        assert 1 <= found.column <= len(expression) + 1
    else:
        assert parse(str(found)) == found


def term_or_refusal(expression: str) -> Term | ExpressionError:
    try:
        return parse(expression)
    except ExpressionError as refusal:
        return refusal


def test_of_pythons_expressions_only_the_listed_kinds_are_let_in() -> None:
    """Every kind of expression that Python has, wherever a value can stand."""
    examples = {
        "Constant": "b'x'", "JoinedStr": "f'{close}'", "List": "[1]", "Tuple": "(1, 2)", "Set": "{1}", "Dict": "{1: 2}",
        "Name": "os", "Starred": "*close", "UnaryOp": "~close", "BinOp": "close ** 2", "BoolOp": "1 and 2",
        "Compare": "close is 1", "Call": "open(1)", "IfExp": "1 if close else 2", "Attribute": "RSI.__doc__",
        "NamedExpr": "(a := 1)", "Subscript": "close[0]", "Slice": "close[1:2]", "ListComp": "[a for a in b]",
        "SetComp": "{a for a in b}", "GeneratorExp": "(a for a in b)", "DictComp": "{a: 1 for a in b}",
        "Await": "(await a)", "Yield": "(yield)", "YieldFrom": "(yield from a)", "Lambda": "(lambda: 1)",
        "FormattedValue": "f'{close!r:>{3}}'",
        "TemplateStr": "t'{close}'", "Interpolation": "t'{close}'",
    }  # fmt: skip
    assert {kind.__name__ for kind in ast.expr.__subclasses__()} <= set(examples)
    places = ["{}", "{} > 1", "close > {}", "prev({})", "prev(close, {})", "SMA({}, 5)", "SMA(close, timeperiod={})"]
    for place, example in itertools.product(places, examples.values()):
        with pytest.raises(ExpressionError):
            parse(place.format(example))
