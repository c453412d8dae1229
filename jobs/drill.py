"""What `mystocks-scan doctor --full` computes: golden bits, a whole market on each engine, and how a GPU fails.

python -m jobs.drill     the GPU's part, a line of JSON a finding; from a process of its own, which it may take down
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict

import numpy as np

from data.errors import EngineError
from data.panel import Floats
from jobs.findings import Finding, gib, mib
from scanner.engines.base import Engine, Series, load
from scanner.engines.golden import compare, golden
from scanner.engines.on_gpu import CudaEngine, on_the_cpu
from scanner.engines.report import growth, watched
from scanner.indicators import catalog, kernels
from scanner.indicators.spec import Indicator

Run = Callable[..., tuple[Floats, ...]]

N_SYMBOLS, N_BARS, N_INDICATORS = 5000, 250, 20
SCANS = 50
WARM_UP = 5
"""Scans before memory is watched: they fill caches."""
SLACK_BYTES = 1 << 20
UNTRIED = "no one has run this on a GPU before: please send this report"


def golden_bits(name: str, run: Run, indicators: Sequence[Indicator]) -> Finding:
    """How many golden values of these kernels differ on an engine, and by how many units in the last place."""
    found = {indicator.name: golden(indicator, run) for indicator in indicators}
    values = sum(bits.n_values for bits in found.values())
    text = f"{name}: golden bits of {len(found)} kernels, {values} values"
    wrong = [
        f"{which} {bits.n_differing} by up to {bits.max_ulp} ulp" for which, bits in found.items() if bits.n_differing
    ]
    if wrong:
        return Finding("FAIL", f"{text}; these differ: {', '.join(wrong)}", "use --engine talib, and send this report")
    return Finding("OK", f"{text}, 0 differ")


def market(n_symbols: int = N_SYMBOLS, n_bars: int = N_BARS) -> dict[str, Series]:
    """Inputs by name: random walks in cents, one symbol in fifty listed late; the same at every call."""
    rng = np.random.default_rng(11)
    close = np.round(20 * np.exp(np.cumsum(rng.normal(0, 0.02, (n_bars, n_symbols)), axis=0)), 2)
    spread = np.round(rng.uniform(0, 0.3, (2, n_bars, n_symbols)), 2)
    lengths = np.full(n_symbols, n_bars)
    lengths[::50] = n_bars // 2
    fields = {
        "open": np.roll(close, 1, axis=0),
        "high": close + spread[0],
        "low": close - spread[1],
        "close": close,
        "volume": np.round(rng.lognormal(13, 0.5, close.shape)),
    }
    fields["amount"] = fields["volume"] * close
    for matrix in fields.values():
        matrix[: n_bars - n_bars // 2, ::50] = np.nan
    return {name: Series(matrix, lengths) for name, matrix in fields.items()}


def chosen(inputs: Mapping[str, Series], ready: Sequence[Indicator] | None = None) -> list[Indicator]:
    """The first indicators of the catalogue that every engine computes from these inputs, of those that are `ready`."""
    among = catalog.values() if ready is None else ready
    fit = (i for i in among if i.kernel and i.talib and i.name in catalog and set(i.inputs) <= set(inputs))
    return [indicator for indicator, _ in zip(fit, range(N_INDICATORS), strict=False)]


def whole_market(
    engines: Mapping[str, Engine], inputs: Mapping[str, Series], indicators: Sequence[Indicator]
) -> Iterator[Finding]:
    """The indicators over a whole market on each engine, against the first: its bits, or TA-Lib within tolerance."""
    expected: dict[str, tuple[Floats, ...]] = {}
    for name, engine in engines.items():
        for indicator in indicators:  # what is compiled, loaded or copied once is none of the work
            _run(engine, indicator, inputs)
        started = time.perf_counter()
        with watched(engine) as report:
            found = {indicator.name: _run(engine, indicator, inputs) for indicator in indicators}
        took_s = time.perf_counter() - started
        shape = f"{inputs['close'].lengths.size:,} x {inputs['close'].bars:,}"
        text = f"{name}: {len(indicators)} indicators, {shape}, in {took_s:.2f} s"
        if report.engine != engine.name:
            why = "; ".join(report.fallbacks)
            yield Finding("FAIL", f"{text}, by {report.engine}: {why}", "use --engine auto, and send this report")
            continue
        expected = expected or found
        apart = [
            indicator.name for indicator in indicators if not _agree(indicator, found, expected, bits=name != "talib")
        ]
        how = "all within the declared tolerances" if name == "talib" else "every bit the same"
        if apart:
            remedy = f"do not use --engine {name}, and send this report"
            yield Finding("FAIL", f"{text}; these differ: {', '.join(apart)}", remedy)
        else:
            yield Finding("OK", text if found is expected else f"{text}, {how}")


def _run(engine: Engine, indicator: Indicator, inputs: Mapping[str, Series]) -> tuple[Floats, ...]:
    return engine.run(indicator, indicator.bind(), [inputs[name] for name in indicator.inputs], keep=5)


def _agree(
    indicator: Indicator,
    found: Mapping[str, tuple[Floats, ...]],
    expected: Mapping[str, tuple[Floats, ...]],
    *,
    bits: bool,
) -> bool:
    one, other = found[indicator.name], expected[indicator.name]
    if bits:
        return compare(one, other).n_differing == 0
    assert indicator.kernel is not None
    return all(
        np.allclose(a, b, rtol=0, atol=indicator.kernel.rtol * float(np.nanmax(np.abs(b), initial=1.0)), equal_nan=True)
        for a, b in zip(one, other, strict=True)
    )


def leaks(engine: CudaEngine, inputs: Mapping[str, Series], scans: int = SCANS) -> Finding:
    """Whether the GPU's memory grows from scan to scan."""
    indicators = chosen(inputs)[:3]
    used, held = [], []
    for number in range(WARM_UP + scans):
        fresh = {name: Series(series.by_bar, series.lengths) for name, series in inputs.items()}
        with engine.watch() as report:
            for indicator in indicators:
                _run(engine, indicator, fresh)
        del fresh
        if report.fallbacks:
            return Finding("FAIL", f"scan {number + 1}: {report.fallbacks[0]}", "send this report")
        if number >= WARM_UP and report.after is not None:
            used.append(report.after.used_bytes)
            held.append(report.after.held_bytes)
    if len(used) < scans:
        return Finding("WARN", "the GPU's memory cannot be read", "send this report")
    grown = max(growth(used, SLACK_BYTES), growth(held, SLACK_BYTES))
    text = f"GPU memory over {scans} scans: {mib(used[-1])} used, {mib(held[-1])} held"
    if grown:
        return Finding(
            "FAIL", f"{text}; it grew by {grown >> 10} KiB", "restart the service daily, and send this report"
        )
    return Finding("OK", f"{text}, no growth")


def out_of_memory(engine: CudaEngine, inputs: Mapping[str, Series]) -> Finding:
    """Whether a GPU whose memory runs out halves the shard, keeps the bits, and is whole again afterwards."""
    indicator = catalog["KDJ"]
    device = engine.machine.device
    expected = on_the_cpu().run(indicator, indicator.bind(), [inputs[name] for name in indicator.inputs], keep=5)
    _run(engine, indicator, inputs)  # loads the kernel, and what else is there but once

    def scanned() -> tuple[int, str, bool]:
        fresh = {name: Series(series.by_bar, series.lengths) for name, series in inputs.items()}
        with engine.watch() as report:
            found = _run(engine, indicator, fresh)
        return report.retries, report.engine, compare(found, expected).n_differing == 0

    device.release()
    room = device.memory().held_bytes + int(0.75 * sum(inputs[name].by_bar.nbytes for name in indicator.inputs))
    device.limit(room)
    try:
        retries, name, same = scanned()
    finally:
        device.limit(None)
    text = f"out-of-memory drill, {mib(room)} allowed: {retries} retries, then {name}"
    again = scanned()
    if not same or retries == 0:
        told = "other values" if not same else "no shortage was felt"
        return Finding("FAIL", f"{text}; {told}", "use --engine vector, and send this report")
    if again != (0, engine.name, True):
        return Finding("FAIL", f"{text}; afterwards the GPU was not whole again", "send this report")
    return Finding("OK", f"{text}, the same bits; whole again afterwards")


def gpu_drill(engine: CudaEngine) -> Iterator[Finding]:
    """Everything that is asked of a GPU."""
    try:
        device = engine.machine.device
    except EngineError as error:
        yield Finding("FAIL", f"the GPU does not start: {error}", "use --engine vector, and send this report")
        return
    memory = device.memory()
    text = f"{device.name}: {gib(memory.free_bytes)} of {gib(memory.total_bytes)} free"
    yield Finding("OK", f"{text}; {UNTRIED}")
    yield golden_bits("cuda", engine.on_gpu, kernels())
    inputs = market()
    yield from whole_market({"cuda": engine, "vector": on_the_cpu()}, inputs, chosen(inputs))
    yield leaks(engine, inputs)
    yield out_of_memory(engine, inputs)


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    for finding in gpu_drill(load("cuda")):  # type: ignore[arg-type]
        print(json.dumps(asdict(finding)), flush=True)  # noqa: T201  # its answer
