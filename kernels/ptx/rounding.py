"""Rounding as IEEE 754 says, for the formats and directions that NumPy does not offer.

Results are formed in float64 with "round to odd": the last bit says whether anything was lost, so that a second
rounding to a shorter format is the same as one rounding of the exact value (Boldo and Melquiond, 2008).
"""

from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Rounding = Literal["rn", "rz", "rm", "rp", "rna"]
"""To nearest with ties to even, to zero, down, up, to nearest with ties away from zero."""

Value: TypeAlias = Any
"""One value per lane as an array, or a NumPy scalar where all lanes hold the same; the type is the instruction's."""

Float64 = npt.NDArray[np.float64]

PRECISION = {"f16": (11, -14, 15), "bf16": (8, -126, 127), "f32": (24, -126, 127), "tf32": (11, -126, 127)}
"""Bits of the significand with the leading one, smallest and largest exponent of normal numbers."""

_BELOW_F32, _TIE_OF_F32 = np.uint64(0x1FFFFFFF), np.uint64(0x10000000)
"""Bits of a float64 that a normal float32 has no room for, and what they are halfway between two of them."""
_SMALLEST_F32 = np.float32(2.0**-126)
_SPLIT = 2.0**27 + 1
"""Veltkamp's constant: cuts a float64 into two halves whose products are exact."""


def bf16_to_f32(bits: Value) -> Value:
    """uint16 bits of bfloat16 -> float32, exact."""
    return (np.asarray(bits, np.uint32) << np.uint32(16)).view(np.float32)


def f32_to_bf16(value: Value) -> Value:
    """float32 -> uint16 bits of bfloat16, to nearest, ties to even; NaN becomes 0x7fff."""
    bits = np.asarray(value, np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = ((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(value), np.uint16(0x7FFF), rounded)


def flush(value: Value) -> Value:
    """Subnormal numbers -> zero of the same sign (the modifier ``.ftz``)."""
    tiny = np.abs(value) < np.finfo(value.dtype).smallest_normal
    return np.where(tiny, np.copysign(value.dtype.type(0), value), value)


def add_to_odd(first: Float64, second: Float64) -> Float64:
    """Sum in float64, rounded to odd."""
    total = first + second
    part = total - first
    lost = (first - (total - part)) + (second - part)
    inexact = (lost != 0) & np.isfinite(total) & np.isfinite(lost)
    if not inexact.any():
        return total
    bits = np.asarray(total).view(np.int64)
    # The neighbour on the side of the exact value: larger in magnitude if the loss has the sum's sign, else smaller.
    stepped = np.where(bits & 1, bits, np.where((lost > 0) == (total > 0), bits + 1, bits - 1))
    return np.where(inexact, stepped, bits).view(np.float64)


def multiply_add_to_odd(first: Float64, second: Float64, third: Float64) -> Float64:
    """Product plus sum to odd, for factors whose product is exact in float64 (those of float32 and shorter)."""
    return add_to_odd(first * second, third)


def multiply_add_f32(first: Value, second: Value, third: Value) -> Value:
    """float32 fused multiply-add to nearest, correctly rounded.

    The product is exact in float64. The sum is rounded there once and to float32 a second time, which differs from
    one rounding only if the first lands on a tie of the second: those few are done again, to odd.
    """
    product = np.asarray(first, np.float64) * second
    total = product + third
    result = total.astype(np.float32)
    ties = (total.view(np.uint64) & _BELOW_F32) == _TIE_OF_F32
    subnormal = np.abs(result) < _SMALLEST_F32
    if np.count_nonzero(ties) or np.count_nonzero(subnormal):
        doubtful = ties | (subnormal & (total != 0))
        if np.count_nonzero(doubtful):
            exact = add_to_odd(product, np.asarray(third, np.float64)).astype(np.float32)
            result = np.where(doubtful, exact, result)
    return result


def multiply_add_f64(first: Value, second: Value, third: Value) -> Value:
    """float64 fused multiply-add to nearest; correctly rounded unless an intermediate leaves the normal range."""
    first, second, third = (np.asarray(value, np.float64) for value in (first, second, third))
    high = first * second
    low = _lost_by_product(first, second, high)
    upper = third + low
    part = upper - third
    lower = (third - (upper - part)) + (low - part)
    total = high + upper
    part = total - high
    rest = (high - (total - part)) + (upper - part)
    result = total + add_to_odd(lower, rest)
    return np.where(np.isfinite(result), result, high + third)


def _lost_by_product(first: Float64, second: Float64, product: Float64) -> Float64:
    """What the rounding of a float64 product has lost (Dekker)."""
    first_high = first * _SPLIT - (first * _SPLIT - first)
    second_high = second * _SPLIT - (second * _SPLIT - second)
    first_low, second_low = first - first_high, second - second_high
    return (
        (first_high * second_high - product) + first_high * second_low + first_low * second_high
    ) + first_low * second_low


def integer_to_odd(value: Value) -> Float64:
    """Integers of up to 64 bits as float64, rounded to odd."""
    if value.dtype.itemsize < 8:
        return value.astype(np.float64)
    negative = value < 0
    size = np.where(negative, -value.view(np.int64), value.view(np.int64)).view(np.uint64)
    low = np.uint64(0x7FF)
    # What is below bit 11 does not fit; bit 11 remembers whether there was anything.
    sticky = ((size & low) != 0).astype(np.uint64) << np.uint64(11)
    kept = np.where(size >= np.uint64(1 << 53), (size & ~low) | sticky, size).astype(np.float64)
    return np.where(negative, -kept, kept)


def round_to(value: Float64, form: str, mode: Rounding) -> Float64:
    """Round float64 (exact, or rounded to odd) to a shorter format, in any direction.

    Args:
        value: any shape.
        form: key of `PRECISION`.
        mode: direction.

    Returns:
        float64 holding values of the format.
    """
    bits, smallest, largest = PRECISION[form]
    _, exponent = np.frexp(value)
    unit = np.maximum(exponent - bits, smallest - bits + 1)
    scaled = np.ldexp(value, -unit)
    if mode == "rn":
        whole = np.rint(scaled)
    elif mode == "rna":
        whole = np.copysign(np.floor(np.abs(scaled) + 0.5), scaled)
    elif mode == "rz":
        whole = np.trunc(scaled)
    else:
        whole = np.floor(scaled) if mode == "rm" else np.ceil(scaled)
    rounded = np.copysign(np.ldexp(whole, unit), value)
    most = float(np.ldexp(2.0 - 2.0 ** (1 - bits), largest))
    over = np.abs(rounded) > most
    if over.any():
        above = most if mode in ("rz", "rm") else np.inf
        below = -most if mode in ("rz", "rp") else -np.inf
        rounded = np.where(over, np.where(value > 0, above, below), rounded)
    return np.where(np.isfinite(value), rounded, value)
