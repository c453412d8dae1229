"""PTX turned into C, so that a CPU can run what a GPU would, instruction by instruction.

Whole opcodes, with their types and rounding, are looked up in one table; what is not in it is refused, and so is every
directive and operand of another form. Integers wrap, shifts beyond the width give what PTX gives, minima and maxima
order -0 before +0 and prefer a number to a NaN, conversions to integers saturate. Every load and store is checked
against the arrays of the call. Registers start with a value that no program would hold.

Two things differ from a GPU and are not seen: threads run one after another, and the payload of a NaN is the CPU's.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from data.errors import EngineError

HEADER = """#include <math.h>
#include <stdint.h>
#include <string.h>

typedef struct { uint64_t low, high, writable; } range;
typedef struct { const range *ranges; uint64_t n, wild; double scratch; } memory;

static inline double f64(uint64_t bits) { double value; memcpy(&value, &bits, 8); return value; }

/* Where 8 bytes may be read or written; elsewhere a place that harms nobody, and the access is counted. */
static inline void *at(memory *m, uint64_t address, int write) {
  for (uint64_t i = 0; i < m->n; i++) {
    const range *r = m->ranges + i;
    if (address >= r->low && address + 8 <= r->high && address % 8 == 0 && (r->writable || !write))
      return (void *)address;
  }
  m->wild++;
  return &m->scratch;
}

static inline double least(double a, double b) {
  if (isnan(a)) return b;
  if (isnan(b)) return a;
  return a < b || (a == b && signbit(a)) ? a : b;
}
static inline double most(double a, double b) {
  if (isnan(a)) return b;
  if (isnan(b)) return a;
  return a > b || (a == b && !signbit(a)) ? a : b;
}
static inline int64_t whole64(double a) {
  if (isnan(a) || a < -0x1p63) return INT64_MIN;
  return a >= 0x1p63 ? INT64_MAX : (int64_t)a;
}
static inline int32_t whole32(double a) {
  if (isnan(a) || a < -0x1p31) return INT32_MIN;
  return a >= 0x1p31 ? INT32_MAX : (int32_t)a;
}
/* Division by zero is no trap on a GPU: all bits are set, and the dividend remains. */
static inline uint64_t div_u64(uint64_t a, uint64_t b) { return b ? a / b : ~0ULL; }
static inline uint64_t rem_u64(uint64_t a, uint64_t b) { return b ? a % b : a; }
static inline uint32_t div_u32(uint32_t a, uint32_t b) { return b ? a / b : ~0U; }
static inline uint32_t rem_u32(uint32_t a, uint32_t b) { return b ? a % b : a; }
static inline int64_t div_s64(int64_t a, int64_t b) { return b == -1 ? (int64_t)-(uint64_t)a : b ? a / b : -1; }
static inline int64_t rem_s64(int64_t a, int64_t b) { return b == -1 ? 0 : b ? a % b : a; }
static inline int32_t div_s32(int32_t a, int32_t b) { return b == -1 ? (int32_t)-(uint32_t)a : b ? a / b : -1; }
static inline int32_t rem_s32(int32_t a, int32_t b) { return b == -1 ? 0 : b ? a % b : a; }
"""

C_TYPES = {
    "f64": "double", "pred": "int", "s64": "int64_t", "u64": "uint64_t", "b64": "uint64_t", "s32": "int32_t",
    "u32": "uint32_t", "b32": "uint32_t",
}  # fmt: skip
_START = {"f64": "-1.2345678e300", "pred": "1", "b64": "0xA5A5A5A5A5A5A5A5ULL", "b32": "0xA5A5A5A5U"}
_SPECIAL = {"%tid.x": "tid", "%ntid.x": "ntid", "%ctaid.x": "ctaid", "%nctaid.x": "nctaid"}


@dataclass(frozen=True)
class Op:
    """One opcode: the kind of its result, those of its operands, and the C of its value."""

    result: str
    operands: tuple[str, ...]
    value: str


def _op(result: str, operands: str, value: str) -> Op:
    return Op(result, tuple(operands.split()), value)


def _table() -> dict[str, Op]:
    ops: dict[str, Op] = {}
    for kind, bits in (("s64", 64), ("s32", 32), ("u64", 64), ("u32", 32)):
        two, unsigned = f"{kind} {kind}", f"u{bits} u{bits}"
        for name, sign in (("add", "+"), ("sub", "-"), ("mul.lo", "*")):
            ops[f"{name}.{kind}"] = _op(kind, unsigned, f"{{0}} {sign} {{1}}")
        ops[f"mad.lo.{kind}"] = _op(kind, f"{unsigned} u{bits}", "{0} * {1} + {2}")
        ops[f"div.{kind}"] = _op(kind, two, f"div_{kind}({{0}}, {{1}})")
        ops[f"rem.{kind}"] = _op(kind, two, f"rem_{kind}({{0}}, {{1}})")
        ops[f"min.{kind}"] = _op(kind, two, "{0} < {1} ? {0} : {1}")
        ops[f"max.{kind}"] = _op(kind, two, "{0} > {1} ? {0} : {1}")
        wide = "__int128" if bits == 64 else "int64_t"
        wide = wide if kind[0] == "s" else f"unsigned {wide}" if bits == 64 else "uint64_t"
        ops[f"mul.hi.{kind}"] = _op(kind, two, f"(({wide}){{0}} * ({wide}){{1}}) >> {bits}")
        ops[f"selp.{kind}"] = _op(kind, f"{two} pred", "{2} ? {0} : {1}")
        ops[f"mov.{kind}"] = _op(kind, kind, "{0}")
        for name, sign in (("eq", "=="), ("ne", "!="), ("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">=")):
            ops[f"setp.{name}.{kind}"] = _op("pred", two, f"{{0}} {sign} {{1}}")
        fill = "({0} < 0 ? -1 : 0)" if kind[0] == "s" else "0"
        ops[f"shr.{kind}"] = _op(kind, f"{kind} u32", f"{{1}} < {bits} ? {{0}} >> {{1}} : {fill}")
        ops[f"cvt.rn.f64.{kind}"] = _op("f64", kind, "(double){0}")
    for bits in (64, 32):
        two = f"b{bits} b{bits}"
        for name, sign in (("and", "&"), ("or", "|"), ("xor", "^")):
            ops[f"{name}.b{bits}"] = _op(f"b{bits}", two, f"{{0}} {sign} {{1}}")
        ops[f"not.b{bits}"] = _op(f"b{bits}", f"b{bits}", "~{0}")
        ops[f"neg.s{bits}"] = _op(f"s{bits}", f"u{bits}", f"(uint{bits}_t)0 - {{0}}")
        ops[f"abs.s{bits}"] = _op(f"s{bits}", f"s{bits}", f"{{0}} < 0 ? (uint{bits}_t)0 - {{0}} : {{0}}")
        ops[f"shl.b{bits}"] = _op(f"b{bits}", f"b{bits} u32", f"{{1}} < {bits} ? {{0}} << {{1}} : 0")
        ops[f"shr.b{bits}"] = _op(f"b{bits}", f"b{bits} u32", f"{{1}} < {bits} ? {{0}} >> {{1}} : 0")
        ops[f"selp.b{bits}"] = _op(f"b{bits}", f"{two} pred", "{2} ? {0} : {1}")
        ops[f"mov.b{bits}"] = _op(f"b{bits}", f"b{bits}", "{0}")
        ops[f"setp.eq.b{bits}"] = _op("pred", two, "{0} == {1}")
        ops[f"setp.ne.b{bits}"] = _op("pred", two, "{0} != {1}")
        for suffix, rounding in (("rmi", "floor"), ("rpi", "ceil"), ("rni", "nearbyint"), ("rzi", "trunc")):
            ops[f"cvt.{suffix}.s{bits}.f64"] = _op(f"s{bits}", "f64", f"whole{bits}({rounding}({{0}}))")
            ops[f"cvt.{suffix}.f64.f64"] = _op("f64", "f64", f"{rounding}({{0}})")
    for name, sign in (("and", "&"), ("or", "|"), ("xor", "^")):
        ops[f"{name}.pred"] = _op("pred", "pred pred", f"{{0}} {sign} {{1}}")
    for name, sign in (("add", "+"), ("sub", "-"), ("mul", "*"), ("div", "/")):
        ops[f"{name}.rn.f64"] = _op("f64", "f64 f64", f"{{0}} {sign} {{1}}")
    less_or_greater = "{0} < {1} || {0} > {1}"
    for name, value in {
        "eq": "{0} == {1}", "ne": less_or_greater, "lt": "{0} < {1}", "le": "{0} <= {1}", "gt": "{0} > {1}",
        "ge": "{0} >= {1}", "equ": f"!({less_or_greater})", "neu": "{0} != {1}", "ltu": "!({0} >= {1})",
        "leu": "!({0} > {1})", "gtu": "!({0} <= {1})", "geu": "!({0} < {1})",
        "num": "!isnan({0}) && !isnan({1})", "nan": "isnan({0}) || isnan({1})",
    }.items():  # fmt: skip
        ops[f"setp.{name}.f64"] = _op("pred", "f64 f64", value)
    return ops | {
        "not.pred": _op("pred", "pred", "!{0}"),
        "mov.pred": _op("pred", "pred", "{0}"),
        "rcp.rn.f64": _op("f64", "f64", "1.0 / {0}"),
        "sqrt.rn.f64": _op("f64", "f64", "sqrt({0})"),
        "abs.f64": _op("f64", "f64", "fabs({0})"),
        "neg.f64": _op("f64", "f64", "-{0}"),
        "min.f64": _op("f64", "f64 f64", "least({0}, {1})"),
        "max.f64": _op("f64", "f64 f64", "most({0}, {1})"),
        "copysign.f64": _op("f64", "f64 f64", "copysign({1}, {0})"),
        "selp.f64": _op("f64", "f64 f64 pred", "{2} ? {0} : {1}"),
        "mov.f64": _op("f64", "f64", "{0}"),
        "mul.wide.s32": _op("s64", "s32 s32", "(int64_t){0} * (int64_t){1}"),
        "mul.wide.u32": _op("u64", "u32 u32", "(uint64_t){0} * (uint64_t){1}"),
        "cvt.s64.s32": _op("s64", "s32", "{0}"),
        "cvt.u64.u32": _op("u64", "u32", "{0}"),
        "cvt.u32.u64": _op("u32", "u64", "{0}"),
        "cvt.s32.s64": _op("s32", "u64", "{0}"),
        "cvta.to.global.u64": _op("u64", "u64", "{0}"),
    }


TABLE = _table()
"""Opcode -> its result. Loads, stores and branches stand in `_instruction`."""
LOADS = {f"ld.param.{kind}": kind for kind in ("u64", "s64", "b64", "f64")}
READS = {f"ld.global.{kind}": kind for kind in ("u64", "s64", "b64", "f64")}
WRITES = {f"st.global.{kind}": kind for kind in ("u64", "s64", "b64", "f64")}
BRANCHES = ("bra", "bra.uni", "ret")

_ENTRY = re.compile(r"\.visible \.entry (\w+)\(\n?(.*?)\n?\)\n\{\n(.*?)\n\}\n", re.DOTALL)
_PREAMBLE = re.compile(r"(\.version [\d.]+|\.target sm_\w+|\.address_size 64|)")


def translate(texts: Iterable[str]) -> str:
    """C with a function for every entry of the PTX, by the entry's name; raises EngineError for what it does not know.

    `int64 name(words, n_words, blocks, threads, ranges, n_ranges)` runs every thread in turn, and returns how many
    loads and stores were outside the ranges, -1 where the words are not as many as the entry's parameters. A range is
    (low, high, writable), of 8-byte words.
    """
    return HEADER + "".join(_function(*entry) for text in texts for entry in _entries(text))


def _entries(text: str) -> Iterator[tuple[str, str, str]]:
    """(name, parameters, body) of each entry."""
    text = re.sub(r"//[^\n]*", "", text)
    text = "".join(f"{line}\n" for part in text.splitlines() if (line := part.strip()))
    for line in _ENTRY.sub("", text).splitlines():
        if not _PREAMBLE.fullmatch(line):
            raise EngineError(f"PTX: cannot read {line!r}")
    for match in _ENTRY.finditer(text):
        yield match[1], match[2], match[3]


def _function(name: str, params: str, body: str) -> str:
    """The C of one entry."""
    words = {}
    for place, line in enumerate(params.splitlines()):
        match = re.fullmatch(r"\.param \.(u64|s64|b64|f64)(?: \.ptr \.align \d+)? (\w+),?", line)
        if not match:
            raise EngineError(f"PTX: {name}: cannot read the parameter {line!r}")
        words[match[2]] = place
    kinds: dict[str, str] = {}
    lines = []
    for line in body.splitlines():
        if match := re.fullmatch(r"\.reg \.(\w+) %(\w+)<(\d+)>;", line):
            kind, prefix, number = match[1], match[2], int(match[3])
            if kind not in _START:
                raise EngineError(f"PTX: {name}: no register can be .{kind}")
            names = [f"{prefix}{i}" for i in range(number)]
            kinds |= dict.fromkeys(names, kind)
            lines.append(f"{C_TYPES[kind]} {', '.join(f'{n} = {_START[kind]}' for n in names)};")
        elif match := re.fullmatch(r"\$(\w+):", line):
            lines.append(f"{match[1]}:;")
        elif match := re.fullmatch(r"(?:@(!?)%(\w+) )?([a-z][\w.]*)(?: (.*))?;", line):
            try:
                code = _instruction(match[3], _split(match[4] or ""), kinds, words)
            except (EngineError, KeyError, ValueError) as error:
                raise EngineError(f"PTX: {name}: cannot read {line!r}: {error}") from error
            if match[2] and kinds.get(match[2]) != "pred":
                raise EngineError(f"PTX: {name}: {line!r} hangs on no predicate")
            lines.append(f"if ({match[1]}{match[2]}) {{ {code} }}" if match[2] else code)
        elif line != '.pragma "nounroll";':
            raise EngineError(f"PTX: {name}: cannot read {line!r}")
    code = "\n".join(f"  {line}" for line in lines)
    return f"""
static void run_{name}(const uint64_t *P, uint32_t nctaid, uint32_t ntid, uint32_t ctaid, uint32_t tid, memory *m) {{
{code}
}}
int64_t {name}(const uint64_t *P, uint64_t words, uint32_t nctaid, uint32_t ntid, const range *ranges, uint64_t n) {{
  memory m = {{ranges, n, 0, 0.0}};
  if (words != {len(words)}) return -1;
  for (uint32_t b = 0; b < nctaid; b++) for (uint32_t t = 0; t < ntid; t++) run_{name}(P, nctaid, ntid, b, t, &m);
  return m.wild;
}}
"""


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if text else []


def _instruction(op: str, args: list[str], kinds: dict[str, str], words: dict[str, int]) -> str:
    if op in TABLE:
        entry = TABLE[op]
        to, *operands = args
        values = [_operand(o, kind, kinds) for o, kind in zip(operands, entry.operands, strict=True)]
        return f"{_register(to, entry.result, kinds)} = ({C_TYPES[entry.result]})({entry.value.format(*values)});"
    if op in LOADS:
        to, place = args
        word = f"P[{words[place[1:-1]]}]"
        return f"{_register(to, LOADS[op], kinds)} = {f'f64({word})' if op.endswith('f64') else word};"
    if op in READS:
        to, place = args
        kind = READS[op]
        return f"{_register(to, kind, kinds)} = *(const {C_TYPES[kind]} *)at(m, {_address(place, kinds)}, 0);"
    if op in WRITES:
        place, value = args
        kind = WRITES[op]
        return f"*({C_TYPES[kind]} *)at(m, {_address(place, kinds)}, 1) = {_operand(value, kind, kinds)};"
    if op in ("bra", "bra.uni"):
        (label,) = args
        if not re.fullmatch(r"\$\w+", label):
            raise EngineError(f"{label} is no label")
        return f"goto {label[1:]};"
    if op == "ret" and not args:
        return "return;"
    raise EngineError("the opcode is not in the table")


def _register(text: str, kind: str, kinds: dict[str, str]) -> str:
    """A register that holds values of a kind; integers of one width share registers."""
    name = text.removeprefix("%")
    held = f"b{kind[1:]}" if kind[0] in "su" else kind
    if not text.startswith("%") or kinds[name] != held:
        raise EngineError(f"{text} is no register of .{held}")
    return name


def _operand(text: str, kind: str, kinds: dict[str, str]) -> str:
    if kind == "u32" and text in _SPECIAL:
        return _SPECIAL[text]
    if kind == "f64" and re.fullmatch(r"0[dD][0-9A-Fa-f]{16}", text):
        return f"f64(0x{text[2:]}ULL)"
    if kind == "pred" and text in ("0", "-1"):
        return str(int(text == "-1"))
    if kind[0] in "sub" and re.fullmatch(r"-?\d+", text):
        bits = int(kind[1:])
        if not -(2 ** (bits - 1)) <= int(text) < 2**bits:
            raise EngineError(f"{text} has more than {bits} bits")
        return f"(({C_TYPES[kind]})0x{int(text) % 2**bits:X}ULL)"
    return f"(({C_TYPES[kind]}){_register(text, kind, kinds)})"


def _address(text: str, kinds: dict[str, str]) -> str:
    match = re.fullmatch(r"\[(%\w+)(?:\+(-?\d+))?\]", text)
    if not match:
        raise EngineError(f"{text} is no address")
    return f"{_register(match[1], 'u64', kinds)} + {int(match[2] or 0)}ULL"
