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


@_word
def select(typing: Any, test: Any, one: Any, other: Any) -> Any:
    """`one if test else other` without a branch."""
    kind = types.int64 if isinstance(one, types.Integer) and isinstance(other, types.Integer) else float64

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return kind(types.boolean, kind, kind), generate


@_word
def call(typing: Any, kernel: Any, t: Any, left: Any, right: Any, pitch: Any, matrices: Any, params: Any) -> Any:
    """Call a kernel at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [_LONG] * 6)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), generate


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
