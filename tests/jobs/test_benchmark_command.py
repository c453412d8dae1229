"""`mystocks-scan benchmark`: every engine on the same work, and nothing timed that is not equal."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from data.panel import Panel
from data.store import BarStore
from jobs.benchmark import bars, cases, checking, newest, report, scans, share, suite
from jobs.benchmark.cases import TWENTY, Row
from jobs.benchmark.checking import UnequalError, check, warmed_up
from jobs.benchmark.engines import Field, Resident, Way, Work, ways
from jobs.benchmark.loop import Call
from jobs.cli import cli
from jobs.commands import benchmark
from jobs.findings import Finding
from scanner.engines.gpu import probe
from scanner.engines.machine import machine_of
from scanner.engines.vector import VectorEngine
from scanner.indicators import catalog
from scanner.language import parse
from scanner.terms import order

KEYS = (
    "case", "engine", "symbols", "bars", "indicators", "threads", "median_s", "min_s", "max_s", "ratio_to_talib_loop",
)  # fmt: skip


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """What the command printed, and the report it wrote."""
    folder = tmp_path_factory.mktemp("benchmark")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MYSTOCKS_SCAN__STORE__PATH", str(folder / "none"))
        done = CliRunner().invoke(cli, ["benchmark", "--quick", "--json", "--report", str(folder / "report.md")])
    assert done.exit_code == 0, done.stderr
    return done.stdout, (folder / "report.md").read_text(encoding="utf-8")


def test_it_prints_one_line_of_json(everything: tuple[str, str]) -> None:
    printed, _ = everything
    assert printed.count("\n") == 1
    told = json.loads(printed)
    assert list(told) == ["machine", "versions", "cases"]
    assert {"cpu", "cores", "gpu"} <= set(told["machine"])
    assert {"python", "TA-Lib", "numba", "numpy"} <= set(told["versions"])
    for row in told["cases"]:
        assert tuple(row) == KEYS
        assert 0 < row["min_s"] <= row["median_s"] <= row["max_s"]
    found = {row["case"] for row in told["cases"]}
    assert {case for case in found if "/" not in case} == set(suite.CASES)
    singles = {f"one-indicator/{name}" for name, indicator in catalog.items() if indicator.talib}
    assert found == {*suite.CASES, *singles}
    for case in found:
        first, *others = [row for row in told["cases"] if row["case"] == case]
        assert (first["engine"], first["ratio_to_talib_loop"]) == ("talib-stream" if "bar" in case else "talib-loop", 1)
        assert "vector" in {row["engine"] for row in others}
    for case in ("batch", "last", "history"):
        engines = {row["engine"] for row in told["cases"] if row["case"] == case}
        assert {"talib-bare", "talib-processes", "talib-dask", "vector-dask"} < engines
    assert {row["engine"] for row in told["cases"] if row["case"] == "scan"} >= {"talib-dask", "vector-dask"}


def test_the_report_says_what_was_measured_on_what(everything: tuple[str, str]) -> None:
    _, text = everything
    lines = text.splitlines()
    if not probe().usable:
        assert lines[2].startswith("**No card was measured:** engine 'cuda'")
        assert text.count("| unverified |") == sum(goal.engine.startswith("cuda") for goal in report.GOALS) + len(
            report.CARD
        )
    for case in suite.CASES:
        assert f"## {case}" in lines
    assert any(line.startswith("- `vector` on 1: median ") and "; worst " in line for line in lines)
    assert "(the simulated market). " in text
    for name in TWENTY:
        assert f"\n| {name.partition('(')[0]} | " in text or "talib" not in str(catalog.get(name.partition("(")[0]))


def test_a_report_with_a_card_names_it() -> None:
    rows = tuple(
        Row("batch", engine, 5000, 250, 20, 1, s, s, s, 0.5 / s) for engine, s in (("talib-loop", 0.5), ("cuda", 0.009))
    )
    machine = {"cpu": "x", "cores": 2, "memory_gib": 1.0, "system": "y", "gpu": "Pretend 9000"}
    text = report.markdown(suite.Report(machine, {}, rows, {}))
    assert "\nMeasured on one Pretend 9000.\n" in text
    assert "| on a GPU, 20 indicators resident: 10 ms | 9 ms | reached |" in text
    assert "| on a GPU, 20 indicators: 50x | 55.6x | reached |" in text
    slow = replace(rows[1], median_s=0.02, ratio_to_talib_loop=25.0)
    assert "| 25.0x | **not reached** |" in report.markdown(suite.Report(machine, {}, (rows[0], slow), {}))


def test_a_case_that_there_is_not_is_refused() -> None:
    done = CliRunner().invoke(cli, ["benchmark", "--quick", "--cases", "batch, lats"])
    assert (done.exit_code, "no case 'lats'" in str(done.exception)) == (1, True)


def test_the_market_is_the_settings_store_where_that_holds_a_real_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bars.rectangle(3, 90)
    for origin, expected in (("market", True), ("sim", False)):
        path = tmp_path / origin
        monkeypatch.setenv("MYSTOCKS_SCAN__STORE__PATH", str(path))
        assert benchmark._stored_market(None) is None
        BarStore(path, origin=origin).append(scans.as_rows(made.panel), "1d")
        assert (benchmark._stored_market(None) == path) is expected
        read = bars.market(path).panel
        assert read.symbols == made.panel.symbols
        np.testing.assert_array_equal(read["close"], made.panel["close"])


@pytest.fixture
def work() -> Work:
    made = bars.rectangle(40, 90)
    for name in bars.FIELDS:
        made.panel[name][:20, 7] = np.nan  # listed later
        made.panel[name][40:44, 9] = np.nan  # halted
    return Work(tuple(map(Call.of, TWENTY)), made)


def alone(missing: dict[str, str] | None = None) -> Field:
    """Without processes and clusters."""
    return Field(None, None, None, lambda bars: "", 2, missing or {"cuda": "none"})  # type: ignore[arg-type]


def test_the_loop_computes_what_the_engines_compute(work: Work) -> None:
    every = list(ways(work, alone(), shared=False))
    wanted = warmed_up(work, every[0].outputs())
    assert [way.engine for way in every] == ["talib-loop", "talib-bare", "vector", "vector"]
    for way in every:
        check(work, wanted, way)
    assert len(wanted) == 26
    assert all(np.isfinite(values[-1]).all() for values in wanted)


Plant = Callable[[list[Any]], Any]


@pytest.mark.parametrize(
    "plant",
    [
        lambda out: out[1].__setitem__((-1, 3), out[1][-1, 3] + 1e-6),
        lambda out: out[8].__setitem__((-1, 3), np.nan),
        lambda out: out[8].__setitem__((0, 3), 0.0),
        lambda out: out.pop(),
        lambda out: out.reverse(),
    ],
)
def test_other_numbers_are_refused(plant: Plant, work: Work) -> None:
    every = list(ways(work, alone(), shared=False))
    wanted = warmed_up(work, every[0].outputs())
    outputs = [values.copy() for values in every[2].outputs()]
    plant(outputs)
    with pytest.raises((UnequalError, IndexError)):
        check(work, wanted, Way("vector", 1, lambda: None, lambda: outputs))


def test_talib_s_engine_must_give_talib_s_bits(work: Work) -> None:
    wanted = warmed_up(work, next(ways(work, alone())).outputs())
    outputs = [values.copy() for values in wanted]
    check(work, wanted, Way("talib-dask", 1, lambda: None, lambda: outputs))
    outputs[3][-1, 0] = np.nextafter(outputs[3][-1, 0], 0.0)
    with pytest.raises(UnequalError, match="talib-dask"):
        check(work, wanted, Way("talib-dask", 1, lambda: None, lambda: outputs))
    with pytest.raises(UnequalError, match="differs in 1 values"):
        checking.equal_bits("cuda", outputs, wanted)


def test_an_engine_that_computes_wrong_numbers_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    right = VectorEngine.run_all

    def wrong(engine: VectorEngine, calls: Any) -> Any:
        found = right(engine, calls)
        for call, outputs in zip(calls, found, strict=True):
            if call.indicator.name == "WMA":
                outputs[0][-1, 0] *= 1.000001
        return found

    monkeypatch.setattr(VectorEngine, "run_all", wrong)
    with pytest.raises(UnequalError, match=r"vector: WMA\(20\) wma"):
        list(cases.one_indicator(bars.rectangle(8, 90), alone(), 1))
    measured: list[Any] = []
    monkeypatch.setattr(cases, "timed", lambda *args: measured.append(args))
    with pytest.raises(UnequalError):
        cases.measure("batch", Work(tuple(map(Call.of, TWENTY)), bars.rectangle(8, 90)), alone(), 1, shared=False)
    assert measured == []


def test_shares_of_symbols_together_are_the_whole(work: Work, tmp_path: Path) -> None:
    share.write(work.bars, tmp_path)
    assert share.shares_of(10, 3) == [(0, 3), (3, 6), (6, 10)]
    assert share.shares_of(2, 4) == [(0, 1), (1, 2)]
    whole = warmed_up(work, next(ways(work, alone())).outputs())
    for engine in ("talib", "vector"):
        found = [
            share.work(share.Share(str(tmp_path), a, b, engine, work.keys, None, answer=True))
            for a, b in share.shares_of(40, 3)
        ]
        outputs = [np.concatenate(parts, axis=1) for parts in zip(*found, strict=True)]
        check(work, whole, Way(f"{engine}-dask", 3, lambda: None, lambda outputs=outputs: outputs))
    assert share.work(share.Share(str(tmp_path), 0, 3, "vector", work.keys, None)) is None


@pytest.mark.parametrize("keep", [None, 2])
def test_what_stays_on_a_machine_is_what_the_engine_computes(keep: int | None, work: Work) -> None:
    machine = machine_of("vector")
    assert machine is not None
    work = replace(work, keep=keep)
    resident = Resident(machine, work)
    expected = share.computed(work.keys, work.bars, VectorEngine(1), keep)
    for _ in range(2):  # what one run left is no part of the next
        checking.equal_bits("resident", resident.outputs(), expected)
    resident.with_copies()
    assert len(resident._fetched) == 26


def test_the_summary_is_the_median_over_indicators() -> None:
    rows = [
        Row(f"one-indicator/{name}", "vector", 10, 90, 1, 1, s, s / 2, s * 2, ratio)
        for name, s, ratio in (("A", 1.0, 5.0), ("B", 3.0, 2.0), ("C", 2.0, 40.0))
    ]
    assert list(cases.summary(rows)) == [Row("one-indicator", "vector", 10, 90, 1, 1, 2.0, 1.0, 3.0, 5.0)]


def test_fifty_five_indicators_and_fifty_rules_over_them() -> None:
    extra = scans.indicators(55)
    conditions = scans.rules(50, extra)
    assert (len(set(extra)), len(set(conditions.values()))) == (55, 50)
    assert {term for text in conditions.values() for term in order([parse(text)]) if term.op == "indicator"} <= {
        parse(text) for text in extra
    }
    assert (len(set(scans.indicators(9))), len(set(scans.indicators(200)))) == (9, 200)


def test_rules_fire_in_a_scan_so_that_equal_hits_say_something(tmp_path: Path) -> None:
    made = bars.rectangle(900, 90)
    extra = scans.indicators(55)
    registry = scans.strategies(scans.rules(50, extra), tmp_path)
    program = scans._Baseline(made, registry, extra)
    program.open(80)
    hits = program.step()
    assert len({strategy for strategy, _, _ in hits}) > 10
    found: dict[str, Any] = {"talib-loop": hits, "talib-dask": hits, "vector": hits}
    now = made.first(82)
    scans._compare(found, registry, now)
    one = next(iter(hits))
    for engine, others in (
        ("talib-dask", {}),
        ("vector-dask", {}),
        ("vector", {"vector-dask": hits - {one}}),
    ):
        with pytest.raises(UnequalError):
            scans._compare({**found, engine: hits - {one}, **others}, registry, now)


def test_a_stream_that_computes_wrong_numbers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, made = [Call.of("EMA(12)"), Call.of("MACD(12,26,9)")], bars.simulated(80, 93)
    assert [row.engine for row in newest.newest("bar-halts", made, calls, alone(), 1)] == [
        "talib-stream",
        "vector",
        "vector-cold",
    ]
    right = newest.Stream.advance

    def wrong(stream: Any, end: int, rows: Any, has: Any) -> Any:
        return right(stream, end, {**rows, "close": rows["close"] * (1 + 1e-6)}, has)

    monkeypatch.setattr(newest.Stream, "advance", wrong)
    with pytest.raises(UnequalError, match="vector: EMA"):
        newest.newest("bar-halts", made, calls, alone(), 1)


def test_handles_that_compute_wrong_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    right = newest._Handled.outputs
    monkeypatch.setattr(newest._Handled, "outputs", lambda handled: [row + 1e-6 for row in right(handled)])
    with pytest.raises(UnequalError, match="talib-stream: EMA"):
        newest.newest("bar", bars.rectangle(8, 93), [Call.of("EMA(12)")], alone(), 1)


def test_bars_are_a_rectangle_a_market_or_the_simulator_s() -> None:
    made = bars.rectangle(5000, 3)
    assert (made.n_symbols, made.length, len(set(made.panel.symbols)), made.halted) == (5000, 3, 5000, False)
    assert (made.panel["low"] <= np.minimum(made.panel["open"], made.panel["close"])).all()
    simulated = bars.simulated(300, 60)
    assert simulated.halted
    assert simulated.panel.present.any(axis=0).all()
    assert isinstance(simulated.panel, Panel)


def test_what_is_found_on_a_card_stands_in_the_report() -> None:
    found = (Finding("OK", "golden bits of 75 kernels, 0 differ"), Finding("FAIL", "it grew by 9 KiB"))
    text = report.markdown(
        suite.Report({"cpu": "C", "cores": 2, "memory_gib": 1, "system": "S", "gpu": "G"}, {}, (), {}, gpu=found)
    )
    assert "| on a GPU, bits equal to `vector` | golden bits of 75 kernels, 0 differ | reached |" in text
    assert "| on a GPU, flat memory over 1,000 scans | it grew by 9 KiB | **not reached** |" in text
