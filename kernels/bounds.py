"""How far a kernel's result may lie from float64, derived from the roundings on its way: the measure of every test.

`UNIT` is the relative error of one float32 rounding. A sum of terms, each rounded at most ``depth`` times on its way,
errs at most ``depth * UNIT`` times the sum of their magnitudes, whatever the data.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from minet_sdk.kernels.launches import SPLITS, Element, Mode
from minet_sdk.kernels.reference import GRAM_FLOOR

Array = npt.NDArray[np.float64]
Real = npt.NDArray[np.floating[Any]]

UNIT = 2.0**-24

TRUNCATED_PRODUCT = 36
"""Roundings that one 16-wide tensor-core product counts as on a GPU: 18 addends, each truncated (two `UNIT`) rather
than rounded. An exact product that is rounded once, as in the interpreter, counts as 1."""

_ROUNDING: dict[str, float] = {"f32": 0.0, "f16": 2.0**-11, "bf16": 2.0**-8}
_SMALLEST: dict[str, float] = {"f32": 2.0**-149, "f16": 2.0**-24, "bf16": 2.0**-133}
_OVERFLOW: dict[str, float] = {"f32": 2.0**128 - 2.0**103, "f16": 65520.0, "bf16": 2.0**128 - 2.0**119}
_EXPONENTIAL = 2.0**-21
"""Relative error of expf, twice what CUDA documents."""


def excess(found: Real, reference: Array, bound: Array, element: Element = "f32") -> float:
    """Largest error in units of its bound: at most 1 is a pass; infinite if a finite number was due and is none.

    A result that the element cannot hold must be an infinity of the right sign.

    Args:
        found: result of a kernel.
        reference: float64 result, same shape.
        bound: largest error allowed, same shape; see the other functions.
        element: format of ``found``.
    """
    exact = found.astype(np.float64)
    overflows = np.abs(reference) - bound >= _OVERFLOW[element]
    may_overflow = np.abs(reference) + bound >= _OVERFLOW[element]
    right_infinity = np.isinf(exact) & (np.sign(exact) == np.sign(reference))
    with np.errstate(invalid="ignore"):
        ratio = np.abs(exact - reference) / bound
    ratio = np.where(np.isfinite(exact), ratio, np.inf)
    ratio = np.where(may_overflow & right_infinity, 0.0, ratio)
    ratio = np.where(overflows & ~right_infinity, np.inf, ratio)
    return float(ratio.max())


def gram(flat: Array, element: Element, *, product: int = 1) -> Array:
    """Bound of one partial Gram matrix.

    The tensor cores add 16 products (8 on Turing) at a time, 8 warps share the part, and 4 lanes with their vectors in
    turns; float32 goes by FMA, 128 threads (32 at least where there are many stages), 5 steps over a warp, at most 12
    over warps.

    Args:
        flat: (..., M, K) the part of F that is summed, in float64.
        element: format of F.
        product: roundings that one tensor-core product counts as, 1 or `TRUNCATED_PRODUCT`.

    Returns:
        (..., M, M).
    """
    stages, elements = flat.shape[-2:]
    if element == "f32":
        threads = 128 if stages <= 12 else 32
        depth = 4 * -(-elements // (4 * threads)) + 5 + 12
    else:
        depth = 4 * -(-elements // 256) * product + 8
    magnitude = np.abs(flat)
    return (depth * UNIT) * (magnitude @ magnitude.swapaxes(-1, -2)) + elements * _SMALLEST["f32"]


def affinity(partials: Real, mode: Mode, *, temperature: float = 1.0, gain: float = 1.0) -> Array:
    """Bound of A for given partials, to first order in the roundings of sum, energy, exponential and division.

    Args:
        partials: (N, S, M, M).
        mode: of the affinity.
        temperature: of ``cosine``.
        gain: factor of the softmax.

    Returns:
        (N, M, M).
    """
    exact = partials.astype(np.float64)
    splits, stages = partials.shape[1:3]
    sharers = min(1024 // stages**2, 32)
    depth = splits // (8 * sharers) + 7 + 3 + 5
    total, slack = exact.sum(axis=1), (depth * UNIT) * np.abs(exact).sum(axis=1)
    energy, error = total, slack
    if mode == "released":
        energy = -total
    if mode == "cosine":
        square = np.maximum(np.diagonal(total, axis1=-2, axis2=-1), GRAM_FLOOR)
        norms = np.sqrt(square[..., :, None] * square[..., None, :])
        loose = np.diagonal(slack, axis1=-2, axis2=-1) / square / 2
        energy = total / norms / temperature
        error = slack / norms / temperature + np.abs(energy) * (loose[..., :, None] + loose[..., None, :] + 8 * UNIT)
    below = energy.max(axis=-1, keepdims=True) - energy
    weights = np.exp(-below)
    softmax = weights / weights.sum(axis=-1, keepdims=True)
    relative = np.expm1(np.minimum(error + 2 * UNIT * below, 50.0)) + _EXPONENTIAL
    relative = relative + (softmax * relative).sum(axis=-1, keepdims=True) + 8 * UNIT
    return np.minimum(abs(gain) * softmax * relative, abs(gain)) + UNIT * (1 + abs(gain)) + 2.0**-125


def combination(factors: Array, flat: Array, element: Element) -> Array:
    """Bound of ``factors @ flat`` as `mix` and `fold` form it: one FMA per stage in float32, one rounding at the end.

    Args:
        factors: (..., rows, M).
        flat: (..., M, K).
        element: format of the result.

    Returns:
        (..., rows, K).
    """
    stages = flat.shape[-2]
    magnitude = np.abs(factors) @ np.abs(flat)
    result = np.abs(factors @ flat)
    return stages * UNIT * magnitude * (1 + _ROUNDING[element]) + _ROUNDING[element] * result + _SMALLEST[element]


def product(left: Array, right: Array, scale: float = 1.0) -> Array:
    """Bound of `matmul`: a sum per tile of 32, then a sum over tiles.

    Args:
        left: (..., rows, inner).
        right: (..., inner, columns).
        scale: factor of the product.

    Returns:
        (..., rows, columns).
    """
    depth = 32 + -(-left.shape[-1] // 32) + 3
    return (depth * UNIT * abs(scale)) * (np.abs(left) @ np.abs(right)) + _SMALLEST["f32"]


def parts(elements: int, chunk: int, splits: int = SPLITS) -> list[slice]:
    """The k of each partial of a Gram matrix.

    Args:
        elements: K.
        chunk: third integer of the launch.
        splits: S.
    """
    return [slice(min(split * chunk, elements), min((split + 1) * chunk, elements)) for split in range(splits)]
