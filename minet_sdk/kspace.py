"""Low resolution as an MR scanner makes it: the centre of k-space, and the ways back up.

Everything here lives on the FFT grid: low-resolution sample ``i`` lies exactly on high-resolution sample ``scale * i``.
"""

from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from minet_sdk.errors import InputError

Array = npt.NDArray[np.float32]
Kspace = npt.NDArray[np.complexfloating[Any]]
"""Complex, in the precision of the image it came from."""

Consistency = Literal["off", "soft", "hard"]

CUBIC_A = -0.5
"""Keys' cubic convolution parameter; -0.5 reproduces quadratics exactly."""

SOFT_EDGE = 0.25
"""Part of the measured k-space radius over which soft consistency fades from full to no weight."""


def to_kspace(image: npt.NDArray[np.generic]) -> Kspace:
    """Centred orthonormal 2D FFT over the last two axes; DC lands on index ``n // 2``."""
    return np.fft.fftshift(np.fft.fft2(image, norm="ortho"), axes=(-2, -1))


def from_kspace(kspace: Kspace) -> Kspace:
    """Inverse of `to_kspace`."""
    return np.fft.ifft2(np.fft.ifftshift(kspace, axes=(-2, -1)), norm="ortho")


def _centre(large: tuple[int, ...], small: tuple[int, ...]) -> tuple[slice, slice]:
    """Where the k-space of a small matrix lies in that of a large one, DC on DC."""
    starts = [big // 2 - little // 2 for big, little in zip(large[-2:], small[-2:], strict=True)]
    return slice(starts[0], starts[0] + small[-2]), slice(starts[1], starts[1] + small[-1])


def _kspace_centre(image: npt.NDArray[np.generic], height: int, width: int) -> Kspace:
    """Centre (..., height, width) of `to_kspace` of an image (..., H, W).

    Of a real image the columns that are wanted, and of them those that do not mirror another one, are transformed and
    no more: about a fifth of the whole at half the resolution.
    """
    if np.iscomplexobj(image):
        kspace = to_kspace(image)
        return kspace[(..., *_centre(kspace.shape, (height, width)))]
    rows, right = np.arange(height) - height // 2, (width + 1) // 2
    columns = np.fft.rfft(image, axis=-1, norm="ortho")[..., : width // 2 + 1]
    half = np.fft.fft(columns, axis=-2, norm="ortho")
    centre = np.empty((*image.shape[:-2], height, width), half.dtype)
    centre[..., width // 2 :] = half[..., rows, :right]
    np.conjugate(half[..., -rows, width // 2 : 0 : -1], out=centre[..., : width // 2])
    return centre


def _real_image(centre: Kspace, height: int, width: int) -> npt.NDArray[np.floating[Any]]:
    """Real part (..., height, width) of the image whose k-space is zero but for this centre, which is smaller."""
    rows, columns = (side // 2 for side in centre.shape[-2:])
    # Lines -n..n of each axis; the real part is the image of what is left of them when made symmetric.
    lines = np.zeros((*centre.shape[:-2], 2 * rows + 1, 2 * columns + 1), centre.dtype)
    lines[..., : centre.shape[-2], : centre.shape[-1]] = centre
    right = lines[..., columns:] + lines[..., ::-1, columns::-1].conj()
    half = np.zeros((*centre.shape[:-2], height, columns + 1), centre.dtype)
    half[..., : rows + 1, :] = right[..., rows:, :]
    half[..., height - rows :, :] = right[..., :rows, :]
    return np.fft.irfft(np.fft.ifft(half, axis=-2, norm="ortho"), width, axis=-1, norm="ortho") / 2


def degrade(image: npt.NDArray[np.generic], scale: int, offset: float = 0.0) -> Array:
    """Low-resolution magnitude image of a high-resolution one: centre crop of its k-space.

    The crop of an orthonormal FFT makes an image ``scale`` times brighter; the factor ``1 / scale`` undoes that.

    Args:
        image: (..., H, W) real or complex; H and W multiples of ``scale``.
        scale: 2 or 4; any positive integer works.
        offset: where low-resolution sample 0 is taken, in high-resolution pixels. 0 is the FFT grid;
            ``(scale - 1) / 2`` puts each large pixel over the ``scale`` small ones it covers, as a DICOM header of
            the same field of view says.

    Returns:
        float32 (..., H / scale, W / scale), in the intensity scale of ``image``.
    """
    return np.abs(degrade_complex(image, scale, offset)).astype(np.float32)


def degrade_complex(image: npt.NDArray[np.generic], scale: int, offset: float = 0.0) -> npt.NDArray[np.complexfloating]:
    """The complex low-resolution image whose magnitude `degrade` gives; same arguments."""
    height, width = image.shape[-2:]
    if height % scale or width % scale:
        raise InputError(f"image is {height} x {width}: both must be multiples of the scale {scale}; crop or pad it")
    if offset:
        image = fourier_shift(image, -offset)
    return from_kspace(_kspace_centre(image, height // scale, width // scale)) / scale


def zero_filled(target: npt.NDArray[np.generic], scale: int) -> Array:
    """Zero-filled k-space (sinc interpolation), magnitude.

    Args:
        target: (..., H, W) real or complex low-resolution image.
        scale: magnification.

    Returns:
        float32 (..., scale * H, scale * W).
    """
    return np.abs(interpolate(target, scale)).astype(np.float32)


def interpolate(target: npt.NDArray[np.generic], scale: int) -> Kspace:
    """Zero-filled k-space before the magnitude: (..., H, W) -> complex (..., scale * H, scale * W)."""
    measured = to_kspace(target)
    height, width = target.shape[-2:]
    full = np.zeros((*target.shape[:-2], scale * height, scale * width), dtype=np.complex128)
    full[(..., *_centre(full.shape, measured.shape))] = measured
    return from_kspace(full) * scale


def _cubic_matrix(size: int, scale: int) -> npt.NDArray[np.float64]:
    """(scale * size, size) matrix of Keys' cubic interpolation at positions ``i / scale``, edges repeated."""
    position = np.arange(scale * size) / scale
    first = np.floor(position).astype(int) - 1
    matrix = np.zeros((scale * size, size))
    for tap in range(4):
        x = np.abs(position - (first + tap))
        near = (CUBIC_A + 2) * x**3 - (CUBIC_A + 3) * x**2 + 1
        far = CUBIC_A * (x**3 - 5 * x**2 + 8 * x - 4)
        weight = np.where(x <= 1, near, np.where(x < 2, far, 0.0))
        np.add.at(matrix, (np.arange(scale * size), np.clip(first + tap, 0, size - 1)), weight)
    return matrix


def bicubic(target: npt.NDArray[np.generic], scale: int) -> Array:
    """Bicubic interpolation on the FFT grid (not the half-pixel grid of image libraries).

    Args:
        target: (..., H, W) real low-resolution image.
        scale: magnification.

    Returns:
        float32 (..., scale * H, scale * W).
    """
    rows, columns = _cubic_matrix(target.shape[-2], scale), _cubic_matrix(target.shape[-1], scale)
    return (rows @ target.astype(np.float64) @ columns.T).astype(np.float32)


def fourier_shift(image: npt.NDArray[np.generic], pixels: float) -> npt.NDArray[np.inexact[Any]]:
    """Move the content of an image by a fraction of a pixel along both axes (towards higher indices if positive).

    A linear phase in k-space: exact for band-limited images, periodic at the borders. At even sizes the Nyquist line is
    split evenly, so that a real image stays real.

    Args:
        image: (..., H, W) real or complex.
        pixels: shift along rows and columns alike.

    Returns:
        (..., H, W), real for a real image, complex for a complex one.
    """
    height, width = image.shape[-2:]
    down, across = _phase(height, pixels)[:, None], _phase(width, pixels)
    if np.iscomplexobj(image):
        return np.fft.ifft2(np.fft.fft2(image) * down * across)
    half = np.fft.rfft2(image)
    half *= down
    half *= across[: width // 2 + 1]
    return np.fft.irfft2(half, (height, width))


def _phase(size: int, pixels: float) -> npt.NDArray[np.complex128]:
    """What a shift multiplies each line of k-space with, lines in the order of an FFT."""
    phase = np.exp(-2j * np.pi * np.fft.fftfreq(size) * pixels)
    if size % 2 == 0:
        phase[size // 2] = np.cos(np.pi * pixels)
    return phase


def _soft_taper(size: int) -> npt.NDArray[np.float64]:
    """Weight of each measured line along one axis: 1 inside, a raised cosine to 0 at the edge of what was measured."""
    radius = np.abs(np.arange(size) - size // 2) / (size / 2)
    inside = np.clip((1 - radius) / SOFT_EDGE, 0, 1)
    return 0.5 - 0.5 * np.cos(np.pi * inside)


@lru_cache(maxsize=16)
def _weight(height: int, width: int, mode: Literal["soft", "hard"]) -> npt.NDArray[np.float64]:
    """Weight of each measured k-space sample of a real image.

    The Nyquist lines of an even matrix stand at one end of the spectrum only, so that taking the real part halves
    what is added there: where they count, they count twice.
    """
    if mode == "soft":
        return np.outer(_soft_taper(height), _soft_taper(width))
    window = np.ones((height, width))
    if height % 2 == 0:
        window[0] = 2
    if width % 2 == 0:
        window[:, 0] = 2
    return window


def enforce_consistency(restored: Array, target: npt.NDArray[np.generic], scale: int, mode: Consistency) -> Array:
    """Put the measured centre of k-space back into a restored image.

    Args:
        restored: (..., scale * H, scale * W) float32 magnitude.
        target: (..., H, W) the low-resolution image that was measured, same intensity scale. A complex target lends
            the restored magnitude its interpolated phase, since k-space is that of the complex image.
        scale: magnification between the two.
        mode: ``hard`` overwrites every measured sample (right for complex targets); ``soft`` fades towards the edge
            of the measured square, where taking the magnitude has falsified it; ``off`` returns the input.

    Returns:
        float32 magnitude, shape of ``restored``.
    """
    if mode == "off":
        return restored
    height, width = target.shape[-2:]
    measured = _kspace_centre(target, height, width) * scale
    if not np.iscomplexobj(target):
        change = measured - _kspace_centre(restored, height, width)
        change *= _weight(height, width, mode).astype(restored.dtype)
        return (restored + _real_image(change, scale * height, scale * width)).astype(np.float32, copy=False)
    kspace = to_kspace(restored * np.exp(1j * np.angle(interpolate(target, scale))))
    centre = (..., *_centre(kspace.shape, measured.shape))
    weight = _weight(height, width, "soft") if mode == "soft" else 1
    kspace[centre] += weight * (measured - kspace[centre])
    return np.abs(from_kspace(kspace)).astype(np.float32)


def soft_consistency_matrices(size: int, scale: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Soft consistency of a real image as matrix products, for devices without an FFT.

    With (down, up) of both axes, `enforce_consistency` of a real target is
    ``restored + up_rows @ (target - down_rows @ restored @ down_columns.T) @ up_columns.T``: it is linear, and along
    each axis symmetric in frequency, so that the matrices are real. The Nyquist line of an even matrix is the one
    exception, and its weight is 0.

    Args:
        size: low-resolution samples along the axis.
        scale: magnification.

    Returns:
        float64 down (size, scale * size), the mean-preserving centre crop of k-space without the Nyquist line, and
        up (scale * size, size), the interpolation of tapered k-space.
    """
    kept = np.arange(size) - size // 2
    low, high = (np.exp(-2j * np.pi * np.outer(kept, np.arange(n)) / n) / np.sqrt(n) for n in (size, scale * size))
    has_mirror = np.abs(kept) < size / 2
    down = low.conj().T @ (has_mirror[:, None] * high) / np.sqrt(scale)
    up = high.conj().T @ (_soft_taper(size)[:, None] * low) * np.sqrt(scale)
    return down.real, up.real
