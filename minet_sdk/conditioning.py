"""What is done to a slice before the network and after it: normalise, judge the reference, put k-space back."""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from minet_sdk.kspace import Consistency, enforce_consistency
from minet_sdk.normalisation import Normalisation, Statistics
from minet_sdk.trust import reference_trust, seen_by_target

Array = npt.NDArray[np.float32]


class Judged(Protocol):
    """What a reference is judged by, in the form of whoever made it."""

    @property
    def nbytes(self) -> int:
        """Memory that it holds."""
        ...


class Conditioning:
    """In NumPy; an engine that has its own way overrides it. For any number of threads.

    Args:
        normalisation: of the bundle.
        scale: of the bundle.
    """

    def __init__(self, normalisation: Normalisation, scale: int) -> None:
        self.normalisation = normalisation
        self.scale = scale

    def normalise(self, image: Array) -> tuple[Array, Statistics]:
        """An image (H, W) as the network takes it, and the statistics that undo it."""
        statistics = self.normalisation.statistics(image)
        return self.normalisation.apply(image, statistics), statistics

    def undo(self, normal: Array, statistics: Statistics) -> Array:
        """An image (H, W) of the network, which may be overwritten, in the intensity that was normalised."""
        return self.normalisation.undo(normal, statistics)

    def see(self, reference: Array) -> Judged:
        """What a reference (scale * H, scale * W) is judged by, see `trust.seen_by_target`.

        Raises:
            InputError: too small to tell.
        """
        return seen_by_target(reference, self.scale)

    def trust(self, target: Array, seen: Any) -> float:
        """How well what `see` gave fits a target (H, W), see `trust.reference_trust`."""
        return reference_trust(target, seen)

    def consistent(self, restored: Array, target: npt.NDArray[Any], mode: Consistency) -> Array:
        """Restored (scale * H, scale * W) with the measured k-space of its target, see `kspace.enforce_consistency`."""
        return enforce_consistency(restored, target, self.scale, mode)
