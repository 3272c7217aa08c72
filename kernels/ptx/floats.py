"""Floating-point arithmetic of f16, bf16, f32, f64 and packed pairs, each result rounded once.

``.approx`` and ``.full`` results are computed in float64 and rounded, where hardware may be a few units in the last
place off: a kernel must not depend on their last bits.
"""

from typing import Any

import numpy as np

from minet_sdk.kernels.ptx.elementwise import (
    Binary,
    Builder,
    Function,
    Unary,
    binary,
    flushed,
    rectified,
    saturated,
    ternary,
    unary,
)
from minet_sdk.kernels.ptx.errors import UnsupportedError
from minet_sdk.kernels.ptx.formats import Format
from minet_sdk.kernels.ptx.modifiers import Modifiers
from minet_sdk.kernels.ptx.operands import Decoder, Step
from minet_sdk.kernels.ptx.rounding import (
    Rounding,
    Value,
    add_to_odd,
    multiply_add_f32,
    multiply_add_f64,
    multiply_add_to_odd,
    round_to,
)
from minet_sdk.kernels.ptx.syntax import Instruction

_MODES = ("rn", "rz", "rm", "rp")


def _rounded(to_odd: Function, form: Format, mode: Rounding) -> Function:
    """A float64 function that rounds to odd, with the rounding of its result to ``form``."""
    kind, name = form.compute, form.name.removesuffix("x2")

    def inner(*values: Value) -> Value:
        return round_to(to_odd(*(np.asarray(value, np.float64) for value in values)), name, mode).astype(kind)

    return inner


def _directed(instruction: Instruction, form: Format, mode: Any, to_odd: Function, from_above: Function) -> Function:
    """A rounding other than to nearest, which exists for f32 and f64; the latter is not supported.

    Args:
        instruction: for the message.
        form: of sources and result.
        mode: direction.
        to_odd: the function in float64.
        from_above: the same of negated terms, negated: rounded down, terms that cancel give -0.
    """
    if form.name != "f32":
        raise UnsupportedError(f"{instruction.opcode}.{mode}.{form.name} is not supported")
    return _rounded(from_above if mode == "rm" else to_odd, form, mode)


def _sum_from_above(first: Value, second: Value) -> Value:
    return -add_to_odd(-first, -second)


def _fused_from_above(first: Value, second: Value, third: Value) -> Value:
    return -multiply_add_to_odd(-first, second, -third)


def _modified(modifiers: Modifiers, form: Format, function: Function) -> Function:
    """Claim and apply what acts on any function."""
    if modifiers.flag("ftz"):
        function = flushed(function)
    if modifiers.flag("sat"):
        function = saturated(function, form)
    if modifiers.flag("relu"):
        function = rectified(function, form)
    modifiers.done()
    return function


def _exact(to_nearest: Binary, to_odd: Binary, from_above: Binary) -> Builder:
    """Functions of two sources that NumPy rounds correctly to nearest."""

    def build(decoder: Decoder, instruction: Instruction) -> Step:
        modifiers = Modifiers(instruction)
        form = modifiers.form()
        mode = modifiers.choice(_MODES, "rn")
        function = to_nearest if mode == "rn" else _directed(instruction, form, mode, to_odd, from_above)
        return binary(decoder, instruction, form, _modified(modifiers, form, function), form, form)

    return build


def fused(decoder: Decoder, instruction: Instruction) -> Step:
    """``fma``, and ``mad`` of floats."""
    modifiers = Modifiers(instruction)
    form = modifiers.form()
    mode: Any = modifiers.choice(_MODES, "rn")
    if mode != "rn":
        function = _directed(instruction, form, mode, multiply_add_to_odd, _fused_from_above)
    elif form.name == "f64":
        function = multiply_add_f64
    elif form.name == "f32":
        function = multiply_add_f32
    else:
        function = _rounded(multiply_add_to_odd, form, "rn")
    return ternary(decoder, instruction, form, _modified(modifiers, form, function), (form, form, form))


def divide(decoder: Decoder, instruction: Instruction) -> Step:
    """``div``."""
    modifiers = Modifiers(instruction)
    form = modifiers.form()
    modifiers.choice(("rn", "approx", "full"))
    return binary(decoder, instruction, form, _modified(modifiers, form, np.divide), form, form)


def _extreme(choose: Binary, choose_nan: Binary, sign_of_zero: Binary) -> Builder:
    """``min`` and ``max``: a NaN loses against a number unless ``.NaN`` is given, and -0 is less than +0."""

    def build(decoder: Decoder, instruction: Instruction) -> Step:
        modifiers = Modifiers(instruction)
        form = modifiers.form()
        extreme = choose_nan if modifiers.flag("NaN") else choose
        plus, minus = form.compute(0.0), form.compute(-0.0)

        def function(first: Value, second: Value) -> Value:
            result = extreme(first, second)
            zeros = (first == 0) & (second == 0)
            if not zeros.any():
                return result
            negative = sign_of_zero(np.signbit(first), np.signbit(second))
            return np.where(zeros, np.where(negative, minus, plus), result)

        return binary(decoder, instruction, form, _modified(modifiers, form, function), form, form)

    return build


def _sign(function: Unary) -> Builder:
    def build(decoder: Decoder, instruction: Instruction) -> Step:
        modifiers = Modifiers(instruction)
        form = modifiers.form()
        return unary(decoder, instruction, form, _modified(modifiers, form, function), form)

    return build


def _by_double(function: Unary, *modes: str) -> Builder:
    """Functions of one source, evaluated in float64."""

    def build(decoder: Decoder, instruction: Instruction) -> Step:
        modifiers = Modifiers(instruction)
        form = modifiers.form()
        modifiers.choice(modes)

        def rounded(value: Value) -> Value:
            return function(value.astype(np.float64)).astype(form.compute)

        return unary(decoder, instruction, form, _modified(modifiers, form, rounded), form)

    return build


FLOATS: dict[str, Builder] = {
    "add": _exact(np.add, add_to_odd, _sum_from_above),
    "sub": _exact(np.subtract, lambda a, b: add_to_odd(a, -b), lambda a, b: _sum_from_above(a, -b)),
    "mul": _exact(np.multiply, np.multiply, np.multiply),
    "fma": fused,
    "mad": fused,
    "div": divide,
    "min": _extreme(np.fmin, np.minimum, np.logical_or),
    "max": _extreme(np.fmax, np.maximum, np.logical_and),
    "abs": _sign(np.abs),
    "neg": _sign(np.negative),
    "rcp": _by_double(lambda value: 1 / value, "rn", "approx"),
    "sqrt": _by_double(np.sqrt, "rn", "approx"),
    "rsqrt": _by_double(lambda value: 1 / np.sqrt(value), "approx"),
    "ex2": _by_double(np.exp2, "approx"),
    "lg2": _by_double(np.log2, "approx"),
    "sin": _by_double(np.sin, "approx"),
    "cos": _by_double(np.cos, "approx"),
    "tanh": _by_double(np.tanh, "approx"),
}
