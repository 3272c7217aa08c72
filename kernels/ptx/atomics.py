"""``atom`` and ``red``: lanes that meet at an address take their turns in the order of their numbers.

On a GPU that order is open; a kernel whose result depends on it, such as a sum of floats, is not deterministic.
Atomic accesses take no part in the search for races.
"""

from collections.abc import Callable

import numpy as np

from minet_sdk.kernels.ptx.access import resolve
from minet_sdk.kernels.ptx.elementwise import Builder
from minet_sdk.kernels.ptx.errors import UnsupportedError
from minet_sdk.kernels.ptx.formats import Format
from minet_sdk.kernels.ptx.lanes import Lanes
from minet_sdk.kernels.ptx.modifiers import Modifiers
from minet_sdk.kernels.ptx.operands import Decoder, Step
from minet_sdk.kernels.ptx.rounding import Value
from minet_sdk.kernels.ptx.syntax import Instruction

_SPACES = ("global", "shared", "shared::cta")
_SCOPES = ("relaxed", "acquire", "release", "acq_rel", "cta", "gpu", "sys", "noftz")
_Change = Callable[[Value, Value, Value], Value]
"""New value of old one, first and second operand."""


def _increment(old: Value, most: Value, _: Value) -> Value:
    return np.where(old >= most, np.uint32(0), old + np.uint32(1))


def _decrement(old: Value, most: Value, _: Value) -> Value:
    return np.where((old == 0) | (old > most), most, old - np.uint32(1))


def _compare_and_swap(old: Value, expected: Value, new: Value) -> Value:
    return np.where(old == expected, new, old)


_ARITHMETIC: dict[str, _Change] = {
    "add": lambda old, value, _: old + value,
    "min": lambda old, value, _: np.minimum(old, value),
    "max": lambda old, value, _: np.maximum(old, value),
    "inc": _increment,
    "dec": _decrement,
}
_LOGIC: dict[str, _Change] = {
    "and": lambda old, value, _: old & value,
    "or": lambda old, value, _: old | value,
    "xor": lambda old, value, _: old ^ value,
    "exch": lambda old, value, _: value,
    "cas": _compare_and_swap,
}


def _change(name: str, form: Format) -> _Change:
    bits_only = form.name[0] == "b" and not form.is_float
    table = _LOGIC if bits_only else _ARITHMETIC
    if name not in table or form.bits < 32 or (form.is_float and name != "add") or form.is_packed:
        raise UnsupportedError(f"atomic .{name} of .{form.name}")
    if name in ("inc", "dec") and form.name != "u32":
        raise UnsupportedError(f"atomic .{name} of .{form.name}")
    return table[name]


def atomic(decoder: Decoder, instruction: Instruction) -> Step:
    """``atom``, which returns the old value, and ``red``, which does not."""
    modifiers = Modifiers(instruction)
    form = modifiers.form()
    name = modifiers.choice((*_ARITHMETIC, *_LOGIC))
    space = modifiers.choice(_SPACES, "generic").partition("::")[0]
    modifiers.flag(*_SCOPES)
    modifiers.done()
    change = _change(name, form)
    operands = list(instruction.operands)
    write = decoder.target(operands.pop(0), form) if instruction.opcode == "atom" else None
    pointer = decoder.pointer(operands.pop(0))
    if len(operands) != (2 if name == "cas" else 1):
        raise UnsupportedError(f"{len(operands)} values for atomic .{name}")
    first, second = decoder.source(operands[0], form), decoder.source(operands[-1], form)
    size = form.bits // 8

    def step(lanes: Lanes) -> None:
        memory, address = resolve(lanes, space, pointer(lanes))
        one, two = lanes.full(first(lanes)), lanes.full(second(lanes))
        old = np.zeros(lanes.count, form.raw)

        def turn(bits: Value, who: Value) -> Value:
            old[who] = bits
            return form.encode(change(form.decode(bits), one[who], two[who]))

        memory.update(lanes, address, size, turn)
        if write:
            write(lanes, form.decode(old))

    return step


ATOMICS: dict[str, Builder] = {"atom": atomic, "red": atomic}
