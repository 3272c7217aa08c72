"""PSNR, SSIM and NMSE as fastMRI defines them: over a whole volume, data range the maximum of the true volume."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from minet_sdk.errors import InputError

SSIM_WINDOW = 7
SSIM_K1, SSIM_K2 = 0.01, 0.03


@dataclass(frozen=True)
class Measures:
    """Image quality of one restored volume against the truth."""

    psnr: float
    """Peak signal-to-noise ratio, dB."""

    ssim: float
    """Structural similarity, mean over slices, at most 1."""

    nmse: float
    """Squared error over squared truth, 0 is perfect."""


def measure(truth: npt.NDArray[np.generic], restored: npt.NDArray[np.generic]) -> Measures:
    """Compare two volumes.

    Args:
        truth: (slices, H, W), at least 7 x 7 in plane.
        restored: same shape.

    Raises:
        InputError: shapes differ, are not three-dimensional or are too small for the window.
    """
    if truth.ndim != 3 or truth.shape != restored.shape:
        raise InputError(f"measures need two volumes (slices, H, W) of one shape, got {truth.shape}, {restored.shape}")
    return Measures(psnr(truth, restored), ssim(truth, restored), nmse(truth, restored))


def psnr(truth: npt.NDArray[np.generic], restored: npt.NDArray[np.generic]) -> float:
    """Peak signal-to-noise ratio of a volume in dB; the peak is the maximum of the truth."""
    a, b = truth.astype(np.float64), restored.astype(np.float64)
    error = float(np.mean((a - b) ** 2))
    return float("inf") if error == 0 else float(10 * np.log10(a.max() ** 2 / error))


def nmse(truth: npt.NDArray[np.generic], restored: npt.NDArray[np.generic]) -> float:
    """Normalised mean squared error: ||truth - restored||^2 / ||truth||^2."""
    a, b = truth.astype(np.float64), restored.astype(np.float64)
    return float(np.sum((a - b) ** 2) / np.sum(a**2))


def _window_mean(volume: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean over every whole 7 x 7 window of (slices, H, W): (slices, H - 6, W - 6)."""
    windows = np.lib.stride_tricks.sliding_window_view(volume, SSIM_WINDOW, axis=-1).mean(axis=-1)
    return np.lib.stride_tricks.sliding_window_view(windows, SSIM_WINDOW, axis=-2).mean(axis=-1)


def ssim(truth: npt.NDArray[np.generic], restored: npt.NDArray[np.generic]) -> float:
    """Structural similarity (Wang et al. 2004), 7 x 7 uniform window, mean over slices, windows inside the image."""
    a, b = truth.astype(np.float64), restored.astype(np.float64)
    if min(a.shape[-2:]) < SSIM_WINDOW:
        raise InputError(f"SSIM needs slices of at least {SSIM_WINDOW} x {SSIM_WINDOW}, got {a.shape[-2:]}")
    peak = float(a.max())
    c1, c2 = (SSIM_K1 * peak) ** 2, (SSIM_K2 * peak) ** 2
    unbiased = SSIM_WINDOW**2 / (SSIM_WINDOW**2 - 1)
    mean_a, mean_b = _window_mean(a), _window_mean(b)
    var_a = unbiased * (_window_mean(a * a) - mean_a**2)
    var_b = unbiased * (_window_mean(b * b) - mean_b**2)
    covariance = unbiased * (_window_mean(a * b) - mean_a * mean_b)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (var_a + var_b + c2)
    return float(np.mean(luminance * structure))
