"""Each slice is brought to mean 0 and standard deviation 1 before the network, and back after it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Statistics = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Mean and padded standard deviation of each slice, each (..., 1, 1)."""


@dataclass(frozen=True)
class Normalisation:
    """How a bundle's inputs are normalised; recorded in its manifest.

    The statistics are those of the whole slice in float64: of the low-resolution target for target and restored, of
    the reference for the reference.
    """

    epsilon: float = 1e-11
    """Added to the standard deviation, times the largest difference from the mean where that is below 1: images of any
    unit are restored alike. Arrays in device memory have it added as it is."""

    clip: float | None = None
    """Normalised inputs are clipped to +- this value; None (this project's models) leaves bright fluid as it is."""

    def statistics(self, image: npt.NDArray[np.generic]) -> Statistics:
        """Those of each slice of (..., H, W)."""
        mean = image.mean(axis=(-2, -1), keepdims=True, dtype=np.float64)
        difference = _difference(image, mean)
        squares = np.einsum("...ij,...ij->...", difference, difference, dtype=np.float64)
        variance = squares / (image.shape[-2] * image.shape[-1])
        largest = np.abs(difference).max(axis=(-2, -1), keepdims=True)
        unit = np.where(largest > 0, np.minimum(largest, 1), 1).astype(np.float64)
        return mean, np.sqrt(variance[..., None, None]) + self.epsilon * unit

    def apply(self, image: npt.NDArray[np.generic], statistics: Statistics | None = None) -> Array:
        """Normalise (..., H, W), by its own statistics unless others are given; float32."""
        mean, deviation = statistics or self.statistics(image)
        normal = _difference(image, mean)
        normal /= deviation.astype(np.float32)
        return normal if self.clip is None else np.clip(normal, -self.clip, self.clip, out=normal)

    def undo(self, normal: Array, statistics: Statistics) -> Array:
        """Bring (..., H, W) back to the intensity scale that the statistics were taken from; float32."""
        mean, deviation = statistics
        image = normal * deviation.astype(np.float32)
        image += mean.astype(np.float32)
        return image


def _difference(image: npt.NDArray[np.generic], mean: npt.NDArray[np.float64]) -> Array:
    """Image minus a float64 mean, float32, as good as if it were computed in float64; no float64 image is formed."""
    if image.dtype != np.float32:
        difference = np.empty(np.broadcast_shapes(image.shape, mean.shape), np.float32)
        return np.subtract(image, mean, out=difference, casting="same_kind")
    rounded = mean.astype(np.float32)
    difference = np.subtract(image, rounded, dtype=np.float32)
    difference -= (mean - rounded).astype(np.float32)  # what a large mean loses when it is rounded
    return difference
