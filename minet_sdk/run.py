"""From input files to output files: DICOM series, NIfTI volumes or arrays, one way between reading and writing."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from minet_sdk.dicom.geometry import ordered_grid
from minet_sdk.dicom.pair import find_pair, only_series, space_conflict
from minet_sdk.dicom.scan import Scan, Series, scan
from minet_sdk.dicom.write import refuse_occupied
from minet_sdk.errors import DicomError, InputError
from minet_sdk.files import check_output, is_volume_file, read_volume, write_volume
from minet_sdk.pipeline import Fallback, Progress, restore_volume
from minet_sdk.resample import times_finer
from minet_sdk.runtime import Runtime
from minet_sdk.series import restore_series
from minet_sdk.volume import Grid, Volume

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
    tiling: str
    """How slices too large for the runtime were cut; empty if each was restored at once."""

    pairing: str
    """Why these two series; empty for files that were named."""

    skipped: tuple[str, ...]
    """Files in the input folders that are not MR images, with the reason."""

    reference_resampled: bool
    fallbacks: tuple[Fallback, ...]
    """Slices that the model did not restore, or not with their reference."""

    trust_p50: float | None
    """Median over slices of how well the reference fits the target, see `trust.reference_trust`; None: not judged."""

    clipped_pixels: int
    """Restored values outside the range that the source's pixel format can hold."""

    seconds: dict[str, float]
    """`open`: scan, read headers and open the model; `restore`: from the first slice's file to the last one's;
    `inference`: the engine's part of it; `total`."""

    slices_at_once: int
    """That were in the engine at the same time, see `Runtime.slices_at_once`."""

    latency_p50_ms: float | None
    """Median of what a slice takes in the engine, which it may share with another."""

    intended_use: str = RESEARCH_USE

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "output": str(self.output)}


Place = Grid | tuple[int, int, int]
"""Where a volume lies, or, of a plain array, its shape (slices, rows, columns)."""


def bundled_model_for(target: Place, reference: Place | None) -> str:
    """Name of the bundled model whose scale is nearest to the ratio of the two pixel spacings or matrices.

    The spacings are those along the target's rows and columns, whatever plane the reference has; the lesser counts.
    """
    if reference is None:
        return "minet-x2"
    if isinstance(target, Grid) and isinstance(reference, Grid):
        ratio = times_finer(reference, target)
    else:
        coarse, fine = (place.shape if isinstance(place, Grid) else place for place in (target, reference))
        ratio = min(fine[axis] / coarse[axis] for axis in (1, 2))
    return "minet-x4" if math.log2(max(ratio, 1e-9)) > 1.5 else "minet-x2"


def _place(volume: Volume) -> Place:
    slices, rows, columns = volume.values.shape
    return volume.grid or (slices, rows, columns)


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
        InputError: the files do not go together, or the output exists, is an input or cannot be written.
    """
    if output.exists() and not overwrite:
        raise InputError(f"{output} exists: give another output, or --overwrite")
    _refuse_inputs(output, [target, *([] if reference is None else [reference])])
    started = time.perf_counter()
    low = read_volume(target)
    check_output(output, has_grid=low.grid is not None)
    guide = None if reference is None else read_volume(reference)
    with open_runtime(bundled_model_for(_place(low), None if guide is None else _place(guide))) as runtime:
        opened = time.perf_counter()
        result = restore_volume(runtime, low, guide, progress)
        write_volume(result.volume, output, note=f"MINet x{runtime.scale}. {RESEARCH_USE}")
        return _summary(
            runtime,
            output,
            files=1,
            slices=len(result.volume.values),
            consistency=result.consistency,
            tiling=result.tiling,
            pairing="",
            skipped=(),
            reference_resampled=result.reference_resampled,
            fallbacks=result.fallbacks,
            trust_p50=result.trust_p50,
            clipped_pixels=0,
            slices_at_once=runtime.slices_at_once(*low.values.shape[1:]),
            seconds=_seconds(started, opened, result.seconds),
        )


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
        InputError: the series do not go together, or the output exists, holds an input or cannot be written.
    """
    started = time.perf_counter()
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
    return _restore_series(
        low, guide, output, open_runtime, overwrite, progress, pairing="", skipped=skipped, started=started
    )


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
        InputError: the output exists, holds an input or cannot be written.
        InputError: the series do not go together, or the output exists, holds an input or cannot be written.
    """
    started = time.perf_counter()
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
        started=started,
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
    started: float,
) -> RunSummary:
    if is_volume_file(output):
        raise InputError(f"{output}: the output of DICOM series is a folder; give another name")
    _refuse_inputs(output, [*target.paths, *(() if reference is None else reference.paths)])
    refuse_occupied(output, overwrite=overwrite)
    low = ordered_grid(target)[0]
    guide = None if reference is None else ordered_grid(reference)[0]
    with open_runtime(bundled_model_for(low, guide)) as runtime:
        opened = time.perf_counter()
        result = restore_series(runtime, target, reference, output, overwrite=overwrite, progress=progress)
        return _summary(
            runtime,
            output,
            files=len(result.files),
            slices=low.shape[0],
            consistency=result.consistency,
            tiling=result.tiling,
            pairing=pairing,
            skipped=skipped,
            reference_resampled=result.reference_resampled,
            fallbacks=result.fallbacks,
            trust_p50=result.trust_p50,
            clipped_pixels=result.clipped,
            slices_at_once=runtime.slices_at_once(*low.shape[1:]),
            seconds=_seconds(started, opened, result.seconds),
        )


def _refuse_inputs(output: Path, inputs: Sequence[Path]) -> None:
    """Nothing may take the place of what it is made from, not even on request."""
    place = output.resolve()
    for path in inputs:
        resolved = path.resolve()
        if place == resolved or place in resolved.parents:
            raise InputError(f"{output}: is or holds the input {path}; choose another output")


def _seconds(started: float, opened: float, inference: float) -> dict[str, float]:
    """For the summary, to the millisecond."""
    now = time.perf_counter()
    seconds = {"open": opened - started, "restore": now - opened, "inference": inference, "total": now - started}
    return {stage: round(value, 3) for stage, value in seconds.items()}


def _summary(runtime: Runtime, output: Path, **done: Any) -> RunSummary:
    """What was done, and by which model."""
    info = runtime.info
    return RunSummary(
        output=output,
        scale=runtime.scale,
        model=info.model,
        model_sha256=info.model_sha256,
        backend=info.backend,
        precision=info.precision,
        latency_p50_ms=runtime.stats().p50_ms,
        **done,
    )
