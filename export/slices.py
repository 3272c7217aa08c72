"""Real slices in two contrasts: one half of them calibrates int8 and fp8, the other shows what a precision costs."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from minet_sdk.demo import DATA, study_folder
from minet_sdk.dicom.read import load
from minet_sdk.dicom.scan import scan
from minet_sdk.errors import ExportError
from minet_sdk.kspace import degrade
from minet_sdk.normalisation import Normalisation
from minet_sdk.volume import Grid

Array = npt.NDArray[np.float32]

_FEWEST = 2
_MOST = 40
"""Slices taken from a folder; more cost time and change a range little."""


class Inputs(NamedTuple):
    """One slice as the network gets it."""

    target: Array
    """(1, 1, H, W) normalised."""

    reference: Array
    """(1, 1, scale * H, scale * W) normalised."""

    statistics: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
    """Of the degraded target: what brings the restored slice back to its intensity scale."""


@dataclass(frozen=True, eq=False)
class Slices:
    """Aligned slices at full resolution."""

    targets: Array
    """(slices, H, W), float32: the truth, which is degraded to make a network's input."""

    references: Array
    """(slices, H, W), float32, the other contrast."""

    source: str
    """Where they come from, in words."""

    def __post_init__(self) -> None:
        """Refuse what is no stack of pairs."""
        shape = self.targets.shape
        if len(shape) != 3 or self.references.shape != shape or len(self.targets) < 1:
            raise ExportError(
                f"{self.source}: target {shape} and reference {self.references.shape}; expected both (slices, H, W) of "
                "one shape: resample one to the grid of the other"
            )
        if not (np.isfinite(self.targets).all() and np.isfinite(self.references).all()):
            raise ExportError(f"{self.source}: some values are not finite; calibrate on other slices")

    def halves(self) -> tuple["Slices", "Slices"]:
        """Every other slice, to calibrate on, and those between them, to test on.

        Raises:
            ExportError: there is only one slice.
        """
        if len(self.targets) < _FEWEST:
            raise ExportError(
                f"{self.source} has {len(self.targets)} slice; expected at least {_FEWEST}: every other one "
                "calibrates, the rest tests"
            )
        even, odd = (Slices(self.targets[i::2], self.references[i::2], self.source) for i in (0, 1))
        return even, odd

    def spread(self, most: int) -> "Slices":
        """At most ``most`` slices, evenly spread."""
        count = len(self.targets)
        picks = np.linspace(0, count - 1, min(most, count)).round().astype(int)
        return Slices(self.targets[picks], self.references[picks], self.source)

    def swapped(self) -> "Slices":
        """The contrasts exchanged."""
        return Slices(self.references, self.targets, self.source)

    def inputs(self, scale: int, normalisation: Normalisation) -> list[Inputs]:
        """What a network of this scale gets, slice by slice.

        Raises:
            ExportError: H or W is no multiple of the scale.
        """
        height, width = self.targets.shape[1:]
        if height % scale or width % scale:
            raise ExportError(f"{self.source}: slices are {height} x {width}; expected multiples of the scale {scale}")
        made: list[Inputs] = []
        for truth, guide in zip(self.targets, self.references, strict=True):
            low = degrade(truth, scale)
            statistics = normalisation.statistics(low)
            made.append(
                Inputs(
                    normalisation.apply(low, statistics)[None, None], normalisation.apply(guide)[None, None], statistics
                )
            )
        return made

    def sha256(self) -> str:
        """SHA-256 of shape and values, little-endian, hexadecimal."""
        digest = hashlib.sha256(repr(self.targets.shape).encode())
        for values in (self.targets, self.references):
            digest.update(np.ascontiguousarray(values, "<f4").tobytes())
        return digest.hexdigest()


def bundled_slices() -> Slices:
    """The bundled study: its T2 is the target, its T1 the reference."""
    reference, target = (load(scan(study_folder() / name).series[0]).volume.values for name in ("t1", "t2"))
    return Slices(target, reference, DATA)


def read_slices(folder: Path) -> Slices:
    """A user's own pairs, cropped to multiples of 4; evenly spread ones if there are very many.

    Args:
        folder: holds the folders ``target`` and ``reference``, one DICOM series of the same grid in each.

    Raises:
        ExportError: another layout, or the series do not fit together.
        DicomError: a series cannot be read.
    """
    volumes: list[Array] = []
    grids: list[Grid | None] = []
    for role in ("target", "reference"):
        if not (folder / role).is_dir():
            raise ExportError(
                f"{folder} has no folder {role!r}: calibration takes a folder that holds one DICOM series in "
                "'target' and one of the same grid in 'reference'"
            )
        series = scan(folder / role).series
        if len(series) != 1:
            raise ExportError(f"{folder / role} has {len(series)} DICOM series; expected one: leave one there")
        volume = load(series[0]).volume
        values = volume.values
        rows, columns = (size // 4 * 4 for size in values.shape[1:])
        volumes.append(values[:, :rows, :columns])
        grids.append(volume.grid)
    _check_places(folder, *grids)
    return Slices(volumes[0], volumes[1], f"folder {folder.name}").spread(_MOST)


def _check_places(folder: Path, target: Grid | None, reference: Grid | None) -> None:
    """Refuse series of one shape that lie elsewhere, or whose slices are in another order; others `Slices` refuses."""
    if target is None or reference is None or target.shape != reference.shape or target.matches(reference):
        return
    corners = (tuple(grid.origin.round(2).tolist()) for grid in (target, reference))
    raise ExportError(
        f"{folder}: target and reference have one shape but not one place (first voxels at {next(corners)} and"
        f" {next(corners)} mm, or other steps); expected one grid: resample one to the grid of the other"
    )
