"""Reference trust: does this reference show what the target shows, where the target shows it?

Within small windows of the low-resolution target, how much of its variance does a linear function of the reference
explain, and how much more than the same reference moved a few pixels? Contrast, sign and scale of the reference cancel;
a reference of another subject, which is as well explained by a moved copy of itself, scores near 0.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from minet_sdk.errors import InputError
from minet_sdk.kspace import degrade

Array = npt.NDArray[np.float32]

LEAST_TRUST = 0.15
"""Below this a reference is not used. Measured on subjects that no test uses: other subjects' references score at most
0.05 (x2 and x4, clinical and random contrast), nine of ten right ones at least 0.23, the real pairs at least 0.55."""

WINDOW = 5
"""Edge of a window, low-resolution pixels; odd."""

MOVES = ((3, 0), (-3, 0), (0, 3), (0, -3))
"""Rows and columns by which the reference is moved for comparison, low-resolution pixels."""

SMALLEST = 2 * WINDOW
"""Fewest rows or columns that hold enough windows."""

FLAT = 1e-4
"""Windows of the reference whose variance is below this part of the mean variance explain nothing: they are noise."""

LOUDEST = 0.1
"""A window weighs as much as its variance, but at most this part of the mean variance: the outline of a head, which all
heads share, would decide alone otherwise."""


def distrust(trust: float) -> str:
    """What to say of a reference that is not used."""
    return f"the reference does not show what the target shows (trust {trust:.2f}, at least {LEAST_TRUST:g} is needed)"


def median_trust(trusts: Sequence[float | None]) -> float | None:
    """Over the slices that were judged; None if none was."""
    judged = [trust for trust in trusts if trust is not None]
    return float(np.median(judged)) if judged else None


def seen_by_target(reference: Array, scale: int) -> Array:
    """The reference as the target's resolution would show it.

    Args:
        reference: (scale * H, scale * W) float32.
        scale: magnification.

    Returns:
        (H, W) float32.
    """
    return np.asarray(degrade(reference, scale), np.float32)


def reference_trust(target: Array, reference: Array) -> float:
    """How well a reference fits a target.

    Args:
        target: (H, W) low-resolution magnitude, any intensity scale.
        reference: (H, W) of the same grid, from `seen_by_target`.

    Returns:
        1 for a reference that explains the target wholly, about 0 or less for one that explains it no better than
        moved copies of itself. 0 if either image is constant.

    Raises:
        InputError: the images differ in shape, or are too small to tell.
    """
    if target.shape != reference.shape or target.ndim != 2:
        raise InputError(f"target {target.shape} and reference {reference.shape}: expected two (H, W) of one size")
    if min(target.shape) < SMALLEST:
        raise InputError(f"target is {target.shape}; trust needs at least {SMALLEST} x {SMALLEST} pixels")
    t, r = _standard(target), _standard(reference)
    if t is None or r is None:
        return 0.0
    t_mean, r_mean = _window_mean(t), _window_mean(r)
    t_variance = np.maximum(_window_mean(t * t) - t_mean**2, np.finfo(np.float64).tiny)
    r_variance = _window_mean(r * r) - r_mean**2
    r_variance += FLAT * r_variance.mean()
    weight = np.minimum(t_variance, LOUDEST * t_variance.mean())
    scale = weight / (weight.sum() * t_variance)

    def explained(move: tuple[int, int]) -> float:
        moved, mean, variance = (np.roll(part, move, (0, 1)) for part in (r, r_mean, r_variance))
        covariance = _window_mean(t * moved) - t_mean * mean
        return float((scale * covariance**2 / variance).sum())

    chance = max(explained(move) for move in MOVES)
    return (explained((0, 0)) - chance) / (1 - chance)


def _standard(image: Array) -> npt.NDArray[np.float64] | None:
    """Mean 0, standard deviation 1, so that the window sums lose no digits; None for a constant image."""
    deviation = image - np.mean(image, dtype=np.float64)
    size = float(np.sqrt(np.mean(deviation**2)))
    return deviation / size if size > 0 else None


def _window_mean(image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean over the window around every pixel; the image continues periodically, as it does for `np.roll`."""
    half = WINDOW // 2
    rows, columns = image.shape
    high = np.concatenate([image[-half:], image, image[:half]])
    sums = sum((high[start : start + rows] for start in range(1, WINDOW)), start=high[:rows])
    wide = np.concatenate([sums[:, -half:], sums, sums[:, :half]], axis=1)
    return sum((wide[:, start : start + columns] for start in range(1, WINDOW)), start=wide[:, :columns]) / WINDOW**2
