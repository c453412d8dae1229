"""What compiled kernels are made of besides Python: numba's intrinsics for addresses and selects.

Each is an instruction or two to LLVM and next to nothing to numba, whose own arrays take most of a kernel's time to
compile. A pointer of numba's reads and writes like an array, `p[j]`, and checks nothing.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import float64, types
from numba.extending import intrinsic

pointer = types.CPointer(float64)
_LONG = ir.IntType(64)
_DOUBLES = ir.DoubleType().as_pointer()


def _word(function: Callable[..., Any]) -> Any:
    return intrinsic(function)


@_word
def numbers(typing: Any, address: Any) -> Any:
    """The float64 at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], _DOUBLES)

    return pointer(types.intp), generate


@_word
def integers(typing: Any, address: Any) -> Any:
    """The int64 at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], _LONG.as_pointer())

    return types.CPointer(types.int64)(types.intp), generate


@_word
def at(typing: Any, start: Any, place: Any) -> Any:
    """A pointer `place` numbers after another."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.gep(arguments[0], [arguments[1]])

    return pointer(pointer, types.intp), generate


class _Distinct(ir.MDValue):  # type: ignore[misc]  # it has no types
    """Metadata that equals no other; of a loop it begins with itself."""

    def __init__(self, module: Any, values: Any, *, loop: bool) -> None:
        super().__init__(module, values, name=str(len(module.metadata)))
        self._loop = loop

    def descr(self, buf: Any) -> None:
        operands = [*([self] if self._loop else []), *self.operands]
        buf += (f"distinct !{{ {', '.join(one.get_reference() for one in operands)} }}", "\n")


def _columns(builder: Any) -> tuple[Any, dict[str, Any]]:
    """A function's accesses to columns as metadata, and the blocks where they stand."""
    known = getattr(builder.function, "of_columns", None)
    if known is None:
        known = builder.function.of_columns = _Distinct(builder.module, (), loop=False), {}
    return known


@_word
def read(typing: Any, row: Any, j: Any) -> Any:
    """A row's number at column `j`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        group, blocks = _columns(builder)
        blocks[builder.block.name] = builder.block
        value = builder.load(builder.gep(arguments[0], [arguments[1]]))
        value.set_metadata("llvm.access.group", group)
        return value

    return float64(pointer, types.intp), generate


@_word
def write(typing: Any, row: Any, j: Any, value: Any) -> Any:
    """Put a number into a row at column `j`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        group, blocks = _columns(builder)
        blocks[builder.block.name] = builder.block
        store = builder.store(arguments[2], builder.gep(arguments[0], [arguments[1]]))
        store.set_metadata("llvm.access.group", group)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, float64), generate


@_word
def part(typing: Any) -> Any:
    """Stands last in a kernel, and says that columns know nothing of each other.

    Without it LLVM looks at each bar which rows lie across each other before it takes several columns at once.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        group, blocks = _columns(builder)
        for block in blocks.values():
            end = block.terminator
            if isinstance(end, ir.Branch):
                apart = builder.module.add_metadata(["llvm.loop.parallel_accesses", group])
                end.set_metadata("llvm.loop", _Distinct(builder.module, (apart,), loop=True))
        return context.get_dummy_value()

    return types.void(), generate


@_word
def select(typing: Any, test: Any, one: Any, other: Any) -> Any:
    """`one if test else other` without a branch."""
    kind = types.int64 if isinstance(one, types.Integer) and isinstance(other, types.Integer) else float64

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return kind(types.boolean, kind, kind), generate


@_word
def wrap(typing: Any, place: Any, rows: Any) -> Any:
    """`place % rows` as Python has it, and soon told where it is `place`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, rows = arguments
        before = builder.block
        inside = builder.icmp_unsigned("<", place, rows)
        with builder.if_then(builder.not_(inside), likely=False):
            # Of no rows, which no kernel reads: it has been found out before.
            some = builder.select(builder.icmp_signed("==", rows, _LONG(0)), _LONG(1), rows)
            rest = builder.srem(place, some)
            rest = builder.select(builder.icmp_signed("<", rest, _LONG(0)), builder.add(rest, rows), rest)
            outside = builder.block
        found = builder.phi(_LONG)
        found.add_incoming(place, before)
        found.add_incoming(rest, outside)
        return found

    return types.int64(types.int64, types.int64), generate


@_word
def beyond(typing: Any, known: Any, place: Any, rows: Any) -> Any:
    """`known`, or 1 where there is no such row."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        known, place, rows = arguments
        return builder.or_(known, builder.zext(builder.icmp_unsigned(">=", place, rows), _LONG))

    return types.int64(*[types.int64] * 3), generate


@_word
def call(typing: Any, kernel: Any, t: Any, left: Any, right: Any, matrices: Any, params: Any) -> Any:
    """Call a kernel at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(_LONG, [_LONG] * 5)
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])

    return types.int64(*[types.int64] * 6), generate


@_word
def take(typing: Any, address: Any) -> Any:
    """The number at an address, which is one more for the next who takes it, of all threads."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.atomic_rmw("add", builder.inttoptr(arguments[0], _LONG.as_pointer()), _LONG(1), "seq_cst")

    return types.int64(types.int64), generate


@_word
def settle(typing: Any) -> Any:
    """What was streamed before is there for every thread after."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


def _copier(lanes: int, align: int, *, streamed: bool) -> Any:
    @_word
    def copy(typing: Any, to: Any, source: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = ir.VectorType(ir.DoubleType(), lanes).as_pointer()
            values = builder.load(builder.inttoptr(arguments[1], kind), align=8)
            store = builder.store(values, builder.inttoptr(arguments[0], kind), align=align)
            if streamed:
                store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
            return context.get_dummy_value()

        return types.void(types.intp, types.intp), generate

    return copy


one, line = _copier(1, 8, streamed=False), _copier(8, 64, streamed=True)
"""(to, source): copy a number, or 64 bytes past the caches, between addresses."""
