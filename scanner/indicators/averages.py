"""Moving averages."""

import math

from data.panel import Floats
from scanner.indicators.rows import ema, row
from scanner.indicators.spec import Indicator, Kernel, integer


def sma(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, n: int) -> None:
    """State: bars seen, sum of the last n - 1 values."""
    now, old, v = row(x, t, j0, j1), row(x, t - n + 1, j0, j1), row(out, t, j0, j1)
    seen, total = state[0, j0:j1], state[1, j0:j1]
    for j in range(j1 - j0):
        k = seen[j] + 1.0
        oldest = old[j]
        s = total[j] + now[j]
        v[j] = s / n if k >= n else math.nan
        total[j] = s - oldest if k >= n else s
        seen[j] = k


def ema_kernel(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, n: int) -> None:
    """State: bars seen, average."""
    now, v = row(x, t, j0, j1), row(out, t, j0, j1)
    seen, average = state[0, j0:j1], state[1, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        a = ema(now[j], average[j], k, n)
        v[j] = a if k + 1.0 >= n else math.nan
        average[j] = a
        seen[j] = k + 1.0


def wma(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, n: int) -> None:
    """State: bars seen, sum of the last n values, weighted sum of the last n - 1."""
    weights = n * (n + 1) // 2
    now, old, v = row(x, t, j0, j1), row(x, t - n, j0, j1), row(out, t, j0, j1)
    seen, plain, weighted = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1]
    for j in range(j1 - j0):
        k = seen[j] + 1.0
        a = now[j]
        oldest = old[j]
        p = plain[j] + a
        p = p - oldest if k > n else p
        w = weighted[j] + a * (n if k > n else k)
        v[j] = w / weights if k >= n else math.nan
        weighted[j] = w - p if k >= n else w
        plain[j] = p
        seen[j] = k


def dema(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, n: int) -> None:
    """State: bars seen, average, average of the average."""
    now, v = row(x, t, j0, j1), row(out, t, j0, j1)
    seen, first, second = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        b = second[j]
        a = ema(now[j], first[j], k, n)
        following = ema(a, b, k + 1.0 - n, n)
        b = following if k + 1.0 >= n else b
        v[j] = 2.0 * a - b if k + 2.0 >= 2.0 * n else math.nan
        first[j] = a
        second[j] = b
        seen[j] = k + 1.0


def tema(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, n: int) -> None:
    """State: bars seen, average, average of the average, and of that."""
    now, v = row(x, t, j0, j1), row(out, t, j0, j1)
    seen, first, second, third = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1], state[3, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        b = second[j]
        c = third[j]
        a = ema(now[j], first[j], k, n)
        following = ema(a, b, k + 1.0 - n, n)
        b = following if k + 1.0 >= n else b
        following = ema(b, c, k + 2.0 - 2.0 * n, n)
        c = following if k + 2.0 >= 2.0 * n else c
        v[j] = c + (3.0 * a - 3.0 * b) if k + 3.0 >= 3.0 * n else math.nan
        first[j] = a
        second[j] = b
        third[j] = c
        seen[j] = k + 1.0


def kama(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, n: int) -> None:
    """State: bars seen, value before, sum of the last n changes regardless of sign, average, bars without a change."""
    back = n if n > 1 else 0
    now, v = row(x, t, j0, j1), row(out, t, j0, j1)
    start, dropped = row(x, t - back, j0, j1), row(x, t - back - (1 if n > 1 else 0), j0, j1)
    seen, before, total, average, idle = (
        state[0, j0:j1],
        state[1, j0:j1],
        state[2, j0:j1],
        state[3, j0:j1],
        state[4, j0:j1],
    )
    quick, slow = 2.0 / 3.0, 2.0 / 31.0
    for j in range(j1 - j0):
        k = seen[j]
        a = now[j]
        last = before[j]
        first = start[j]
        gone = abs(dropped[j] - first)
        still = idle[j] + 1.0
        still = still if a == last else 0.0
        path = total[j]
        path = path - gone if k > n else path
        path = path + abs(a - last)
        path = path if (k >= 1.0) & (still < n) else 0.0
        efficiency = abs(a - first) / path
        efficiency = efficiency if path > 0.0 else 1.0
        share = efficiency * (quick - slow) + slow
        mean = average[j]
        mean = mean if k > n else last
        mean = (a - mean) * (share * share) + mean
        shown = mean if k >= n else math.nan
        v[j] = a if n == 1 else shown
        before[j] = a
        total[j] = path
        average[j] = mean
        idle[j] = still
        seen[j] = k + 1.0


def trima(t: int, j0: int, j1: int, x: Floats, state: Floats, out: Floats, n: int) -> None:
    """State: bars seen, sum of the last values, sum of the last such sums, and these."""
    inner, outer = n // 2 + 1, (n + 1) // 2
    now, old, v = row(x, t, j0, j1), row(x, t - inner + 1, j0, j1), row(out, t, j0, j1)
    seen, total, totals = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1]
    newest, oldest = state[3 + t % outer, j0:j1], state[3 + (t + 1) % outer, j0:j1]
    share = 1.0 / (inner * outer)
    for j in range(j1 - j0):
        k = seen[j] + 1.0
        leaving = old[j]
        s = total[j] + now[j]
        part = s if k >= inner else 0.0
        newest[j] = part
        u = totals[j] + part
        gone = oldest[j]
        v[j] = u * share if k >= n else math.nan
        total[j] = s - leaving if k >= inner else s
        totals[j] = u - gone if k >= n else u
        seen[j] = k


INDICATORS = (
    Indicator(
        name="SMA",
        title="Simple moving average",
        title_zh="简单移动平均",
        family="trend",
        pane="overlay",
        inputs=("close",),
        params=(integer("timeperiod", 20, lo=1),),
        outputs=("sma",),
        kernel=Kernel(sma, 2),
        lookback=lambda timeperiod: timeperiod - 1,
        talib="SMA",
        doc="The mean of the last n values: sum(x, n) / n. MA250 is the year line of Chinese charts.",
    ),
    Indicator(
        name="EMA",
        title="Exponential moving average",
        title_zh="指数移动平均",
        family="trend",
        pane="overlay",
        inputs=("close",),
        params=(integer("timeperiod", 20, lo=1),),
        outputs=("ema",),
        kernel=Kernel(ema_kernel, 2),
        lookback=lambda timeperiod: timeperiod - 1,
        talib="EMA",
        recursive=True,
        doc="y = y' + 2/(n+1) * (x - y'), seeded with the mean of the first n values (TongDaXin seeds with the first).",
    ),
    Indicator(
        name="WMA",
        title="Weighted moving average",
        title_zh="加权移动平均",
        family="trend",
        pane="overlay",
        inputs=("close",),
        params=(integer("timeperiod", 20, lo=1),),
        outputs=("wma",),
        kernel=Kernel(wma, 3),
        lookback=lambda timeperiod: timeperiod - 1,
        talib="WMA",
        doc="The mean of the last n values weighted 1 (oldest) to n (newest): sum(k * x_k) / (n(n+1)/2).",
    ),
    Indicator(
        name="DEMA",
        title="Double exponential moving average",
        title_zh="双重指数移动平均",
        family="trend",
        pane="overlay",
        inputs=("close",),
        params=(integer("timeperiod", 20, lo=1),),
        outputs=("dema",),
        kernel=Kernel(dema, 3),
        lookback=lambda timeperiod: 2 * (timeperiod - 1),
        talib="DEMA",
        recursive=True,
        doc="2 * EMA(x, n) - EMA(EMA(x, n), n), an average with less lag (Mulloy 1994).",
    ),
    Indicator(
        name="TEMA",
        title="Triple exponential moving average",
        title_zh="三重指数移动平均",
        family="trend",
        pane="overlay",
        inputs=("close",),
        params=(integer("timeperiod", 20, lo=1),),
        outputs=("tema",),
        kernel=Kernel(tema, 4),
        lookback=lambda timeperiod: 3 * (timeperiod - 1),
        talib="TEMA",
        recursive=True,
        doc="3 * EMA1 - 3 * EMA2 + EMA3, where EMAk is the EMA of EMAk-1 (Mulloy 1994).",
    ),
    Indicator(
        name="TRIMA",
        title="Triangular moving average",
        title_zh="三角移动平均",
        family="trend",
        pane="overlay",
        inputs=("close",),
        params=(integer("timeperiod", 20, lo=1),),
        outputs=("trima",),
        kernel=Kernel(trima, lambda timeperiod: 3 + (timeperiod + 1) // 2),
        lookback=lambda timeperiod: timeperiod - 1,
        talib="TRIMA",
        doc=(
            "The mean of the last n values weighted 1, 2, ... up to the middle and down to 1 again, the middle two "
            "alike where n is even: SMA(SMA(x, n // 2 + 1), (n + 1) // 2)."
        ),
    ),
    Indicator(
        name="KAMA",
        title="Kaufman's adaptive moving average",
        title_zh="考夫曼自适应移动平均",
        family="trend",
        pane="overlay",
        inputs=("close",),
        params=(integer("timeperiod", 10, lo=1),),
        outputs=("kama",),
        kernel=Kernel(kama, 5),
        lookback=lambda timeperiod: timeperiod if timeperiod > 1 else 0,
        talib="KAMA",
        recursive=True,
        doc=(
            "y = y' + s^2 * (x - y'), s = e * (2/3 - 2/31) + 2/31, e = |x - x n bars ago| / sum(|x - x'|, n), 1 where "
            "nothing moved (0/0); seeded with the value before; x itself for n = 1. Its 10 bars are Kaufman's; "
            "TA-Lib's own default is 30 (Kaufman 1995)."
        ),
    ),
)
"""In the order of the catalogue."""
