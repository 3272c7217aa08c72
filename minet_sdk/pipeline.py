"""A target volume and a reference volume in, a restored volume out: align, restore slice by slice, never lose one.

Geometry. The restored grid has the target's field of view, as a PACS expects, so its first pixel centre lies
(scale - 1) / 2 fine pixels before the target's. The network lives on the FFT grid, where first pixels coincide. The
target is therefore moved by that fraction of a pixel first, by a linear phase in k-space, where it is band-limited and
the move is exact; the reference, which is sharp, is left as it is wherever it already lies on the restored grid.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from minet_sdk.errors import BackendError, InputError
from minet_sdk.kspace import Consistency, bicubic, fourier_shift
from minet_sdk.resample import resample
from minet_sdk.runtime import Runtime
from minet_sdk.volume import Volume

Array = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]
"""Called with slices done and slices in all."""

LEAST_COVERAGE = 0.5
"""Part of a target slice that the reference must cover for it to guide the slice."""

_log = logging.getLogger("minet_sdk")


@dataclass(frozen=True)
class Fallback:
    """A slice that the model did not restore."""

    slice: int
    """Index in the volume, from 0."""

    reason: str
    method: str = "bicubic interpolation"


@dataclass(frozen=True)
class RestoredVolume:
    """Result of `restore_volume`."""

    volume: Volume
    fallbacks: tuple[Fallback, ...]
    reference_resampled: bool
    """Whether the reference had to be brought onto the restored grid."""

    consistency: Consistency
    """What was done with the measured k-space."""

    def note(self, index: int) -> str:
        """What a reader of slice ``index`` must know; empty if the model restored it from an untouched reference."""
        for fallback in self.fallbacks:
            if fallback.slice == index:
                return f"{fallback.method} instead of the model: {fallback.reason}"
        return "reference resampled onto the target's grid" if self.reference_resampled else ""


def to_fft_grid(values: Array, scale: int) -> Array:
    """Move a low-resolution volume so that its first pixel lies on the first pixel of the grid refined by ``scale``.

    Args:
        values: float32 (slices, H, W).
        scale: magnification.

    Returns:
        float32, same shape; the content moves (scale - 1) / (2 * scale) pixels towards higher indices.
    """
    return fourier_shift(values, (scale - 1) / (2 * scale)).real.astype(np.float32)


def restore_volume(
    runtime: Runtime, target: Volume, reference: Volume | None, progress: Progress = lambda done, total: None
) -> RestoredVolume:
    """Restore every slice of a volume.

    Args:
        runtime: an open model.
        target: low-resolution volume, float32 (slices, H, W).
        reference: the guiding contrast; with a grid it may have any geometry in the same frame of reference, without
            one (plain arrays) it must be (slices, scale * H, scale * W) on the FFT grid. None for single-contrast
            models.
        progress: told after each slice.

    Returns:
        float32 (slices, scale * H, scale * W). Slices that the reference does not cover, or at which the engine
        failed, are interpolated and listed.

    Raises:
        InputError: the volumes do not go together.
    """
    scale = runtime.scale
    needs_reference = runtime.bundle.manifest.needs_reference
    if needs_reference != (reference is not None):
        wanted = "needs a reference" if needs_reference else "is single-contrast and takes no reference"
        raise InputError(f"model {runtime.bundle.manifest.name} {wanted}")
    if reference is not None and (target.grid is None) != (reference.grid is None):
        raise InputError("one of target and reference has a position in space and the other has not: give both or none")
    low = target.values
    grid = None
    guide, coverage, resampled = (None if reference is None else reference.values), np.ones(len(low)), False
    if target.grid is not None:
        grid = target.grid.refined(scale)
        low = to_fft_grid(low, scale)
        if reference is not None:
            moved = resample(reference, grid)
            guide, coverage, resampled = moved.values, moved.coverage, moved.changed
    if coverage.max() < LEAST_COVERAGE:
        raise InputError(
            f"the reference covers at most {coverage.max():.0%} of any target slice: "
            "give two series of the same region and frame of reference"
        )
    shape = (len(low), scale * low.shape[1], scale * low.shape[2])
    if guide is not None and guide.shape != shape:
        raise InputError(f"reference has shape {guide.shape}; this target and a x{scale} model need {shape}")
    restored = np.empty(shape, np.float32)
    fallbacks: list[Fallback] = []
    for index, piece in enumerate(low):
        reason = ""
        if coverage[index] < LEAST_COVERAGE:
            reason = f"the reference covers {coverage[index]:.0%} of this slice"
        else:
            try:
                restored[index] = runtime(piece, None if guide is None else guide[index])
            except BackendError as error:
                reason = str(error)
        if reason:
            restored[index] = bicubic(piece, scale)
            fallbacks.append(Fallback(index, reason))
            _log.warning(
                "slice %d of %d: %s instead of the model: %s", index + 1, len(low), fallbacks[-1].method, reason
            )
        progress(index + 1, len(low))
    return RestoredVolume(Volume(restored, grid), tuple(fallbacks), resampled, runtime.consistency_for(low))
