"""What this machine can do: checks, each of which says what it found and what to do about it.

A check is a function of the settings that yields findings. It changes nothing on the machine, and it takes no longer
than its import and its reading do; what takes longer stands in FULL_CHECKS.
"""

import logging
import os
import platform
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import date
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Any

import numpy as np
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from data.calendar import TradingCalendar, local_day
from data.errors import EngineError, MystocksScanError
from data.settings import APP, Settings, find_file
from data.simulator import SimulatedMarket
from data.store import BarStore
from jobs.drill import chosen, golden_bits, market, whole_market
from jobs.findings import Finding, gib
from jobs.gpu_checks import check_gpu, check_gpu_drill
from jobs.show import local_time
from jobs.sinks import make_rules, open_channels
from scanner.engines import warm
from scanner.engines.base import ENGINES, ON_CPU, Engine, by_symbol, choose
from scanner.indicators import catalog, kernels
from scanner.loading import load

log = logging.getLogger(__name__)

LEAST_DISK_BYTES = 2 << 30
LEAST_MEMORY_BYTES = 4 << 30
"""What the import of 2.8 million rows stays under; a live market of 5,000 symbols needs less."""
SLOW_SYNC_S = 0.05


Check = Callable[[Settings], Iterable[Finding]]


def examine(settings: Settings, *, config: Path | None = None, full: bool = False) -> Iterator[Finding]:
    """Every check's findings, as they are made; a check that raises is one too. `config`: the settings file named."""
    yield _source(config)
    for name, check in (CHECKS | FULL_CHECKS if full else CHECKS).items():
        try:
            for finding in check(settings):
                yield replace(finding, check=name)
        except MystocksScanError as error:
            yield Finding("FAIL", str(error), check=name)
        except Exception as error:  # one check's fault must not hide what the others find
            log.debug("the check %s raised", name, exc_info=True)
            yield Finding("FAIL", f"{type(error).__name__}: {error}", "run it with -vv for the traceback", name)


def _source(config: Path | None) -> Finding:
    """Where the settings come from; that they are readable has been seen by now."""
    names = sorted(name for name in os.environ if name.startswith("MYSTOCKS_SCAN__"))
    given = f"; environment: {', '.join(names)}" if names else ""
    return Finding("OK", f"{find_file(config) or 'no file, so the defaults'}{given}", check="settings")


def check_python(settings: Settings) -> Iterator[Finding]:
    """The interpreter against the range that the package declares."""
    wanted = metadata(APP)["Requires-Python"]
    running = ".".join(map(str, sys.version_info[:3]))
    fits = running in SpecifierSet(wanted)
    text = f"Python {running} ({wanted}), {sys.executable}"
    yield Finding("OK", text) if fits else Finding("FAIL", text, "use another Python")


def check_packages(settings: Settings) -> Iterator[Finding]:
    """Every package that the project needs, against its declared range."""
    good = []
    for text in requires(APP) or ():
        wanted = Requirement(text)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            yield Finding("FAIL", f"{wanted.name} is not installed", f"pip install '{wanted}'")
            continue
        if wanted.specifier.contains(found, prereleases=True):
            good.append(f"{wanted.name} {found}")
        else:
            yield Finding("FAIL", f"{wanted.name} {found} is outside {wanted.specifier}", f"pip install '{wanted}'")
    yield Finding("OK", f"{APP} {version(APP)} on {', '.join(good)}")


def check_machine(settings: Settings) -> Iterator[Finding]:
    """Cores and memory, as this process may use them."""
    from dask.system import cpu_count

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    text = f"{cpu_count()} cores ({_simd()}), {gib(memory)} of memory"
    remedy = f"a large import may need {gib(LEAST_MEMORY_BYTES)}: import few files at a time"
    yield Finding("OK", text) if memory >= LEAST_MEMORY_BYTES else Finding("WARN", text, remedy)


def _simd() -> str:
    """The widest SIMD instructions of the processor."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return f"{platform.machine()}, SIMD unknown"
    known = {"avx512f": "AVX-512", "avx2": "AVX2", "sve": "SVE", "asimd": "NEON", "sse4_2": "SSE4.2"}
    return next((text for flag, text in known.items() if flag in flags), f"{platform.machine()}, no SIMD known")


def check_sync(settings: Settings) -> Iterator[Finding]:
    """How long the disk takes to make a signal durable: no signal is sent before."""
    folder = settings.store.path
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        return  # another check's
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(7):
            file.write(bytes(4096))
            file.flush()
            started = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - started)
    text = f"{folder}: 4 KiB are on the disk after {sorted(times)[3] * 1e3:.1f} ms"
    slow = sorted(times)[3] > SLOW_SYNC_S
    yield Finding("WARN", text, "name a folder on a faster disk with --store DIR") if slow else Finding("OK", text)


def check_disk(settings: Settings) -> Iterator[Finding]:
    """Room and rights where the store lies, or would."""
    folder = settings.store.path
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        yield Finding("FAIL", f"{folder} cannot be written to", "name another folder with --store DIR")
        return
    free = shutil.disk_usage(folder).free
    text = f"{gib(free)} free for {settings.store.path}"
    remedy = "make room, or name a folder on another disk with --store DIR"
    yield Finding("OK", text) if free >= LEAST_DISK_BYTES else Finding("WARN", text, remedy)


def check_strategies(settings: Settings) -> Iterator[Finding]:
    """Whether every strategy loads."""
    where = ", ".join(map(str, settings.scan.strategies)) or "the built-in ones"
    yield Finding("OK", f"{len(load(settings.scan.strategies))} strategies load ({where})")


def check_store(settings: Settings) -> Iterator[Finding]:
    """What the stores hold; every file's symbols are read."""
    paths = dict.fromkeys((settings.store.path, settings.store.sim_path))
    stores = [BarStore(path) for path in paths if (path / "store.json").exists()]
    if not stores:
        yield Finding(
            "WARN",
            f"nothing is stored yet at {settings.store.path}",
            "'mystocks-scan import PATH...' for a market of your own, or 'mystocks-scan run' for a simulated one",
        )
    for store in stores:
        held = [
            f"{frame}: {len(store.symbols(frame))} symbols up to {local_time(store.last_bar_end(frame) or 0)}"
            for frame in store.frames()
        ]
        yield Finding("OK", f"{store.root} ({store.origin}): {'; '.join(held) or 'no bars'}")
        newest = store.last_bar_end("1d")
        if store.origin == "market" and newest is not None:
            closed = TradingCalendar(settings.calendar_overlay).last_closed(time.time_ns())
            if local_day(np.array([newest]))[0] < np.datetime64(closed):
                text = f"the newest daily bar, {local_time(newest)}, is older than the last closed session, {closed}"
                yield Finding("WARN", text, "import newer files")


def check_engines(settings: Settings) -> Iterator[Finding]:
    """Which engines run here and compute what was worked out by hand, and which one `auto` takes."""
    for name in (name for name in ENGINES if name in ON_CPU):  # the GPU's engine is another check's
        try:
            engine, _ = choose(name)
        except EngineError as error:
            yield Finding("WARN", str(error))
            continue
        (rsi,) = by_symbol(engine, catalog["RSI"], {"timeperiod": 14}, [GOLDEN_CLOSES], np.array([GOLDEN_CLOSES.size]))
        if np.allclose(rsi[0, 14:], GOLDEN_RSI, rtol=1e-12) and np.isnan(rsi[0, :14]).all():
            yield Finding("OK", f"{name} runs, and its RSI(14) is the one worked out by hand")
        else:
            got = ", ".join(f"{value:.6f}" for value in rsi[0, 14:])
            wanted = ", ".join(f"{value:.6f}" for value in GOLDEN_RSI)
            yield Finding("FAIL", f"{name} says {got} for an RSI(14) of {wanted}", "install the engine's package again")
    engine, reason = choose(settings.scan.engine)
    yield Finding("OK", f"{settings.scan.engine} takes {engine.name}: {reason}")


GOLDEN_CLOSES = np.cumsum([[100.0, *([2.0, -1.0] * 7), 2.0]], axis=1)
"""Up 2 and down 1 in turn: over 14 changes a mean gain of 1 and a mean loss of 1/2; the 15th is a gain of 2."""
GOLDEN_RSI = np.array([100 * 1 / (1 + 1 / 2), 100 * 15 / (15 + 13 / 2)])


def check_golden(settings: Settings) -> Iterator[Finding]:
    """The golden bits of compiled kernels, and a whole market on each engine of this machine's CPU."""
    inputs = market()
    engines: dict[str, Engine] = {}
    indicators = chosen(inputs)
    try:
        vector: Any = choose("vector")[0]
        cold = set(warm.cold(kernels()))
        ready = [indicator for indicator in kernels() if indicator not in cold]
        if ready:
            yield golden_bits("vector", vector.by_kernel, ready)
            indicators = chosen(inputs, ready)
            engines["vector"] = vector
        if cold:
            yield Finding("OK", f"vector: {len(cold)} kernels are not compiled yet ('mystocks-scan warm' does it)")
    except EngineError as error:
        yield Finding("WARN", str(error))
    with suppress(EngineError):
        engines["talib"] = choose("talib")[0]
    if indicators:
        yield from whole_market(engines, inputs, indicators)


def check_calendar(settings: Settings) -> Iterator[Finding]:
    """How long the trading calendar still vouches for its days."""
    calendar = TradingCalendar(settings.calendar_overlay)
    today = date.today()
    warning = calendar.warning(today)
    if warning is None:
        yield Finding("OK", f"sessions are known up to {calendar.last}, {calendar.days_left(today)} days from now")
    else:
        text, _, remedy = warning.partition(": ")
        yield Finding("WARN" if calendar.days_left(today) >= 0 else "FAIL", text, remedy)


def check_ports(settings: Settings) -> Iterator[Finding]:
    """Whether the live service could listen where the settings say."""
    serve = settings.serve
    for use, host, port, option in (
        ("/ws/signals", serve.host, serve.port, "--port"),
        ("the Dask dashboard", "127.0.0.1", serve.dashboard_port, "--dashboard-port"),
    ):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((host, port))
            except OSError as error:
                text = f"{host}:{port}, for {use}, is not free: {error.strerror}"
                yield Finding("WARN", text, f"a service may be running already; if not, {option} N names another")
            else:
                yield Finding("OK", f"{host}:{port} is free for {use}")


def check_terminal(settings: Settings) -> Iterator[Finding]:
    """Whether names in Chinese can be shown."""
    encoding = sys.stdout.encoding or "ascii"
    colours = "no colours (NO_COLOR)" if os.environ.get("NO_COLOR") else f"TERM {os.environ.get('TERM', 'unset')}"
    if encoding.lower().replace("-", "") == "utf8":
        yield Finding("OK", f"{encoding}, {colours}")
    else:
        text = f"the terminal's encoding is {encoding}: names in Chinese show as codes"
        yield Finding("WARN", text, "export PYTHONUTF8=1, or LANG=C.UTF-8")


def check_cluster(settings: Settings) -> Iterator[Finding]:
    """Whether a Dask cluster starts here and scans a small market with the same answer as this process."""
    from jobs.scanning import MarketScan
    from jobs.simulated import make_history
    from scanner.cluster import Cluster, InlineCluster, make_cluster

    engine, _ = choose(settings.scan.engine)
    market = SimulatedMarket(20)
    started = time.perf_counter()
    name = "local" if settings.scan.cluster == "auto" else settings.scan.cluster
    cluster = make_cluster(name, workers=min(2, settings.scan.workers or 2), dashboard_port=0)
    ready_s = time.perf_counter() - started
    try:
        with tempfile.TemporaryDirectory() as folder:
            store = BarStore(Path(folder) / "sim", origin="sim-doctor")
            make_history(store, market, ["1m"], 120)
            bar_end = store.last_bar_end("1m") or 0
            origin = store.bar_ends("1m")[0]

            def scanned(where: Cluster) -> tuple[object, ...]:
                scan = MarketScan(
                    store, "1m", load(), symbols=market.symbols, engine=engine, cluster=where, history=None
                )
                result = scan.scan(bar_end, origin=origin).result
                return result.n_symbols, result.hits, result.failed

            here = scanned(InlineCluster())
            started = time.perf_counter()
            there = scanned(cluster)
            scan_s = time.perf_counter() - started
    finally:
        cluster.close()
    late = getattr(cluster, "late", 0)
    if late:
        text = f"cluster {cluster.name}: the scan failed on its {cluster.workers} workers"
        yield Finding("FAIL", text, "run it with -v to see why, or use --cluster inline")
    elif there != here:
        text = f"cluster {cluster.name}: the scan's answer differs from this process's"
        yield Finding("FAIL", text, "use --cluster inline")
    else:
        text = f"{cluster.name}: {cluster.workers} workers after {ready_s:.1f} s, 20 symbols scanned in {scan_s:.1f} s"
        yield Finding("OK", text)


def check_sinks(settings: Settings) -> Iterator[Finding]:
    """Where signals go besides subscribers; nothing is sent."""
    alerts, influx = settings.alerts, settings.influx
    make_rules(alerts)
    channels = [f"{name} ({one.service})" for name, one in open_channels(alerts).items()] if alerts.channels else []
    told = f"alerts to {', '.join(channels)}; 'mystocks-scan alerts test' tries them" if channels else "no alerts"
    yield Finding("OK", f"{told}; {f'InfluxDB at {influx.url}' if influx.bucket else 'no InfluxDB'}")


CHECKS: dict[str, Check] = {
    "python": check_python,
    "packages": check_packages,
    "machine": check_machine,
    "disk": check_disk,
    "sync": check_sync,
    "strategies": check_strategies,
    "store": check_store,
    "engines": check_engines,
    "gpu": check_gpu,
    "calendar": check_calendar,
    "ports": check_ports,
    "sinks": check_sinks,
    "terminal": check_terminal,
}
FULL_CHECKS: dict[str, Check] = {"golden": check_golden, "gpu-drill": check_gpu_drill, "cluster": check_cluster}
