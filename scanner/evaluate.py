"""Terms -> values: each distinct term once, in the order of dependency, and only as many bars of it as are needed."""

import functools
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from data.errors import ExpressionError
from scanner.engines.base import Call, Engine, Series, run_all
from scanner.fields import FIELDS, Source, tail
from scanner.functions import FUNCTIONS, both, compare, either, negated, rank_within
from scanner.indicators.window import WINDOWS
from scanner.language import parse_value
from scanner.terms import ARITHMETIC, COMPARISONS, Term, order

Array = npt.NDArray[Any]


def needed(terms: Mapping[Term, int], length: int, known: Container[Term] = ()) -> dict[Term, int]:
    """Terms with the bars wanted of each -> every term below them with the bars needed of it, in the order to compute.

    An indicator needs the whole history of its inputs, a function its reach on top of what is wanted of it.
    """
    need = dict.fromkeys(order(terms, known), 0)
    for term, keep in terms.items():
        if term in need:
            need[term] = max(need[term], min(keep, length))
    for term in reversed(need):
        for arg in term.args:
            if arg in need:
                need[arg] = max(need[arg], min(length, _keep_of_argument(term, need[term], length)))
    return need


def _keep_of_argument(term: Term, keep: int, length: int) -> int:
    if term.op == "indicator":
        return length
    if term.op == "function":
        name, n = term.data
        if FUNCTIONS[name].across:  # halted symbols had their older bars beside bars of others that lie further back
            return keep if keep <= 1 else length
        reach = FUNCTIONS[name].reach(n or 1)
        return length if reach is None else keep + reach
    return keep


def evaluate(
    terms: Mapping[Term, int], source: Source, engine: Engine, known: Mapping[Term, Array] | None = None
) -> dict[Term, Array]:
    """Compute `terms`, each for the bars wanted of it.

    Returns term -> float64 (bars, symbols), the newest last, or of an indicator with several outputs a tuple of such;
    conditions are 1.0, 0.0 and NaN for unknown; texts are objects; division by zero is unknown. A term that no symbol's
    bars change may be a plain number. `known`: values of terms computed elsewhere.
    """
    known = known or {}
    need = needed(terms, source.length, known)
    values: dict[Term, Any] = dict(known)
    inputs: dict[Term, Series] = {}
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for indicators, others in _waves(need):
            calls = [_call(term, need[term], values, source, inputs) for term in indicators]
            for term, outputs in zip(indicators, run_all(engine, calls), strict=True):
                values[term] = outputs if len(outputs) > 1 else outputs[0]
            for term in others:
                values[term] = _value(term, need[term], values, source)
    return {term: _last(values[term], min(keep, source.length)) for term, keep in terms.items()}


def _last(value: Any, keep: int) -> Any:
    if isinstance(value, tuple):
        return tuple(tail(part, keep) for part in value)
    return value if np.ndim(value) == 0 else tail(value, keep)


def _series(term: Term, value: Any, source: Source) -> Series:
    """An indicator's input as engines take it."""
    packed = source.packed
    if term.op == "field":
        stored = packed.fields.get(term.data)
        if stored is not None and source.series(term.data) is stored:
            return Series(stored, packed.lengths, packed.memo(term.data))
    shape = (source.length, len(packed.symbols))
    return Series(tail(value, source.length) if np.ndim(value) else np.full(shape, value), packed.lengths)


def _waves(terms: Iterable[Term]) -> list[tuple[list[Term], list[Term]]]:
    """Terms in the order to compute -> (indicators that can be computed together, what follows from them), in turn."""
    waves: list[tuple[list[Term], list[Term]]] = [([], [])]
    number: dict[Term, int] = {}
    for term in terms:
        number[term] = max((number.get(arg, 0) for arg in term.args), default=0) + (term.op == "indicator")
        if number[term] == len(waves):
            waves.append(([], []))
        waves[number[term]][term.op != "indicator"].append(term)
    return waves


def _call(term: Term, keep: int, values: Mapping[Term, Any], source: Source, inputs: dict[Term, Series]) -> Call:
    for arg in term.args:
        if arg not in inputs:
            inputs[arg] = _series(arg, values[arg], source)
    return Call(term.indicator, term.parameters, [inputs[arg] for arg in term.args], keep)


def _value(term: Term, keep: int, values: Mapping[Term, Any], source: Source) -> Any:
    match term.op:
        case "const":
            return np.float64(term.data)
        case "field":
            return FIELDS[term.data].value(source, keep)
        case "output":
            (parent,) = term.args
            return tail(values[parent][parent.indicator.outputs.index(term.data)], keep)
        case "function" if term.data[0] in WINDOWS or FUNCTIONS[term.data[0]].across:
            return _function(term, keep, values, source)
    return pointwise(term, [_last(values[arg], keep) for arg in term.args])


def pointwise(term: Term, args: Sequence[Any]) -> Any:
    """What a term makes of the values of its arguments, each by itself: arithmetic, comparison, logic.

    The caller silences numpy's warnings of division and overflow.
    """
    match term.op:
        case "function":
            return FUNCTIONS[term.data[0]].core(*args)
        case "in":
            return np.isin(args[0].astype(str), term.data).astype(np.float64)
        case "/":
            return np.where(args[1] == 0, np.nan, args[0] / args[1])
        case "neg":
            return -args[0]
        case "not":
            return negated(args[0])
        case "and":
            return functools.reduce(both, args)
        case "or":
            return functools.reduce(either, args)
        case sign if sign in ARITHMETIC:
            return ARITHMETIC[sign](*args)
        case sign:
            return compare(args[0], args[1], COMPARISONS[sign])


def _function(term: Term, keep: int, values: Mapping[Term, Any], source: Source) -> Array:
    name, n = term.data
    function = FUNCTIONS[name]
    wanted = min(_keep_of_argument(term, keep, source.length), source.length)
    args = [_last(values[arg], wanted) for arg in term.args]
    if all(np.ndim(arg) == 0 for arg in args):
        args[0] = np.broadcast_to(args[0], (wanted, len(source.packed.symbols)))
    if function.across:
        return tail(rank_within(args[0], source.ends(wanted)), keep)
    lengths = source.packed.lengths
    age = np.arange(wanted)[:, None] - (wanted - lengths)  # of each bar, 0 at the symbol's first
    young = len(lengths) > 0 and lengths.min() < wanted
    if young:
        # Before it a constant, a board, a number of bars is known all the same, and counts for nothing.
        args = [np.where(age < 0, np.nan, arg) for arg in args]
    found = function.core(*args) if n is None else function.core(*args, n)
    if young and n is not None:
        found = np.where(age < (function.reach(n) or 0), np.nan, found)
    return tail(found, keep)


def expressions_of(expressions: Iterable[str] | str) -> dict[str, Term]:
    """Expressions as they were written -> terms of numbers and conditions; raises ExpressionError, ParameterError."""
    wanted = [expressions] if isinstance(expressions, str) else list(expressions)
    terms = {expression: parse_value(expression) for expression in wanted}
    for expression, term in terms.items():
        if term.kind == "text":
            raise ExpressionError(f"{expression!r} is a text; values are numbers and conditions", column=1)
    return terms
