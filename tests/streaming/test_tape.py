"""The tape: what is on it comes back as it was, whatever happened to the file, the disk or the writer."""

import asyncio
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.calendar import day_ns
from data.errors import StoreError
from data.schema import TICK, TIME
from data.simulator import SimulatedMarket
from streaming.bars import MarketBars
from streaming.segment import Segment, segments
from streaming.tape import GROUP, Tape, taped

MARKET = SimulatedMarket(12, seed=1)
DAY = MARKET.sessions[0]


def stamped(batch: pa.RecordBatch, seq: int, received_ns: int | None = None) -> pa.RecordBatch:
    received = int(day_ns(DAY + 30)) + seq if received_ns is None else received_ns
    return batch.replace_schema_metadata({"provider": "sim", "seq": str(seq), "received_ns": str(received)})


def snapshots(n: int, market: SimulatedMarket = MARKET, day: Any = DAY) -> list[pa.RecordBatch]:
    found = market.snapshots(day)
    return [stamped(next(found), seq) for seq in range(1, n + 1)]


def record(folder: Path, batches: list[pa.RecordBatch], **options: Any) -> Path:
    tape = Tape(folder, **({"origin": "sim", "keep": 5} | options))
    for batch in batches:
        assert tape.append([batch])
    tape.close()
    return list(segments(folder).values())[-1]


def same(got: list[pa.RecordBatch], wanted: list[pa.RecordBatch]) -> bool:
    """Whether rows and metadata are equal, to the bit."""
    return len(got) == len(wanted) and all(
        a.schema.metadata == b.schema.metadata and a.schema.equals(TICK) and a.to_pylist() == b.to_pylist()
        for a, b in zip(got, wanted, strict=True)
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[pa.RecordBatch], Path]:
    batches = snapshots(8)
    return batches, record(tmp_path_factory.mktemp("tape"), batches)


def test_batches_come_back_with_their_metadata(recorded: tuple[list[pa.RecordBatch], Path]) -> None:
    batches, path = recorded
    segment = Segment(path)
    got = list(segment.batches())

    assert same(got, batches)
    assert all(batch.validate(full=True) is None for batch in got)
    assert (segment.missing, segment.damaged, segment.offset) == (0, 0, path.stat().st_size)
    assert segment.about == {"format": 1, "origin": "sim", "day": str(DAY)}
    assert path.name == f"{DAY}.tape"


def test_symbols_stand_on_the_tape_once(tmp_path: Path) -> None:
    path = record(tmp_path, snapshots(40))
    assert path.read_bytes().count(MARKET.symbols[0].encode()) == 1


def test_batches_of_different_symbols_and_new_ones_in_the_midst(tmp_path: Path) -> None:
    (whole,) = snapshots(1)
    parts = [
        pa.RecordBatch.from_arrays(
            [
                whole.column(0).take(rows).dictionary_decode().dictionary_encode(),
                *(c.take(rows) for c in whole.columns[1:]),
            ],
            schema=TICK.with_metadata({"provider": "sim", "seq": str(n), "received_ns": "1"}),
        )
        for n, rows in enumerate([pa.array([3, 1]), pa.array([1, 2, 7]), pa.array([3, 1]), pa.array([0, 7])])
    ]
    path = record(tmp_path, parts[:2])
    record(tmp_path, parts[2:])

    assert same(list(Segment(path).batches()), parts)


def test_a_writer_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    batches = snapshots(6)
    path = record(tmp_path, batches[:2])
    record(tmp_path, batches[2:])
    segment = Segment(path)

    assert same(list(segment.batches()), batches)
    assert segment.missing == 0


def test_a_tail_torn_at_any_byte_is_cut_off_and_written_over(tmp_path: Path) -> None:
    batches = [batch.slice(0, 2) for batch in snapshots(5)]
    path = record(tmp_path / "whole", batches[:4])
    ends = [frame.end for frame in Segment(path).frames()]
    whole = path.read_bytes()
    torn = tmp_path / "torn" / path.name
    torn.parent.mkdir()
    torn.write_bytes(whole)
    for size in range(ends[-1], ends[-3] - 1, -1):
        os.truncate(torn, size)
        kept = 2 + (size >= ends[-2]) + (size >= ends[-1])
        segment = Segment(torn)
        assert sum(frame.kind == b"T" for frame in segment.frames()) == kept, size
        assert (segment.missing, segment.damaged) == (0, 0)
    for size in (ends[-3] + 1, ends[-2] - 1, ends[-2], ends[-2] + 31, ends[-2] + 40, ends[-1] - 1):
        torn.write_bytes(whole[:size])
        record(torn.parent, batches[4:])
        assert same(list(Segment(torn).batches()), batches[: 2 + (size >= ends[-2])] + batches[4:]), size


def test_a_file_torn_in_its_first_frame_is_begun_anew(tmp_path: Path) -> None:
    batches = snapshots(2)
    path = record(tmp_path, batches)
    for size in (0, 1, 31, 32, 200):
        path.write_bytes(path.read_bytes()[:size])
        record(tmp_path, batches)
        assert same(list(Segment(path).batches()), batches)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_noticed_and_costs_one_frame(
    data: st.DataObject, recorded: tuple[list[pa.RecordBatch], Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    batches, path = recorded
    frames = list(Segment(path).frames())
    whole = bytearray(path.read_bytes())
    byte = data.draw(st.integers(frames[1].start, len(whole) - 1))
    whole[byte] ^= 1 << data.draw(st.integers(0, 7))
    flipped = tmp_path_factory.mktemp("flipped") / path.name
    flipped.write_bytes(whole)
    (hit,) = (frame for frame in frames if frame.start <= byte < frame.end)
    segment = Segment(flipped)
    got = list(segment.batches())

    if hit.kind == b"S":
        assert [batch.num_rows for batch in got] == [0] * len(batches)
    else:
        assert same(got, [b for b, f in zip(batches, frames[2:], strict=True) if f is not hit])
    if hit is not frames[-1]:
        assert (segment.damaged, segment.missing) == (1, 1)
    shutil.rmtree(flipped.parent)


def test_a_damaged_first_frame_is_an_error_that_names_the_file(
    recorded: tuple[list[pa.RecordBatch], Path], tmp_path: Path
) -> None:
    whole = bytearray(recorded[1].read_bytes())
    whole[40] ^= 1
    path = tmp_path / "2024-01-02.tape"
    path.write_bytes(whole)
    with pytest.raises(StoreError, match=r"2024-01-02\.tape"):
        list(Segment(path).batches())


def test_a_damaged_frame_is_kept_when_whole_ones_follow(tmp_path: Path) -> None:
    batches = snapshots(6)
    path = record(tmp_path, batches[:5])
    frames = list(Segment(path).frames())
    whole = bytearray(path.read_bytes())
    whole[frames[4].start + 50] ^= 8
    path.write_bytes(whole)
    record(tmp_path, batches[5:])

    assert same(list(Segment(path).batches()), [*batches[:2], *batches[3:]])


def test_two_readers_follow_a_writer(tmp_path: Path) -> None:
    batches = snapshots(30)
    tape = Tape(tmp_path, origin="sim", keep=5)
    tape.append(batches[:1])
    (path,) = segments(tmp_path).values()
    eager, lazy = Segment(path), Segment(path)
    seen = list(eager.batches())
    for batch in batches[1:]:
        tape.append([batch])
        seen += eager.batches()
    tape.close()

    assert same(seen, batches)
    assert same(list(lazy.batches()), batches)
    assert list(lazy.batches()) == []


def test_reading_starts_at_a_time_or_ends_at_an_offset(recorded: tuple[list[pa.RecordBatch], Path]) -> None:
    batches, path = recorded
    since = int(batches[5].schema.metadata[b"received_ns"])
    ends = [frame.end for frame in Segment(path).frames()]

    assert same(list(Segment(path).batches(since_ns=since)), batches[5:])
    segment = Segment(path)
    assert same(list(segment.batches(upto=ends[4])), batches[:3])
    assert segment.offset == ends[4]
    assert same(list(segment.batches()), batches[3:])


def test_a_segment_a_session_and_the_newest_are_kept(tmp_path: Path) -> None:
    days = MARKET.sessions[:4]
    batches = [snapshots(2, day=day)[1] for day in days]
    record(tmp_path, batches, keep=2)

    assert list(segments(tmp_path)) == days[2:]
    assert same(list(Segment(tmp_path / f"{days[3]}.tape").batches()), batches[3:])


def test_one_bad_stamp_opens_no_segment(tmp_path: Path) -> None:
    batches = snapshots(3)
    odd = batches[2].set_column(1, TICK.field("quote_time"), pa.array([2**62] * 12).cast(TIME))
    times = batches[1].column(1).cast("int64").to_numpy().copy()
    times[0] = 2**62
    mixed = batches[1].set_column(1, TICK.field("quote_time"), pa.array(times).cast(TIME))
    record(tmp_path, [batches[0], mixed])
    assert list(segments(tmp_path)) == [DAY]
    # A whole batch of them is of the day on which it came.
    record(tmp_path, [odd])
    assert list(segments(tmp_path)) == [DAY, DAY + 30]


def test_a_full_disk_is_said_and_counted_and_the_tape_goes_on_when_there_is_space(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    batches = snapshots(9)
    tape = Tape(tmp_path, origin="sim", keep=5)
    kept = [tape.append([batch]) for batch in batches[:3]]
    (path,) = segments(tmp_path).values()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 700, before[1]))
    try:
        kept += [tape.append([batch]) for batch in batches[3:7]]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    kept += [tape.append([batch]) for batch in batches[7:]]
    segment = Segment(path)

    assert kept == [True] * 3 + [False] * 4 + [True] * 2
    assert (tape.lost, tape.frames) == (4, 5)
    refused, goes_on = (record.getMessage() for record in caplog.records)
    assert "cannot be written" in refused
    assert "goes on; 4 batches are not on it" in goes_on
    assert same(list(segment.batches()), batches[:3] + batches[7:])
    assert (segment.missing, segment.damaged) == (4, 0)


def test_symbols_that_were_lost_with_a_batch_are_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = snapshots(2)
    tape = Tape(tmp_path, origin="sim", keep=5)
    tape.append([first.slice(0, 0), first.slice(0, 1)])
    other = SimulatedMarket(12, seed=2)
    new = snapshots(1, other)[0]
    sync = os.fdatasync

    def refuse(handle: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", refuse)
    assert not tape.append([new])
    monkeypatch.setattr(os, "fdatasync", sync)
    assert tape.append([new, second])
    (path,) = segments(tmp_path).values()

    assert same(list(Segment(path).batches()), [first.slice(0, 1), new, second])


def test_replaying_twice_gives_the_same_bars(tmp_path: Path) -> None:
    batches = snapshots(90)
    path = record(tmp_path, batches)

    def bars(*rounds: list[pa.RecordBatch]) -> list[Any]:
        builder = MarketBars(MARKET.symbols, ["1m"])
        closed = [bar for batch_list in rounds for batch in batch_list for bar in builder.add(batch)]
        return [bar.replace_schema_metadata({}).to_pylist() for bar in closed]

    tape = list(Segment(path).batches())
    assert bars(tape) == bars(batches) == bars(tape, tape) != []


async def frames_of(batches: list[pa.RecordBatch], left: list[str]) -> AsyncGenerator[pa.RecordBatch]:
    try:
        for batch in batches:
            yield batch
    finally:
        left.append("closed")


def test_frames_are_on_the_tape_before_they_are_given_on(tmp_path: Path) -> None:
    batches, left = snapshots(50), list[str]()
    tape = Tape(tmp_path, origin="sim", keep=5)
    syncs: list[int] = []
    append = tape.append
    tape.append = lambda group: bool(syncs.append(len(group))) or append(group)  # type: ignore[method-assign]

    async def run() -> None:
        n = 0
        async for batch in taped(frames_of(batches, left), tape):
            n += 1
            assert batch is batches[n - 1]
            assert n <= tape.frames <= n + GROUP
        assert n == 50
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())
    (path,) = segments(tmp_path).values()
    assert same(list(Segment(path).batches()), batches)
    assert sum(syncs) == 50 > len(syncs)
    assert left == ["closed"]


def test_a_feed_that_fails_or_is_left_early_leaves_nothing_running(tmp_path: Path) -> None:
    tape = Tape(tmp_path, origin="sim", keep=5)
    left, wanted = list[str](), snapshots(2)

    async def failing() -> AsyncGenerator[pa.RecordBatch]:
        for batch in wanted:
            yield batch
        raise ConnectionError("gone")

    async def run() -> None:
        broken = taped(failing(), tape)
        for batch in wanted:
            assert await anext(broken) is batch
        with pytest.raises(ConnectionError, match="gone"):
            await anext(broken)
        frames = taped(frames_of(snapshots(100), left), tape)
        await anext(frames)
        await frames.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())
    assert left == ["closed"]


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_tape import snapshots
from streaming.tape import Tape
tape = Tape(Path(sys.argv[1]), origin="sim", keep=5)
for n, batch in enumerate(snapshots(400), 1):
    tape.append([batch])
    print(n, flush=True)
"""


def test_what_was_said_to_be_on_the_tape_survives_a_kill(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([".", *sys.path])},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 60:
                break
        process.send_signal(signal.SIGKILL)
        said = 60 + process.stdout.read().count("\n")
    (path,) = segments(tmp_path).values()
    got = list(Segment(path).batches())

    assert len(got) >= said - 1
    assert same(got, snapshots(len(got)))
