"""Several indicators of one symbol at once: what they share is computed once, dependencies first, results kept."""

import contextlib
import hashlib
import logging
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from enum import Enum
from graphlib import TopologicalSorter
from typing import Any

import numpy as np

from data.errors import EngineError, MystocksScanError
from scanner.engines.base import Engine
from scanner.legacy.indicators import CatalogIndicator, IndicatorPluginFactory, compute_terms
from scanner.legacy.interface import OHLCV, CalculationStatus, IndicatorInterface, IndicatorResult, OHLCVData
from scanner.terms import Term

log = logging.getLogger(__name__)

CalculationFunction = Callable[[str, OHLCVData, dict[str, Any]], IndicatorResult]
MOST_KEPT = 4096
"""Results that one scheduler keeps."""


class CalculationMode(Enum):
    """How classes of one's own are called; what the catalogue has is always one computation."""

    SYNC = "sync"
    ASYNC_PARALLEL = "async_parallel"
    BATCH = "batch"


@dataclass
class ScheduleResult:
    """One indicator's result; `node_id` is name and parameters, `EMA[timeperiod-12]`."""

    node_id: str
    abbreviation: str
    result: IndicatorResult
    duration_ms: float
    from_cache: bool = False

    @property
    def success(self) -> bool:
        """Whether there are values."""
        return self.result.success

    @property
    def error(self) -> str | None:
        """Why there are none."""
        return self.result.error_message

    def to_dict(self) -> dict[str, Any]:
        """All of it, the result as it is."""
        return {
            "node_id": self.node_id,
            "abbreviation": self.abbreviation,
            "success": self.success,
            "duration_ms": self.duration_ms,
            "from_cache": self.from_cache,
            "error": self.error,
            "result": self.result if self.success else None,
        }


@dataclass
class _Node:
    """One indicator that is wanted; `term` where the catalogue can compute it together with others."""

    node_id: str
    abbreviation: str
    params: dict[str, Any]
    plugin: IndicatorInterface | None
    term: Term | None
    needs: tuple[str, ...] = ()


class SmartScheduler:
    """Computes indicators of one symbol, each distinct one once.

    Results are kept by indicator, parameters AND data, for `cache_ttl_seconds` of `clock`; what a caller does to the
    arrays it gets changes no other's. `max_workers` threads call classes of one's own that do not depend on each other.
    """

    def __init__(
        self,
        max_workers: int = 4,
        mode: CalculationMode = CalculationMode.ASYNC_PARALLEL,
        enable_cache: bool = True,
        cache_ttl_seconds: float = 3600.0,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_workers = 1 if mode is CalculationMode.SYNC else max_workers
        self.enable_cache, self.cache_ttl_seconds = enable_cache, cache_ttl_seconds
        self._clock = clock
        self._function: CalculationFunction | None = None
        self._kept: OrderedDict[tuple[str, bytes], tuple[float, IndicatorResult]] = OrderedDict()
        self._lock = threading.Lock()

    def set_calculation_function(self, func: CalculationFunction) -> None:
        """Have `func(abbreviation, data, parameters)` compute every indicator, in place of the registered classes."""
        self._function = func

    def clear_cache(self) -> None:
        """Forget all results."""
        with self._lock:
            self._kept.clear()

    def calculate(
        self, indicators: Sequence[Mapping[str, Any]], ohlcv_data: OHLCVData, use_cache: bool | None = None
    ) -> list[ScheduleResult]:
        """One result for each distinct indicator, every one after those it depends on.

        `indicators`: {"abbreviation": "MACD", "params": {...}, "dependencies": ["EMA[timeperiod-12]", "RSI"]}; params
        and dependencies may be missing. A dependency is a node id, or a name: of every such indicator that is asked
        for, else of the one with its defaults. What an indicator depends on is in its `dependency_results`.

        Raises ValueError where indicators depend on each other in a circle. Anything else that goes wrong is a result.
        """
        keep = self.enable_cache if use_cache is None else use_cache
        nodes, wanted = self._nodes(indicators, ohlcv_data)
        sorter = TopologicalSorter({node.node_id: node.needs for node in nodes.values()})
        sorter.prepare()  # raises CycleError, a ValueError
        digest = _digest(ohlcv_data) if keep else b""
        done: dict[str, ScheduleResult] = {}
        for node in nodes.values() if keep else ():
            kept = self._kept_result(node.node_id, digest)
            if kept is not None:
                done[node.node_id] = ScheduleResult(node.node_id, node.abbreviation, kept, 0.0, from_cache=True)
        done |= _computed_together([node for name, node in nodes.items() if name not in done], ohlcv_data)
        order: list[str] = []
        with ThreadPoolExecutor(self.max_workers, thread_name_prefix="indicators") as pool:
            while level := sorter.get_ready():
                rest = [nodes[name] for name in level if name not in done]
                for found in list(pool.map(lambda node: self._called(node, ohlcv_data, done), rest)):
                    done[found.node_id] = found
                sorter.done(*level)
                order += level
        for found in done.values() if keep else ():
            if found.success and not found.from_cache:
                self._keep(found.node_id, digest, found.result)
        return [done[name] for name in order if name in wanted]

    def _nodes(
        self, indicators: Sequence[Mapping[str, Any]], data: OHLCVData
    ) -> tuple[dict[str, _Node], dict[str, tuple[str, ...]]]:
        """Node id -> node of all that is to be computed; and of what was asked for, what each was said to need."""
        nodes: dict[str, _Node] = {}
        asked: dict[str, tuple[str, ...]] = {}
        for indicator in indicators:
            name, params = indicator["abbreviation"].upper(), dict(indicator.get("params") or {})
            node = nodes.setdefault(node_id(name, params), self._node(name, params, data))
            asked[node.node_id] = asked.get(node.node_id, ()) + tuple(indicator.get("dependencies") or ())
        for name, needs in asked.items():
            found: list[str] = []
            for need in needs:
                same = [other for other in asked if need == other or need.upper() == nodes[other].abbreviation]
                if not same:
                    node = self._node(*_parsed(need), data)
                    same = [nodes.setdefault(node.node_id, node).node_id]
                found += same
            nodes[name].needs = tuple(found)
        return nodes, asked

    def _node(self, name: str, params: dict[str, Any], data: OHLCVData) -> _Node:
        plugin = None if self._function else IndicatorPluginFactory.create_instance(name)
        term = None
        # A class of one's own may compute what it likes, also one that stands on the catalogue's.
        if isinstance(plugin, CatalogIndicator) and type(plugin).calculate is CatalogIndicator.calculate:
            with contextlib.suppress(MystocksScanError):  # it says so itself when it is called
                plugin.validate_data(data, plugin.min_data_points(params))
                term = plugin.term(params)
        return _Node(node_id(name, params), name, params, plugin, term)

    def _called(self, node: _Node, data: OHLCVData, done: Mapping[str, ScheduleResult]) -> ScheduleResult:
        """The result of a class or function of one's own; whatever it raises is a result too."""
        start = time.perf_counter()
        try:
            if self._function is not None:
                result = self._function(node.abbreviation, data, node.params)
            elif node.plugin is None:
                result = _failed(node, f"there is no indicator {node.abbreviation!r}")
            else:
                node.plugin.dependency_results = {name: done[name].result for name in node.needs}
                result = node.plugin.calculate(data, node.params)
        except Exception as error:
            log.exception("%s raised", node.node_id)
            result = _failed(node, f"{type(error).__name__}: {error}")
        return ScheduleResult(node.node_id, node.abbreviation, result, 1e3 * (time.perf_counter() - start))

    def _kept_result(self, name: str, digest: bytes) -> IndicatorResult | None:
        with self._lock:
            found = self._kept.get((name, digest))
            if found is None or self._clock() - found[0] >= self.cache_ttl_seconds:
                return None
            self._kept.move_to_end((name, digest))
            return deepcopy(found[1])

    def _keep(self, name: str, digest: bytes, result: IndicatorResult) -> None:
        with self._lock:
            self._kept[name, digest] = self._clock(), deepcopy(result)
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)


def create_scheduler(
    max_workers: int = 4, mode: CalculationMode = CalculationMode.ASYNC_PARALLEL, enable_cache: bool = True
) -> SmartScheduler:
    """A scheduler."""
    return SmartScheduler(max_workers, mode, enable_cache)


def node_id(abbreviation: str, params: Mapping[str, Any]) -> str:
    """Name and parameters as one text: `MACD[fastperiod-12_slowperiod-26]`, `MACD` without any."""
    given = "_".join(f"{name}-{params[name]}" for name in sorted(params))
    return f"{abbreviation.upper()}[{given}]" if given else abbreviation.upper()


def _parsed(name: str) -> tuple[str, dict[str, Any]]:
    """The inverse of `node_id`, for numbers."""
    abbreviation, _, given = name.removesuffix("]").partition("[")
    pairs = re.findall(r"(\w+?)-(-?[\d.]+(?:e[+-]?\d+)?)(?:_|$)", given)
    return abbreviation.upper(), {key: float(value) if set(value) & set(".e") else int(value) for key, value in pairs}


def _computed_together(nodes: Sequence[_Node], data: OHLCVData) -> dict[str, ScheduleResult]:
    """The results of those that have a term: one computation an engine, in which equal terms are one."""
    found: dict[str, ScheduleResult] = {}
    groups: dict[str, tuple[Engine, list[tuple[_Node, CatalogIndicator, Term]]]] = {}
    for node in nodes:
        if node.term is not None and isinstance(node.plugin, CatalogIndicator):
            with contextlib.suppress(EngineError):
                engine = node.plugin.engine()
                groups.setdefault(engine.name, (engine, []))[1].append((node, node.plugin, node.term))
    fields = {name: getattr(data, name) for name in OHLCV}
    for engine, members in groups.values():
        start = time.perf_counter()
        try:
            values = compute_terms([term for _, _, term in members], fields, engine)
        except MystocksScanError:
            continue  # then one by one, and each says for itself what is amiss
        duration_ms = 1e3 * (time.perf_counter() - start)
        for node, plugin, term in members:
            named = {name: output.copy() for name, output in plugin.named(values[term]).items()}
            result = plugin._create_success_result(node.params, named, duration_ms)
            found[node.node_id] = ScheduleResult(node.node_id, node.abbreviation, result, duration_ms)
    return found


def _failed(node: _Node, message: str) -> IndicatorResult:
    return IndicatorResult(CalculationStatus.ERROR, node.abbreviation, dict(node.params), {}, message)


def _digest(data: OHLCVData) -> bytes:
    """What tells one symbol's bars from another's."""
    seen = hashlib.blake2b(digest_size=16)
    for name in OHLCV:
        values = np.ascontiguousarray(getattr(data, name))
        seen.update(f"{name} {len(values)} ".encode())
        seen.update(values.tobytes())
    return seen.digest()
