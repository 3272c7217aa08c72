"""Two volumes, wherever their voxels lie, become one stack of pairs of slices."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from minet_sdk.errors import InputError, TrainingError
from minet_sdk.resample import resample
from minet_sdk.training.array_cache import ArrayCache, fingerprint
from minet_sdk.training.pairs import Pair
from minet_sdk.training.volume_pairs import VolumePair
from minet_sdk.volume import Grid, Volume

SliceAxis = Literal["auto", "slices", "rows", "columns"]
"""Which array axis of the target's volume is cut along; ``auto`` takes the axis of the largest spacing, for equal
spacings the one nearest to head-foot."""

THICKER = 1.1
"""Spacings differ if one is this many times the other."""

SIGNAL = 0.1
"""A pixel shows something above this part of the volume's 99.5th percentile."""

LEAST_TISSUE = 0.05
"""Part of a slice that must show something for it to be used."""

LEAST_COVERAGE = 0.75
"""Part of a slice that the reference must reach for it to be used."""

LEAST_NEGATIVE = 1e-3
"""A volume with values below this part of its maximum, negated, is no magnitude; what is above came by rounding."""

GRID = 4
"""Rows and columns are cropped to multiples of this, the largest magnification."""


@dataclass(frozen=True, eq=False)
class Stack:
    """Two volumes as pairs of slices."""

    values: npt.NDArray[np.float32]
    """(2, slices, rows, columns): target, reference."""

    slices: list[int]
    """Which slices show something and have a reference."""

    record: dict[str, Any]
    """What was done."""


def stack(target: Volume, reference: Volume, axis: SliceAxis = "auto") -> Stack:
    """Cut two volumes into pairs of slices: the reference is brought onto the target's grid first.

    Args:
        target: with a grid, unless both are plain arrays of one shape.
        reference: anywhere in the same space.
        axis: see `SliceAxis`.

    Raises:
        InputError: a volume has no grid and the shapes differ.
    """
    name, first = _axis(target, axis)
    turned, guide = _with_first(target, first), _with_first(reference, first)
    if target.grid is None and reference.grid is None and target.values.shape == reference.values.shape:
        other, coverage, changed = guide.values, np.ones(len(guide.values)), False
    elif turned.grid is None:
        raise InputError("the target is a plain array without a place in the patient; give NIfTI or DICOM")
    else:
        resampled = resample(guide, turned.grid)
        other, coverage, changed = resampled.values, resampled.coverage, resampled.changed
    values = np.stack([_cropped(turned.values), _cropped(other)])
    shows = _shows_something(values[0])
    covered = coverage >= LEAST_COVERAGE
    record = {
        "slice_axis": name,
        "reference_resampled": changed,
        "empty_slices": int((~shows).sum()),
        "slices_without_reference": int((shows & ~covered).sum()),
    }
    return Stack(values, [int(one) for one in np.nonzero(shows & covered)[0]], record)


def as_magnitude(volume: Volume, path: Path) -> Volume:
    """A volume without the negative values that rounding or interpolation left in a magnitude.

    Low resolution is made of magnitudes, so that a target of either sign would not be what its truth is.

    Raises:
        TrainingError: there are others; the message names the file.
    """
    least, most = float(volume.values.min()), float(volume.values.max())
    if least >= 0:
        return volume
    if least < -LEAST_NEGATIVE * max(most, 0):
        raise TrainingError(
            f"{path}: the target has values from {least:.4g} to {most:.4g}; expected a magnitude image, without values"
            " below 0: undo its z-scoring or shift it, or clip what an interpolation undershot"
        )
    return replace(volume, values=np.maximum(volume.values, 0))


def _axis(volume: Volume, axis: SliceAxis) -> tuple[SliceAxis, int]:
    """Name and index of the array axis that slices are counted along."""
    names: tuple[SliceAxis, ...] = ("slices", "rows", "columns")
    if axis != "auto":
        return axis, names.index(axis)
    if volume.grid is None:
        return "slices", 0
    spacing = np.array(volume.grid.spacing)
    thickest = int(spacing.argmax())
    if spacing[thickest] < THICKER * np.delete(spacing, thickest).max():
        head_foot = np.abs(volume.grid.steps[:, 2]) / spacing
        thickest = int(head_foot.argmax())
    return names[thickest], thickest


def _with_first(volume: Volume, axis: int) -> Volume:
    """The volume with another array axis in front."""
    order = [axis, *(one for one in range(3) if one != axis)]
    values = np.ascontiguousarray(volume.values.transpose(order))
    if volume.grid is None:
        return Volume(values)
    slices, rows, columns = values.shape
    return Volume(values, Grid((slices, rows, columns), volume.grid.origin, volume.grid.steps[order]))


def _cropped(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(slices, rows, columns) with the middle rows and columns, as many as `GRID` divides."""
    rows, columns = values.shape[1:]
    top, left = rows % GRID // 2, columns % GRID // 2
    return values[:, top : top + rows - rows % GRID, left : left + columns - columns % GRID]


def _shows_something(values: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """(slices,) whether enough of each slice is brighter than background."""
    threshold = SIGNAL * np.percentile(values, 99.5)
    return (values > max(threshold, 0)).mean(axis=(1, 2)) >= LEAST_TISSUE


class StackReader:
    """Slices of volumes that are decoded whole, through a cache.

    Args:
        cache: keeps the stacks.
        sources: how to load (target, reference) of each key.
        axis: see `SliceAxis`.
    """

    def __init__(self, cache: ArrayCache, sources: Mapping[str, "Loader"], axis: SliceAxis) -> None:
        self.cache, self.sources = cache, dict(sources)
        self.axis: SliceAxis = axis

    def survey(self, key: str) -> dict[str, Any]:
        """Usable slices and what was done to a pair of volumes; decodes it, unless a cache folder knows it."""

        def make() -> dict[str, Any]:
            made = self._stack(key)
            self.cache.array(self._name(key), lambda: made.values)
            return {"slices": made.slices, "record": made.record}

        return self.cache.record(self._name(key), make)

    def read(self, volume: VolumePair, index: int) -> Pair:
        """One slice of a stack."""
        values = self.cache.array(self._name(volume.key), lambda: self._stack(volume.key).values)
        target, reference = np.array(values[:, index], dtype=np.float32)
        return Pair(reference, target)

    def _name(self, key: str) -> str:
        return f"{self.axis}|{fingerprint(*self.sources[key].paths)}"

    def _stack(self, key: str) -> Stack:
        source = self.sources[key]
        target, reference = source.load()
        return stack(as_magnitude(target, source.paths[0]), reference, self.axis)


class Loader(Protocol):
    """Loads two volumes. Picklable."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, the target's first, so that a cache notices when they change."""
        ...

    def load(self) -> tuple[Volume, Volume]:
        """Target and reference."""
        ...
