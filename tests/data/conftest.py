"""A store and a folder of files to import into it."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.calendar import TradingCalendar
from data.importers import ImportReport, import_files
from data.store import BarStore

NOW = int(np.datetime64("2025-06-30T08:00", "ns").astype(np.int64))


class Importing:
    """A store and a folder of files to import into it."""

    def __init__(self, folder: Path, calendar: TradingCalendar) -> None:
        self.folder, self.calendar = folder, calendar
        self.store = BarStore(folder / "store", origin="market")

    def file(self, name: str, text: str, encoding: str = "utf-8") -> Path:
        path = self.folder / "files" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode(encoding))
        return path

    def __call__(self, *paths: Path, **options: Any) -> ImportReport:
        report = import_files(paths or [self.folder / "files"], self.store, self.calendar, **{"now": NOW} | options)
        assert report.read == report.stored + report.duplicates + sum(report.refused.values())
        return report

    def bars(self, *, adjusted: str | None = None, frame: str = "1d") -> list[tuple[Any, ...]]:
        """(symbol, bar end, open, high, low, close, volume, amount) of the highest revisions, sorted."""
        table = self.store.table(frame, adjusted=adjusted)
        table = table.set_column(2, "bar_end", table["bar_end"].cast(pa.int64()))
        names = ("symbol", "bar_end", "open", "high", "low", "close", "volume", "amount")
        newest = {}
        for row in sorted(table.to_pylist(), key=lambda row: row["revision"]):
            newest[row["symbol"], row["bar_end"]] = tuple(row[name] for name in names)
        return [newest[key] for key in sorted(newest)]

    def rejects(self, report: ImportReport) -> list[dict[str, str]]:
        assert report.rejects is not None
        with report.rejects.open(encoding="utf-8") as file:
            return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def new_importing() -> Callable[[Path], Importing]:
    """Makes an `Importing` in a folder."""
    calendar = TradingCalendar()
    return lambda folder: Importing(folder, calendar)


@pytest.fixture
def importing(new_importing: Callable[[Path], Importing], tmp_path: Path) -> Importing:
    return new_importing(tmp_path)
