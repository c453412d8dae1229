"""Volume: sums of what was traded, signed by where the price went."""

import math

from data.panel import Floats
from scanner.indicators.rows import row
from scanner.indicators.spec import Indicator, Kernel, integer


def obv(t: int, j0: int, j1: int, close: Floats, volume: Floats, state: Floats, out: Floats) -> None:
    """State: bars seen, close before, sum."""
    closes, volumes, v = row(close, t, j0, j1), row(volume, t, j0, j1), row(out, t, j0, j1)
    seen, before, total = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        c = closes[j]
        b = before[j]
        traded = volumes[j]
        signed = traded if c > b else -traded
        signed = signed if c != b else 0.0
        signed = signed if k >= 1.0 else traded
        s = total[j] + signed
        v[j] = s
        total[j] = s
        before[j] = c
        seen[j] = k + 1.0


def flow(high: float, low: float, close: float, volume: float) -> float:
    """What a bar adds to the accumulation line."""
    spread = high - low
    added = ((close - low) - (high - close)) / spread * volume
    return added if spread > 0.0 else 0.0


def ad(
    t: int, j0: int, j1: int, high: Floats, low: Floats, close: Floats, volume: Floats, state: Floats, out: Floats
) -> None:
    """State: sum."""
    highs, lows, closes = row(high, t, j0, j1), row(low, t, j0, j1), row(close, t, j0, j1)
    volumes, v, total = row(volume, t, j0, j1), row(out, t, j0, j1), state[0, j0:j1]
    for j in range(j1 - j0):
        s = total[j] + flow(highs[j], lows[j], closes[j], volumes[j])
        v[j] = s
        total[j] = s


def adosc(
    t: int,
    j0: int,
    j1: int,
    high: Floats,
    low: Floats,
    close: Floats,
    volume: Floats,
    state: Floats,
    out: Floats,
    fastperiod: int,
    slowperiod: int,
) -> None:
    """State: bars seen, sum, fast average, slow average."""
    longer = max(fastperiod, slowperiod)
    fast_share, slow_share = 2.0 / (fastperiod + 1.0), 2.0 / (slowperiod + 1.0)
    highs, lows, closes = row(high, t, j0, j1), row(low, t, j0, j1), row(close, t, j0, j1)
    volumes, v = row(volume, t, j0, j1), row(out, t, j0, j1)
    seen, total, fast, slow = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1], state[3, j0:j1]
    for j in range(j1 - j0):
        k = seen[j]
        s = total[j] + flow(highs[j], lows[j], closes[j], volumes[j])
        f = fast_share * s + (1.0 - fast_share) * fast[j]
        g = slow_share * s + (1.0 - slow_share) * slow[j]
        f = f if k >= 1.0 else s
        g = g if k >= 1.0 else s
        v[j] = f - g if k + 1.0 >= longer else math.nan
        total[j] = s
        fast[j] = f
        slow[j] = g
        seen[j] = k + 1.0


def vwap(
    t: int,
    j0: int,
    j1: int,
    high: Floats,
    low: Floats,
    close: Floats,
    volume: Floats,
    session: Floats,
    state: Floats,
    out: Floats,
) -> None:
    """State: session before, the session's sums of price * volume and of volume."""
    highs, lows, closes = row(high, t, j0, j1), row(low, t, j0, j1), row(close, t, j0, j1)
    volumes, days, v = row(volume, t, j0, j1), row(session, t, j0, j1), row(out, t, j0, j1)
    before, money, shares = state[0, j0:j1], state[1, j0:j1], state[2, j0:j1]
    for j in range(j1 - j0):
        day = days[j]
        last = before[j]
        paid = money[j]
        traded = shares[j]
        paid = paid if day == last else 0.0
        traded = traded if day == last else 0.0
        price = (highs[j] + lows[j] + closes[j]) / 3.0
        size = volumes[j]
        paid = paid + price * size
        traded = traded + size
        mean = paid / traded
        v[j] = mean if traded > 0.0 else price
        before[j] = day
        money[j] = paid
        shares[j] = traded


INDICATORS = (
    Indicator(
        name="OBV",
        title="On-balance volume",
        title_zh="能量潮",
        family="volume",
        pane="oscillator",
        inputs=("close", "volume"),
        outputs=("obv",),
        kernel=Kernel(obv, 3),
        lookback=lambda: 0,
        talib="OBV",
        recursive=True,
        doc=(
            "y = y' + volume where the close rose, - volume where it fell, seeded with the first volume; shares, so "
            "its level depends on where the history starts (Granville 1963)."
        ),
    ),
    Indicator(
        name="AD",
        title="Chaikin accumulation/distribution line",
        title_zh="累积/派发线",
        family="volume",
        pane="oscillator",
        inputs=("high", "low", "close", "volume"),
        outputs=("ad",),
        kernel=Kernel(ad, 1),
        lookback=lambda: 0,
        talib="AD",
        recursive=True,
        doc=(
            "y = y' + volume * ((close - low) - (high - close)) / (high - low), nothing added where high = low; "
            "shares, so its level depends on where the history starts (Chaikin)."
        ),
    ),
    Indicator(
        name="ADOSC",
        title="Chaikin accumulation/distribution oscillator",
        title_zh="佳庆指标",
        family="volume",
        pane="oscillator",
        reference_lines=(0.0,),
        inputs=("high", "low", "close", "volume"),
        params=(integer("fastperiod", 3), integer("slowperiod", 10)),
        outputs=("adosc",),
        kernel=Kernel(adosc, 4),
        lookback=lambda fastperiod, slowperiod: max(fastperiod, slowperiod) - 1,
        talib="ADOSC",
        recursive=True,
        doc="EMA(AD, fast) - EMA(AD, slow), both seeded with the first AD; shares (Chaikin).",
    ),
    Indicator(
        name="VWAP",
        title="Volume weighted average price",
        title_zh="成交量加权平均价",
        family="volume",
        pane="overlay",
        inputs=("high", "low", "close", "volume", "session"),
        outputs=("vwap",),
        kernel=Kernel(vwap, 3),
        lookback=lambda: 0,
        recursive=True,
        doc=(
            "sum(p * volume) / sum(volume) from the session's first bar on, p = (high + low + close) / 3; p itself "
            "where the session has had no volume yet, and of daily bars; CNY. TA-Lib's VWAP never starts anew "
            "(Berkowitz, Logue and Noser 1988)."
        ),
    ),
)
"""In the order of the catalogue."""
