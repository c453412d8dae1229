"""The translator, opcode by opcode: hand-written PTX against Python's unbounded integers and IEEE 754 numbers."""

import itertools
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from data.errors import EngineError
from scanner.ptx import to_c
from scanner.ptx.on_cpu import compiled

INTEGERS = (0, 1, 2, 3, 5, 7, 31, 32, 63, 64, 200, 2**31 - 1, 2**31, 2**32 - 1, 2**32 + 7, 2**62 + 12345, 2**63 - 1)
NUMBERS = (
    *(0.0, 0.1, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 7.75, 1e-310, 1e300, 2.0**31 - 0.5, 2.0**31, 2.0**53, 2.0**62, 2.0**63),
    math.inf, math.nan,
)  # fmt: skip


def signed(value: int, bits: int) -> int:
    """The low bits of an integer as two's complement."""
    value %= 2**bits
    return value - 2**bits if value >= 2 ** (bits - 1) else value


def quotient(a: int, b: int) -> int:
    """Toward zero; by zero: what the translator promises."""
    if b == 0:
        return -1
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def remainder(a: int, b: int) -> int:
    return a - b * quotient(a, b) if b else a


def whole(value: float, bits: int) -> int:
    if math.isnan(value):
        return -(2 ** (bits - 1))
    if math.isinf(value):
        return 2 ** (bits - 1) - 1 if value > 0 else -(2 ** (bits - 1))
    return max(-(2 ** (bits - 1)), min(2 ** (bits - 1) - 1, int(value)))


def kept(function: Callable[[float], int]) -> Callable[[float], float]:
    """Rounding to a whole number that keeps what is none, and the sign of zero."""
    return lambda a: math.copysign(float(function(a)), a) if math.isfinite(a) else a


def smaller(a: float, b: float) -> float:
    if math.isnan(a) or math.isnan(b):
        return b if math.isnan(a) else a
    return min((a, b), key=lambda v: (v, math.copysign(1, v)))


def larger(a: float, b: float) -> float:
    if math.isnan(a) or math.isnan(b):
        return b if math.isnan(a) else a
    return max((a, b), key=lambda v: (v, math.copysign(1, v)))


def unordered(a: float, b: float) -> bool:
    return math.isnan(a) or math.isnan(b)


def oracles() -> dict[str, Callable[..., Any]]:
    """Opcode -> what it gives, on Python's integers and floats; results are cut to their width."""
    compare: Mapping[str, Callable[[Any, Any], bool]] = {
        "eq": lambda a, b: a == b,
        "ne": lambda a, b: a != b and not unordered(a, b),
        "lt": lambda a, b: a < b,
        "le": lambda a, b: a <= b,
        "gt": lambda a, b: a > b,
        "ge": lambda a, b: a >= b,
    }
    rounding = {"rmi": math.floor, "rpi": math.ceil, "rni": round, "rzi": math.trunc}
    found: dict[str, Callable[..., Any]] = {
        "add.rn.f64": lambda a, b: np.float64(a) + b,
        "sub.rn.f64": lambda a, b: np.float64(a) - b,
        "mul.rn.f64": lambda a, b: np.float64(a) * b,
        "div.rn.f64": lambda a, b: np.float64(a) / b,
        "rcp.rn.f64": lambda a: np.float64(1.0) / a,
        "sqrt.rn.f64": lambda a: math.sqrt(a) if a >= 0 else math.nan,
        "abs.f64": abs,
        "neg.f64": lambda a: -a,
        "min.f64": smaller,
        "max.f64": larger,
        "copysign.f64": lambda a, b: math.copysign(b, a),
        "selp.f64": lambda a, b, p: a if p else b,
        "mov.f64": lambda a: a,
        "mov.pred": lambda p: p,
        "not.pred": lambda p: not p,
        "and.pred": lambda p, q: p and q,
        "or.pred": lambda p, q: p or q,
        "xor.pred": lambda p, q: p != q,
        "setp.num.f64": lambda a, b: not unordered(a, b),
        "setp.nan.f64": unordered,
        "mul.wide.s32": lambda a, b: a * b,
        "mul.wide.u32": lambda a, b: a * b,
        "cvt.s64.s32": lambda a: a,
        "cvt.u64.u32": lambda a: a,
        "cvt.u32.u64": lambda a: a,
        "cvt.s32.s64": lambda a: a,
        "cvta.to.global.u64": lambda a: a,
    }
    for name, function in compare.items():
        found[f"setp.{name}.f64"] = function
        found[f"setp.{name}u.f64"] = lambda a, b, f=function: unordered(a, b) or f(a, b)
    for suffix, function in rounding.items():
        found[f"cvt.{suffix}.f64.f64"] = kept(function)
        for bits in (64, 32):
            found[f"cvt.{suffix}.s{bits}.f64"] = lambda a, f=function, n=bits: whole(f(a) if math.isfinite(a) else a, n)
    for kind, bits in (("s64", 64), ("s32", 32), ("u64", 64), ("u32", 32)):
        found |= {
            f"add.{kind}": lambda a, b: a + b,
            f"sub.{kind}": lambda a, b: a - b,
            f"mul.lo.{kind}": lambda a, b: a * b,
            f"mad.lo.{kind}": lambda a, b, c: a * b + c,
            f"mul.hi.{kind}": lambda a, b, n=bits: (a * b) >> n,
            f"div.{kind}": quotient,
            f"rem.{kind}": remainder,
            f"min.{kind}": min,
            f"max.{kind}": max,
            f"selp.{kind}": lambda a, b, p: a if p else b,
            f"mov.{kind}": lambda a: a,
            f"shr.{kind}": lambda a, n: a >> n,
            f"cvt.rn.f64.{kind}": float,
        }
        for name, function in compare.items():
            found[f"setp.{name}.{kind}"] = lambda a, b, f=function: f(a, b)
    for bits in (64, 32):
        found |= {
            f"and.b{bits}": lambda a, b: a & b,
            f"or.b{bits}": lambda a, b: a | b,
            f"xor.b{bits}": lambda a, b: a ^ b,
            f"not.b{bits}": lambda a: ~a,
            f"neg.s{bits}": lambda a: -a,
            f"abs.s{bits}": abs,
            f"shl.b{bits}": lambda a, n: a << min(n, 64),
            f"shr.b{bits}": lambda a, n: a >> n,
            f"selp.b{bits}": lambda a, b, p: a if p else b,
            f"mov.b{bits}": lambda a: a,
            f"setp.eq.b{bits}": lambda a, b: a == b,
            f"setp.ne.b{bits}": lambda a, b: a != b,
        }
    return found


ORACLES = oracles()
BY_HAND = {
    "mul.hi.u64": [((2**64 - 1, 2**64 - 1), 2**64 - 2), ((2**32, 2**32), 1)],
    "mul.hi.s64": [((-1, 1), -1), ((-(2**63), 2), -1), ((2**62, 4), 1)],
    "rem.s64": [((-7, 3), -1), ((7, -3), 1), ((-(2**63), -1), 0)],
    "div.s64": [((-7, 3), -2), ((7, -3), -2)],
    "rem.u32": [((2**32 - 1, 10), 5)],
    "shr.s64": [((-8, 1), -4), ((-8, 64), -1), ((8, 100), 0)],
    "shl.b64": [((1, 63), 2**63), ((1, 64), 0)],
    "cvt.rmi.f64.f64": [((-1.5,), -2.0), ((1.5,), 1.0)],
    "cvt.rpi.f64.f64": [((-1.5,), -1.0), ((1.5,), 2.0)],
    "cvt.rni.f64.f64": [((0.5,), 0.0), ((1.5,), 2.0), ((2.5,), 2.0)],
    "cvt.rzi.f64.f64": [((-1.5,), -1.0)],
    "cvt.rzi.s64.f64": [((-1.5,), -1), ((1e300,), 2**63 - 1)],
    "cvt.rmi.s32.f64": [((-1.5,), -2), ((-1e300,), -(2**31))],
    "min.f64": [((0.0, -0.0), -0.0), ((math.nan, 1.0), 1.0)],
    "max.f64": [((-0.0, 0.0), 0.0), ((1.0, math.nan), 1.0)],
    "setp.ltu.f64": [((math.nan, 1.0), True)],
    "setp.lt.f64": [((math.nan, 1.0), False)],
    "setp.ne.f64": [((math.nan, 1.0), False)],
    "setp.neu.f64": [((math.nan, 1.0), True)],
    "add.rn.f64": [((0.1, 0.2), 0.30000000000000004)],
    "cvt.rn.f64.s64": [((2**53 + 1,), 2.0**53)],
    "cvt.rn.f64.u64": [((2**64 - 1,), 2.0**64)],
    "copysign.f64": [((-1.0, 3.0), -3.0)],
}
"""What the ISA says of the cases that are easy to get wrong: (operands, result)."""

LOAD = {
    "f64": "ld.global.f64 %fd{i}, [%rd1+{at}];",
    "b64": "ld.global.u64 %rd{i}, [%rd1+{at}];",
    "b32": "ld.global.u64 %rd9, [%rd1+{at}];\ncvt.u32.u64 %r{i}, %rd9;",
    "pred": "ld.global.u64 %rd9, [%rd1+{at}];\nsetp.ne.u64 %p{i}, %rd9, 0;",
}
STORE = {
    "f64": "st.global.f64 [%rd2], %fd8;",
    "b64": "st.global.u64 [%rd2], %rd8;",
    "b32": "cvt.u64.u32 %rd9, %r8;\nst.global.u64 [%rd2], %rd9;",
    "pred": "selp.u64 %rd9, 1, 0, %p8;\nst.global.u64 [%rd2], %rd9;",
}
REGISTER = {"f64": "%fd", "b64": "%rd", "b32": "%r", "pred": "%p"}
PROGRAM = """.version 6.3
.target sm_75
.address_size 64
.visible .entry {name}(
.param .u64 p0,
.param .u64 p1
)
{{
.reg .pred %p<10>;
.reg .b32 %r<10>;
.reg .b64 %rd<10>;
.reg .f64 %fd<10>;
ld.param.u64 %rd1, [p0];
ld.param.u64 %rd2, [p1];
{code}
ret;
}}
"""


ROW_OF_A_THREAD = """mov.u32 %r1, %tid.x;
mul.wide.u32 %rd3, %r1, 24;
add.s64 %rd1, %rd1, %rd3;
mul.wide.u32 %rd3, %r1, 8;
add.s64 %rd2, %rd2, %rd3;"""


def held(kind: str) -> str:
    return f"b{kind[1:]}" if kind[0] in "su" else kind


def name_of(op: str) -> str:
    return f"op_{op.replace('.', '_')}"


def program(op: str) -> str:
    """PTX that loads the operands of thread i from row i at p0, and stores the result in row i at p1."""
    entry = to_c.TABLE[op]
    kinds = [held(kind) for kind in entry.operands]
    lines = [LOAD[kind].format(i=i + 3, at=8 * i) for i, kind in enumerate(kinds)]
    args = [f"{REGISTER[held(entry.result)]}8", *(f"{REGISTER[kind]}{i + 3}" for i, kind in enumerate(kinds))]
    lines += [f"{op} {', '.join(args)};", STORE[held(entry.result)]]
    return PROGRAM.format(name=name_of(op), code="\n".join([ROW_OF_A_THREAD, *lines]))


@pytest.fixture(scope="module")
def functions(gcc: None) -> dict[str, Any]:
    return compiled([program(op) for op in to_c.TABLE])


def word(value: Any, kind: str) -> int:
    """A value of a kind as 8 bytes."""
    if kind == "f64":
        return int(struct.unpack("<Q", struct.pack("<d", value))[0])
    return int(value) % 2 ** (64 if kind == "pred" else int(kind[1:]))


def call(function: Any, given: Any, result: Any, blocks: int = 1, threads: int = 1) -> int:
    """Runs a program on two arrays, of which it may write to the second; how many accesses were outside."""
    places = np.array([given.ctypes.data, result.ctypes.data], dtype=np.uint64)
    ranges = np.array(
        [(a.ctypes.data, a.ctypes.data + a.nbytes, a is result) for a in (given, result)], dtype=np.uint64
    )
    return int(function(places.ctypes.data, 2, blocks, threads, ranges.ctypes.data, 2))


def run(function: Any, rows: Sequence[Sequence[int]]) -> list[int]:
    """The words that the program stores, one a row of operands."""
    given, result = np.zeros((len(rows), 3), dtype=np.uint64), np.zeros(len(rows), dtype=np.uint64)
    given[:, : len(rows[0])] = rows
    assert call(function, given, result, threads=len(rows)) == 0
    words: list[int] = result.tolist()
    return words


def values(op: str, place: int, kind: str) -> list[Any]:
    if kind == "f64":
        return [*NUMBERS, *(-value for value in NUMBERS)]
    if kind == "pred":
        return [False, True]
    if place == 1 and op.startswith(("shl", "shr")):
        return [0, 1, 5, 31, 32, 33, 63, 64, 65, 1000, 2**32 - 1]
    bits = int(kind[1:])
    made = {value for i in INTEGERS for value in (i % 2**bits, -i % 2**bits)}
    return sorted(signed(value, bits) if kind[0] == "s" else value for value in made)


def kinds_of(op: str) -> list[str]:
    """The kinds of the operands as the opcode means them: wrapping arithmetic is written in C on unsigned ones."""
    entry = to_c.TABLE[op]
    if op.startswith(("add.s", "sub.s", "mul.lo.s", "mad.lo.s", "neg.s")) and entry.result != "f64":
        return [entry.result] * len(entry.operands)
    return ["s64"] if op == "cvt.s32.s64" else list(entry.operands)


def same(got: int, wanted: Any, kind: str) -> bool:
    if kind == "f64" and math.isnan(wanted):
        return math.isnan(struct.unpack("<d", struct.pack("<Q", got))[0])
    return got == word(wanted, "b64" if kind == "pred" else kind)


def test_the_oracles_are_those_of_the_table() -> None:
    assert set(ORACLES) == set(to_c.TABLE)
    assert set(BY_HAND) <= set(to_c.TABLE)


@pytest.mark.parametrize("op", to_c.TABLE)
def test_an_opcode_gives_what_the_isa_says(functions: dict[str, Any], op: str) -> None:
    function, result, kinds = functions[name_of(op)], to_c.TABLE[op].result, kinds_of(op)
    given = [values(op, place, kind) for place, kind in enumerate(kinds)]
    if len(given) == 3:
        given = [part if len(part) == 2 else part[::3] for part in given]
    tried = list(itertools.product(*given))
    with np.errstate(all="ignore"):
        expected = [(operands, ORACLES[op](*operands)) for operands in tried] + BY_HAND.get(op, [])
    rows = [[word(value, kind) for value, kind in zip(operands, kinds, strict=True)] for operands, _ in expected]
    for got, (operands, wanted) in zip(run(function, rows), expected, strict=True):
        assert same(got, wanted, result), (operands, wanted, got)


MOVES = {
    name_of(op): (op, kind, code)
    for table, code in (
        (to_c.LOADS, "{op} {r}3, [p0];\nst.global.{kind} [%rd2], {r}3;"),
        (to_c.READS, "{op} {r}3, [%rd1+8];\nst.global.{kind} [%rd2+0], {r}3;"),
        (to_c.WRITES, "ld.global.{kind} {r}3, [%rd1];\n{op} [%rd2], {r}3;"),
    )
    for op, kind in table.items()
}


@pytest.fixture(scope="module")
def moves(gcc: None) -> dict[str, Any]:
    return compiled(
        [
            PROGRAM.format(name=name, code=code.format(op=op, kind=kind, r=REGISTER[held(kind)]))
            for name, (op, kind, code) in MOVES.items()
        ]
    )


@pytest.mark.parametrize("name", MOVES)
def test_loads_and_stores(moves: dict[str, Any], name: str) -> None:
    op, _, _ = MOVES[name]
    given, result = np.array([word(-2.5, "f64"), word(7.25, "f64")], dtype=np.uint64), np.zeros(1, dtype=np.uint64)
    assert call(moves[name], given, result) == 0
    assert result[0] == (given.ctypes.data if op in to_c.LOADS else given[1] if op in to_c.READS else given[0])


BRANCHING = """ld.global.u64 %rd3, [%rd1];
mov.u64 %rd4, 0;
$loop:
setp.eq.u64 %p1, %rd3, 0;
@%p1 bra $end;
add.s64 %rd4, %rd4, %rd3;
add.s64 %rd3, %rd3, -1;
bra.uni $loop;
$end:
setp.gt.s64 %p2, %rd4, 20;
@!%p2 mov.u64 %rd4, 77;
mov.u32 %r1, %ctaid.x;
mov.u32 %r2, %ntid.x;
mov.u32 %r3, %tid.x;
mad.lo.s32 %r4, %r1, %r2, %r3;
mul.wide.u32 %rd5, %r4, 8;
add.s64 %rd6, %rd2, %rd5;
st.global.u64 [%rd6], %rd4;
@%p2 bra $last;
ret;
$last:
mov.u32 %r5, %nctaid.x;
cvt.u64.u32 %rd7, %r5;
st.global.u64 [%rd6], %rd7;"""


@pytest.mark.parametrize(("count", "wanted"), [(3, 77), (10, 2)])
def test_branches_predicates_and_the_place_of_a_thread(gcc: None, count: int, wanted: int) -> None:
    (function,) = compiled([PROGRAM.format(name="branches", code=BRANCHING)]).values()
    given, result = np.array([count], dtype=np.uint64), np.zeros(6, dtype=np.uint64)
    assert call(function, given, result, blocks=2, threads=3) == 0
    assert result.tolist() == [wanted] * 6
    # Two threads more than there is room for: what they would overwrite is not theirs.
    assert call(function, given, result, blocks=2, threads=4) > 0
    assert function(given.ctypes.data, 3, 2, 3, given.ctypes.data, 0) == -1


def test_memory_outside_the_arrays_is_not_touched(gcc: None) -> None:
    code = "ld.global.u64 %rd3, [%rd1+{at}];\nst.global.u64 [%rd{to}], %rd3;"
    tried = [(0, 2, 0), (8, 2, 1), (-8, 2, 1), (4, 2, 1), (0, 1, 1)]
    texts = [PROGRAM.format(name=f"reach{i}", code=code.format(at=at, to=to)) for i, (at, to, _) in enumerate(tried)]
    functions = compiled(texts)
    for i, (_, _, wild) in enumerate(tried):
        given, result = np.array([5], dtype=np.uint64), np.zeros(1, dtype=np.uint64)
        assert call(functions[f"reach{i}"], given, result) == wild
        assert given[0] == 5
        assert wild or result[0] == 5


REFUSED = (
    "fma.rn.f64 %fd1, %fd2, %fd3, %fd4;", "add.f64 %fd1, %fd2, %fd3;", "add.rz.f64 %fd1, %fd2, %fd3;",
    "mul.f64 %fd1, %fd2, %fd3;", "mad.rn.f64 %fd1, %fd2, %fd3, %fd4;", "div.approx.f32 %fd1, %fd2, %fd3;",
    "sqrt.approx.ftz.f64 %fd1, %fd2;", "rcp.approx.ftz.f64 %fd1, %fd2;", "ex2.approx.f32 %fd1, %fd2;",
    "cvt.f64.f64 %fd1, %fd2;", "cvt.rn.f64.f32 %fd1, %fd2;", "cvt.rzi.u64.f64 %rd1, %fd2;",
    "setp.lt.and.f64 %p1, %fd2, %fd3, %p2;", "setp.lt.f64 %p1|%p2, %fd2, %fd3;", "mul.s64 %rd1, %rd2, %rd3;",
    "ld.global.nc.f64 %fd1, [%rd1];", "ld.shared.f64 %fd1, [%rd1];", "ld.local.f64 %fd1, [%rd1];",
    "ld.global.v2.f64 {%fd1, %fd2}, [%rd1];", "ld.global.f32 %fd1, [%rd1];", "st.local.f64 [%rd1], %fd1;",
    "atom.global.add.f64 %fd1, [%rd1], %fd2;", "red.global.add.f64 [%rd1], %fd2;", "bar.sync 0;",
    "shfl.sync.bfly.b32 %r1, %r2, 1, 31, -1;", "call.uni foo, ();", "brx.idx %r1, table;", "trap;",
    "mov.u32 %r1, %tid.y;", "mov.u32 %r1, %clock;", "mov.u64 %rd1, symbol;", "mov.u64 %rd1, %tid.x;",
    "mov.b64 {%r1, %r2}, %rd1;", "add.s64 %rd1, %rd2;", "add.s64 %rd1, %rd2, %rd3, %rd4;", "add.s64 %r1, %r2, %r3;",
    "add.s32 %rd1, %rd2, %rd3;", "add.rn.f64 %fd1, %rd2, %fd3;", "add.rn.f64 %fd1, 1.0, %fd3;",
    "add.rn.f64 %fd1, 0f3F800000, %fd3;", "add.s32 %r1, %r2, 4294967296;", "add.s64 %rd1, %rd99, 1;",
    "@%rd1 bra $x;", "@%p1 %p2 ret;", "ld.param.u64 %rd1, [p2];", "ld.param.u64 %rd1, [p0+4];", "ret 1;",
    ".reg .b16 %h<2>;", ".local .b8 depot[8];", ".shared .b8 s[8];", '.pragma "unroll";', "{", "x: add.s64",
    "bra %rd1;", "ld.global.u64 %rd1, [%rd2+%rd3];", "ld.global.u64 %rd1, [p0];",
)  # fmt: skip


@pytest.mark.parametrize("line", REFUSED)
def test_anything_else_is_refused(line: str) -> None:
    with pytest.raises(EngineError, match="PTX: odd: "):
        to_c.translate([PROGRAM.format(name="odd", code=line)])


@pytest.mark.parametrize("line", [".extern .func foo;", ".global .align 8 .b8 table[8];", ".func bar()", "garbage"])
def test_so_is_what_stands_outside_of_entries(line: str) -> None:
    with pytest.raises(EngineError, match="cannot read"):
        to_c.translate([f"{line}\n" + PROGRAM.format(name="odd", code="")])
