"""The tape: every batch of ticks, durable before it is folded, so that a killed service can fold it again.

    STORE/tape/2026-06-30.tape        one segment a session

A segment is a row of frames, each a header of 32 bytes and a payload, in little-endian:

    magic (3 bytes TAP, 1 byte kind), length (u32), seq (u64), received_ns (i64),
    CRC-32C of the payload (u32), CRC-32C of the 28 bytes before (u32)

    kind H, the first: JSON with format, origin (whose market) and day, a newline, and the Arrow schema of the ticks
    kind S: JSON with symbols, and the place of the first of them in the segment's list of symbols
    kind T: the length of the metadata (u32), the metadata as JSON, and one Arrow IPC message, a record batch in which
            symbols are places in that list

Whatever a crash leaves behind the last whole frame is cut off when the segment is opened for writing. A frame whose
checksum is wrong is left out, counted, and reading goes on with the next whole one; gaps in the sequence numbers say
what is missing.
"""

import asyncio
import errno
import io
import json
import logging
import os
import re
import struct
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from data.calendar import local_day
from data.columns import column, symbol_column
from data.errors import StoreError
from data.files import sync_folder
from data.schema import SYMBOL

FORMAT = 1
GROUP = 32
"""Batches that are made durable by one sync, at most."""
_MAGIC = b"TAP"
_HEADER = struct.Struct("<4sIQqII")
_SAID_EVERY_S = 60.0
_CHUNK = 1 << 20
_NAME = re.compile(r"^(\d{4}-\d{2}-\d{2})\.tape$")
Places = npt.NDArray[np.int32]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Frame:
    """One frame as it lies in a segment; `end`: where the next one begins."""

    kind: bytes
    seq: int
    received_ns: int
    payload: bytes
    start: int
    end: int


def segments(folder: Path) -> dict[np.datetime64, Path]:
    """Session -> segment, oldest first."""
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {np.datetime64(match[1], "D"): folder / name for name in names if (match := _NAME.match(name))}


class Segment:
    """A reader's place in one segment; safe while a writer appends.

    `missing`: frames that the sequence numbers say were there, or were never kept because the disk refused.
    `damaged`: places at which something else than a whole frame stands, and whole ones follow. Raises StoreError where
    the file is no segment of this format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.about: Mapping[str, Any] = {}
        self.symbols: list[str | None] = []
        self.offset = 0
        self.next_seq = 0
        self.missing = 0
        self.damaged = 0
        self.schema: pa.Schema | None = None
        self._dictionary = pa.array([], pa.string())
        self._known = np.zeros(1, dtype=bool)

    def frames(self, upto: int | None = None) -> Iterator[Frame]:
        """The whole frames from `offset` on that are there now (those that end up to `upto`), and `offset` behind each.

        Asked again, it goes on with what was appended since. Ticks are not decoded; what else a frame says is kept.
        """
        with self.path.open("rb", buffering=0) as file:
            handle = file.fileno()
            while True:
                frame = _frame_at(handle, self.offset) or self._resume(handle)
                if frame is None or (upto is not None and frame.end > upto):
                    return
                self.missing += max(frame.seq - self.next_seq, 0)
                self.next_seq = frame.seq + 1
                self._note(frame)
                self.offset = frame.end
                yield frame

    def batches(self, *, since_ns: int | None = None, upto: int | None = None) -> Iterator[pa.RecordBatch]:
        """The batches of ticks that are there now, with the metadata that they were received with.

        `since_ns`: only those received at this time (UTC ns) or later. `upto`: only those that lie before this offset.
        """
        for frame in self.frames(upto):
            if frame.kind == b"T" and (since_ns is None or frame.received_ns >= since_ns):
                yield self.decode(frame)

    def decode(self, frame: Frame) -> pa.RecordBatch:
        """The ticks of a frame of kind T. Rows of symbols whose list was damaged are left out."""
        if self.schema is None:
            raise StoreError(f"{self.path}: its first frame, which says what it holds, is damaged")
        (length,) = struct.unpack_from("<I", frame.payload)
        about = json.loads(frame.payload[4 : 4 + length])
        batch = pa.ipc.read_record_batch(pa.py_buffer(frame.payload)[4 + length :], _on_tape(self.schema))
        codes = batch.column(0).to_numpy()
        if len(self._dictionary) != len(self.symbols):
            self._dictionary = pa.array([name or "" for name in self.symbols], pa.string())
            self._known = np.array([*(name is not None for name in self.symbols), False])
        known = self._known[np.minimum(codes, len(self.symbols))]
        if not known.all():
            batch = batch.filter(pa.array(known))
            codes = batch.column(0).to_numpy()
        columns = [symbol_column(codes, self._dictionary), *batch.columns[1:]]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema.with_metadata(about))

    def _resume(self, handle: int) -> Frame | None:
        """The first whole frame behind something that is none; None where nothing whole follows."""
        at = self.offset + 1
        while chunk := os.pread(handle, _CHUNK + len(_MAGIC) - 1, at):
            place = chunk.find(_MAGIC)
            while place >= 0:
                frame = _frame_at(handle, at + place)
                if frame is not None:
                    self.damaged += 1
                    log.error("%s is damaged from byte %d to %d", self.path, self.offset, frame.start)
                    return frame
                place = chunk.find(_MAGIC, place + 1)
            at += _CHUNK
        return None

    def _note(self, frame: Frame) -> None:
        if frame.kind == b"H":
            line, _, schema = frame.payload.partition(b"\n")
            self.about = json.loads(line)
            if self.about.get("format") != FORMAT:
                raise StoreError(
                    f"{self.path} says format {self.about.get('format')!r}; this version reads format {FORMAT}"
                )
            self.schema = pa.ipc.read_schema(pa.py_buffer(schema))
        elif frame.kind == b"S":
            said = json.loads(frame.payload)
            self.symbols += [None] * (said["place"] - len(self.symbols))
            self.symbols[said["place"] :] = said["symbols"]


class Tape:
    """Appends ticks to the segments in `folder`. One writer at a time: the caller sees to that.

    A segment is a session's: that of the batch's middle quote, but none after the day of its receipt, and none before
    that of the batch before. `keep`: how many segments stay. `origin`: whose market it is. Where the disk refuses,
    batches are `lost`, the log says so, and each later batch tries anew. `synced_s`: seconds that the last sync took.
    """

    def __init__(self, folder: Path, *, origin: str, keep: int) -> None:
        self.folder, self.origin, self.keep = folder, origin, keep
        self.frames = 0
        self.bytes = 0
        self.lost = 0
        self.synced_s = 0.0
        self._open: _Writer | None = None
        self._refused_since = 0
        self._turn = threading.Lock()
        self._said = -_SAID_EVERY_S

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
            self.synced_s = time.perf_counter() - start
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
            plain = _on_tape(self._schema)
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
        self._messages.write_batch(pa.RecordBatch.from_arrays(columns, schema=_on_tape(self._schema)))
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
        head = _HEADER.pack(_MAGIC + kind, len(payload), self._seq, received_ns, google_crc32c.value(payload), 0)[:-4]
        frame = head + struct.pack("<I", google_crc32c.value(head)) + payload
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
            if batches:
                await asyncio.to_thread(tape.append, batches)
            for batch in batches:
                yield batch
        await reader
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


def _frame_at(handle: int, at: int) -> Frame | None:
    """The whole frame that begins at a byte; None where there is none."""
    head = os.pread(handle, _HEADER.size, at)
    if len(head) < _HEADER.size or not head.startswith(_MAGIC):
        return None
    magic, length, seq, received_ns, crc, head_crc = _HEADER.unpack(head)
    if google_crc32c.value(head[:-4]) != head_crc:
        return None
    payload = os.pread(handle, length, at + _HEADER.size)
    if len(payload) < length or google_crc32c.value(payload) != crc:
        return None
    return Frame(magic[len(_MAGIC) :], seq, received_ns, payload, at, at + _HEADER.size + length)


def _on_tape(schema: pa.Schema) -> pa.Schema:
    """The schema of a segment's messages: a symbol is its place in the segment's list."""
    return schema.set(0, pa.field("symbol", pa.int32(), nullable=False))


def _received(batch: pa.RecordBatch) -> int:
    return int((batch.schema.metadata or {}).get(b"received_ns", b"0"))
