"""TongDaXin's system formulas worked exactly: the text of each formula, run bar by bar on fractions.

Independent of the kernels, and slow. A line is a list with None where TongDaXin has no value yet.
"""

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

SHARES_A_LOT = 100

FORMULAS: dict[str, tuple[str, Any]] = {
    "TDX_MACD": ("DIF:EMA(CLOSE,SHORT)-EMA(CLOSE,LONG); DEA:EMA(DIF,MID); MACD:(DIF-DEA)*2", 0),
    "TDX_TRIX": ("MTR:=EMA(EMA(EMA(CLOSE,N),N),N); TRIX:(MTR-REF(MTR,1))/REF(MTR,1)*100; MATRIX:MA(TRIX,M)", 0),
    "TDX_DMI": (
        "MTR:=SUM(MAX(MAX(HIGH-LOW,ABS(HIGH-REF(CLOSE,1))),ABS(REF(CLOSE,1)-LOW)),N);"
        "HD:=HIGH-REF(HIGH,1); LD:=REF(LOW,1)-LOW;"
        "DMP:=SUM(IF(HD>0&&HD>LD,HD,0),N); DMM:=SUM(IF(LD>0&&LD>HD,LD,0),N);"
        "PDI:DMP*100/MTR; MDI:DMM*100/MTR;"
        "ADX:MA(ABS(MDI-PDI)/(MDI+PDI)*100,M); ADXR:(ADX+REF(ADX,M))/2",
        0,
    ),
    "DMA": ("DIF:MA(CLOSE,N1)-MA(CLOSE,N2); DIFMA:MA(DIF,M)", 0),
    "VHF": ("VHF:(HHV(CLOSE,N)-LLV(CLOSE,N))/SUM(ABS(CLOSE-REF(CLOSE,1)),N)", 0),
    "TDX_BOLL": ("BOLL:MA(CLOSE,N); UB:BOLL+WIDTH*STD(CLOSE,N); LB:BOLL-WIDTH*STD(CLOSE,N)", 0),
    "ENE": ("UPPER:(1+M1/100)*MA(CLOSE,N); LOWER:(1-M2/100)*MA(CLOSE,N); ENE:(UPPER+LOWER)/2", 0),
    "BBI": ("BBI:(MA(CLOSE,M1)+MA(CLOSE,M2)+MA(CLOSE,M3)+MA(CLOSE,M4))/4", 0),
    "EXPMA": ("EXP1:EMA(CLOSE,M1); EXP2:EMA(CLOSE,M2)", 0),
    "DPO": ("DPO:CLOSE-REF(MA(CLOSE,N),N/2+1); MADPO:MA(DPO,M)", 0),
    "TDX_RSI": (
        "LC:=REF(CLOSE,1); RSI1:SMA(MAX(CLOSE-LC,0),N,1)/SMA(ABS(CLOSE-LC),N,1)*100",
        Fraction(1, 2),
    ),
    "TDX_WR": ("WR1:100*(HHV(HIGH,N)-CLOSE)/(HHV(HIGH,N)-LLV(LOW,N))", 50),
    "BIAS": ("BIAS1:(CLOSE-MA(CLOSE,N))/MA(CLOSE,N)*100", 0),
    "TDX_ROC": ("ROC:100*(CLOSE-REF(CLOSE,N))/REF(CLOSE,N); MAROC:MA(ROC,M)", 0),
    "MTM": ("MTM:CLOSE-REF(CLOSE,N); MTMMA:MA(MTM,M)", 0),
    "PSY": ("PSY:COUNT(CLOSE>REF(CLOSE,1),N)/N*100; PSYMA:MA(PSY,M)", 0),
    "VR": (
        "TH:=SUM(IF(CLOSE>REF(CLOSE,1),VOL,0),N); TL:=SUM(IF(CLOSE<REF(CLOSE,1),VOL,0),N);"
        "TQ:=SUM(IF(CLOSE=REF(CLOSE,1),VOL,0),N); VR:100*(TH*2+TQ)/(TL*2+TQ); MAVR:MA(VR,M)",
        100,
    ),
    "CR": (
        "MID:=REF(HIGH+LOW,1)/2; CR:SUM(MAX(0,HIGH-MID),N)/SUM(MAX(0,MID-LOW),N)*100;"
        "MA1:REF(MA(CR,M1),M1/2.5+1); MA2:REF(MA(CR,M2),M2/2.5+1); MA3:REF(MA(CR,M3),M3/2.5+1)",
        1,
    ),
    "BRAR": (
        "BR:SUM(MAX(0,HIGH-REF(CLOSE,1)),N)/SUM(MAX(0,REF(CLOSE,1)-LOW),N)*100;AR:SUM(HIGH-OPEN,N)/SUM(OPEN-LOW,N)*100",
        1,
    ),
    "EMV": (
        "VOLUME:=MA(VOL,N)/VOL; MID:=100*(HIGH+LOW-REF(HIGH+LOW,1))/(HIGH+LOW);"
        "EMV:MA(MID*VOLUME*(HIGH-LOW)/MA(HIGH-LOW,N),N); MAEMV:MA(EMV,M)",
        0,
    ),
    "WVAD": ("WVAD:SUM((CLOSE-OPEN)/(HIGH-LOW)*VOL,N)/10000; MAWVAD:MA(WVAD,M)", 0),
}
"""Name -> the formula's text, `:=` a line of its own, `:` one that is shown, and what it has for a division by zero."""


class Declared(Fraction):
    """What stands for a division by zero, also when it is multiplied."""

    def __mul__(self, other: Any) -> "Declared":
        return Declared(Fraction(self) * other)

    __rmul__ = __mul__


class Line(list[Any]):
    """One value a bar; arithmetic and comparisons bar by bar, None wherever one side is."""

    zero: Any = 0
    """What x / 0 is."""

    def with_(self, function: Callable[..., Any], *others: Any) -> "Line":
        columns = [self, *[o if isinstance(o, Line) else [o] * len(self) for o in others]]
        bars = zip(*columns, strict=True)
        return Line(None if any(value is None for value in bar) else function(*bar) for bar in bars)

    def __add__(self, other: Any) -> "Line":  # type: ignore[override]
        return self.with_(operator.add, other)

    def __sub__(self, other: Any) -> "Line":
        return self.with_(operator.sub, other)

    def __mul__(self, other: Any) -> "Line":  # type: ignore[override]
        return self.with_(operator.mul, other)

    __rmul__ = __mul__  # type: ignore[assignment]

    def __truediv__(self, other: Any) -> "Line":
        return self.with_(lambda a, b: Fraction(a) / b if b else Declared(Line.zero), other)

    def __gt__(self, other: Any) -> "Line":  # type: ignore[override]
        return self.with_(operator.gt, other)

    def __lt__(self, other: Any) -> "Line":  # type: ignore[override]
        return self.with_(operator.lt, other)

    def __eq__(self, other: Any) -> "Line":  # type: ignore[override]
        return self.with_(operator.eq, other)

    def __and__(self, other: Any) -> "Line":
        return self.with_(lambda a, b: a and b, other)


def over(x: Line, n: Any, function: Callable[[list[Any]], Any]) -> Line:
    """`function` of each window of n bars that all have a value."""
    windows = [x[max(t - int(n) + 1, 0) : t + 1] for t in range(len(x))]
    return Line(function(w) if len(w) == n and None not in w else None for w in windows)


def recursion(x: Line, n: Any, m: Any) -> Line:
    """TongDaXin's SMA, whose first value is that of x."""
    out, last = Line(), None
    for value in x:
        last = value if last is None or value is None else (m * value + (n - m) * last) / Fraction(n)
        out.append(last)
    return out


def sample_deviation(window: list[Any]) -> Fraction:
    """To 40 digits after the point."""
    mean = Fraction(sum(window)) / len(window)
    variance = sum((value - mean) ** 2 for value in window) / (len(window) - 1)
    return Fraction(math.isqrt(int(variance * 10**80)), 10**40)


def ref(x: Line, bars: Any) -> Line:
    """x so many bars ago, rounded down."""
    back = int(bars)
    return Line([None] * back + x[: len(x) - back])


def either(a: Any, b: Any, function: Callable[[Any, Any], Any]) -> Line:
    return a.with_(function, b) if isinstance(a, Line) else b.with_(function, a)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "MA": lambda x, n: over(x, n, lambda w: Fraction(sum(w)) / len(w)),
    "SUM": lambda x, n: over(x, n, lambda w: Fraction(sum(w))),
    "COUNT": lambda x, n: over(x, n, lambda w: Fraction(sum(w))),
    "HHV": lambda x, n: over(x, n, max),
    "LLV": lambda x, n: over(x, n, min),
    "STD": lambda x, n: over(x, n, sample_deviation),
    "SMA": recursion,
    "EMA": lambda x, n: recursion(x, n + 1, 2),
    "REF": ref,
    "ABS": lambda x: x.with_(abs),
    "MAX": lambda a, b: either(a, b, max),
    "IF": lambda condition, yes, no: condition.with_(lambda c, y, n: y if c else n, yes, no),
}


def work(name: str, params: Mapping[str, Any], bars: Mapping[str, Sequence[float]]) -> list[Line]:
    """The lines that the formula shows, in its order; prices and shares as `bars` have them, by the panel's names."""
    text, Line.zero = FORMULAS[name]
    exact = {field: Line(map(Fraction, values)) for field, values in bars.items()}
    names: dict[str, Any] = {**FUNCTIONS, **{key.upper(): Fraction(value) for key, value in params.items()}}
    names |= {field.upper(): exact[field] for field in ("open", "high", "low", "close")}
    names["VOL"] = exact["volume"].with_(lambda shares: shares / SHARES_A_LOT)
    shown = []
    for part in text.split(";"):
        target, inner, expression = re.fullmatch(r"\s*(\w+):(=?)(.*)", part).groups()  # type: ignore[union-attr]
        expression = re.sub(r"(\w+>\w+)&&(\w+>\w+)", r"(\1)&(\2)", expression).replace("=", "==")
        names[target] = eval(expression, {"__builtins__": {}}, names)
        if not inner:
            shown.append(names[target])
    return shown


def market() -> dict[str, list[float]]:
    """280 bars: moving, flat, moving, limit-up boards of one price, flat without volume, moving.

    Prices in whole cents; of the moving bars some have no volume.
    """
    seed = 20261122
    close, bars = 1234, []

    def draw(top: int) -> int:
        nonlocal seed
        seed = (seed * 1103515245 + 12345) % 2**31
        return seed // 65536 % top

    def moving(n: int) -> None:
        nonlocal close
        for _ in range(n):
            start = close + draw(21) - 10
            close = max(start + draw(61) - 30, 100)
            bars.append(
                (
                    start,
                    max(start, close) + draw(15),
                    min(start, close) - draw(15),
                    close,
                    100 * draw(9000) * (draw(9) > 0),
                )
            )

    moving(50)
    bars.extend((close, close, close, close, 100 + 700 * draw(50)) for _ in range(90))
    moving(40)
    for _ in range(35):
        close += close // 10
        bars.append((close, close, close, close, 300 + 100 * draw(20)))
    bars.extend([(close, close, close, close, 0)] * 35)
    moving(30)
    *prices, volume = zip(*bars, strict=True)
    columns = [[cents / 100 for cents in column] for column in prices]
    fields = dict(zip(("open", "high", "low", "close"), columns, strict=True))
    return {**fields, "volume": [float(shares) for shares in volume]}
