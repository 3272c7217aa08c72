"""From input files to output files: DICOM series, NIfTI volumes or arrays, one way between reading and writing."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset

from minet_sdk.dicom.contrast import Contrast, contrast_of
from minet_sdk.dicom.derive import Derivation, derive
from minet_sdk.dicom.pair import find_pair, only_series, space_conflict
from minet_sdk.dicom.read import DicomVolume, load
from minet_sdk.dicom.scan import Scan, Series, scan
from minet_sdk.dicom.write import refuse_occupied, write_series
from minet_sdk.errors import DicomError, InputError
from minet_sdk.files import SUFFIXES, is_volume_file, read_volume, write_volume
from minet_sdk.pipeline import Fallback, Progress, RestoredVolume, restore_volume
from minet_sdk.runtime import Runtime
from minet_sdk.volume import Volume

RESEARCH_USE = "Research use only, not a medical device."
OpenRuntime = Callable[[str], Runtime]
"""Opens a model. It is told the name of the bundled one that fits the inputs, and may take another."""


@dataclass(frozen=True)
class RunSummary:
    """What a run did; `to_dict` is the JSON of `minet-sdk run --json`."""

    output: Path
    files: int
    slices: int
    scale: int
    model: str
    model_sha256: str
    backend: str
    precision: str
    consistency: str
    pairing: str
    """Why these two series; empty for files that were named."""

    skipped: tuple[str, ...]
    """Files in the input folders that are not MR images, with the reason."""

    reference_resampled: bool
    fallbacks: tuple[Fallback, ...]
    clipped_pixels: int
    """Restored values outside the range that the source's pixel format can hold."""

    seconds: dict[str, float]
    """Read, restore, write."""

    latency_p50_ms: float | None
    intended_use: str = RESEARCH_USE

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "output": str(self.output)}


def bundled_model_for(target: Volume, reference: Volume | None) -> str:
    """Name of the bundled model whose scale is nearest to the ratio of the two pixel spacings or matrices."""
    if reference is None:
        return "minet-x2"
    if target.grid is not None and reference.grid is not None:
        ratio = target.grid.spacing[1] / reference.grid.spacing[1]
    else:
        ratio = reference.values.shape[1] / target.values.shape[1]
    return "minet-x4" if math.log2(max(ratio, 1e-9)) > 1.5 else "minet-x2"


def run_files(
    target: Path,
    reference: Path | None,
    output: Path,
    open_runtime: OpenRuntime,
    *,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> RunSummary:
    """Restore a NIfTI volume (.nii, .nii.gz) or an array (.npy, .npz).

    Args:
        target: low-resolution volume.
        reference: guiding volume of the same kind of file.
        output: file to write; its suffix chooses the format.
        open_runtime: opens the model.
        overwrite: replace an existing output file.
        progress: told after each slice.

    Raises:
        FileFormatError: a file is not what its name says.
        InputError: the files do not go together, or the output exists.
    """
    if not is_volume_file(output):
        raise InputError(f"{output}: the output of a file is a file; let its name end in {', '.join(SUFFIXES)}")
    if output.exists() and not overwrite:
        raise InputError(f"{output} exists: give another output, or --overwrite")
    started = time.perf_counter()
    low = read_volume(target)
    guide = None if reference is None else read_volume(reference)
    read = time.perf_counter()
    with open_runtime(bundled_model_for(low, guide)) as runtime:
        result = restore_volume(runtime, low, guide, progress)
        restored = time.perf_counter()
        write_volume(result.volume, output, note=f"MINet x{runtime.scale}. {RESEARCH_USE}")
        seconds = {"read": read - started, "restore": restored - read, "write": time.perf_counter() - restored}
        return _summary(runtime, result, output, files=1, seconds=seconds)


def run_dicom(
    target: Path,
    reference: Path | None,
    output: Path,
    open_runtime: OpenRuntime,
    *,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> RunSummary:
    """Restore the one MR series in a folder and write a derived series.

    Args:
        target: folder of the low-resolution series.
        reference: folder of the guiding series.
        output: folder to write.
        open_runtime: opens the model.
        overwrite: replace a non-empty output folder.
        progress: told after each slice.

    Raises:
        DicomError: a folder does not hold exactly one usable MR series.
        InputError: the series do not go together, or the output exists.
    """
    found = scan(target)
    skipped = _skipped(found)
    low, guide = only_series(found, "target"), None
    if reference is not None:
        found = scan(reference)
        skipped += _skipped(found)
        guide = only_series(found, "reference")
        conflict = space_conflict(low, guide)
        if conflict is not None:
            raise DicomError(f"{low.label} and {guide.label} cannot be paired: {conflict}")
    return _restore_series(low, guide, output, open_runtime, overwrite, progress, pairing="", skipped=skipped)


def run_study(
    study: Path,
    output: Path,
    open_runtime: OpenRuntime,
    *,
    target: str | None = None,
    reference: str | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> RunSummary:
    """Find target and reference in a study folder, restore, write a derived series.

    Args:
        study: folder with all series of a study, in any arrangement.
        output: folder to write.
        open_runtime: opens the model.
        target: series UID, series number or part of the description, to override the choice.
        reference: likewise.
        overwrite: replace a non-empty output folder.
        progress: told after each slice.

    Raises:
        DicomError: no pair, or more than one, is found.
        InputError: the series do not go together, or the output exists.
    """
    found = scan(study)
    pair = find_pair(found, target, reference)
    return _restore_series(
        pair.target,
        pair.reference,
        output,
        open_runtime,
        overwrite,
        progress,
        pairing=pair.reason,
        skipped=_skipped(found),
    )


def _skipped(found: Scan) -> tuple[str, ...]:
    return tuple(f"{path.name}: {reason}" for path, reason in found.skipped)


def _restore_series(
    target: Series,
    reference: Series | None,
    output: Path,
    open_runtime: OpenRuntime,
    overwrite: bool,
    progress: Progress,
    *,
    pairing: str,
    skipped: tuple[str, ...],
) -> RunSummary:
    refuse_occupied(output, overwrite=overwrite)
    started = time.perf_counter()
    low = load(target)
    guide = None if reference is None else load(reference)
    read = time.perf_counter()
    guide_volume = None if guide is None else guide.volume
    with open_runtime(bundled_model_for(low.volume, guide_volume)) as runtime:
        result = restore_volume(runtime, low.volume, guide_volume, progress)
        restored = time.perf_counter()
        info = runtime.info
        derivation = Derivation(
            scale=runtime.scale,
            model_name=info.model,
            model_sha256=info.model_sha256,
            settings={"consistency": result.consistency, "precision": info.precision, "backend": info.backend},
            target_contrast=_contrast(target),
            reference_contrast="" if reference is None else _contrast(reference),
        )
        derived = [
            derive(
                source,
                result.volume.values[index],
                derivation=derivation,
                references=_nearest(source, guide),
                note=result.note(index),
            )
            for index, source in enumerate(low.datasets)
        ]
        paths = write_series([one.dataset for one in derived], output, overwrite=overwrite)
        seconds = {"read": read - started, "restore": restored - read, "write": time.perf_counter() - restored}
        return _summary(
            runtime,
            result,
            output,
            files=len(paths),
            seconds=seconds,
            pairing=pairing,
            skipped=skipped,
            clipped=sum(one.clipped for one in derived),
        )


def _contrast(series: Series) -> str:
    """Contrast for the description; empty if the header does not tell."""
    contrast = contrast_of(series.header)
    return "" if contrast == Contrast.UNKNOWN else str(contrast)


def _nearest(source: Dataset, guide: DicomVolume | None) -> Sequence[Dataset]:
    """The reference image that lies closest to a target image, which the derived image names as its other source."""
    if guide is None:
        return ()
    at = np.array(source.ImagePositionPatient, np.float64)
    row, column = np.array(source.ImageOrientationPatient, np.float64).reshape(2, 3)
    normal = np.cross(row, column)
    distances = [abs(normal @ (np.array(d.ImagePositionPatient, np.float64) - at)) for d in guide.datasets]
    return (guide.datasets[int(np.argmin(distances))],)


def _summary(
    runtime: Runtime,
    result: RestoredVolume,
    output: Path,
    *,
    files: int,
    seconds: dict[str, float],
    pairing: str = "",
    skipped: tuple[str, ...] = (),
    clipped: int = 0,
) -> RunSummary:
    info = runtime.info
    return RunSummary(
        output=output,
        files=files,
        slices=len(result.volume.values),
        scale=runtime.scale,
        model=info.model,
        model_sha256=info.model_sha256,
        backend=info.backend,
        precision=info.precision,
        consistency=result.consistency,
        pairing=pairing,
        skipped=skipped,
        reference_resampled=result.reference_resampled,
        fallbacks=result.fallbacks,
        clipped_pixels=clipped,
        seconds={stage: round(value, 3) for stage, value in seconds.items()},
        latency_p50_ms=runtime.stats().p50_ms,
    )
