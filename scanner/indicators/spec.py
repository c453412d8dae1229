"""What an indicator is: one frozen declaration, from which validation, help, documents, engines and laws follow."""

import difflib
import numbers
import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from data.errors import ExpressionError, ParameterError

Family = Literal["trend", "momentum", "volatility", "volume", "patterns", "other"]
Pane = Literal["overlay", "oscillator"]
Dialect = Literal["talib", "tdx"]
FAMILIES: tuple[Family, ...] = get_args(Family)

Value = int | float
Advance = Callable[..., None]
"""A row kernel: (t, j0, j1, inputs, state, outputs, parameters), see `scanner.indicators.rows`."""


@dataclass(frozen=True)
class Kernel:
    """An indicator's row kernel, with what it needs and how near to TA-Lib it comes."""

    advance: Advance
    state: int | Callable[..., int] = 0
    """Rows of state; a function of the parameters where it depends on them."""
    rtol: float = 1e-12
    """How far its values may lie from TA-Lib's, as a share of the largest of that output."""
    flat: Callable[..., tuple[float, ...]] | None = None
    """Outputs where no input changed during the lookback, from the inputs of that bar, if TA-Lib's are but rounding."""
    still: Callable[..., tuple[int, ...]] | None = None
    """Of each output: after how many bars without a change it is `flat`, if that is sooner than the lookback."""
    total: bool = False
    """Whether NaN may reach it: it runs from a symbol's first bar to its last. The others run from the first bar at
    which all inputs are finite to the first later one at which one is not."""

    def rows(self, params: Mapping[str, Value]) -> int:
        """How many rows of state it needs."""
        return self.state if isinstance(self.state, int) else self.state(**params)


@dataclass(frozen=True)
class Param:
    """One parameter: its type, its default, and bounds that both belong to it."""

    name: str
    kind: type[int] | type[float]
    default: Value
    lo: Value
    hi: Value

    @property
    def bounds(self) -> str:
        return f"[{self.lo:g}, {self.hi:g}]" if self.kind is float else f"[{self.lo}, {self.hi}]"

    def check(self, owner: str, value: Any) -> Value:
        """The value as `int` or `float` (numpy's numbers count, truth values do not); raises ParameterError."""
        kind: Any = numbers.Integral if self.kind is int else numbers.Real
        if isinstance(value, bool) or not isinstance(value, kind) or not self.lo <= value <= self.hi:
            noun = "an integer" if self.kind is int else "a number"
            raise ParameterError(f"{owner} {self.name} must be {noun} in {self.bounds}; got {value!r}")
        return self.kind(value)


def integer(name: str, default: int, lo: int = 2, hi: int = 100_000) -> Param:
    """An integer parameter; the bounds are what TA-Lib gives most of its periods."""
    return Param(name, int, default, lo, hi)


def number(name: str, default: float, lo: float = -3e37, hi: float = 3e37) -> Param:
    """A float parameter; the bounds are TA-Lib's widest."""
    return Param(name, float, default, lo, hi)


@dataclass(frozen=True, eq=False)
class Indicator:
    """One indicator, declared once. Two are equal if they are the same object; one is pickled by its name.

    `inputs` are fields of a panel, in the order in which the function takes them; an expression may put others in their
    place. `lookback(**params)` is the number of bars without a value before the first one. It is computed by `kernel`,
    or by TA-Lib's function `talib`, whose parameters that are none of ours `fixed` holds; most have both.
    """

    name: str
    title: str
    title_zh: str
    family: Family
    pane: Pane
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    lookback: Callable[..., int]
    doc: str
    params: tuple[Param, ...] = ()
    reference_lines: tuple[float, ...] = ()
    dialect: Dialect = "talib"
    talib: str | None = None
    fixed: Mapping[str, Value] = field(default_factory=dict)
    kernel: Kernel | None = None
    """Without one the engines that run kernels leave the indicator to the engine `talib`; where TA-Lib lacks the
    indicator, that engine runs the kernel's numpy form."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Other names of outputs -> the output."""
    recursive: bool = False
    """Whether a value feeds on the one before it, so that an old bar fades instead of leaving the window."""

    def bind(self, *args: object, **kwargs: object) -> dict[str, Value]:
        """Arguments -> every parameter with its value, in the order of the declaration; raises ParameterError."""
        names = [param.name for param in self.params]
        if len(args) > len(names):
            takes = f"at most {len(names)}: {', '.join(names)}" if names else "no parameter"
            raise ParameterError(f"{self.name} takes {takes}; got {', '.join(map(repr, args))}")
        given = dict(zip(names, args, strict=False))
        for name, value in kwargs.items():
            if name not in names:
                raise ParameterError(f"{self.name} has no parameter {name!r}; it takes {', '.join(names) or 'none'}")
            if name in given:
                raise ParameterError(f"{self.name} {name} is given twice: {given[name]!r} and {value!r}")
            given[name] = value
        return {p.name: p.check(self.name, given[p.name]) if p.name in given else p.default for p in self.params}

    def key(self, params: Mapping[str, Value]) -> str:
        """The canonical text of this indicator with bound parameters, `MACD(12,26,9)`: equal texts, equal values."""
        return f"{self.name}({','.join(_text(params[param.name]) for param in self.params)})"

    def output(self, name: str) -> int:
        """The place of an output, by its name or an alias; raises ExpressionError with the nearest name."""
        known = (*self.outputs, *self.aliases)
        if name not in known:
            raise ExpressionError(
                f"{self.name} has no output {name!r}; {suggestion(name, known) or 'it has ' + ', '.join(self.outputs)}"
            )
        return self.outputs.index(self.aliases.get(name, name))

    def __reduce__(self) -> tuple[Callable[[str], "Indicator"], tuple[str]]:
        from scanner.indicators import find

        if find(self.name) is not self:
            raise pickle.PicklingError(
                f"{self.name} is pickled by its name, and the catalogue has another of that name"
            )
        return find, (self.name,)


def suggestion(name: str, known: Iterable[str]) -> str:
    """`did you mean 'RSI'?`, or nothing where no known name is near."""
    near = difflib.get_close_matches(name.upper(), {k.upper(): k for k in known}, n=1)
    return f"did you mean {next(k for k in known if k.upper() == near[0])!r}?" if near else ""


def _text(value: Value) -> str:
    return repr(value).removesuffix(".0")
