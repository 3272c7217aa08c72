"""The demonstration: a real two-contrast study, its T2 made coarse as a fast scan would be, restored under the T1.

It goes the way of any other study: the coarse T2 is written as a DICOM series, restored by `run`, and read back.
"""

import json
from copy import deepcopy
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from minet_sdk.atomic import replacing
from minet_sdk.dicom.read import DicomVolume, load
from minet_sdk.dicom.scan import scan
from minet_sdk.dicom.uids import hashed_uid
from minet_sdk.dicom.write import write_series
from minet_sdk.errors import InputError
from minet_sdk.figure import Panel, draw_comparison
from minet_sdk.kspace import bicubic, degrade, zero_filled
from minet_sdk.measures import Measures, measure
from minet_sdk.pipeline import Progress, to_fft_grid
from minet_sdk.run import OpenRuntime, RunSummary, run_dicom

Array = npt.NDArray[np.float32]

SCALES = (4, 2)
DATA = "ICBM152 2009c symmetric T1 and T2 averages, which no training sees"


@dataclass(frozen=True)
class Comparison:
    """How the methods compare on the demonstration at one scale."""

    scale: int
    measures: dict[str, Measures]
    """By method: bicubic, zero-filled, MINet."""

    run: RunSummary
    picture: Path | None


def study_folder() -> Path:
    """The bundled two-contrast study: folders ``t1`` and ``t2``."""
    return Path(str(resources.files("minet_sdk") / "study"))


def demonstrate(
    output: Path,
    open_runtime: OpenRuntime,
    *,
    overwrite: bool = False,
    picture: bool = True,
    progress: Progress = lambda done, total: None,
) -> list[Comparison]:
    """Degrade, restore and compare the bundled study at every scale.

    Args:
        output: folder to make; gets ``x4/low_resolution``, ``x4/restored``, ``comparison_x4.png`` and the same for
            x2, and ``comparison.json``.
        open_runtime: opens a model.
        overwrite: replace what is in the folder.
        picture: draw the comparison; needs matplotlib.
        progress: told after each slice.

    Raises:
        InputError: the folder is not empty and ``overwrite`` is False.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file: the output of the demo is a folder")
    if output.is_dir() and any(output.iterdir()) and not overwrite:
        raise InputError(f"{output} is not empty: give another folder, or --overwrite")
    reference, truth = (load(scan(study_folder() / name).series[0]) for name in ("t1", "t2"))
    comparisons = [
        _compare(output, scale, reference, truth, open_runtime, overwrite, picture, progress) for scale in SCALES
    ]
    report = {"data": DATA, "scales": {f"x{c.scale}": _report(c) for c in comparisons}}
    with replacing(output / "comparison.json") as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return comparisons


def _report(comparison: Comparison) -> dict[str, Any]:
    run = comparison.run
    return {
        "measures": {method: asdict(values) for method, values in comparison.measures.items()},
        "model": run.model,
        "model_sha256": run.model_sha256,
        "backend": run.backend,
        "consistency": run.consistency,
        "fallbacks": len(run.fallbacks),
    }


def _compare(
    output: Path,
    scale: int,
    reference: DicomVolume,
    truth: DicomVolume,
    open_runtime: OpenRuntime,
    overwrite: bool,
    picture: bool,
    progress: Progress,
) -> Comparison:
    low = degrade(truth.volume.values, scale, offset=(scale - 1) / 2)
    folder = output / f"x{scale}"
    coarse = [_coarse_image(source, low[i], scale) for i, source in enumerate(truth.datasets)]
    write_series(coarse, folder / "low_resolution", overwrite=overwrite)
    summary = run_dicom(
        folder / "low_resolution",
        study_folder() / "t1",
        folder / "restored",
        open_runtime,
        overwrite=overwrite,
        progress=progress,
    )
    acquired = load(scan(folder / "low_resolution").series[0]).volume.values
    restored = load(scan(folder / "restored").series[0]).volume.values
    on_grid = to_fft_grid(acquired, scale)
    images = {"bicubic": bicubic(on_grid, scale), "zero-filled": zero_filled(on_grid, scale), "MINet": restored}
    measures = {method: measure(truth.volume.values, image) for method, image in images.items()}
    path = None
    if picture:
        path = output / f"comparison_x{scale}.png"
        middle = len(restored) // 2
        blocks = np.kron(acquired[middle], np.ones((scale, scale), np.float32))
        panels = [
            Panel("Reference (T1)", reference.volume.values[middle] * _window_ratio(reference, truth), compared=False),
            Panel(f"Low resolution (T2, 1/{scale})", blocks),
            *(Panel(f"{m}  {measures[m].psnr:.1f} dB", image[middle]) for m, image in images.items()),
        ]
        caption = f"x{scale}, slice {middle + 1}; PSNR over all {len(restored)} slices. Research use only."
        draw_comparison(path, panels, truth.volume.values[middle], images["bicubic"][middle], caption)
    return Comparison(scale, measures, summary, path)


def _window_ratio(reference: DicomVolume, truth: DicomVolume) -> np.float32:
    """Brings the reference into the display window of the target."""
    bright = [float(np.percentile(v.volume.values, 99.7)) for v in (truth, reference)]
    return np.float32(bright[0] / bright[1])


def _coarse_image(source: Dataset, pixels: Array, scale: int) -> Dataset:
    """The DICOM image that a scanner would have made at 1/scale of the resolution, same field of view."""
    image = deepcopy(source)
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stored = np.clip(np.rint(pixels), 0, 2**source.BitsStored - 1).astype("<u2")
    image.Rows, image.Columns = stored.shape
    spacing = [float(value) for value in source.PixelSpacing]
    image.PixelSpacing = [value * scale for value in spacing]
    row, column = np.array(source.ImageOrientationPatient, np.float64).reshape(2, 3)
    position = np.array(source.ImagePositionPatient, np.float64)
    position += (scale - 1) / 2 * (row * spacing[1] + column * spacing[0])
    image.ImagePositionPatient = [round(float(value), 6) for value in position]
    image.AcquisitionMatrix = [0, stored.shape[1], stored.shape[0], 0]
    image.SeriesDescription = f"{source.SeriesDescription}, simulated at 1/{scale} resolution"
    image.SeriesNumber = int(source.SeriesNumber) + 10 * scale
    image.SeriesInstanceUID = hashed_uid(source.SeriesInstanceUID, f"low resolution {scale}")
    image.SOPInstanceUID = hashed_uid(source.SOPInstanceUID, f"low resolution {scale}")
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.SmallestImagePixelValue, image.LargestImagePixelValue = int(stored.min()), int(stored.max())
    image.PixelData = stored.tobytes()
    image["PixelData"].VR = "OW"
    return image
