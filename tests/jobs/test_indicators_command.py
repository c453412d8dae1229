"""`mystocks-scan indicators`, as a user sees it."""

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from data.errors import ExpressionError
from jobs.cli import cli
from scanner.indicators import catalog, find


def indicators(*args: str) -> Result:
    result = CliRunner().invoke(cli, ["indicators", *args])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def rows(*args: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in indicators(*args, "--json").stdout.splitlines()]


def test_the_table_lists_the_whole_catalogue_with_bounds() -> None:
    lines = indicators().stdout.splitlines()
    for indicator in catalog.values():
        (line,) = [line for line in lines if line.split()[:1] == [indicator.name]]
        for text in (indicator.title, indicator.title_zh, *indicator.outputs, indicator.dialect):
            assert text in line
    assert any("timeperiod 14 [2, 100000]" in line for line in lines if line.split()[:1] == ["RSI"])


def test_json_is_one_object_a_line_in_the_order_of_the_catalogue() -> None:
    got = rows()
    assert [row["name"] for row in got] == list(catalog)
    macd = next(row for row in got if row["name"] == "MACD")
    assert macd["params"][2] == {"name": "signalperiod", "type": "int", "default": 9, "min": 1, "max": 100_000}
    assert macd["outputs"] == ["macd", "signal", "hist"]
    assert macd["aliases"] == {"diff": "macd", "dea": "signal"}
    assert macd["lookback"] == 33


def test_all_adds_every_other_function_of_talib() -> None:
    got = [row["name"] for row in rows("--all")]
    assert got[: len(catalog)] == list(catalog)
    assert len(got) == len(set(got))
    assert {"STDDEV", "AROON", "CDLMORNINGSTAR", "MAVP"} <= set(got)
    assert "STDDEV" in indicators("--all").stdout


def test_one_is_described() -> None:
    told = indicators("MACD").stdout
    for text in ("MACD(12, 26, 9)", "also dea", "33 bars", "fastperiod 12 [2, 100000]", catalog["MACD"].doc):
        assert text in told
    assert "nbdevup 2.0 [-3e+37, 3e+37]" in indicators("BBANDS").stdout
    assert "parameters  none" in indicators("OBV").stdout


def test_one_that_only_talib_has_is_described_too() -> None:
    assert "penetration 0.3 [0, 3e+37]" in indicators("CDLMORNINGSTAR").stdout
    assert [row["name"] for row in rows("STDDEV")] == [find("STDDEV").name]


def test_an_unknown_one_is_refused_with_the_nearest() -> None:
    with pytest.raises(ExpressionError, match="did you mean 'RSI'"):
        indicators("RSJ")
