"""Reference trust: does this reference show what the target shows, where the target shows it?

Within small windows of the low-resolution target, how much of its variance does a linear function of the reference
explain, and how much more than the same reference moved a few pixels? Contrast, sign and scale of the reference cancel;
a reference of another subject, which is as well explained by a moved copy of itself, scores near 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from minet_sdk.errors import InputError
from minet_sdk.kspace import degrade
from minet_sdk.scratch import Scratch

Array = npt.NDArray[np.float32]

_scratch = Scratch()

LEAST_TRUST = 0.15
"""Below this a reference is not used. Measured on subjects that no test uses: other subjects' references score at most
0.05 (x2 and x4, clinical and random contrast), nine of ten right ones at least 0.23, the real pairs at least 0.55."""

WINDOW = 5
"""Edge of a window, low-resolution pixels; `_window_mean` is made for it."""

MOVES = ((3, 0), (-3, 0), (0, 3), (0, -3))
"""Rows and columns by which the reference is moved for comparison, low-resolution pixels."""

_FARTHEST = 3
"""Of `MOVES`."""

_REACH = _FARTHEST + WINDOW // 2
"""How far beyond a pixel the moved windows around it look."""

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


@dataclass(frozen=True, eq=False)
class Seen:
    """A reference as the target's resolution shows it, ready to be compared with any target of its size."""

    shape: tuple[int, int]
    """(H, W)."""

    values: Array
    """Mean 0, standard deviation 1; float32 (H, W) and a margin of `_REACH` on every side, for it continues
    periodically. All zeros for a constant reference."""

    mean: Array
    """Of the window around every pixel, with a margin of `_FARTHEST`."""

    inverse_variance: Array
    """Likewise."""

    @property
    def nbytes(self) -> int:
        """Memory that it holds."""
        return self.values.nbytes + self.mean.nbytes + self.inverse_variance.nbytes


def seen_by_target(reference: Array, scale: int) -> Seen:
    """The reference as the target's resolution would show it.

    Args:
        reference: (scale * H, scale * W) float32.
        scale: magnification.

    Raises:
        InputError: too small to tell.
    """
    return see(np.asarray(degrade(reference, scale), np.float32))


def see(image: Array) -> Seen:
    """What a target is compared with.

    Args:
        image: (H, W) float32 on the target's grid.

    Raises:
        InputError: too small to tell.
    """
    if min(image.shape) < SMALLEST:
        raise InputError(f"reference is {image.shape}; trust needs at least {SMALLEST} x {SMALLEST} pixels")
    values = _standard(image, np.empty(_with_margin(image.shape, _REACH), np.float32))
    mean, variance = _moments(_moved(values, (0, 0), _with_margin(image.shape, WINDOW // 2)), image.shape)
    np.maximum(variance, 0, out=variance)
    variance += np.float32(FLAT * variance.mean(dtype=np.float64)) or np.float32(1)
    np.divide(1, variance, out=variance)
    rows, columns = image.shape
    return Seen(
        (rows, columns),
        values,
        np.pad(mean, _FARTHEST, mode="wrap"),
        np.pad(variance, _FARTHEST, mode="wrap"),
    )


def reference_trust(target: Array, reference: Seen) -> float:
    """How well a reference fits a target.

    In float32: about 1 ms for 160 x 160 pixels, good to 1e-5.

    Args:
        target: (H, W) low-resolution magnitude, any intensity scale.
        reference: of the same grid.

    Returns:
        1 for a reference that explains the target wholly, about 0 or less for one that explains it no better than
        moved copies of itself. 0 if either image is constant.

    Raises:
        InputError: the images differ in shape.
    """
    if target.shape != reference.shape:
        raise InputError(f"target {target.shape} and reference {reference.shape}: expected two (H, W) of one size")
    shape, around = reference.shape, _with_margin(reference.shape, WINDOW // 2)
    product, spare = _scratch("product", around), _scratch("spare", shape)
    t = _standard(target, _scratch("target", around))
    mean, variance = _moments(t, shape)
    np.maximum(variance, np.finfo(np.float32).tiny, out=variance)
    loudest = np.float32(LOUDEST * variance.mean(dtype=np.float64))
    weight = np.minimum(variance, loudest, out=_scratch("weight", shape))
    total = float(weight.sum(dtype=np.float64))
    weight /= variance
    explained: list[float] = []
    for move in ((0, 0), *MOVES):
        np.multiply(t, _moved(reference.values, move, around), out=product)
        covariance = _window_mean(product, _scratch("covariance", shape))
        covariance -= np.multiply(mean, _moved(reference.mean, move, shape), out=spare)
        covariance *= covariance
        covariance *= weight
        covariance *= _moved(reference.inverse_variance, move, shape)
        explained.append(float(covariance.sum(dtype=np.float64)) / total)
    here, *elsewhere = explained
    return (here - max(elsewhere)) / (1 - max(elsewhere))


def _with_margin(shape: tuple[int, ...], margin: int) -> tuple[int, int]:
    """(H, W) with a margin on every side."""
    rows, columns = shape
    return rows + 2 * margin, columns + 2 * margin


def _standard(image: Array, out: Array) -> Array:
    """Mean 0, standard deviation 1, so that the window sums lose no digits; zeros for a constant image.

    Args:
        image: (H, W).
        out: filled and returned, with a margin on every side, where the image continues periodically.
    """
    margin = (out.shape[0] - image.shape[0]) // 2
    inside = _moved(out, (0, 0), image.shape)
    np.subtract(image, np.mean(image, dtype=np.float64), out=inside, casting="same_kind")
    size = float(np.sqrt(np.einsum("ij,ij->", inside, inside, dtype=np.float64) / image.size))
    if size > 0:
        inside /= np.float32(size)
    columns = slice(margin, out.shape[1] - margin)
    out[:margin, columns], out[-margin:, columns] = inside[-margin:], inside[:margin]
    out[:, :margin], out[:, -margin:] = out[:, -2 * margin : -margin], out[:, margin : 2 * margin]
    return out


def _moved(padded: Array, move: tuple[int, int], shape: tuple[int, ...]) -> Array:
    """(H, W) of an image with an even margin, moved by rows and columns."""
    top, left = ((have - want) // 2 - by for have, want, by in zip(padded.shape, shape, move, strict=True))
    return padded[top : top + shape[0], left : left + shape[1]]


def _moments(padded: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Mean and variance of the window around every pixel of an image with a margin of half a window.

    In scratch arrays: theirs until this is called again.
    """
    mean, variance = _scratch("mean", shape), _scratch("variance", shape)
    _window_mean(padded, mean)
    _window_mean(np.multiply(padded, padded, out=_scratch("product", padded.shape)), variance)
    variance -= np.multiply(mean, mean, out=_scratch("spare", shape))
    return mean, variance


def _window_mean(padded: Array, out: Array) -> Array:
    """Mean over the window around every pixel of an image with a margin of half a window; fills and returns ``out``."""
    rows = np.add(padded[:-4], padded[1:-3], out=_scratch("rows", (out.shape[0], padded.shape[1])))
    for first in (2, 3, 4):
        rows += padded[first : first + out.shape[0]]
    np.add(rows[:, :-4], rows[:, 1:-3], out=out)
    for first in (2, 3, 4):
        out += rows[:, first : first + out.shape[1]]
    out *= np.float32(1 / WINDOW**2)
    return out
