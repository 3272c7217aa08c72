"""The integration of MINet (eq. 7-8) in plain float64 NumPy: slow, obvious, and what every kernel is checked against.

A stack of stage features is (..., M, C, H, W): M stage outputs, reference stages first, then target stages.
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from minet_sdk.errors import InputError

Affinity = Literal["paper", "released", "cosine"]
Array = npt.NDArray[np.float64]
Real = npt.NDArray[np.floating[Any]]

START_TEMPERATURE = 0.1
"""Temperature of `cosine` before training."""

START_GAIN = 0.0
"""Gain of `released` before training: the integration starts as the identity."""

GRAM_FLOOR = 1e-12
"""Smallest squared norm of a stage: keeps the cosine of an all-zero stage finite."""


def gram(stages: Real) -> Array:
    """G = F F^T, the inner products of all stages with each other.

    Args:
        stages: (..., M, C, H, W), any floating type.

    Returns:
        (..., M, M) float64.
    """
    flat = _flatten(stages)
    return flat @ flat.swapaxes(-1, -2)


def affinity(stages: Real, mode: Affinity, temperature: float = START_TEMPERATURE) -> Array:
    """S of eq. 7: row i says how much stage i takes from every stage.

    Args:
        stages: (..., M, C, H, W).
        mode: ``paper`` is the softmax of G; ``released`` that of the row maximum minus G, the authors' released code;
            ``cosine`` that of G_ij / sqrt(G_ii G_jj) over the temperature.
        temperature: of ``cosine``, positive; the other modes have none.

    Returns:
        (..., M, M) float64, rows sum to 1.
    """
    energy = gram(stages)
    if mode == "cosine":
        norm = np.sqrt(np.maximum(np.diagonal(energy, axis1=-2, axis2=-1), GRAM_FLOOR))
        energy = energy / (norm[..., :, None] * norm[..., None, :]) / temperature
    elif mode == "released":
        energy = energy.max(axis=-1, keepdims=True) - energy
    weights = np.exp(energy - energy.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def mixing(stages: Real, mode: Affinity, *, temperature: float = START_TEMPERATURE, gain: float = START_GAIN) -> Array:
    """A = I + S, so that H = A F; ``released`` weighs S by its gain.

    Args:
        stages: (..., M, C, H, W).
        mode: see `affinity`.
        temperature: of ``cosine``.
        gain: of ``released``.

    Returns:
        (..., M, M) float64.
    """
    weights = affinity(stages, mode, temperature)
    return np.eye(weights.shape[-1]) + (gain * weights if mode == "released" else weights)


def integrate(
    stages: Real, mode: Affinity, *, temperature: float = START_TEMPERATURE, gain: float = START_GAIN
) -> Array:
    """H = F + S F, eq. 8.

    Args:
        stages: (..., M, C, H, W).
        mode: see `affinity`.
        temperature: of ``cosine``.
        gain: of ``released``.

    Returns:
        float64, shape of ``stages``.
    """
    return (mixing(stages, mode, temperature=temperature, gain=gain) @ _flatten(stages)).reshape(stages.shape)


def folded_weights(reduction_weight: Real, mixing: Real) -> Array:
    """Weights that make the reduction convolution of F what it would be of H: W'_j = sum_i A_ij W_i.

    A convolution is linear, so conv(W, A F) = conv(W', F), and H need never be formed.

    Args:
        reduction_weight: (C, M * C, 3, 3), stage by stage along the second axis.
        mixing: (..., M, M), the A of `mixing`.

    Returns:
        (..., C, M * C, 3, 3) float64.

    Raises:
        InputError: the weight's input channels are not a multiple of M.
    """
    count = mixing.shape[-1]
    outputs, inputs, *window = reduction_weight.shape
    if inputs % count:
        raise InputError(f"reduction weight has {inputs} input channels, which {count} stages do not divide evenly")
    by_stage = reduction_weight.astype(np.float64).reshape(outputs, count, inputs // count, *window)
    folded = np.einsum("oicyx,...ij->...ojcyx", by_stage, mixing.astype(np.float64))
    return folded.reshape(*mixing.shape[:-2], *reduction_weight.shape)


def _flatten(stages: Real) -> Array:
    """(..., M, C, H, W) -> (..., M, C * H * W) float64."""
    if stages.ndim < 4:
        raise InputError(f"stage features have shape {stages.shape}; expected (..., M, C, H, W)")
    return stages.astype(np.float64).reshape(*stages.shape[:-3], -1)
