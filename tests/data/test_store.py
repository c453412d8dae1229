"""BarStore: what was appended is there whole, once, and known since when; whatever stops or damages it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import FrameError, StoreError, StoreOriginError
from data.files import TEMPORARY
from data.schema import BAR, NAME, TIME
from data.store import STORED, BarStore

DAY_NS = 86400 * 10**9
START = int(np.datetime64("2025-01-30T07:00", "ns").astype(np.int64))


def day(n: int) -> int:
    """The bar end of the n-th day; 0 and 1 are in January, 2 to 29 in February."""
    return START + n * DAY_NS


def bars(*rows: tuple[str, int, float], revision: int = 0) -> pa.Table:
    """Bars of (symbol, n of day, close)."""
    symbols, days, closes = zip(*rows, strict=True)
    ends = np.array([day(n) for n in days])
    close = np.array(closes)
    return pa.table(
        {
            "symbol": pa.array(symbols).dictionary_encode(),
            "bar_start": pa.array(ends - 330 * 60 * 10**9).cast(TIME),
            "bar_end": pa.array(ends).cast(TIME),
            **dict.fromkeys(("open", "high", "low", "close"), close),
            "volume": np.full(len(rows), 100.0),
            "amount": close * 100,
            "prev_close": pa.nulls(len(rows), pa.float64()),
            "flags": np.zeros(len(rows), dtype=np.uint8),
            "revision": np.full(len(rows), revision, dtype=np.int32),
        },
        schema=BAR,
    )


def contents(store: BarStore, **bounds: object) -> list[tuple[str, int, float, int]]:
    """(symbol, n of day, close, revision) of every row, sorted."""
    table = store.table("1d", **bounds)  # type: ignore[arg-type]
    days = (table["bar_end"].cast(pa.int64()).to_numpy() - START) // DAY_NS
    columns = (table["symbol"].to_pylist(), days.tolist(), table["close"].to_pylist(), table["revision"].to_pylist())
    return sorted(zip(*columns, strict=True))


@pytest.fixture
def store(tmp_path: Path) -> BarStore:
    return BarStore(tmp_path / "store", origin="market")


def test_what_is_appended_is_read_back_with_its_schema(store: BarStore) -> None:
    given = bars(("600519.SH", 1, 2.0), ("000001.SZ", 1, 1.0), ("000001.SZ", 0, 0.5))
    path = store.append(given, "1d")
    assert path is not None
    assert path.name.startswith("20250130T070000-20250131T070000-")
    assert contents(store) == [("000001.SZ", 0, 0.5, 0), ("000001.SZ", 1, 1.0, 0), ("600519.SH", 1, 2.0, 0)]
    table = store.table("1d")
    assert table.select(BAR.names).schema.equals(BAR)
    assert store.frames() == ["1d"]
    assert store.symbols("1d") == ["000001.SZ", "600519.SH"]
    assert store.bar_ends("1d") == [day(0), day(1)]
    assert BarStore(store.root).origin == "market"


def test_appending_again_in_any_order_leaves_one_file(store: BarStore) -> None:
    first = store.append(bars(("600519.SH", 0, 1.0), ("000001.SZ", 0, 2.0)), "1d")
    again = store.append(bars(("000001.SZ", 0, 2.0), ("600519.SH", 0, 1.0)), "1d")
    assert first == again
    assert len(store.files("1d")) == 1
    assert store.append(bars(("000001.SZ", 0, 2.0), ("600519.SH", 0, 1.5)), "1d") != first
    assert store.append(BAR.empty_table(), "1d") is None


def test_bounds_leave_out_what_lies_outside(store: BarStore) -> None:
    for n in range(4):
        store.append(bars(("600519.SH", n, float(n)), ("000001.SZ", n, float(n))), "1d")
    closes = [row[2] for row in contents(store, after=day(0), upto=day(2), symbols=["600519.SH", "none"])]
    assert closes == [1.0, 2.0]
    assert contents(store, after=day(3)) == []
    assert store.table("1d", upto=day(0), columns=["close"]).column_names == ["close"]
    assert store.table("5m").num_rows == 0


def test_the_newest_bar_end_also_below_a_bound_within_a_file(store: BarStore) -> None:
    assert store.last_bar_end("1d") is None
    store.append(bars(*(("600519.SH", n, 1.0) for n in (0, 1, 5))), "1d")
    assert store.last_bar_end("1d") == day(5)
    assert store.last_bar_end("1d", upto=day(4)) == day(1)
    assert store.last_bar_end("1d", upto=day(0) - 1) is None


@pytest.mark.parametrize("compacted", [False, True])
def test_the_newest_bar_ends_are_found_without_opening_what_is_older(store: BarStore, compacted: bool) -> None:
    for n in range(6):  # two days of January 2025, four of February
        store.append(bars(("600519.SH", n, 1.0)), "1d")
    if compacted:
        store.compact("1d")
    days = [day(n) for n in range(6)]
    assert store.bar_ends("1d") == days
    for upto in range(-1, 7):
        for newest in range(1, 8):
            known = [end for end in days if end <= day(upto)][-newest:]
            assert store.bar_ends("1d", upto=day(upto), newest=newest) == known
    min(file.path for file in store.files("1d")).write_bytes(b"damaged")
    assert store.bar_ends("1d", newest=2) == days[-2:]
    assert store.last_bar_end("1d") == days[-1]


def test_the_highest_revision_wins_and_the_past_stays_known(store: BarStore) -> None:
    store.append(bars(("600519.SH", 0, 1.0), ("000001.SZ", 0, 7.0)), "1d")
    between = time.time_ns()
    store.append(bars(("600519.SH", 0, 1.5), revision=1), "1d")
    assert store.panel("1d")["close"].tolist() == [[7.0, 1.5]]
    assert store.panel("1d", known_by=between)["close"].tolist() == [[7.0, 1.0]]
    assert len(contents(store)) == 3
    assert store.compact("1d") == 2
    assert store.panel("1d")["close"].tolist() == [[7.0, 1.5]]
    assert store.panel("1d", known_by=between)["close"].tolist() == [[7.0, 1.0]]


def test_adjusted_series_and_frames_lie_apart(store: BarStore) -> None:
    store.append(bars(("600519.SH", 0, 1.0)), "1d")
    store.append(bars(("600519.SH", 0, 0.5)), "1d", adjusted="qfq")
    assert [row[2] for row in contents(store)] == [1.0]
    assert [row[2] for row in contents(store, adjusted="qfq")] == [0.5]
    for wrong in ({"frame": "2d"}, {"frame": "1d", "adjusted": "xfq"}):
        with pytest.raises(FrameError, match="must be one of"):
            store.files(**wrong)


def test_compaction_of_days_makes_a_file_a_month_and_changes_nothing(store: BarStore) -> None:
    for n in range(6):
        store.append(bars(("600519.SH", n, float(n)), ("000001.SZ", n, -float(n))), "1d")
    before = contents(store)
    assert store.compact("1d") == 6
    assert [file.compacted for file in store.files("1d")] == [True, True]
    assert contents(store) == before
    assert store.compact("1d") == 0
    # What a compacted file holds already changes nothing when it is appended again; what is new joins it.
    store.append(bars(("600519.SH", 3, 3.0), ("000001.SZ", 3, -3.0)), "1d")
    assert contents(store) == before
    store.append(bars(("600519.SH", 6, 6.0)), "1d")
    store.compact("1d")
    assert contents(store) == sorted([*before, ("600519.SH", 6, 6.0, 0)])
    assert len(store.files("1d")) == 2


def test_files_that_a_compacted_one_replaces_are_ignored_where_a_crash_left_both(
    store: BarStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(2, 5):
        store.append(bars(("600519.SH", n, float(n))), "1d")
    before = contents(store)

    def crash(path: Path, missing_ok: bool = False) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", crash)
        with pytest.raises(KeyboardInterrupt):
            store.compact("1d")
    folder = store.root / "bars" / "1d"
    assert len(list(folder.iterdir())) == 4
    assert contents(store) == before
    assert store.compact("1d") == 3
    assert len(list(folder.iterdir())) == 1
    assert contents(store) == before


@pytest.mark.parametrize("damage", ["cut", "emptied", *range(len(STORED))])
def test_a_damaged_file_is_an_error_that_names_it(store: BarStore, damage: str | int) -> None:
    store.append(bars(("600519.SH", 0, 1.0)), "1d")
    path = store.append(bars(*((f"{n:06d}.SZ", 1, float(n)) for n in range(500))), "1d")
    assert path is not None
    data = bytearray(path.read_bytes())
    if isinstance(damage, int):
        # The last byte of a column's values: only the page's checksum tells that it is another.
        column = pq.read_metadata(path).row_group(0).column(damage)
        start = column.dictionary_page_offset or column.data_page_offset
        data[start + column.total_compressed_size - 1] ^= 1
    path.write_bytes({"cut": data[:-20], "emptied": b""}.get(str(damage), data))
    with pytest.raises(StoreError, match=path.name):
        store.table("1d")


def test_another_market_or_none_or_an_unknown_format_is_refused(store: BarStore, tmp_path: Path) -> None:
    with pytest.raises(StoreOriginError, match=r"holds the market 'market', not 'sim'.*--store"):
        BarStore(store.root, origin="sim")
    with pytest.raises(StoreOriginError, match=r"there is no store at .*mystocks-scan import"):
        BarStore(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    about = store.root / "store.json"
    about.write_text('{"format": 99, "origin": "market"}')
    with pytest.raises(StoreError, match="format 99"):
        BarStore(store.root)
    about.write_text("{")
    with pytest.raises(StoreError, match="not readable as JSON"):
        BarStore(store.root)


def test_what_killed_writers_left_is_never_read_and_is_swept(store: BarStore) -> None:
    path = store.append(bars(("600519.SH", 0, 1.0)), "1d")
    assert path is not None
    left = path.with_name(f".{path.name}.0badf00d{TEMPORARY}")
    left.write_bytes(path.read_bytes()[:100])
    os.utime(left, (0, 0))
    assert contents(store) == [("600519.SH", 0, 1.0, 0)]
    store.compact("1d")
    assert not left.exists()
    assert path.exists()


def test_names_are_the_newest_as_of_a_day(store: BarStore) -> None:
    def names(n: int, name: str) -> pa.Table:
        days = pa.array(np.array([day(n)]).astype("datetime64[ns]").astype("datetime64[D]"))
        return pa.table([pa.array(["600519.SH"]).dictionary_encode(), days, pa.array([name])], schema=NAME)

    store.append_names(names(3, "ST new"))
    store.append_names(names(0, "old"))
    store.append_names(names(0, "old"))
    assert len(list((store.root / "names").iterdir())) == 2
    assert store.names() == {"600519.SH": ("ST new", "2025-02-02")}
    assert store.names(upto=day(2)) == {"600519.SH": ("old", "2025-01-30")}
    assert store.append_names(NAME.empty_table()) is None
    store.append_names(names(4, "newer"))
    assert store.names(upto=day(3)) == {"600519.SH": ("ST new", "2025-02-02")}, "later ones are there already"
    assert store.names()["600519.SH"][0] == "newer"


def test_names_that_were_read_are_not_read_again(store: BarStore, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    whole = pq.read_table
    monkeypatch.setattr(pq, "read_table", lambda path: read.append(path.name) or whole(path))
    for n in range(4):
        days = pa.array(np.array([day(n)] * 2).astype("datetime64[ns]").astype("datetime64[D]"))
        symbols = pa.array([f"60000{n}.SH", "600519.SH"]).dictionary_encode()
        store.append_names(pa.table([symbols, days, pa.array(["a", f"name {n}"])], schema=NAME))
        assert store.names(upto=day(n)) == store.names() == BarStore(store.root).names()
        assert store.names()["600519.SH"][0] == f"name {n}"
        assert len(read) - len(set(read)) == (n + 1) * (n + 2) // 2, "by the stores that were opened"


_WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import importlib.util
spec = importlib.util.spec_from_file_location("helpers", sys.argv[3])
helpers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(helpers)
store = helpers.BarStore(sys.argv[1], origin="market")
print("ready", flush=True)
for n in range(100_000):
    store.append(helpers.bars(*((f"{code:06d}.SZ", n, float(code)) for code in range(200))), "1d")
    if n % 7 == 6:
        store.compact("1d")
"""


def test_a_writer_killed_at_any_moment_leaves_a_store_that_reads_whole(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    delays = (0.05, 0.21, 0.33)
    for round_, delay in enumerate(delays):
        folder = tmp_path / str(round_)
        command = [sys.executable, "-c", _WRITER, str(folder), str(root), __file__]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            time.sleep(delay)
            os.kill(writer.pid, signal.SIGKILL)
        store = BarStore(folder)
        rows = contents(store)
        days = sorted({row[1] for row in rows})
        # Every interval is there whole or not at all, none twice, and all those before the last.
        assert days == list(range(len(days)))
        assert len(rows) == len(set(rows)) == 200 * len(days)
        store.compact("1d")
        assert contents(store) == rows
