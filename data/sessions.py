"""The sessions that the package `exchange_calendars` knows, in a small file: with pandas it takes half a second."""

import logging
import warnings
from datetime import date
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import platformdirs

from data.files import write_atomically

log = logging.getLogger(__name__)
Days = npt.NDArray[np.datetime64]

FIRST = date(1990, 12, 19)
"""The Shanghai Stock Exchange's first session."""


@cache
def library() -> tuple[Days, date]:
    """The sessions and the last day that the package vouches for, from the file of this version where there is one."""
    path = platformdirs.user_cache_path("mystocks-scan") / f"sessions-{version('exchange-calendars')}.npy"
    days = _kept(path)
    if days is None:
        days = _computed()
        _keep(path, days)
    return days[:-1].copy(), days[-1].astype(object)


def _computed() -> Days:
    """The package's sessions, ascending, and after them the last day that it vouches for."""
    from exchange_calendars import get_calendar
    from exchange_calendars.exchange_calendar_xshg import XSHGExchangeCalendar

    bound = XSHGExchangeCalendar.bound_max()
    with warnings.catch_warnings():
        # exchange_calendars 4.13 calls what pandas 3.1 has deprecated; nothing a caller of ours could mend.
        warnings.simplefilter("ignore", DeprecationWarning)
        calendar = get_calendar("XSHG", start=FIRST.isoformat(), end=bound)
    sessions = calendar.sessions.to_numpy().astype("datetime64[D]")
    return np.append(sessions, np.datetime64(bound.date()))


def _kept(path: Path) -> Days | None:
    """What `_computed` gave, if the file is whole."""
    try:
        days: Days = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = days.dtype == "datetime64[D]" and days.ndim == 1 and len(days) > 1 and days[0] == np.datetime64(FIRST)
    return days if whole and (days[1:-1] > days[:-2]).all() and days[-1] >= days[-2] else None


def _keep(path: Path, days: Days) -> None:
    def write(aside: Path) -> None:
        with aside.open("wb") as file:
            np.save(file, days, allow_pickle=False)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, write)
    except OSError as error:
        log.debug("%s cannot be written: %s", path, error)
