"""Instructions that compute one result per lane from one, two or three sources, and what ``.ftz`` and ``.sat`` add."""

from collections.abc import Callable

import numpy as np

from minet_sdk.kernels.ptx.formats import Format
from minet_sdk.kernels.ptx.operands import Decoder, Step
from minet_sdk.kernels.ptx.rounding import Value, flush
from minet_sdk.kernels.ptx.syntax import Instruction

Function = Callable[..., Value]
Unary = Callable[[Value], Value]
Binary = Callable[[Value, Value], Value]
Ternary = Callable[[Value, Value, Value], Value]
Builder = Callable[[Decoder, Instruction], Step]


def unary(decoder: Decoder, instruction: Instruction, result: Format, function: Unary, form: Format) -> Step:
    """The step that writes ``function`` of its source."""
    write = decoder.target(instruction.operands[0], result)
    (one,) = decoder.sources(instruction.operands[1:], form)
    return lambda lanes: write(lanes, function(one(lanes)))


def binary(
    decoder: Decoder, instruction: Instruction, result: Format, function: Binary, first: Format, second: Format
) -> Step:
    """The step that writes ``function`` of its two sources."""
    write = decoder.target(instruction.operands[0], result)
    one, two = decoder.sources(instruction.operands[1:], first, second)
    return lambda lanes: write(lanes, function(one(lanes), two(lanes)))


def ternary(
    decoder: Decoder,
    instruction: Instruction,
    result: Format,
    function: Ternary,
    forms: tuple[Format, Format, Format],
) -> Step:
    """The step that writes ``function`` of its three sources."""
    write = decoder.target(instruction.operands[0], result)
    one, two, three = decoder.sources(instruction.operands[1:], *forms)
    return lambda lanes: write(lanes, function(one(lanes), two(lanes), three(lanes)))


def flushed(function: Function) -> Function:
    """``.ftz``: subnormal sources and results are zero."""

    def inner(*values: Value) -> Value:
        return flush(function(*(flush(value) for value in values)))

    return inner


def saturated(function: Function, form: Format) -> Function:
    """``.sat``: results in [0, 1], NaN as +0."""
    zero, one = form.compute(0), form.compute(1)

    def inner(*values: Value) -> Value:
        return np.fmin(np.fmax(function(*values), zero), one) + zero

    return inner


def rectified(function: Function, form: Format) -> Function:
    """``.relu``: negative results are +0, NaN stays."""
    zero = form.compute(0)

    def inner(*values: Value) -> Value:
        result = function(*values)
        return np.where(result <= zero, zero, result)

    return inner
