"""A segment of the tape: what it is made of, and how it is read.

    STORE/tape/2026-06-30.tape        one segment a session

A segment is a row of frames, each a header of 32 bytes and a payload, in little-endian:

    magic (3 bytes TAP, 1 byte kind), length (u32), seq (u64), received_ns (i64),
    CRC-32C of the payload (u32), CRC-32C of the 28 bytes before (u32)

    kind H, the first: JSON with format, origin (whose market) and day, a newline, and the Arrow schema of the ticks
    kind S: JSON with symbols, and the place of the first of them in the segment's list of symbols
    kind T: the length of the metadata (u32), the metadata as JSON, and one Arrow IPC message, a record batch in which
            symbols are places in that list

A frame whose checksum is wrong is left out, counted, and reading goes on with the next whole one; gaps in the sequence
numbers say what is missing.
"""

import json
import logging
import os
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa

from data.columns import symbol_column
from data.errors import StoreError

FORMAT = 1
_MAGIC = b"TAP"
_HEADER = struct.Struct("<4sIQqII")
_CHUNK = 1 << 20
_NAME = re.compile(r"^(\d{4}-\d{2}-\d{2})\.tape$")

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
        batch = pa.ipc.read_record_batch(pa.py_buffer(frame.payload)[4 + length :], on_tape(self.schema))
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


def to_frame(kind: bytes, seq: int, received_ns: int, payload: bytes) -> bytes:
    """A frame as it lies in a segment."""
    head = _HEADER.pack(_MAGIC + kind, len(payload), seq, received_ns, google_crc32c.value(payload), 0)[:-4]
    return head + struct.pack("<I", google_crc32c.value(head)) + payload


def on_tape(schema: pa.Schema) -> pa.Schema:
    """The schema of a segment's messages: a symbol is its place in the segment's list."""
    return schema.set(0, pa.field("symbol", pa.int32(), nullable=False))


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
