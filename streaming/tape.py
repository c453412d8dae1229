"""The tape: every batch of ticks, durable before it is folded, so that a killed service can fold it again.

`streaming.segment` says what its files are made of. Whatever a crash leaves behind the last whole frame is cut off when
a segment is opened for writing.
"""

import asyncio
import errno
import io
import json
import logging
import os
import struct
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.calendar import local_day
from data.columns import column
from data.files import sync_folder
from data.schema import SYMBOL
from streaming.segment import FORMAT, Segment, on_tape, segments, to_frame

GROUP = 32
"""Batches that are made durable by one sync, at most."""
_SAID_EVERY_S = 60.0
Places = npt.NDArray[np.int32]

log = logging.getLogger(__name__)


class Tape:
    """Appends ticks to the segments in `folder`. One writer at a time: the caller sees to that.

    A segment is a session's: that of the batch's middle quote, but none after the day of its receipt, and none before
    that of the batch before. `keep`: how many segments stay. `origin`: whose market it is. Where the disk refuses,
    batches are `lost`, the log says so, and each later batch tries anew. `waiting`: batches that are not durable yet.
    `on_sync` is told of the seconds that each sync took.
    """

    def __init__(
        self, folder: Path, *, origin: str, keep: int, on_sync: Callable[[float], None] = lambda seconds: None
    ) -> None:
        self.folder, self.origin, self.keep = folder, origin, keep
        self.frames = 0
        self.bytes = 0
        self.lost = 0
        self.waiting = 0
        self._on_sync = on_sync
        self._open: _Writer | None = None
        self._refused_since = 0
        self._turn = threading.Lock()
        self._said = -_SAID_EVERY_S

    @property
    def refuses(self) -> bool:
        """Whether the disk refused what came last."""
        return self._refused_since > 0

    def append(self, batches: Sequence[pa.RecordBatch]) -> bool:
        """Make batches durable by one sync; False where the disk refused and they are lost."""
        with self._turn:
            return self._append(batches)

    def close(self) -> None:
        """Close the segment; appending opens it again."""
        with self._turn:
            self._close()

    def _append(self, batches: Sequence[pa.RecordBatch]) -> bool:
        filled = [batch for batch in batches if batch.num_rows]
        if not filled:
            return True
        try:
            for batch in filled:
                self._segment_of(batch).write(batch)
            assert self._open is not None
            start = time.perf_counter()
            self.bytes += self._open.sync()
            self._on_sync(time.perf_counter() - start)
        except OSError as error:
            self._refused(len(filled), error)
            return False
        self.frames += len(filled)
        if self._refused_since:
            log.warning("the tape %s goes on; %d batches are not on it", self.folder, self._refused_since)
            self._refused_since = 0
        return True

    def _close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def _segment_of(self, batch: pa.RecordBatch) -> "_Writer":
        times = batch.column(batch.schema.get_field_index("quote_time")).view(pa.int64()).to_numpy()
        middle = len(times) // 2
        newest = np.array([np.partition(times, middle)[middle], _received(batch)])
        day = local_day(newest).min()
        if self._open is not None and day <= self._open.day:
            return self._open
        if self._open is not None:
            self.bytes += self._open.sync()
            self._close()
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True)
            sync_folder(self.folder.parent)
        self._open = _Writer(self.folder / f"{day}.tape", day, self.origin, batch.schema)
        for old in list(segments(self.folder).values())[: -self.keep]:
            old.unlink(missing_ok=True)
        return self._open

    def _refused(self, n: int, error: OSError) -> None:
        self.lost += n
        self._refused_since += n
        if self._open is not None:
            with suppress(OSError):
                self._open.forget(n)
        if time.monotonic() - self._said >= _SAID_EVERY_S:
            self._said = time.monotonic()
            log.error(
                "the tape %s cannot be written (%s): the service goes on without it, and a crash would lose what came"
                " since the last bar. Free some space, or set feed.tape to false; batches not on it so far: %d",
                self.folder,
                error,
                self.lost,
            )


class _Writer:
    """A segment that is written; what is written and not synced can be forgotten."""

    def __init__(self, path: Path, day: np.datetime64, origin: str, schema: pa.Schema) -> None:
        self.day = day
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            known = Segment(path)
            for _ in known.frames():
                pass
            if known.offset < os.fstat(self._handle).st_size:
                log.warning("%s ends in what is no whole frame; it is cut off at byte %d", path, known.offset)
                os.ftruncate(self._handle, known.offset)
            self._at, self._seq, self._n_symbols = known.offset, known.next_seq, len(known.symbols)
            self._durable = self._at, self._seq, self._n_symbols
            self._places = {name: place for place, name in enumerate(known.symbols) if name is not None}
            self._seen: tuple[pa.Array, Places] | None = None
            self._schema = schema.remove_metadata()
            self._sink = io.BytesIO()
            # A stream's writer compresses; its messages are taken one by one, the schema's with the first.
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            plain = on_tape(self._schema)
            self._messages = pa.ipc.new_stream(self._sink, plain, options=options)
            self._messages.write_batch(pa.RecordBatch.from_pylist([], plain))
            self._take()
            if known.schema is None or not known.schema.equals(self._schema, check_metadata=True):
                about = json.dumps({"format": FORMAT, "origin": origin, "day": str(day)}).encode()
                self._write_frame(b"H", 0, about + b"\n" + self._schema.serialize().to_pybytes())
                self.sync()
                sync_folder(path.parent)
        except BaseException:
            os.close(self._handle)
            raise

    def write(self, batch: pa.RecordBatch) -> None:
        """Write a batch of the segment's schema; it is not durable yet."""
        codes = self._codes(batch.column(0))
        columns = [column(codes, pa.int32()), *batch.columns[1:]]
        self._messages.write_batch(pa.RecordBatch.from_arrays(columns, schema=on_tape(self._schema)))
        about = {key.decode(): value.decode() for key, value in (batch.schema.metadata or {}).items()}
        text = json.dumps(about).encode()
        text += b" " * (-(len(text) + 4) % 8)
        self._write_frame(b"T", _received(batch), struct.pack("<I", len(text)) + text + self._take())

    def sync(self) -> int:
        """Make durable what was written; how many bytes that was."""
        os.fdatasync(self._handle)
        n_bytes = self._at - self._durable[0]
        self._durable = self._at, self._seq, self._n_symbols
        return n_bytes

    def forget(self, n: int) -> None:
        """Cut off what is not durable; the sequence numbers will tell that `n` frames are missing."""
        self._take()
        self._at, seq, self._n_symbols = self._durable
        self._seq = seq + n
        self._durable = self._at, self._seq, self._n_symbols
        self._places = {name: place for name, place in self._places.items() if place < self._n_symbols}
        self._seen = None
        os.ftruncate(self._handle, self._at)

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)

    def _codes(self, symbol: pa.Array) -> Places:
        """The places of the rows' symbols in the segment's list; those that are new are written first."""
        if not pa.types.is_dictionary(symbol.type):
            symbol = symbol.cast(SYMBOL)
        if self._seen is None or not self._seen[0].equals(symbol.dictionary):
            names = symbol.dictionary.to_pylist()
            fresh = [name for name in dict.fromkeys(names) if name not in self._places]
            if fresh:
                said = {"place": self._n_symbols, "symbols": fresh}
                self._write_frame(b"S", 0, json.dumps(said).encode())
                self._places.update(zip(fresh, range(self._n_symbols, self._n_symbols + len(fresh)), strict=True))
                self._n_symbols += len(fresh)
            self._seen = symbol.dictionary, np.array([self._places[name] for name in names], dtype=np.int32)
        codes: Places = self._seen[1][symbol.indices.to_numpy()]
        return codes

    def _take(self) -> bytes:
        """What the stream's writer has written since it was last asked."""
        written = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return written

    def _write_frame(self, kind: bytes, received_ns: int, payload: bytes) -> None:
        frame = to_frame(kind, self._seq, received_ns, payload)
        written = os.pwrite(self._handle, frame, self._at)
        if written < len(frame):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._at += len(frame)
        self._seq += 1


async def taped(frames: AsyncGenerator[pa.RecordBatch], tape: Tape) -> AsyncGenerator[pa.RecordBatch]:
    """A feed's frames, each given on when it is durable; what comes in while one is synced is synced together."""
    waiting: asyncio.Queue[pa.RecordBatch | None] = asyncio.Queue(GROUP)

    async def read() -> None:
        try:
            async for batch in frames:
                await waiting.put(batch)
        finally:
            await frames.aclose()
            with suppress(asyncio.QueueFull):
                waiting.put_nowait(None)

    reader = asyncio.create_task(read(), name="tape")
    try:
        while not (reader.done() and waiting.empty()):
            group = [await waiting.get()]
            while not waiting.empty():
                group.append(waiting.get_nowait())
            batches = [batch for batch in group if batch is not None]
            tape.waiting = len(batches) + waiting.qsize()
            if batches:
                await asyncio.to_thread(tape.append, batches)
            tape.waiting = waiting.qsize()
            for batch in batches:
                yield batch
        await reader
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


def _received(batch: pa.RecordBatch) -> int:
    return int((batch.schema.metadata or {}).get(b"received_ns", b"0"))
