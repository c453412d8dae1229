"""Rules from YAML: read whole, or refused with file, line, column and what to do."""

from pathlib import Path
from typing import Any

import pytest

from data.errors import StrategyError
from scanner.strategy import Universe

FULL = """
strategies:
  - name: macd_golden_cross
    title: A cross
    frame: 1d
    universe: {boards: [main, star, chinext], exclude: [st, b_share], min_bars_listed: 60, min_amount_cny: 20_000_000}
    let: {macd: "MACD(12, 26, 9)"}
    when: cross_over(macd.macd, macd.signal) and volume > 1.5 * SMA(volume, 20)
    action: BUY
    confidence: 0.8
    cooldown: 5             # bars
  - {name: plain, when: close > open, action: ALERT, frame: [1m, 60m], universe: {min_amount_cny: 1e7}}
"""


def test_a_rule_is_read_whole(strategies: Any) -> None:
    registry = strategies(FULL)
    rule, plain = registry.values()
    assert str(rule.when) == (
        "cross_over(MACD(12,26,9).macd,MACD(12,26,9).signal) and (volume > (1.5 * SMA(volume,20)))"
    )
    assert rule.universe == Universe(("main", "star", "chinext"), ("st", "b_share"), 60, 20_000_000)
    assert (rule.frames, rule.action, rule.confidence, rule.cooldown) == (("1d",), "BUY", 0.8, 5)
    assert rule.title == "A cross"
    assert rule.place.endswith("rules.yaml:3")
    assert (plain.frames, plain.confidence, plain.cooldown) == (("1m", "60m"), 1.0, 0)
    assert plain.universe == Universe(min_amount_cny=1e7)


def test_the_version_follows_the_content_and_not_the_layout(strategies: Any) -> None:
    first = strategies(FULL)["plain"].version
    assert strategies("# other words\n" + FULL.replace("close > open", "close   > open"))["plain"].version != first
    assert strategies("# other words\n" + FULL)["plain"].version == first
    assert strategies(FULL.replace("ALERT", "SELL"))["plain"].version != first


RULE = "strategies:\n  - name: r\n    action: BUY\n"
"""To be continued with the fourth line."""


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("", 1, 1, "the file is empty; it begins with `strategies:`"),
        ("# nothing\n", 1, 1, "the file is empty; it begins with `strategies:`"),
        ("strategies: [", 1, 14, "not readable as YAML: expected the node content, but found '<stream end>'"),
        ("strategies:\n\t- a", 2, 1, "not readable as YAML: found character '\\t' that cannot start any token"),
        ("a: &x\nb: *y", 2, 4, "not readable as YAML: found undefined alias 'y'"),
        ("- name: r", 1, 1, "the file must be a mapping"),
        ("strategy: []", 1, 1, "the file has no key 'strategy'; did you mean 'strategies'?"),
        ("strategies: {}", 1, 13, "strategies must be a list that is not empty"),
        ("strategies: []", 1, 13, "strategies must be a list that is not empty"),
        ("strategies: [3]", 1, 14, "a strategy must be a mapping"),
        (RULE, 2, 5, "a strategy must have the key 'when'"),
        (RULE + "    wen: close > open", 4, 5, "a strategy has no key 'wen'; did you mean 'when'?"),
        (RULE + "    name: s", 4, 5, "a strategy has the key 'name' twice"),
        (RULE + "    when:", 4, 10, "r: when must be a text that is not empty"),
        (RULE + "    when: [close]", 4, 11, "r: when must be a text that is not empty"),
        (RULE + "    when: close", 4, 11, "r: when must be a condition, such as close > 0; got the number close"),
        (
            RULE + "    when: MACD",
            4,
            11,
            "r: when must be a condition, such as MACD(12,26,9) > 0; got the outputs MACD(12,26,9)",
        ),
        (RULE + "    when: close > clsoe", 4, 19, "r: when: unknown name 'clsoe'; did you mean 'close'?"),
        (RULE + "    when: close >", 4, 18, "r: when: invalid syntax: 'close >'"),
        (RULE + '    when: "close > clsoe"', 4, 20, "r: when: unknown name 'clsoe'; did you mean 'close'?"),
        (
            RULE + "    when: 'board == ''mian'''",
            4,
            21,
            "r: when: board is one of main, chinext, star, bse, b_share,"
            " preferred, etf, index; got 'mian'; did you mean 'main'?",
        ),
        (
            RULE + '    when: "board == \\"main\\" or close > qqq"',
            4,
            41,
            "r: when: unknown name 'qqq'; see `mystocks-scan indicators --all`",
        ),
        (
            RULE + "    when: 'board == ''main'' or close > qqq'",
            4,
            41,
            "r: when: unknown name 'qqq'; see `mystocks-scan indicators --all`",
        ),
        (
            RULE + "    when: close > open and\n      volume > clsoe",
            5,
            16,
            "r: when: unknown name 'clsoe'; did you mean 'close'?",
        ),
        (
            RULE + "    when: |\n      close > open  # up\n      and volume > clsoe",
            6,
            20,
            "r: when: unknown name 'clsoe'; did you mean 'close'?",
        ),
        (
            RULE + "    when: >-\n      close > open\n\n      and\n        clsoe > 3",
            8,
            9,
            "r: when: unknown name 'clsoe'; did you mean 'close'?",
        ),
        (RULE + "    when: |\n      close >\n", 5, 14, "r: when: invalid syntax: 'close >'"),
        (RULE + "    let: [a]\n    when: close > open", 4, 10, "r: let must be a mapping"),
        (
            RULE + "    let: {a-b: close}\n    when: close > open",
            4,
            16,
            "r: let 'a-b': a name is made of letters, digits and _",
        ),
        (
            RULE + "    let: {if: close}\n    when: close > open",
            4,
            15,
            "r: let 'if': a name is made of letters, digits and _",
        ),
        (
            RULE + "    let: {close: open}\n    when: close > open",
            4,
            18,
            "r: let close: the language has that name already; take another",
        ),
        (
            RULE + "    let: {a: RSI(qqq)}\n    when: close > open",
            4,
            18,
            "r: let a: unknown name 'qqq'; see `mystocks-scan indicators --all`",
        ),
        (
            RULE + "    let: {a: b + 1, b: 2 * c, c: a}\n    when: a > 1",
            4,
            34,
            "r: let c: the names of let go in a circle: a -> b -> c -> a",
        ),
        (RULE + "    let: {a: a}\n    when: a > 1", 4, 14, "r: let a: the names of let go in a circle: a -> a"),
        (
            RULE + "    let: {mcd: MACD}\n    when: mdc.hist > 1",
            5,
            11,
            "r: when: unknown name 'mdc'; did you mean 'mcd'?",
        ),
        (
            RULE + "    when: prev(rank(close), 1) > 0.5",
            4,
            11,
            "r: rank looks across the market at the scanned bar alone,"
            " so prev(rank(close),1) cannot look back over it: rank what looks back instead, as in rank(prev(x, 1))",
        ),
        (RULE + "    when: SMA(rank(close), 3) > 0.5", 4, 11, None),
        (RULE + "    when: cross_over(rank(close), 0.9)", 4, 11, None),
        (RULE + "    when: count(rank(close) > 0.5, 3) > 1", 4, 11, None),
        (
            RULE + "    when: close > open\n    frame: 2m",
            5,
            12,
            "r: frame must be of 1m, 5m, 15m, 30m, 60m, 1d; got '2m'",
        ),
        (
            RULE + "    when: close > open\n    frame: []",
            5,
            12,
            "r: frame must be one or a list of 1m, 5m, 15m, 30m, 60m, 1d; got []",
        ),
        (
            RULE + "    when: close > open\n    frame: [1d, 1h]",
            5,
            17,
            "r: frame must be of 1m, 5m, 15m, 30m, 60m, 1d; got '1h'",
        ),
        (
            RULE + "    when: close > open\n    confidence: 1.5",
            5,
            17,
            "r: confidence must be a number in [0, 1]; got 1.5",
        ),
        (
            RULE + "    when: close > open\n    confidence: yes",
            5,
            17,
            "r: confidence must be a number in [0, 1]; got True",
        ),
        (
            RULE + "    when: close > open\n    cooldown: 2.5",
            5,
            15,
            "r: cooldown must be an integer of 0 or more; got 2.5",
        ),
        (RULE + "    when: close > open\n    cooldown: !!python/name:os.system", 5, 15, None),
        (RULE + "    when: close > open\n    universe: main", 5, 15, "r: universe must be a mapping"),
        (
            RULE + "    when: close > open\n    universe: {bords: [main]}",
            5,
            16,
            "r: universe has no key 'bords'; did you mean 'boards'?",
        ),
        (
            RULE + "    when: close > open\n    universe:\n      boards:\n        - main\n        - mian",
            8,
            11,
            "r: boards must be of main, chinext, star, bse, b_share, preferred, etf, index; got 'mian'",
        ),
        (
            RULE + "    when: close > open\n    universe: {min_amount_cny: -1}",
            5,
            32,
            "r: min_amount_cny must be a number of 0 or more; got -1",
        ),
        (
            "strategies:\n  - {name: r, when: close > open, action: HOLD}",
            2,
            43,
            "r: action must be one of BUY, SELL, ALERT; got 'HOLD'",
        ),
        (
            "strategies:\n  - {name: r, when: close > SMA(close, 3), action: BUY}",
            2,
            40,
            "a strategy: '3)' has no value: inside {{ }} a text with a comma needs quotes",
        ),
        (
            RULE + "    let: {macd: MACD(12, 26, 9)}\n    when: macd.hist > 0",
            4,
            26,
            "r: let: '26' has no value: inside {{ }} a text with a comma needs quotes",
        ),
        (
            "strategies:\n  - {name: r, when: close > 0, action: BUY}\n  - {name: r, when: close > 0, action: BUY}",
            3,
            None,
            "the name 'r' is taken by {file}:2: rename one",
        ),
    ],
)
def test_a_yaml_file_that_is_wrong(
    strategies: Any, tmp_path: Path, text: str, line: int, column: int | None, message: str | None
) -> None:
    with pytest.raises(StrategyError) as refusal:
        strategies(text)
    file = tmp_path / "rules.yaml"
    place = f"{file}:{line}:" if column is None else f"{file}:{line}:{column}: "
    assert str(refusal.value).startswith(place)
    if message is not None:
        assert str(refusal.value).removeprefix(place).strip() == message.format(file=file)
