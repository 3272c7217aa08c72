"""A DICOM series through the network: decoded, restored and written slice by slice, all at the same time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset

from minet_sdk.dicom.contrast import Contrast, contrast_of
from minet_sdk.dicom.derive import Derivation, derive
from minet_sdk.dicom.geometry import ordered_grid
from minet_sdk.dicom.header import quietly
from minet_sdk.dicom.read import load, read_slices
from minet_sdk.dicom.scan import Series
from minet_sdk.dicom.write import write_series
from minet_sdk.kspace import Consistency
from minet_sdk.pipeline import (
    Fallback,
    Progress,
    RestoredSlice,
    SlicePair,
    check_roles,
    guide_on,
    restoring,
    to_fft_grid,
)
from minet_sdk.runtime import Runtime
from minet_sdk.trust import median_trust
from minet_sdk.volume import Grid


@dataclass(frozen=True, eq=False)
class RestoredSeries:
    """What was written."""

    files: list[Path]
    fallbacks: tuple[Fallback, ...]
    reference_resampled: bool
    consistency: Consistency
    tiling: str
    """How the slices were cut; empty if each was restored at once."""

    trust_p50: float | None
    """Median over slices of the trust in the reference; None where it was not judged."""

    clipped: int
    """Restored values outside the range that the source's pixel format can hold."""

    seconds: float
    """That the engine took."""


@dataclass(frozen=True, eq=False)
class _DicomPair(SlicePair):
    """One slice with the headers of its source images."""

    source: Dataset
    guides: Sequence[Dataset]
    """The reference image nearest to it."""


def restore_series(
    runtime: Runtime, target: Series, reference: Series | None, output: Path, *, overwrite: bool, progress: Progress
) -> RestoredSeries:
    """Restore a series and write the derived one.

    A reference that lies on the restored grid is decoded slice by slice beside the target. Any other must be resampled,
    which needs all of it: it is read and resampled before the first slice.

    Args:
        runtime: an open model.
        target: low-resolution series.
        reference: guiding series, None for single-contrast models.
        output: folder to write; after any failure it is as it was before.
        overwrite: replace an earlier result there.
        progress: told after each slice.

    Raises:
        DicomError: a series is no even stack of grey MR images, or a file of it is damaged.
        InputError: the series do not go together or are too large for the runtime, or the output cannot be written.
    """
    grid, order = ordered_grid(target)
    check_roles(runtime, has_reference=reference is not None)
    tiling, info = runtime.tiling_for(*grid.shape[1:]), runtime.info
    consistency = runtime.consistency_for(np.empty(0, np.float32))
    settings = {
        "consistency": consistency,
        "precision": info.precision,
        "backend": info.backend,
        "reference trust": info.trust,
    }
    derivation = Derivation(
        scale=runtime.scale,
        model_name=info.model,
        model_sha256=info.model_sha256,
        settings=settings if tiling.whole else {**settings, "tiling": str(tiling)},
        target_contrast=_contrast(target),
        reference_contrast="" if reference is None else _contrast(reference),
    )
    fallbacks: list[Fallback] = []
    trusts: list[float | None] = []
    clipped, seconds = 0, 0.0

    def derived(slices: Iterator[RestoredSlice[_DicomPair]]) -> Iterator[Dataset]:
        nonlocal clipped, seconds
        for one in slices:
            made = derive(
                one.pair.source,
                one.values,
                derivation=derivation,
                references=one.pair.guides,
                note=one.note(resampled=resampled),
            )
            if one.fallback is not None:
                fallbacks.append(one.fallback)
            trusts.append(one.trust)
            clipped += made.clipped
            seconds += one.seconds
            yield made.dataset
            progress(one.index + 1, len(order))

    # The filters of warnings are the process's: stages that set and reset them beside each other would undo each other.
    with quietly():
        pairs, resampled = _pairs(runtime.scale, grid, order, target, reference)
        with restoring(runtime, pairs, grid.shape) as slices:
            files = write_series(derived(slices), output, overwrite=overwrite)
    return RestoredSeries(
        files, tuple(fallbacks), resampled, consistency, str(tiling), median_trust(trusts), clipped, seconds
    )


def _pairs(
    scale: int, grid: Grid, order: Sequence[int], target: Series, reference: Series | None
) -> tuple[Iterator[_DicomPair], bool]:
    """The slices of a series, read as they are asked for, and whether the reference had to be resampled."""
    low = read_slices(target, order)
    if reference is None:
        return (_DicomPair(to_fft_grid(one.values, scale), None, 1.0, one.dataset, ()) for one in low), False
    fine = grid.refined(scale)
    guide_grid, guide_order = ordered_grid(reference)
    if fine.matches(guide_grid):
        both = zip(low, read_slices(reference, guide_order, whole_headers=False), strict=True)
        return (
            _DicomPair(to_fft_grid(one.values, scale), guide.values, 1.0, one.dataset, (guide.dataset,))
            for one, guide in both
        ), False
    whole = load(reference, whole_headers=False)
    guide = guide_on(fine, whole.volume, fine.shape)
    assert guide.values is not None
    values, coverage, headers = guide.values, guide.coverage, whole.datasets
    return (
        _DicomPair(
            to_fft_grid(one.values, scale), values[i], float(coverage[i]), one.dataset, _nearest(one.dataset, headers)
        )
        for i, one in enumerate(low)
    ), True


def _contrast(series: Series) -> str:
    """Contrast for the description; empty if the header does not tell."""
    contrast = contrast_of(series.header)
    return "" if contrast == Contrast.UNKNOWN else str(contrast)


def _nearest(source: Dataset, guides: Sequence[Dataset]) -> Sequence[Dataset]:
    """The reference image that lies closest to a target image, which the derived image names as its other source."""
    at = np.array(source.ImagePositionPatient, np.float64)
    row, column = np.array(source.ImageOrientationPatient, np.float64).reshape(2, 3)
    normal = np.cross(row, column)
    distances = [abs(normal @ (np.array(d.ImagePositionPatient, np.float64) - at)) for d in guides]
    return (guides[int(np.argmin(distances))],)
