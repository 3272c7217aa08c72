"""Each slice is brought to mean 0 and standard deviation 1 before the network, and back after it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Normalisation:
    """How a bundle's inputs are normalised; recorded in its manifest.

    The statistics are those of the whole slice in float64: of the low-resolution target for target and restored, of
    the reference for the reference.
    """

    epsilon: float = 1e-11
    """Added to the standard deviation."""

    clip: float | None = None
    """Normalised inputs are clipped to +- this value; None (this project's models) leaves bright fluid as it is."""

    def statistics(self, image: npt.NDArray[np.generic]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Mean and padded standard deviation of each slice of (..., H, W), each (..., 1, 1) float64."""
        values = image.astype(np.float64)
        mean = values.mean(axis=(-2, -1), keepdims=True)
        return mean, values.std(axis=(-2, -1), keepdims=True) + self.epsilon

    def apply(
        self,
        image: npt.NDArray[np.generic],
        statistics: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None = None,
    ) -> Array:
        """Normalise (..., H, W), by its own statistics unless others are given; float32."""
        mean, deviation = statistics or self.statistics(image)
        normal = (image.astype(np.float64) - mean) / deviation
        if self.clip is not None:
            normal = np.clip(normal, -self.clip, self.clip)
        return normal.astype(np.float32)

    def undo(self, normal: Array, statistics: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]) -> Array:
        """Bring (..., H, W) back to the intensity scale that the statistics were taken from; float32."""
        mean, deviation = statistics
        return (normal.astype(np.float64) * deviation + mean).astype(np.float32)
