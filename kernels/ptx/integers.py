"""Integer arithmetic: add, sub, mul, mad, div, rem, min, max, abs, neg, sad; results wrap, division is towards zero."""

from collections.abc import Callable

import numpy as np

from minet_sdk.kernels.ptx.elementwise import Binary, Builder, Unary, binary, ternary, unary
from minet_sdk.kernels.ptx.errors import DivisionError, UnsupportedError
from minet_sdk.kernels.ptx.formats import FORMATS, Format
from minet_sdk.kernels.ptx.lanes import Lanes
from minet_sdk.kernels.ptx.modifiers import Modifiers
from minet_sdk.kernels.ptx.operands import Decoder, Step
from minet_sdk.kernels.ptx.rounding import Value
from minet_sdk.kernels.ptx.syntax import Instruction

_PARTS = ("lo", "hi", "wide")


def _simple(function: Binary) -> Builder:
    def build(decoder: Decoder, instruction: Instruction) -> Step:
        modifiers = Modifiers(instruction)
        form = modifiers.form()
        modifiers.done()
        return binary(decoder, instruction, form, function, form, form)

    return build


def _sum(function: Binary) -> Builder:
    """``add`` and ``sub``, which can saturate."""

    def clamped(first: Value, second: Value) -> Value:
        wide = function(first.astype(np.int64), second.astype(np.int64))
        return np.clip(wide, -(1 << 31), (1 << 31) - 1).astype(np.int32)

    def build(decoder: Decoder, instruction: Instruction) -> Step:
        modifiers = Modifiers(instruction)
        form = modifiers.form()
        saturates = form.name == "s32" and modifiers.flag("sat")
        modifiers.done()
        return binary(decoder, instruction, form, clamped if saturates else function, form, form)

    return build


def _signed(function: Unary) -> Builder:
    def build(decoder: Decoder, instruction: Instruction) -> Step:
        modifiers = Modifiers(instruction)
        form = modifiers.form()
        modifiers.done()
        if not form.is_signed:
            raise UnsupportedError(f"{instruction.opcode} of .{form.name}")
        return unary(decoder, instruction, form, function, form)

    return build


def _product(form: Format, part: str) -> tuple[Format, Binary]:
    """Result type and function of a multiplication."""
    if part == "lo":
        return form, np.multiply
    if part == "hi" and form.bits == 64:
        return form, _high_signed if form.is_signed else _high
    wide = FORMATS[f"{form.name[0]}{2 * form.bits}"]
    kind, narrow = wide.compute, form.compute
    if part == "wide":
        return wide, lambda first, second: first.astype(kind) * second.astype(kind)
    shift = kind(form.bits)
    return form, lambda first, second: (first.astype(kind) * second.astype(kind) >> shift).astype(narrow)


def _high(first: Value, second: Value) -> Value:
    """Upper 64 of 128 bits, unsigned."""
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    first_low, first_high = first & low, first >> half
    second_low, second_high = second & low, second >> half
    middle = first_high * second_low + (first_low * second_low >> half)
    other = first_low * second_high + (middle & low)
    return first_high * second_high + (middle >> half) + (other >> half)


def _high_signed(first: Value, second: Value) -> Value:
    """Upper 64 of 128 bits, signed: the unsigned product counts a negative factor as 2^64 more than it is."""
    one, two = first.view(np.uint64), second.view(np.uint64)
    nothing = np.uint64(0)
    excess = np.where(first < 0, two, nothing) + np.where(second < 0, one, nothing)
    return (_high(one, two) - excess).view(np.int64)


def multiply(decoder: Decoder, instruction: Instruction) -> Step:
    """``mul``."""
    modifiers = Modifiers(instruction)
    form = modifiers.form()
    result, function = _product(form, modifiers.choice(_PARTS))
    modifiers.done()
    return binary(decoder, instruction, result, function, form, form)


def multiply_add(decoder: Decoder, instruction: Instruction) -> Step:
    """``mad``."""
    modifiers = Modifiers(instruction)
    form = modifiers.form()
    result, product = _product(form, modifiers.choice(_PARTS))
    modifiers.done()
    return ternary(decoder, instruction, result, lambda a, b, c: product(a, b) + c, (form, form, result))


def _low_24(form: Format) -> Binary:
    eight = form.compute(8)
    return lambda first, second: ((first << eight) >> eight) * ((second << eight) >> eight)


def multiply_24(decoder: Decoder, instruction: Instruction) -> Step:
    """``mul24.lo`` and ``mad24.lo``: lower 32 bits of the product of lower 24."""
    modifiers = Modifiers(instruction)
    form = modifiers.form()
    modifiers.require("lo")
    modifiers.done()
    product = _low_24(form)
    if instruction.opcode == "mul24":
        return binary(decoder, instruction, form, product, form, form)
    return ternary(decoder, instruction, form, lambda a, b, c: product(a, b) + c, (form, form, form))


def absolute_difference(decoder: Decoder, instruction: Instruction) -> Step:
    """``sad``: c + |a - b|."""
    modifiers = Modifiers(instruction)
    form = modifiers.form()
    modifiers.done()
    return ternary(
        decoder, instruction, form, lambda a, b, c: c + (np.maximum(a, b) - np.minimum(a, b)), (form, form, form)
    )


def _division(pick: Callable[[Value, Value], Value]) -> Builder:
    """``div`` and ``rem``; ``pick`` chooses between quotient and remainder."""

    def build(decoder: Decoder, instruction: Instruction) -> Step:
        modifiers = Modifiers(instruction)
        form = modifiers.form()
        modifiers.done()
        write = decoder.target(instruction.operands[0], form)
        left, right = decoder.sources(instruction.operands[1:], form, form)

        def step(lanes: Lanes) -> None:
            dividend, divisor = left(lanes), right(lanes)
            zero = lanes.full(divisor == 0)
            if lanes.any(zero):
                raise DivisionError("integer division by zero", lane=lanes.first(zero))
            quotient, rest = dividend // divisor, dividend % divisor
            if form.is_signed:
                # NumPy rounds down; PTX towards zero.
                up = (rest != 0) & ((dividend < 0) != (divisor < 0))
                quotient, rest = np.where(up, quotient + 1, quotient), np.where(up, rest - divisor, rest)
            write(lanes, pick(quotient, rest))

        return step

    return build


INTEGERS: dict[str, Builder] = {
    "add": _sum(np.add),
    "sub": _sum(np.subtract),
    "mul": multiply,
    "mad": multiply_add,
    "mul24": multiply_24,
    "mad24": multiply_24,
    "sad": absolute_difference,
    "div": _division(lambda quotient, rest: quotient),
    "rem": _division(lambda quotient, rest: rest),
    "min": _simple(np.minimum),
    "max": _simple(np.maximum),
    "abs": _signed(np.abs),
    "neg": _signed(np.negative),
}
