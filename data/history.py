"""SignalHistory: every published signal, in Parquet files below STORE/signals that are there whole or not at all.

An appended batch is a file, and `compact` makes one of those of a day; what their names say is in `data.signal_files`.
A new epoch writes in its first file how far the one before it had come, so that who resumes notices a file that went
missing.
"""

import fcntl
import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data.files import stamp, sweep, sync_folder, write_parquet
from data.schema import SIGNAL
from data.signal import Signal, to_table
from data.signal_files import EPOCH, SignalFile, about, saying, stamps
from data.signal_query import SignalReader, bar_end, sorted_by

_NOWHERE = ("00000000T0000000000000000", 0)
"""A place before all."""


class SignalHistory(SignalReader):
    """The signals of one store. Readers need no lock; writers of several processes take turns by one.

    `epoch` names this opening of the history; epochs sort as text in the order in which they were opened. Opening makes
    no file. `clock` gives UTC ns. Errors: StoreError naming the file that is damaged or of another shape; OSError where
    the disk refuses.
    """

    def __init__(self, root: Path | str, *, clock: Callable[[], int] = time.time_ns) -> None:
        super().__init__(root)
        self._clock = clock
        self._seq = 0
        self.epoch = _epoch_after(self.place()[0], clock())

    def place(self) -> tuple[str, int]:
        """(epoch, sequence number) of the newest signal; where there is none, a place before all."""
        return self._reading(self._place)

    def append(self, signals: Sequence[Signal]) -> list[Signal]:
        """Keep the signals whose id is not yet in the history, and return them as stored: with epoch, sequence number
        and `published_ns`. They are durable when it returns; nothing of them is kept when it raises."""
        if not signals:
            return []
        if not self.root.is_dir():
            self.root.mkdir(parents=True, exist_ok=True)
            sync_folder(self.root.parent)
        with self._lock():
            if self._seq == 0:
                sweep(self.root)
            ends = [signal.bar_end for signal in signals]
            # Nobody compacts meanwhile; and what a crash left beside its compacted file has the same ids.
            known = self._ids(self._folder.listed(), min(ends), max(ends))
            fresh: dict[str, Signal] = {}
            for signal in signals:
                if (key := signal.id) not in known:
                    fresh.setdefault(key, signal)
            if not fresh:
                return []
            now = self._clock()
            stored = [signal.numbered(self.epoch, seq, now) for seq, signal in enumerate(fresh.values(), self._seq + 1)]
            last = stored[-1].seq
            before = self._place(self.epoch) if self._seq == 0 else _NOWHERE
            said = {"previous": {self.epoch: before} if before != _NOWHERE else {}}
            ends = [signal.bar_end for signal in stored]
            path = self.root / f"{stamps(min(ends), max(ends))}-{self.epoch}-{self._seq + 1}-{last}.parquet"
            try:
                write_parquet(path, saying(to_table(stored), said))
            except BaseException:
                path.unlink(missing_ok=True)  # it may stand there unsynced: a retry must not take it for kept
                raise
            self._seq = last
        return stored

    def since(self, epoch: str, seq: int, limit: int | None = None) -> pa.Table | None:
        """What was published after (`epoch`, `seq`), in order: all, or the first `limit`.

        None where the history cannot vouch for it: it does not know that place, or has lost a file.
        """
        return self._reading(lambda: self._since(epoch, seq, limit))

    def last_bar_ends(self, before: int, *, after: int | None = None) -> dict[tuple[str, str, str, str], int]:
        """(strategy, symbol, action, frame) -> the newest bar end (UTC ns) before `before` at which it fired,
        on a closed bar, and was not revoked.

        For cooldowns after a restart. Opens the files between the bounds alone: without `after` (excluded) its cost
        grows with the history.
        """
        keys = ["strategy", "symbol", "action", "frame"]

        def read() -> pa.Table | None:
            files = [f for f in self._folder.files() if f.first < before and (after is None or f.last > after)]
            if not files:
                return None
            table = pa.concat_tables([self._read(f.path, [*keys, "bar_end", "developing", "revokes"]) for f in files])
            condition = (pc.field("bar_end") < bar_end(before)) & ~pc.field("developing")
            if len(revoked := table["revokes"].drop_null().unique()):
                ids = pa.concat_tables([self._read(f.path, ["id"]) for f in files])["id"]
                taken_back = pc.or_(pc.is_in(ids, revoked), pc.is_valid(table["revokes"]))
                table = table.filter(pc.invert(taken_back))
            if after is not None:
                condition &= pc.field("bar_end") > bar_end(after)
            return table.filter(condition).group_by(keys).aggregate([("bar_end", "max")])

        table = self._reading(read)
        if table is None:
            return {}
        columns = [table[key].to_pylist() for key in keys]
        ends = table["bar_end_max"].cast(pa.int64()).to_pylist()
        return dict(zip(zip(*columns, strict=True), ends, strict=True))

    def compact(self) -> int:
        """Turn the batches of each (UTC) day into one file; returns how many files went. Others may read and write."""
        if not self.root.is_dir():
            return 0
        with self._lock():
            sweep(self.root)
            kept = self._folder.files()
            counted = {file.path for file in kept}
            gone = [file.path for file in self._folder.listed() if file.path not in counted]
            days: dict[str, list[SignalFile]] = {}
            for file in kept:
                first, last = (stamp(end)[:8] for end in (file.first, file.last))
                if first == last:
                    days.setdefault(first, []).append(file)
            for group in days.values():
                if len(group) < 2:
                    continue
                replaces, previous = set[str](), dict[str, Any]()
                for file in group:
                    said = about(file.path)
                    replaces |= {file.path.name, *said.get("replaces", [])}
                    previous |= said.get("previous", {})
                names = sorted(replaces)
                table = sorted_by(pa.concat_tables([self._read(f.path) for f in group]), "ascending", "epoch", "seq")
                span = stamps(min(f.first for f in group), max(f.last for f in group))
                digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]
                path = self.root / f"{span}-c{digest}.parquet"
                write_parquet(path, saying(table, {"replaces": names, "previous": previous}))
                gone += [file.path for file in group]
            for path in gone:
                path.unlink(missing_ok=True)
            sync_folder(self.root)
        return len(gone)

    def _place(self, before: str = "~") -> tuple[str, int]:
        """(epoch, sequence number) of the newest signal of the epochs before one."""
        batches = (batch for file in self._folder.files() for batch in self._folder.batches(file))
        return max(((b.epoch, b.last) for b in batches if b.epoch < before), default=_NOWHERE)

    def _since(self, epoch: str, seq: int, limit: int | None) -> pa.Table | None:
        held = [(file, self._folder.batches(file)) for file in self._folder.files()]
        batches = sorted(batch for _, inside in held for batch in inside)
        # An epoch that never appended left no file: its place 0 is known by its order alone.
        if not re.fullmatch(EPOCH, epoch) or seq < 0:
            return None
        if seq > 0 and not any(b.epoch == epoch and b.first <= seq <= b.last for b in batches):
            return None
        later = [batch for batch in batches if (batch.epoch, batch.last) > (epoch, seq)]
        reached = {epoch: seq}
        for batch in later:
            if batch.first > reached.get(batch.epoch, 0) + 1:
                return None
            reached[batch.epoch] = batch.last
        starting = {b.epoch: file for file, inside in held for b in inside if b.first == 1 and b.epoch > epoch}
        for name, file in starting.items():
            before, end = about(file.path).get("previous", {}).get(name, ("", 0))
            if before >= epoch and reached.get(before, 0) < end:
                return None
        if not later or limit == 0:
            return SIGNAL.empty_table()
        upto = (later[-1].epoch, later[-1].last)
        if limit is not None:
            total = 0
            for number, batch in enumerate(later, 1):
                total += batch.last - max(batch.first - 1, seq if batch.epoch == epoch else 0)
                if total >= limit:
                    later, upto = later[:number], (batch.epoch, batch.last - (total - limit))
                    break
        tables = [self._read(file.path) for file, inside in held if not set(later).isdisjoint(inside)]
        at, number = pc.field("epoch"), pc.field("seq")
        condition = (at > epoch) | ((at == epoch) & (number > seq))
        condition &= (at < upto[0]) | ((at == upto[0]) & (number <= upto[1]))
        return sorted_by(pa.concat_tables(tables).filter(condition), "ascending", "epoch", "seq")

    def _ids(self, files: Iterable[SignalFile], first: int, last: int) -> set[str]:
        """The ids of stored signals whose bar end may lie within [first, last]."""
        paths = [file.path for file in files if file.first <= last and file.last >= first]
        return {text for path in paths for text in self._read(path, ["id"])["id"].to_pylist()}

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One writer at a time, of this process or another."""
        handle = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _epoch_after(newest: str, now_ns: int) -> str:
    """A name that sorts after every epoch there is, also when the clock was set back."""
    stamp = datetime.fromtimestamp(now_ns // 10**9, UTC).strftime("%Y%m%dT%H%M%S") + f"{now_ns // 1000 % 10**6:06d}"
    if newest and stamp <= newest[:-4]:
        head, micro = newest[:9], int(newest[9:-4]) + 1
        stamp = f"{head}{micro:012d}"
    return stamp + secrets.token_hex(2)
