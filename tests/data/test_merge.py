"""Rows against each other and against the store: duplicates, revisions, conflicts, and the law of sums."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# symbol, day, open, high, low, close, shares, CNY
BARS = (
    ("600000.SH", "2025-05-22", 12.22, 12.53, 12.19, 12.43, 63895089, 792331667),
    ("600000.SH", "2025-05-23", 12.39, 12.48, 12.22, 12.23, 57961597, 712934903),
)
PLAIN = "{1},{2},{3},{4},{5},{6},{7}"
ENGLISH = "date,open,high,low,close,volume,amount"
SYMBOL_FIRST = "code," + ENGLISH
GOOD = "600000,2025-05-22,10,11,9,10,1000,10000"
OTHER = "600000,2025-05-22,10,11,9,10.5,1000,10000"
DAYS = ("2025-05-19", "2025-05-20", "2025-05-21", "2025-05-22")


def lines(header: str, rows: Sequence[Sequence[Any]], form: str, end: str = "\n") -> str:
    return header + end + "".join(form.format(*row) + end for row in rows)


def test_a_differing_row_is_refused_or_is_the_next_revision(importing: Any) -> None:
    importing(importing.file("a.csv", "\n".join([SYMBOL_FIRST, GOOD])))
    other = importing.file("b.csv", "\n".join([SYMBOL_FIRST, OTHER]))
    report = importing(other)
    assert report.refused == {"conflicting duplicate": 1}
    assert importing.rejects(report)[0]["text"] == "differs from the stored bar in close"
    assert importing.bars()[0][5] == 10.0
    assert importing(other, revise=True).stored == 1
    assert importing.bars()[0][5] == 10.5
    assert sorted(importing.store.table("1d")["revision"].to_pylist()) == [0, 1]
    assert importing(other, revise=True).duplicates == 1


def test_of_two_differing_rows_in_one_import_the_first_stays_also_when_revising(importing: Any) -> None:
    importing.file("all.csv", "\n".join([SYMBOL_FIRST, GOOD, OTHER, GOOD]))
    for stored, duplicates in ((1, 1), (0, 2)):
        report = importing(revise=True)
        assert (report.stored, report.duplicates, sum(report.refused.values())) == (stored, duplicates, 1)
        assert importing.bars()[0][5] == 10.0


def test_rows_that_agree_with_each_other_and_not_with_the_store_are_all_refused(importing: Any) -> None:
    importing(importing.file("a.csv", "\n".join([SYMBOL_FIRST, GOOD])))
    report = importing(importing.file("b.csv", "\n".join([SYMBOL_FIRST, OTHER, OTHER, GOOD])))
    assert (report.refused, report.duplicates) == ({"conflicting duplicate": 2}, 1)


def test_what_only_one_row_knows_contradicts_nothing_and_a_revision_keeps_both(importing: Any) -> None:
    header = "code,date,open,high,low,close,volume,amount,pre_close"
    importing(importing.file("a.csv", "\n".join([SYMBOL_FIRST, GOOD])))
    more = importing.file("b.csv", "\n".join([header, GOOD.rsplit(",", 1)[0] + ",,9.9"]))
    assert importing(more).duplicates == 1
    assert importing(more, revise=True).stored == 1
    (row,) = (row for row in importing.store.table("1d").to_pylist() if row["revision"] == 1)
    assert (row["amount"], row["prev_close"]) == (10000.0, 9.9)
    assert importing(more, revise=True).duplicates == 1


def test_rounding_is_no_conflict_and_a_value_that_differs_is(importing: Any) -> None:
    importing(importing.file("a.csv", lines("symbol," + ENGLISH, BARS, "{0}," + PLAIN)))
    rounded = [(*bar[:7], bar[7] // 100 * 100) for bar in BARS]
    assert importing(importing.file("b.csv", lines("symbol," + ENGLISH, rounded, "{0}," + PLAIN))).duplicates == 2
    for place, change in ((5, 0.01), (6, 1), (7, 101), (7, 1.5)):
        rows = [(*bar[:place], bar[place] + change, *bar[place + 1 :]) for bar in BARS]
        report = importing(importing.file("c.csv", lines("symbol," + ENGLISH, rows, "{0}," + PLAIN)))
        assert report.refused == {"conflicting duplicate": 2}, (place, change)


def test_rows_are_stored_in_parts_where_they_are_many(importing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.importers.FLUSH_ROWS", 3)
    for code in range(600000, 600010):
        rows = "".join(f"{day},10,10,10,10,1000,10000\n" for day in DAYS)
        importing.file(f"{code}.csv", ENGLISH + "\n" + rows)
    importing.file("zz.csv", "\n".join([SYMBOL_FIRST, "600000,2025-05-22,11,11,11,11,1000,11000"]))
    report = importing(revise=True)
    # The last file contradicts a bar that this very import has stored: the first stays.
    assert (report.stored, report.refused) == (40, {"conflicting duplicate": 1})
    assert importing().duplicates == 40


_ROWS = st.lists(
    st.tuples(
        st.sampled_from(["600000", "sz000001", "688981.SH", "900901", "nobody"]),
        st.sampled_from([*DAYS, "2025-05-24", "2025-07-01", "never"]),
        st.sampled_from(["10", "10.5", "0", "", "x"]),
        st.sampled_from([1000, 0, 10, -1]),
        st.booleans(),
    ),
    max_size=30,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=_ROWS, order=st.randoms(use_true_random=False))
def test_laws_rows_add_up_twice_stores_nothing_twice_and_order_is_nothing(
    tmp_path_factory: pytest.TempPathFactory, new_importing: Callable[[Path], Any], rows: list[Any], order: Any
) -> None:
    texts = [f"{s},{d},{p},{p},{p},{p},{v},{v * 10 if known else ''}" for s, d, p, v, known in rows]
    first = new_importing(tmp_path_factory.mktemp("first"))
    first.file("all.csv", "\n".join([SYMBOL_FIRST, *texts]))
    report = first()
    assert report.read == len(rows)
    assert len(first.bars()) == report.stored
    again = first()
    assert (again.stored, again.duplicates + sum(again.refused.values())) == (0, report.read)
    if "conflicting duplicate" in report.refused:
        return  # of contradicting rows the first stays, so there the order counts
    shuffled = list(dict.fromkeys(texts))
    order.shuffle(shuffled)
    second = new_importing(tmp_path_factory.mktemp("second"))
    second.file("all.csv", "\n".join([SYMBOL_FIRST, *shuffled]))
    assert second().stored == report.stored
    assert [bar[:7] for bar in second.bars()] == [bar[:7] for bar in first.bars()]
