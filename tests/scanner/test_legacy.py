"""The earlier system's names: its code runs, and the faults that its code had are not here."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import talib

from data.panel import Panel
from scanner import catalog, compute, legacy
from scanner.engines.talib import TalibEngine
from scanner.indicators.spec import Param
from scanner.legacy import (
    CalculationMode,
    CalculationStatus,
    GpuGenericIndicator,
    IndicatorFactory,
    IndicatorInterface,
    IndicatorPluginFactory,
    IndicatorRegistry,
    IndicatorResult,
    InsufficientDataError,
    OHLCVData,
    ParameterValidationError,
    SmartScheduler,
    TalibGenericIndicator,
)

ROOT = Path(__file__).resolve().parents[2]


def bars(seed: int = 1, n: int = 160) -> OHLCVData:
    rng = np.random.default_rng(seed)
    close = np.round(20 * np.exp(np.cumsum(rng.normal(0, 0.02, n))), 2)
    opened = np.round(close * (1 + rng.normal(0, 0.01, n)), 2)
    high = np.maximum(opened, close) + np.round(rng.uniform(0, 0.5, n), 2)
    low = np.minimum(opened, close) - np.round(rng.uniform(0, 0.5, n), 2)
    return OHLCVData(opened, high, low, close, rng.integers(1_000, 90_000, n) * 100.0)


@pytest.fixture(autouse=True)
def own_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IndicatorPluginFactory, "_plugins", dict(IndicatorPluginFactory._plugins))


def values_of(result: IndicatorResult) -> dict[str, np.ndarray]:
    assert result.success, result.error_message
    return result.values


class Spread(IndicatorInterface):
    """As somebody wrote it for the earlier system."""

    ABBREVIATION = "SPREAD"
    FULL_NAME = "High less low, times a factor"
    CHINESE_NAME = "振幅"

    def calculate(self, data: OHLCVData, parameters: dict[str, Any]) -> IndicatorResult:
        try:
            self.validate_parameters(parameters, {"factor": {"type": "float", "min": 0.5, "max": 2.0}})
            self.validate_data(data, 2)
        except ParameterValidationError as error:
            return self._create_error_result(parameters, str(error))
        except InsufficientDataError as error:
            return self._create_insufficient_data_result(parameters, error.details["required"], data.length)
        return self._create_success_result(parameters, {"spread": (data.high - data.low) * parameters.get("factor", 1)})

    def get_required_data_fields(self) -> list[str]:
        return ["high", "low"]


def test_bars_of_one_symbol_have_one_length_and_can_be_cut() -> None:
    data = bars(n=10)
    data.timestamps = np.arange(10)
    part = data.slice(2, 5)
    assert (part.length, part.close.tolist(), part.timestamps) == (
        3,
        data.close[2:5].tolist(),
        pytest.approx([2, 3, 4]),
    )
    assert data.slice(7).length == 3
    with pytest.raises(ValueError, match="high has 9 bars and close 10"):
        OHLCVData(data.open, data.high[1:], data.low, data.close, data.volume)
    integers = OHLCVData(*(np.arange(3) for _ in range(5)))
    assert integers.close.dtype == np.float64


def test_a_result_as_plain_values() -> None:
    told = TalibGenericIndicator("OBV").calculate(bars(n=3), {}).to_dict()
    assert {
        "abbreviation",
        "status",
        "parameters",
        "values",
        "error_message",
        "data_points",
        "calculation_time_ms",
    } == {*told}
    assert (told["status"], told["abbreviation"], told["data_points"]) == ("success", "OBV", 3)
    assert isinstance(told["values"]["obv"], list)


def test_a_class_written_for_the_earlier_system_works() -> None:
    IndicatorPluginFactory.register("spread", Spread)
    indicator = IndicatorPluginFactory.create_instance("Spread")
    assert isinstance(indicator, Spread)
    data = bars()
    result = indicator.calculate(data, {"factor": 2.0})
    assert np.array_equal(values_of(result)["spread"], 2 * (data.high - data.low))
    assert result.get_output("none") is None
    assert indicator.calculate(data, {"factor": 9.0}).error_message == "SPREAD factor: must be in [0.5, 2.0]; got 9.0"
    assert indicator.calculate(data, {"factor": True}).status is CalculationStatus.ERROR
    assert indicator.calculate(data, {"fcator": 1.0}).status is CalculationStatus.ERROR
    assert indicator.calculate(data.slice(0, 1), {}).status is CalculationStatus.INSUFFICIENT_DATA


def test_plugins_by_name() -> None:
    names = IndicatorPluginFactory.list_plugins()
    assert {*catalog, *(f"{name}_GPU" for name in catalog)} == set(names)
    assert IndicatorPluginFactory.get_plugin("nothing") is IndicatorPluginFactory.create_instance("nothing") is None
    assert isinstance(IndicatorPluginFactory.create_instance("macd"), TalibGenericIndicator)
    assert isinstance(IndicatorPluginFactory.create_instance("macd_gpu"), GpuGenericIndicator)
    assert isinstance(IndicatorPluginFactory.create_instance("macd", use_gpu=True), GpuGenericIndicator)
    IndicatorPluginFactory.register("SPREAD", Spread)
    assert isinstance(IndicatorPluginFactory.create_instance("spread", use_gpu=True), Spread)
    IndicatorPluginFactory.register("macd", Spread)
    assert IndicatorPluginFactory.get_plugin("MACD") is Spread
    IndicatorPluginFactory.clear()
    assert IndicatorPluginFactory.list_plugins() == []
    legacy.register_all_talib_indicators()
    assert IndicatorPluginFactory.list_plugins() == names


# One test for each fault of earlier implementations that a face can have.


def test_it_imports_and_falls_back_where_nothing_of_cuda_is_installed() -> None:
    program = """
import sys
for name in ("cudf", "cupy", "cupyx", "dask_cuda", "numba_cuda", "rmm"):
    sys.modules[name] = None
import numpy as np
from scanner import catalog, legacy
x = np.linspace(10, 12, 160) + np.sin(np.arange(160))
data = legacy.OHLCVData(x, x + 1, x - 1, x, x)
for name in catalog:
    indicator = legacy.IndicatorPluginFactory.create_instance(name + "_gpu")
    result = indicator.calculate(data, {})
    assert result.success, (name, result.error_message)
    assert "cuda" in indicator.fallback_reason and not indicator.use_gpu
print("done")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "done\n", done.stderr


@pytest.mark.parametrize("name", list(catalog))
def test_every_name_computes_what_a_scan_of_the_market_computes(name: str) -> None:
    market = [bars(seed) for seed in (1, 2, 3)]
    market[1].close[50:60] = np.nan  # halted
    times = np.arange(160)
    fields = {f: np.array([getattr(data, f) for data in market]).T for f in ("open", "high", "low", "close", "volume")}
    panel = Panel("1d", times, ("a", "b", "c"), fields)
    indicator = catalog[name]
    outputs = {output: f"{name}.{output}" if len(indicator.outputs) > 1 else name for output in indicator.outputs}
    whole = compute(outputs.values(), panel, "talib")
    for j, data in enumerate(market):
        found = values_of(TalibGenericIndicator(name).calculate(data, {}))
        assert list(found) == list(outputs)
        for output, expression in outputs.items():
            np.testing.assert_array_equal(found[output], whole[expression][:, j])
            assert np.isfinite(found[output][-1])
    # The fallback of the GPU's is the same definition.
    one = values_of(GpuGenericIndicator(name).calculate(market[0], {}))
    for output, expression in outputs.items():
        np.testing.assert_allclose(one[output], whole[expression][:, 0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", list(catalog))
def test_the_future_changes_nothing_before_it(name: str) -> None:
    data, other = bars(1), bars(1)
    for field in ("open", "high", "low", "close", "volume"):
        getattr(other, field)[80:] *= 1.5
    for cls in (TalibGenericIndicator, GpuGenericIndicator):
        before, after = (values_of(cls(name).calculate(d, {})) for d in (data, other))
        for output, values in before.items():
            np.testing.assert_array_equal(values[:80], after[output][:80])


def test_two_symbols_through_one_scheduler() -> None:
    scheduler = SmartScheduler()
    wanted = [{"abbreviation": "RSI", "params": {"timeperiod": 14}}]
    for seed in (1, 2, 1):
        data = bars(seed)
        (found,) = scheduler.calculate(wanted, data)
        np.testing.assert_array_equal(values_of(found.result)["rsi"], talib.RSI(data.close, 14))
    assert found.from_cache
    revised = bars(1)
    revised.close[-1] += 0.01
    assert not scheduler.calculate(wanted, revised)[0].from_cache


def test_what_a_caller_does_to_a_result_is_not_kept() -> None:
    scheduler = SmartScheduler()
    wanted, data = [{"abbreviation": "SMA"}], bars()
    for _ in range(3):
        (found,) = scheduler.calculate(wanted, data)
        np.testing.assert_array_equal(values_of(found.result)["sma"], talib.SMA(data.close, 20))
        found.result.values["sma"][:] = 0.0


def test_results_are_kept_for_a_time() -> None:
    now = [0.0]
    scheduler = SmartScheduler(cache_ttl_seconds=60, clock=lambda: now[0])
    wanted, data = [{"abbreviation": "SMA"}], bars()

    def cached(**options: Any) -> bool:
        return scheduler.calculate(wanted, data, **options)[0].from_cache

    assert [cached(), cached(), cached(use_cache=False)] == [False, True, False]
    now[0] = 60.0
    assert [cached(), cached()] == [False, True]
    scheduler.clear_cache()
    assert [cached(), SmartScheduler(enable_cache=False).calculate(wanted, data)[0].from_cache] == [False, False]


class OwnMacd(IndicatorInterface):
    """Depends on two EMAs, and takes them from there."""

    ABBREVIATION = "OWN_MACD"

    def calculate(self, data: OHLCVData, parameters: dict[str, Any]) -> IndicatorResult:
        fast, slow = (self.dependency_results[f"EMA[timeperiod-{n}]"].values["ema"] for n in (12, 26))
        return self._create_success_result(parameters, {"diff": fast - slow})


class Runs(list[str]):
    """The indicators that an engine ran."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        run = TalibEngine.run

        def counted(engine: TalibEngine, indicator: Any, params: Any, *args: Any, **kwargs: Any) -> Any:
            self.append(indicator.key(params))
            return run(engine, indicator, params, *args, **kwargs)

        monkeypatch.setattr(TalibEngine, "run", counted)


@pytest.mark.parametrize("mode", CalculationMode)
def test_what_is_shared_is_computed_once_and_handed_on(mode: CalculationMode, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(monkeypatch)
    IndicatorPluginFactory.register("OWN_MACD", OwnMacd)
    needs = ["EMA[timeperiod-12]", "EMA[timeperiod-26]"]
    wanted = [
        {"abbreviation": "own_macd", "dependencies": needs},
        {"abbreviation": "OWN_MACD", "params": {"again": 1}, "dependencies": needs},
        {"abbreviation": "EMA", "params": {"timeperiod": 12}},
        {"abbreviation": "EMA", "params": {"timeperiod": 20}},
        {"abbreviation": "EMA"},
    ]
    data = bars()
    found = {result.node_id: result for result in SmartScheduler(mode=mode).calculate(wanted, data)}
    assert sorted(runs) == ["EMA(12)", "EMA(20)", "EMA(26)"]
    assert list(found)[-2:] == ["OWN_MACD", "OWN_MACD[again-1]"]
    assert len(found) == 5
    expected = talib.EMA(data.close, 12) - talib.EMA(data.close, 26)
    for name in ("OWN_MACD", "OWN_MACD[again-1]"):
        np.testing.assert_array_equal(values_of(found[name].result)["diff"], expected)


def test_a_dependency_by_name_is_every_such_indicator_that_is_asked_for() -> None:
    seen: list[list[str]] = []

    class Nosy(IndicatorInterface):
        ABBREVIATION = "NOSY"

        def calculate(self, data: OHLCVData, parameters: dict[str, Any]) -> IndicatorResult:
            seen.append(sorted(self.dependency_results))
            return self._create_success_result(parameters, {})

    IndicatorPluginFactory.register("NOSY", Nosy)
    nosy = {"abbreviation": "NOSY", "dependencies": ["sma"]}
    scheduler = SmartScheduler()
    scheduler.calculate([nosy, *({"abbreviation": "SMA", "params": {"timeperiod": n}} for n in (5, 10))], bars())
    scheduler.calculate([{**nosy, "params": {"x": 1}}], bars())
    assert seen == [["SMA[timeperiod-10]", "SMA[timeperiod-5]"], ["SMA"]]


def test_a_circle_is_refused_and_everything_else_that_goes_wrong_is_a_result() -> None:
    class Broken(IndicatorInterface):
        ABBREVIATION = "BROKEN"

        def calculate(self, data: OHLCVData, parameters: dict[str, Any]) -> IndicatorResult:
            raise ZeroDivisionError("by chance")

    IndicatorPluginFactory.register("BROKEN", Broken)
    scheduler = SmartScheduler()
    circle = [{"abbreviation": "SMA", "dependencies": ["EMA"]}, {"abbreviation": "EMA", "dependencies": ["SMA"]}]
    with pytest.raises(ValueError, match="cycle"):
        scheduler.calculate(circle, bars())
    wanted = [
        {"abbreviation": "BROKEN"},
        {"abbreviation": "NONE"},
        {"abbreviation": "RSI", "params": {"timeperiod": 1}},
    ]
    found = scheduler.calculate([*wanted, {"abbreviation": "SMA"}, {"abbreviation": "TEMA"}], bars(n=30))
    assert [result.error for result in found] == [
        "ZeroDivisionError: by chance",
        "there is no indicator 'NONE'",
        "RSI timeperiod: must be an integer in [2, 100000]; got 1",
        None,
        "TEMA needs 58 bars; got 30. Give it an earlier start",
    ]
    assert [result.success for result in found] == [False, False, False, True, False]
    assert found[0].to_dict()["result"] is None
    assert scheduler.calculate([], bars()) == []


def test_a_function_of_one_s_own_computes_in_place_of_the_classes() -> None:
    scheduler = SmartScheduler()

    def mine(abbreviation: str, data: OHLCVData, params: dict[str, Any]) -> IndicatorResult:
        return IndicatorResult(CalculationStatus.SUCCESS, abbreviation, params, {"mine": data.close})

    scheduler.set_calculation_function(mine)
    (found,) = scheduler.calculate([{"abbreviation": "SMA"}], bars())
    assert list(values_of(found.result)) == ["mine"]


PARAMETERS = [(name, param) for name, indicator in catalog.items() for param in indicator.params]


@pytest.mark.parametrize(("name", "param"), PARAMETERS, ids=lambda p: p.name if isinstance(p, Param) else p)
def test_each_parameter_is_checked_and_counts(name: str, param: Param) -> None:
    data = bars()
    for cls in (TalibGenericIndicator, GpuGenericIndicator):
        indicator = cls(name)
        for value in (param.lo - 1 if param.kind is int else -4e37, 4e37, "14", None, True):
            result = indicator.calculate(data, {param.name: value})
            assert result.status is CalculationStatus.ERROR
            assert param.name in (result.error_message or "")
        assert indicator.calculate(data, {param.name + "s": 3}).status is CalculationStatus.ERROR
        default, other = (
            values_of(indicator.calculate(data, given))
            for given in ({}, {param.name: param.default * (2 if param.kind is int else 0.25)})
        )
        assert any(not np.array_equal(default[key], other[key], equal_nan=True) for key in default)


@pytest.mark.parametrize("name", list(catalog))
def test_metadata_are_the_declaration(name: str) -> None:
    indicator, registry = catalog[name], IndicatorRegistry()
    metadata = registry.get(name.lower())
    assert metadata is not None
    assert registry is legacy.get_indicator_registry()
    assert [(p.name, p.default, p.constraints.min_value, p.constraints.max_value) for p in metadata.parameters] == [
        (p.name, p.default, p.lo, p.hi) for p in indicator.params
    ]
    assert [(output.name, output.reference_lines) for output in metadata.outputs] == [
        (output, indicator.reference_lines) for output in indicator.outputs
    ]
    assert (metadata.data_requirements, metadata.panel_type) == (indicator.inputs, indicator.pane)
    # The earlier system's minimum was that of no indicator with a longer warm-up than its longest period.
    needed = registry.get_min_data_points(name, {})
    instance = TalibGenericIndicator(name)
    assert instance.calculate(bars(n=needed - 1), {}).status is not CalculationStatus.SUCCESS
    assert all(np.isfinite(values[-1]) for values in values_of(instance.calculate(bars(n=needed), {})).values())
    assert metadata.to_dict()["abbreviation"] == name
    assert (metadata.full_name, metadata.chinese_name) == (instance.FULL_NAME, instance.CHINESE_NAME)
    assert instance.get_parameter_defaults() == {p.name: p.default for p in indicator.params}
    assert instance.get_required_data_fields() == list(indicator.inputs)


def test_the_registry() -> None:
    registry = IndicatorRegistry()
    assert set(registry.get_all()) == set(registry.export()["indicators"]) == set(catalog)
    assert set(registry.get_by_category("candlestick")) == {name for name in catalog if name.startswith("CDL")}
    assert registry.get("nothing") is None
    assert (registry.exists("rsi"), registry.exists("nothing")) == (True, False)
    assert registry.validate_parameters("RSI", {"timeperiod": 14}) == (True, None)
    assert (
        registry.validate_indicator("RSI", {"timeperiod": 1})[1]
        == "RSI timeperiod: must be an integer in [2, 100000]; got 1"
    )
    assert registry.validate_parameters("nothing", {}) == (False, "there is no indicator 'nothing'")
    assert registry.get_min_data_points("nothing", {}) == 0
    assert registry.get_min_data_points("MACD", {"slowperiod": 50}) == 58


def test_the_names_that_the_adapter_for_gpus_had() -> None:
    data = bars()
    macd = values_of(
        GpuGenericIndicator("MACD").calculate(data, {"fast_period": 6, "slow_period": 13, "signal_period": 5})
    )
    for name, wanted in zip(("macd", "signal", "histogram"), talib.MACD(data.close, 6, 13, 5), strict=True):
        np.testing.assert_allclose(macd[name], wanted, rtol=0, atol=1e-9)
    bands = GpuGenericIndicator("bbands_gpu").calculate(data, {"period": 10, "std_dev": 1.5})
    for name, wanted in zip(("upper", "middle", "lower"), talib.BBANDS(data.close, 10, 1.5, 1.5), strict=True):
        np.testing.assert_allclose(values_of(bands)[name], wanted, rtol=0, atol=1e-9)
    rsi = GpuGenericIndicator("RSI", use_gpu=False)
    assert (rsi.fallback_reason, list(values_of(rsi.calculate(data, {"period": 6})))) == ("asked not to", ["rsi"])
    assert "given twice" in str(rsi.calculate(data, {"period": 6, "timeperiod": 6}).error_message)
    assert TalibGenericIndicator("RSI").calculate(data, {"period": 6}).status is CalculationStatus.ERROR


def test_any_function_of_talib_by_its_name_and_none_that_there_is_not() -> None:
    data = bars()
    (values,) = values_of(TalibGenericIndicator("trima").calculate(data, {"timeperiod": 9})).values()
    np.testing.assert_array_equal(values, talib.TRIMA(data.close, 9))
    for name in ("NOTHING", "NOTHING_GPU", ""):
        with pytest.raises(ValueError, match="unknown indicator"):
            TalibGenericIndicator(name)


def test_calculators_by_id_over_columns() -> None:
    factory, data = IndicatorFactory(), bars()
    columns = {name: getattr(data, name) for name in ("open", "high", "low", "close", "volume")}
    np.testing.assert_allclose(factory.calculate("rsi.14", columns), talib.RSI(data.close, 14))
    np.testing.assert_allclose(factory.calculate("sma.5", {"close": data.close}), talib.SMA(data.close, 5))
    np.testing.assert_allclose(
        factory.calculate("sar", {n: columns[n] for n in ("high", "low")}), talib.SAR(data.high, data.low, 0.02, 0.2)
    )
    macd = factory.calculate("macd.12.26.9", columns, fastperiod=5)
    np.testing.assert_allclose(macd["hist"], talib.MACD(data.close, 5, 26, 9)[2])
    assert factory.get_calculator("ema.12", backend="numba").backend == "vector"
    for wrong, options, told in (
        ("nothing.5", {}, "unknown indicator 'NOTHING'"),
        ("rsi.1", {}, "RSI timeperiod"),
        ("rsi.x", {}, "RSI timeperiod"),
        ("rsi.14", {"backend": "abacus"}, "one of gpu, numba, talib, cpu"),
    ):
        with pytest.raises(Exception, match=told):
            factory.get_calculator(wrong, **options)  # type: ignore[arg-type]


DOCUMENT = (ROOT / "docs" / "from-the-earlier-system.md").read_text(encoding="utf-8")


def test_the_document_s_programs_run_and_its_names_are_there() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 5
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    for name in re.findall(r"^\| `([A-Z]\w+)[`.(]", DOCUMENT, re.MULTILINE):
        assert name in legacy.__all__, name
    for name in legacy.__all__:
        assert f"`{name}" in DOCUMENT, name


@pytest.mark.parametrize("indicator_id", ["rsi.14", "macd.12.26.9", "sar", "obv", "cdldoji"])
def test_a_streaming_calculator_is_the_batch_at_every_bar_and_goes_on_from_a_snapshot(indicator_id: str) -> None:
    factory, data = IndicatorFactory(), bars(n=60)
    columns = {name: getattr(data, name) for name in ("open", "high", "low", "close", "volume")}
    whole = factory.calculate(indicator_id, columns)
    outputs = whole if isinstance(whole, dict) else {"": whole}
    calculator = factory.get_calculator(indicator_id, streaming=True)
    for t in range(60):
        if t == 40:
            assert np.isnan(_plain(calculator.update(dict.fromkeys(columns, np.nan)))).all()
            kept = json.loads(json.dumps(calculator.snapshot()))
            calculator = factory.get_calculator(indicator_id, "cpu", True)
            calculator.load_snapshot(kept)
        found = calculator.update({name: values[t] for name, values in columns.items()})
        np.testing.assert_array_equal(_plain(found), [values[t] for values in outputs.values()])
    with pytest.raises(ValueError, match="the snapshot is of"):
        factory.get_calculator("sma.5", streaming=True).load_snapshot(kept)


def _plain(found: Any) -> list[float]:
    return list(found.values()) if isinstance(found, dict) else [found]


def test_calculators_over_a_data_frame_keep_its_index() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas comes with exchange_calendars")
    data = bars()
    frame = pandas.DataFrame({"close": data.close}, index=pandas.date_range("2025-01-01", periods=160))
    rsi, macd = (IndicatorFactory().calculate(name, frame) for name in ("rsi.14", "macd"))
    assert (rsi.index is frame.index, rsi.name, list(macd)) == (True, "rsi.14", ["macd", "signal", "hist"])
    np.testing.assert_allclose(rsi, talib.RSI(data.close, 14))
