"""Units of volume and amount, recognised and checked by the real command's own path."""

from collections.abc import Sequence
from typing import Any

import pytest

# symbol, day, open, high, low, close, shares, CNY
BARS = (
    ("600000.SH", "2025-05-22", 12.22, 12.53, 12.19, 12.43, 63895089, 792331667),
    ("600000.SH", "2025-05-23", 12.39, 12.48, 12.22, 12.23, 57961597, 712934903),
)
PLAIN = "{1},{2},{3},{4},{5},{6},{7}"
ENGLISH = "date,open,high,low,close,volume,amount"
SYMBOL_FIRST = "code," + ENGLISH
DAYS = ("2025-05-19", "2025-05-20", "2025-05-21", "2025-05-22")


def lines(header: str, rows: Sequence[Sequence[Any]], form: str, end: str = "\n") -> str:
    return header + end + "".join(form.format(*row) + end for row in rows)


def test_lots_are_recognised_and_rounded_ones_accepted(importing: Any) -> None:
    form = "{1},600000,{2},{5},{3},{4},{8},{7}"
    rows = [(*bar, bar[6] // 100) for bar in BARS]
    importing.file("600000.csv", lines("日期,股票代码,开盘,收盘,最高,最低,成交量,成交额", rows, form), "gbk")
    assert importing().stored == 2
    assert [bar[6] for bar in importing.bars()] == [63895000.0, 57961500.0]
    # The same bars to the share: equal as far as the file in lots can tell, in whichever order they come.
    other = importing.file("exact.csv", lines("symbol," + ENGLISH, BARS, "{0}," + PLAIN))
    report = importing(other)
    assert (report.stored, report.refused) == (0, {"conflicting duplicate": 2})
    assert importing(other, revise=True).stored == 2
    assert importing(importing.folder / "files" / "600000.csv").duplicates == 2


def test_star_shares_may_be_in_shares_where_the_rest_is_in_lots(importing: Any) -> None:
    rows = [(code, day, lots) for code, lots in (("600000", 10), ("688981", 1000), ("000001", 20)) for day in DAYS]
    text = "".join(
        f"{code},{day},10,10,10,10,{volume},{10000 if volume != 20 else 20000}\n" for code, day, volume in rows
    )
    importing.file("all.csv", SYMBOL_FIRST + "\n" + text)
    assert importing().stored == len(rows)
    assert {bar[6] for bar in importing.bars()} == {1000.0, 2000.0}


def test_b_shares_and_indices_are_exempt_from_units_and_take_those_of_the_file(importing: Any) -> None:
    rows = [f"600000,{day},10,10,10,10,10,10000" for day in DAYS]
    rows += ["900901,2025-05-22,0.4,0.4,0.4,0.4,10,2800", "sh000001,2025-05-22,3300,3400,3300,3400,400000,5e9"]
    importing.file("all.csv", "\n".join([SYMBOL_FIRST, *rows]))
    report = importing()
    assert (report.stored, report.unverified) == (6, 0)
    assert {bar[0]: bar[6] for bar in importing.bars()} == {
        "000001.SH": 4e7,
        "600000.SH": 1000.0,
        "900901.SH": 1000.0,
    }


def test_a_file_that_cannot_tell_takes_the_units_of_files_alike(importing: Any) -> None:
    importing.file("600000.csv", "\n".join([ENGLISH, *(f"{day},10,10,10,10,10,10000" for day in DAYS)]))
    importing.file("900901.csv", "\n".join([ENGLISH, *(f"{day},0.4,0.4,0.4,0.4,10,2800" for day in DAYS)]))
    assert importing().unverified == 0
    assert {bar[6] for bar in importing.bars()} == {1000.0}


def test_without_amounts_the_volume_is_taken_for_shares_and_that_is_said(importing: Any) -> None:
    importing.file("600000.csv", "date,open,high,low,close,volume\n2025-05-22,10,10,10,10,10\n")
    report = importing()
    assert (report.stored, report.unverified) == (1, 1)
    assert importing.bars()[0][6:] == (10.0, None)


def test_a_row_off_the_units_of_its_file_is_refused_though_it_fits_others(importing: Any) -> None:
    rows = [f"600000,{day},10,10,10,10,1000,10000" for day in DAYS[:3]]
    importing.file("all.csv", "\n".join([SYMBOL_FIRST, *rows, f"600000,{DAYS[3]},10,10,10,10,10,10000"]))
    assert importing().refused == {"units": 1}


@pytest.mark.parametrize(
    ("amount", "accepted"), [(9_988, False), (9_989, True), (10_000, True), (10_011, True), (10_012, False)]
)
def test_a_mean_price_may_be_off_by_a_tick_and_its_amount_by_a_yuan(
    importing: Any, amount: int, accepted: bool
) -> None:
    rows = [f"600000,{day},10,10,10,10,1000,10000" for day in DAYS[:3]]
    importing.file("all.csv", "\n".join([SYMBOL_FIRST, *rows, f"600000,{DAYS[3]},10,10,10,10,1000,{amount}"]))
    assert importing().stored == 3 + accepted


def test_adjusted_prices_are_a_series_of_their_own_checked_by_the_raw_one(importing: Any) -> None:
    raw = importing.file("600000.csv", lines(ENGLISH, BARS, PLAIN))
    half = [(s, d, *(p / 2 for p in prices), v // 100, a) for s, d, *prices, v, a in BARS]
    adjusted = importing.file("600000_qfq.csv", lines(ENGLISH, half, PLAIN))
    assert importing(raw).stored == 2
    report = importing(adjusted, adjusted="qfq")
    assert (report.stored, report.unverified) == (2, 0)
    assert [bar[5:7] for bar in importing.bars()] == [(12.43, 63895089.0), (12.23, 57961597.0)]
    assert [bar[5:7] for bar in importing.bars(adjusted="qfq")] == [(6.215, 63895000.0), (6.115, 57961500.0)]
    assert importing(adjusted, adjusted="qfq").duplicates == 2
    assert importing(raw, adjusted="hfq").stored == 2
    # Of a symbol that has no raw bars nothing is known, whatever others have.
    other = importing.file("600004.csv", lines(ENGLISH, half, PLAIN))
    assert importing(other, adjusted="qfq").unverified == 2
