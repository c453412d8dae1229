"""Trend: where prices are going, made of averages and of extremes."""

import math

from data.panel import Floats
from scanner.indicators.rows import EPSILON, ema, row, true_range
from scanner.indicators.spec import Indicator, Kernel, integer, number


def macd(
    t: int,
    j0: int,
    j1: int,
    x: Floats,
    state: Floats,
    line_out: Floats,
    signal_out: Floats,
    hist_out: Floats,
    fastperiod: int,
    slowperiod: int,
    n: int,
) -> None:
    """State: bars seen, fast average, slow average, signal."""
    short, long = min(fastperiod, slowperiod), max(fastperiod, slowperiod)
    now, line, sign, hist = (
        row(x, t, j0, j1),
        row(line_out, t, j0, j1),
        row(signal_out, t, j0, j1),
        row(hist_out, t, j0, j1),
    )
    seen, fast, slow, signal = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1], state[3, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        a = now[j]
        f = fast[j]
        s = slow[j]
        g = signal[j]
        quick = ema(a, f, k - (long - short), short)
        f = quick if k >= long - short else f
        s = ema(a, s, k, long)
        m = f - s
        following = ema(m, g, k + 1.0 - long, n)
        g = following if k + 1.0 >= long else g
        ready = k + 2.0 >= long + n
        line[j] = m if ready else math.nan
        sign[j] = g if ready else math.nan
        hist[j] = m - g if ready else math.nan
        fast[j] = f
        slow[j] = s
        signal[j] = g
        seen[j] = k + 1.0


def bbands(
    t: int,
    j0: int,
    j1: int,
    x: Floats,
    state: Floats,
    upper_out: Floats,
    middle_out: Floats,
    lower_out: Floats,
    n: int,
    up: float,
    down: float,
) -> None:
    """State: bars seen, sum of the last n - 1 values, sum of their squares, value before, bars since it changed."""
    share = 1.0 / n
    now, old = row(x, t, j0, j1), row(x, t - n + 1, j0, j1)
    upper, middle, lower = row(upper_out, t, j0, j1), row(middle_out, t, j0, j1), row(lower_out, t, j0, j1)
    seen, total, squares, before, same = (
        state[0, j0:j1],
        state[1, j0:j1],
        state[2, j0:j1],
        state[3, j0:j1],
        state[4, j0:j1],
    )
    for j in range(j1 - j0):
        k = seen[j] + 1.0
        a = now[j]
        oldest = old[j]
        last = before[j]
        still = same[j] + 1.0
        still = still if a == last else 1.0
        s = total[j] + a
        q = squares[j] + a * a
        mean = s / n
        variance = q * share - mean * mean
        deviation = math.sqrt(variance if variance >= EPSILON else 0.0)
        flat = still >= n
        mean = a if flat else mean
        deviation = 0.0 if flat else deviation
        ready = k >= n
        upper[j] = mean + deviation * up if ready else math.nan
        middle[j] = mean if ready else math.nan
        lower[j] = mean - deviation * down if ready else math.nan
        total[j] = s - oldest if ready else s
        squares[j] = q - oldest * oldest if ready else q
        before[j] = a
        same[j] = still
        seen[j] = k


def sar(
    t: int,
    j0: int,
    j1: int,
    high: Floats,
    low: Floats,
    state: Floats,
    out: Floats,
    acceleration: float,
    maximum: float,
) -> None:
    """State: bars seen, high and low of the bar before, 1 or -1 for the side, stop, extreme, factor."""
    step = min(acceleration, maximum)
    highs, lows, v = row(high, t, j0, j1), row(low, t, j0, j1), row(out, t, j0, j1)
    seen, high_before, low_before = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1]
    sides, stops, extremes, factors = state[3, j0:j1], state[4, j0:j1], state[5, j0:j1], state[6, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        h = highs[j]
        w = lows[j]
        h0 = high_before[j]
        w0 = low_before[j]
        side = sides[j]
        stop = stops[j]
        extreme = extremes[j]
        factor = factors[j]
        # At the second bar the side is that of the greater directional movement, and the bar stands for the one before.
        fall = w0 - w
        rise = h - h0
        second = k == 1.0
        start = -1.0 if (fall > 0.0) & (rise < fall) else 1.0
        side = start if second else side
        start = w0 if side > 0.0 else h0
        stop = start if second else stop
        start = h if side > 0.0 else w
        extreme = start if second else extreme
        factor = step if second else factor
        h0 = h if second else h0
        w0 = w if second else w0
        # Of a short side everything is mirrored: `ahead` is where the price goes, `behind` where the stop lies.
        ahead = h if side > 0.0 else -w
        behind = w if side > 0.0 else -h
        behind0 = w0 if side > 0.0 else -h0
        ahead0 = h0 if side > 0.0 else -w0
        at = side * stop
        far = side * extreme
        turned = behind <= at
        # The side changes: the stop is the extreme, or what lies beyond it.
        over = far
        over = ahead0 if over < ahead0 else over
        over = ahead if over < ahead else over
        shown = over if turned else at
        turn = over + step * (behind - over)
        turn = ahead0 if turn < ahead0 else turn
        turn = ahead if turn < ahead else turn
        # It stays: a new extreme accelerates the stop, which no bar's own range lets through.
        further = ahead > far
        quicker = factor + step
        quicker = maximum if quicker > maximum else quicker
        factor = quicker if further else factor
        factor = step if turned else factor
        far = ahead if further else far
        stay = at + factor * (far - at)
        stay = behind0 if stay > behind0 else stay
        stay = behind if stay > behind else stay
        v[j] = side * shown if k >= 1.0 else math.nan
        stops[j] = side * (turn if turned else stay)
        extremes[j] = side * (behind if turned else far)
        sides[j] = -side if turned else side
        factors[j] = factor
        high_before[j] = h
        low_before[j] = w
        seen[j] = k + 1.0


def adx(t: int, j0: int, j1: int, high: Floats, low: Floats, close: Floats, state: Floats, out: Floats, n: int) -> None:
    """State: bars seen; high, low and close before; smoothed movement up and down, true range; sum or mean of DX."""
    share = 1.0 / n
    highs, lows, closes, v = row(high, t, j0, j1), row(low, t, j0, j1), row(close, t, j0, j1), row(out, t, j0, j1)
    seen, high_before, low_before, close_before = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1], state[3, j0:j1]
    ups, downs, ranges, averages = state[4, j0:j1], state[5, j0:j1], state[6, j0:j1], state[7, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        h = highs[j]
        w = lows[j]
        c = closes[j]
        up = ups[j]
        down = downs[j]
        span = ranges[j]
        average = averages[j]
        rise = h - high_before[j]
        fall = low_before[j] - w
        plus = rise if (rise > 0.0) & (rise > fall) else 0.0
        minus = fall if (fall > 0.0) & (rise < fall) else 0.0
        reach = true_range(h, w, close_before[j])
        # The first bar has nothing before it; the next n - 1 are summed, then each sum loses an n-th a bar.
        up_less = up - up * share if k >= n else up
        down_less = down - down * share if k >= n else down
        span_less = span - span * share if k >= n else span
        up = up_less + plus if k >= 1.0 else 0.0
        down = down_less + minus if k >= 1.0 else 0.0
        span = span_less + reach if k >= 1.0 else 0.0
        # |+DI - -DI| / (+DI + -DI), in which the true range cancels.
        both = up + down
        dx = 100.0 * (abs(down - up) / both)
        known = (k >= n) & (span >= EPSILON) & (100.0 * both >= EPSILON * span)
        weight = n - 1.0 if k >= 2.0 * n else 1.0
        scale = share if k >= 2.0 * n else 1.0
        average = (average * weight + dx) * scale if known else average
        average = average * share if k + 1.0 == 2.0 * n else average
        v[j] = average if k + 1.0 >= 2.0 * n else math.nan
        ups[j] = up
        downs[j] = down
        ranges[j] = span
        averages[j] = average
        high_before[j] = h
        low_before[j] = w
        close_before[j] = c
        seen[j] = k + 1.0


INDICATORS = (
    Indicator(
        name="MACD",
        title="Moving average convergence/divergence",
        title_zh="指数平滑异同移动平均线",
        family="trend",
        pane="oscillator",
        reference_lines=(0.0,),
        inputs=("close",),
        params=(integer("fastperiod", 12), integer("slowperiod", 26), integer("signalperiod", 9, lo=1)),
        outputs=("macd", "signal", "hist"),
        kernel=Kernel(macd, 4),
        aliases={"diff": "macd", "dea": "signal"},
        # TA-Lib swaps the two if the fast one is the slower.
        lookback=lambda fastperiod, slowperiod, signalperiod: max(fastperiod, slowperiod) + signalperiod - 2,
        talib="MACD",
        recursive=True,
        doc=(
            "macd = EMA(x, fast) - EMA(x, slow), both seeded on bars that end together; signal = EMA(macd, "
            "signalperiod); hist = macd - signal, not doubled as in TongDaXin (Appel 1979)."
        ),
    ),
    Indicator(
        name="BBANDS",
        title="Bollinger bands",
        title_zh="布林带",
        family="trend",
        pane="overlay",
        inputs=("close",),
        params=(integer("timeperiod", 20), number("nbdevup", 2.0), number("nbdevdn", 2.0)),
        outputs=("upperband", "middleband", "lowerband"),
        kernel=Kernel(bbands, 5, rtol=1e-8, flat=lambda close: (close, close, close)),
        lookback=lambda timeperiod, nbdevup, nbdevdn: timeperiod - 1,
        talib="BBANDS",
        fixed={"matype": 0},
        doc=(
            "middle = SMA(x, n); upper, lower = middle + nbdevup * s, middle - nbdevdn * s, where s is the population "
            "standard deviation (TongDaXin takes the sample's) of the n values (Bollinger 1983)."
        ),
    ),
    Indicator(
        name="SAR",
        title="Parabolic stop and reverse",
        title_zh="抛物线转向",
        family="trend",
        pane="overlay",
        inputs=("high", "low"),
        params=(number("acceleration", 0.02, lo=0.0), number("maximum", 0.2, lo=0.0)),
        outputs=("sar",),
        kernel=Kernel(sar, 7),
        lookback=lambda acceleration, maximum: 1,
        talib="SAR",
        recursive=True,
        doc=(
            "sar = sar' + af * (extreme - sar'), af growing by acceleration up to maximum at each new extreme; the "
            "side changes when the price touches it (Wilder 1978)."
        ),
    ),
    Indicator(
        name="ADX",
        title="Average directional movement index",
        title_zh="平均趋向指数",
        family="trend",
        pane="oscillator",
        reference_lines=(20.0, 40.0),
        inputs=("high", "low", "close"),
        params=(integer("timeperiod", 14),),
        outputs=("adx",),
        kernel=Kernel(adx, 8),
        lookback=lambda timeperiod: 2 * timeperiod - 1,
        talib="ADX",
        recursive=True,
        doc=(
            "Wilder's mean of 100 * |+DI - -DI| / (+DI + -DI), each DI being smoothed directional movement over "
            "smoothed true range: how strong a trend is, not which way it goes (Wilder 1978)."
        ),
    ),
)
"""In the order of the catalogue."""
