"""A share of the symbols in another process: its bars are read once and stay, what it computes stays with it."""

import functools
import itertools
import multiprocessing
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from data.panel import Floats, Panel
from jobs.benchmark.bars import FIELDS, Bars
from scanner.engines.base import choose
from scanner.evaluate import evaluate
from scanner.language import parse

LOOP = "talib-loop"
_kept: dict[str, Any] = {}
"""What the last task of this process computed: stored, as the other side stores it."""


@dataclass(frozen=True)
class Share:
    """One task: the columns [left, right) of the bars in `folder`, by an engine or by the plain loop."""

    folder: str
    left: int
    right: int
    engine: str
    expressions: tuple[str, ...]
    keep: int | None
    answer: bool = False
    """Whether the last two rows come back, to be checked."""


def write(bars: Bars, folder: Path) -> None:
    """Lay bars down where shares read them."""
    np.save(folder / "times.npy", bars.panel.times)
    for name in FIELDS:
        np.save(folder / f"{name}.npy", bars.panel[name])


def shares_of(n_symbols: int, parts: int) -> list[tuple[int, int]]:
    """Columns in `parts` nearly equal parts, none empty."""
    parts = max(1, min(parts, n_symbols))
    return list(pairwise(n_symbols * k // parts for k in range(parts + 1)))


@functools.lru_cache(maxsize=2)
def _bars(folder: str, left: int, right: int) -> Bars:
    times = np.load(Path(folder) / "times.npy")
    fields = {n: np.ascontiguousarray(np.load(Path(folder) / f"{n}.npy", mmap_mode="r")[:, left:right]) for n in FIELDS}
    return Bars("a share", Panel("1d", times, tuple(map(str, range(left, right))), fields))


@functools.lru_cache(maxsize=2)
def _loop(folder: str, left: int, right: int, expressions: tuple[str, ...], keep: int | None) -> Any:
    from jobs.benchmark.loop import Call, Loop

    return Loop([Call.of(text) for text in expressions], _bars(folder, left, right), keep)


def work(share: Share) -> list[Floats] | None:
    """Do it; returns the outputs' last two rows, each (rows, symbols), where they are asked for."""
    outputs: list[Floats]
    if share.engine == LOOP:
        loop = _loop(share.folder, share.left, share.right, share.expressions, share.keep)
        loop()
        outputs = [matrix.T for matrix in loop.out]
    else:
        bars = _bars(share.folder, share.left, share.right)
        outputs = computed(share.expressions, bars, choose(share.engine)[0], share.keep)
    _kept["outputs"] = outputs
    return [output[-2:] for output in outputs] if share.answer else None


def computed(expressions: Iterable[str], bars: Bars, engine: Any, keep: int | None) -> list[Floats]:
    """The outputs of indicators one after the other, each the last `keep` rows, (rows, symbols)."""
    terms = [parse(text) for text in expressions]
    values: dict[Any, Any] = dict(evaluate(dict.fromkeys(terms, keep or bars.length), bars.source, engine))
    return list(itertools.chain.from_iterable(v if isinstance(v, tuple) else (v,) for v in map(values.get, terms)))


class Processes:
    """Processes of one worker each, so that every share stays where its bars are."""

    def __init__(self, number: int) -> None:
        # A fork would take over the threads' locks, and all memory.
        context = multiprocessing.get_context("spawn")
        self._pools = [ProcessPoolExecutor(1, mp_context=context) for _ in range(number)]

    def run(self, shares: Sequence[Share]) -> list[list[Floats] | None]:
        """What each share answers."""
        parts = [pool.submit(work, share) for pool, share in zip(self._pools, shares, strict=False)]
        return [part.result() for part in parts]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pool in self._pools:
            pool.shutdown()
