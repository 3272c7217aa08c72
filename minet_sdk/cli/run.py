"""`minet-sdk run`: restore a study, two series, or two volume files."""

from pathlib import Path
from typing import Annotated

import typer

from minet_sdk.capacity import TilingOption
from minet_sdk.cli.console import print_json, progress_bar, remark
from minet_sdk.cli.options import Backend, Consistency, JsonOutput, Threads
from minet_sdk.errors import InputError
from minet_sdk.files import SUFFIXES, is_volume_file
from minet_sdk.pipeline import UNGUIDED
from minet_sdk.run import RESEARCH_USE, RunSummary, run_dicom, run_files, run_study
from minet_sdk.runtime import Runtime

AUTO = "auto"


def run(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for a derived series, or a volume file.")],
    study: Annotated[Path | None, typer.Argument(help="Study folder; target and reference are found in it.")] = None,
    target: Annotated[
        str | None,
        typer.Option(help="Low-resolution series folder or file; with STUDY a series UID, number or description."),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Guiding series folder or file; with STUDY a UID, number or description.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="Bundled name, bundle folder or .onnx; auto takes the bundled one of the fitting scale.")
    ] = AUTO,
    backend: Backend = AUTO,
    threads: Threads = None,
    consistency: Consistency = "auto",
    trust: Annotated[
        bool, typer.Option(help="Do without a reference that does not show what the target shows, slice by slice.")
    ] = True,
    max_memory: Annotated[
        str | None, typer.Option(help="What one slice may take, such as 2GiB; larger ones are tiled or refused.")
    ] = None,
    tiling: Annotated[
        TilingOption,
        typer.Option(help="Large slices: exact tiles or none, or approximate ones where the network is global."),
    ] = "exact",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    json: JsonOutput = False,
) -> None:
    """Restore a low-resolution contrast guided by a sharp one: DICOM series, NIfTI volumes or arrays.

    Prints the output path. Research use only, not a medical device.
    """

    def open_runtime(fitting: str) -> Runtime:
        chosen = fitting if model == AUTO else model
        return Runtime(
            chosen,
            backend=backend,
            threads=threads,
            consistency=consistency,
            max_memory=max_memory,
            tiling=tiling,
            trust=trust,
        )

    with progress_bar("restoring") as progress:
        if study is not None:
            summary = run_study(
                study,
                output,
                open_runtime,
                target=target,
                reference=reference,
                overwrite=overwrite,
                progress=progress,
            )
        else:
            if target is None:
                raise InputError("nothing to restore: give a STUDY folder, or --target and --reference")
            low, guide = Path(target), None if reference is None else Path(reference)
            _check_same_kind(low, guide)
            restore = run_dicom if low.is_dir() else run_files
            summary = restore(low, guide, output, open_runtime, overwrite=overwrite, progress=progress)
    _report(summary, json)


def _check_same_kind(target: Path, reference: Path | None) -> None:
    for path in (target, reference):
        if path is not None and not path.exists():
            raise InputError(f"{path} does not exist")
        if path is not None and path.is_file() and not is_volume_file(path):
            raise InputError(f"{path}: expected a folder of DICOM files, or a file that ends in {', '.join(SUFFIXES)}")
    if reference is not None and target.is_dir() != reference.is_dir():
        raise InputError(f"{target} and {reference} are different kinds of input: give two folders or two files")


def _trust(summary: RunSummary) -> str:
    return "" if summary.trust_p50 is None else f"trust in the reference {summary.trust_p50:.2f}, "


def _fallbacks(summary: RunSummary) -> str:
    """How many slices are not what the model makes of both images."""
    unguided = sum(fallback.method == UNGUIDED for fallback in summary.fallbacks)
    return f"{len(summary.fallbacks) - unguided} interpolated, {unguided} without their reference"


def _report(summary: RunSummary, json: bool) -> None:
    if summary.pairing:
        remark(f"paired: {summary.pairing}")
    for skipped in summary.skipped:
        remark(f"skipped: {skipped}")
    if summary.reference_resampled:
        remark("the reference was resampled onto the target's grid")
    if summary.tiling:
        approximate = " (not what the whole image gives)" if summary.tiling.startswith("approximate") else ""
        remark(f"slices were too large to be restored at once: {summary.tiling}{approximate}")
    for fallback in summary.fallbacks:
        remark(f"slice {fallback.slice + 1}: {fallback.method}: {fallback.reason}")
    if summary.clipped_pixels:
        remark(f"{summary.clipped_pixels} restored values were clipped to what the source's pixel format holds")
    remark(
        f"{summary.slices} slices x{summary.scale} with {summary.model} on {summary.backend} ({summary.precision}), "
        f"consistency {summary.consistency}, {_fallbacks(summary)}, {_trust(summary)}"
        f"{summary.seconds['total']:.1f} s. {RESEARCH_USE}"
    )
    if json:
        print_json(summary.to_dict())
    else:
        print(summary.output)
