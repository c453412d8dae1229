"""Recording: `signal.alert`, and `market.bar` where asked for -> InfluxDB.

    signal          tags strategy, action, frame; fields symbol, name, price, confidence, ...; at bar_end
    signal_stages   tags frame, engine; fields of seconds by stage; when the scan's signals were published
    bar             tags symbol, frame; fields open .. amount; at bar_end, of the symbols asked for

A symbol is a tag where few are asked for, and a field where it may be any of thousands: each value of a tag is a series
of its own for every strategy and action.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain, groupby
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.signal import Signal, signals_of
from jobs.latency import STAMPS, spent
from streaming.bus import SIGNALS, bar_topic
from streaming.points import Point, lines_of
from streaming.ports import Bus, Event, Policy, Subscription

if TYPE_CHECKING:
    from streaming.influx import InfluxWriter

log = logging.getLogger(__name__)

SPREAD_NS = 1_000_000
"""Signals of one strategy and bar are told apart by ns after the bar's end, of which this many are theirs."""
PRICES = ("open", "high", "low", "close", "volume", "amount")


class Recording:
    """Hands signals, where the time to them went, and bars of `symbols` to a writer; nobody waits for this stage."""

    def __init__(
        self,
        bus: Bus,
        writer: "InfluxWriter",
        *,
        symbols: Collection[str] = (),
        drain_s: float = 5.0,
        on_left: Callable[[int], None] = lambda n: None,
    ) -> None:
        self._writer, self._drain_s, self._on_left = writer, drain_s, on_left
        self._symbols = pa.array(sorted(symbols), pa.string())
        patterns = [SIGNALS, bar_topic("*")] if symbols else [SIGNALS]
        self._events = [bus.subscribe(p, policy=Policy.DROP_OLDEST, name=f"influx {p}") for p in patterns]

    async def run(self) -> None:
        """Until `stop` is called or the bus is closed; then what waits is written, if that does not take long."""
        writing = asyncio.create_task(self._writer.run(), name="influx")
        try:
            await asyncio.gather(*(self._read(events) for events in self._events))
            self._writer.end()
            await asyncio.wait([writing], timeout=self._drain_s)
        finally:
            if n := self._writer.waiting:
                log.warning("%d points were not written before the end", n)
                self._on_left(n)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def stop(self) -> None:
        """End when what has been published by now is handed over."""
        for events in self._events:
            events.close()

    def _lines(self, event: Event) -> list[bytes]:
        if event.topic == SIGNALS:
            signals = signals_of(event.batch)
            return lines_of(chain(map(to_point, signals), stage_points(signals)))
        return lines_of(bar_points(event.batch, self._symbols))

    async def _read(self, events: Subscription) -> None:
        async for event in events:
            try:
                self._writer.put(await asyncio.to_thread(self._lines, event))
            except Exception:
                # One event's fault is not that of those after it.
                log.exception("an event on %s could not be recorded", event.topic)


def to_point(signal: Signal) -> Point:
    """A signal at the end of its bar, in the exchange's time; that many ns later that it is a point of its own."""
    said = f"{signal.action} {signal.symbol} {signal.name or ''} {signal.price:.2f}".replace("  ", " ")
    return Point(
        "signal",
        signal.bar_end + signal.seq % SPREAD_NS,
        {"strategy": signal.strategy, "action": signal.action, "frame": signal.frame},
        {
            "symbol": signal.symbol,
            "name": signal.name,
            "price": signal.price,
            "confidence": signal.confidence,
            "developing": signal.developing,
            "revision": signal.revision,
            "revokes": signal.revokes,
            "at_limit_up": signal.at_limit_up,
            "at_limit_down": signal.at_limit_down,
            "values": json.dumps(dict(signal.values), ensure_ascii=False),
            "engine": signal.engine,
            "id": signal.id,
            "epoch": signal.epoch,
            "seq": signal.seq,
            "text": f"revoked: {said}" if signal.revokes else said,
        },
    )


def stage_points(signals: Sequence[Signal]) -> Iterator[Point]:
    """Seconds by stage, a point a scan, at the time it was published."""
    for (frame, engine), group in groupby(signals, key=lambda signal: (signal.frame, signal.engine)):
        first = next(group)
        if not first.received_ns:
            continue  # of stored bars: there was no payload
        stamps = np.array([[getattr(first, name)] for name in STAMPS], dtype=np.int64)
        fields = {f"{name.replace(' ', '_')}_s": float(ns[0]) / 1e9 for name, ns in spent(*stamps).items() if len(ns)}
        yield Point("signal_stages", first.published_ns, {"frame": frame, "engine": engine}, fields)


def bar_points(batch: pa.RecordBatch, symbols: pa.Array) -> list[Point]:
    """The bars of some symbols, closed or open; a later revision of a bar takes its place."""
    frame = batch.schema.metadata[b"frame"].decode()
    rows = batch.filter(pc.is_in(batch["symbol"].cast(pa.string()), value_set=symbols))
    ends = rows["bar_end"].cast(pa.int64()).to_pylist()
    names = rows["symbol"].to_pylist()
    fields = rows.select([*PRICES, "revision"]).to_pylist()
    return [
        Point("bar", end, {"symbol": symbol, "frame": frame}, row)
        for end, symbol, row in zip(ends, names, fields, strict=True)
    ]
