"""Bits and bytes: logic, shifts, lop3, prmt, bit fields, counting."""

from collections.abc import Callable

import numpy as np

from minet_sdk.kernels.ptx.elementwise import Builder, binary, ternary, unary
from minet_sdk.kernels.ptx.errors import UnsupportedError
from minet_sdk.kernels.ptx.formats import FORMATS, RAW
from minet_sdk.kernels.ptx.lanes import Lanes
from minet_sdk.kernels.ptx.modifiers import Modifiers
from minet_sdk.kernels.ptx.operands import Decoder, Step
from minet_sdk.kernels.ptx.rounding import Value
from minet_sdk.kernels.ptx.syntax import Instruction, Integer

U32 = FORMATS["u32"]


def _logical(function: Callable[[Value, Value], Value]) -> Builder:
    def build(decoder: Decoder, instruction: Instruction) -> Step:
        modifiers = Modifiers(instruction)
        form = modifiers.form()
        modifiers.done()
        return binary(decoder, instruction, form, function, form, form)

    return build


def invert(decoder: Decoder, instruction: Instruction) -> Step:
    """``not``."""
    modifiers = Modifiers(instruction)
    form = modifiers.form()
    modifiers.done()
    return unary(decoder, instruction, form, np.bitwise_not, form)


def is_zero(decoder: Decoder, instruction: Instruction) -> Step:
    """``cnot``: 1 where the source is 0."""
    modifiers = Modifiers(instruction)
    form = modifiers.form()
    modifiers.done()
    kind = form.compute
    return unary(decoder, instruction, form, lambda value: (value == 0).astype(kind), form)


def _shift(move: Callable[[Value, Value], Value], *, left: bool) -> Builder:
    """``shl`` and ``shr``: an amount beyond the width empties the register, or fills it with the sign."""

    def build(decoder: Decoder, instruction: Instruction) -> Step:
        modifiers = Modifiers(instruction)
        form = modifiers.form()
        modifiers.done()
        most, kind = form.bits - 1, form.compute
        fills = form.is_signed and not left

        def function(value: Value, amount: Value) -> Value:
            shifted = move(value, np.minimum(amount, np.uint32(most)).astype(kind))
            beyond = amount > most
            if fills or not beyond.any():
                return shifted
            return np.where(beyond, kind(0), shifted)

        return binary(decoder, instruction, form, function, form, U32)

    return build


def funnel(decoder: Decoder, instruction: Instruction) -> Step:
    """``shf``: shift of two registers as one of 64 bits."""
    modifiers = Modifiers(instruction)
    modifiers.require("b32")
    right = modifiers.choice(("l", "r")) == "r"
    wrap = modifiers.choice(("wrap", "clamp")) == "wrap"
    modifiers.done()

    def function(low: Value, high: Value, amount: Value) -> Value:
        both = low.astype(np.uint64) | (high.astype(np.uint64) << np.uint64(32))
        bounded = amount & np.uint32(31) if wrap else np.minimum(amount, np.uint32(32))
        count = bounded.astype(np.uint64)
        shifted = both >> count if right else (both << count) >> np.uint64(32)
        return shifted.astype(np.uint32)

    return ternary(decoder, instruction, U32, function, (U32, U32, U32))


def lookup(decoder: Decoder, instruction: Instruction) -> Step:
    """``lop3``: any logical function of three sources, given as its truth table."""
    modifiers = Modifiers(instruction)
    modifiers.require("b32")
    modifiers.done()
    *operands, table = instruction.operands
    if not isinstance(table, Integer) or len(operands) != 4:
        raise UnsupportedError("expected three sources and a constant table")
    entries = [entry for entry in range(8) if table.value >> entry & 1]
    write = decoder.target(operands[0], U32)
    readers = decoder.sources(operands[1:], U32, U32, U32)

    def step(lanes: Lanes) -> None:
        a, b, c = (read(lanes) for read in readers)
        result = a & np.uint32(0)
        for entry in entries:
            result = result | ((a if entry & 4 else ~a) & (b if entry & 2 else ~b) & (c if entry & 1 else ~c))
        write(lanes, result)

    return step


_PERMUTATIONS: dict[str, Callable[[Value], tuple[Value, ...]]] = {
    "f4e": lambda n: (n, n + 1, n + 2, n + 3),
    "b4e": lambda n: (n, n + 7, n + 6, n + 5),
    "rc8": lambda n: (n, n, n, n),
    "ecl": lambda n: (n, np.maximum(n, 1), np.maximum(n, 2), np.maximum(n, 3)),
    "ecr": lambda n: (np.minimum(n, 0), np.minimum(n, 1), np.minimum(n, 2), n),
    "rc16": lambda n: (2 * (n & 1), 2 * (n & 1) + 1, 2 * (n & 1), 2 * (n & 1) + 1),
}
"""Bytes of the named modes of ``prmt`` for a selector of 0 to 3, modulo 8."""


def permute(decoder: Decoder, instruction: Instruction) -> Step:
    """``prmt``: four bytes out of eight; bit 3 of a selector replicates the sign of the byte."""
    modifiers = Modifiers(instruction)
    modifiers.require("b32")
    mode = modifiers.choice(_PERMUTATIONS, "")
    modifiers.done()

    def function(low: Value, high: Value, selectors: Value) -> Value:
        both = low.astype(np.uint64) | (high.astype(np.uint64) << np.uint64(32))
        if mode:
            picks = tuple(pick & 7 for pick in _PERMUTATIONS[mode]((selectors & np.uint32(3)).astype(np.int64)))
        else:
            picks = tuple((selectors >> np.uint32(4 * i)).astype(np.int64) & 15 for i in range(4))
        result = np.uint32(0)
        for i, pick in enumerate(picks):
            byte = (both >> ((pick & 7) * 8).astype(np.uint64)).astype(np.uint8)
            byte = np.where(pick & 8, np.where(byte & np.uint8(128), np.uint8(255), np.uint8(0)), byte)
            result = result | (byte.astype(np.uint32) << np.uint32(8 * i))
        return result

    return ternary(decoder, instruction, U32, function, (U32, U32, U32))


def _low_bits(count: Value, bits: int) -> Value:
    """Masks with the lowest ``count`` (0 to ``bits``) of ``bits`` bits set."""
    raw = RAW[bits]
    shift = np.clip(bits - count, 0, bits - 1).astype(raw)
    return np.where(count <= 0, raw(0), raw((1 << bits) - 1) >> shift)


def extract(decoder: Decoder, instruction: Instruction) -> Step:
    """``bfe``: a field of bits, extended by its sign for signed types."""
    modifiers = Modifiers(instruction)
    form = modifiers.form()
    modifiers.done()
    bits, raw, kind = form.bits, form.raw, form.compute

    def function(value: Value, start: Value, length: Value) -> Value:
        whole = value.view(raw)
        first, count = (start & np.uint32(255)).astype(np.int64), (length & np.uint32(255)).astype(np.int64)
        inside = np.clip(np.minimum(first + count, bits) - first, 0, bits)
        moved = np.where(first >= bits, raw(0), whole >> np.minimum(first, bits - 1).astype(raw))
        field = moved & _low_bits(inside, bits)
        if form.is_signed:
            # The sign is the last bit of the field, or that of the register if the field reaches beyond it.
            last = np.clip(first + count - 1, 0, bits - 1).astype(raw)
            negative = (count > 0) & (((whole >> last) & raw(1)) == 1)
            field = np.where(negative, field | ~_low_bits(inside, bits), field)
        return field.view(kind)

    return ternary(decoder, instruction, form, function, (form, U32, U32))


def insert(decoder: Decoder, instruction: Instruction) -> Step:
    """``bfi``: a field of bits of the first source into the second."""
    modifiers = Modifiers(instruction)
    form = modifiers.form()
    modifiers.done()
    bits, raw = form.bits, form.raw
    write = decoder.target(instruction.operands[0], form)
    field, into, start, length = decoder.sources(instruction.operands[1:], form, form, U32, U32)

    def step(lanes: Lanes) -> None:
        first, count = start(lanes) & np.uint32(255), length(lanes) & np.uint32(255)
        shift = np.minimum(first, np.uint32(bits - 1)).astype(raw)
        ones = _low_bits(np.minimum(count, np.uint32(bits)).astype(np.int64), bits) << shift
        mask = np.where(first >= bits, raw(0), ones)
        write(lanes, (into(lanes) & ~mask) | ((field(lanes) << shift) & mask))

    return step


def ones_from(decoder: Decoder, instruction: Instruction) -> Step:
    """``bmsk``: ones from a position on."""
    modifiers = Modifiers(instruction)
    modifiers.require("b32")
    wrap = modifiers.choice(("clamp", "wrap")) == "wrap"
    modifiers.done()

    def function(start: Value, length: Value) -> Value:
        if wrap:
            start, length = start & np.uint32(31), length & np.uint32(31)
        ones = _low_bits(np.minimum(length, np.uint32(32)).astype(np.int64), 32)
        return np.where(start > 31, np.uint32(0), ones << np.minimum(start, np.uint32(31)))

    return binary(decoder, instruction, U32, function, U32, U32)


def _positions(value: Value, bits: int) -> Value:
    """(..., bits) bool, the most significant bit first."""
    return (np.asarray(value)[..., None] >> np.arange(bits - 1, -1, -1).astype(RAW[bits])) & 1 != 0


def _leading_zeros(value: Value, bits: int) -> Value:
    positions = _positions(value, bits)
    return np.where(positions.any(axis=-1), positions.argmax(axis=-1), bits).astype(np.uint32)


def _counting(function: Callable[[Value, int], Value]) -> Builder:
    """Instructions that turn the bits of one source into a number."""

    def build(decoder: Decoder, instruction: Instruction) -> Step:
        modifiers = Modifiers(instruction)
        form = modifiers.form()
        modifiers.done()
        return unary(decoder, instruction, U32, lambda value: function(value, form.bits), form)

    return build


def find(decoder: Decoder, instruction: Instruction) -> Step:
    """``bfind``: position of the highest bit that differs from the sign, or -1."""
    modifiers = Modifiers(instruction)
    form = modifiers.form()
    as_shift = modifiers.flag("shiftamt")
    modifiers.done()

    def function(value: Value) -> Value:
        bits = np.where(value < 0, ~value, value).view(form.raw)
        zeros = _leading_zeros(bits, form.bits)
        found = zeros if as_shift else np.uint32(form.bits - 1) - zeros
        return np.where(bits == 0, np.uint32(0xFFFFFFFF), found)

    return unary(decoder, instruction, U32, function, form)


def reverse(decoder: Decoder, instruction: Instruction) -> Step:
    """``brev``."""
    modifiers = Modifiers(instruction)
    form = modifiers.form()
    modifiers.done()
    weights = np.uint64(1) << np.arange(form.bits, dtype=np.uint64)

    def function(value: Value) -> Value:
        return (_positions(value, form.bits) * weights).sum(axis=-1, dtype=np.uint64).astype(form.raw)

    return unary(decoder, instruction, form, function, form)


BITS: dict[str, Builder] = {
    "and": _logical(np.bitwise_and),
    "or": _logical(np.bitwise_or),
    "xor": _logical(np.bitwise_xor),
    "not": invert,
    "cnot": is_zero,
    "shl": _shift(np.left_shift, left=True),
    "shr": _shift(np.right_shift, left=False),
    "shf": funnel,
    "lop3": lookup,
    "prmt": permute,
    "bfe": extract,
    "bfi": insert,
    "bmsk": ones_from,
    "popc": _counting(lambda value, bits: _positions(value, bits).sum(axis=-1, dtype=np.uint32)),
    "clz": _counting(_leading_zeros),
    "bfind": find,
    "brev": reverse,
}
