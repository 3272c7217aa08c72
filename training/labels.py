"""Anatomical label maps as training anatomy: which subject is in which split, which voxel is which tissue."""

import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from minet_sdk.errors import TrainingError
from minet_sdk.requirements import require
from minet_sdk.training.splits import Split

SPLITS: dict[Split, tuple[str, ...]] = {
    "train": tuple(f"subject_{i:02d}" for i in range(1, 11)),
    "validation": tuple(f"subject_{i:02d}" for i in range(11, 14)),
    "test": tuple(f"subject_{i:02d}" for i in range(14, 17)),
}
"""By subject, fixed: no subject crosses a split."""

TISSUES = (
    "background", "white matter", "grey matter", "deep grey", "fluid", "soft tissue", "skin", "bone", "marrow",
    "eye", "mucosa", "vein", "vessel", "cerebellar grey",
)  # fmt: skip
"""Names by tissue index, the values of a `Subject`'s volume."""

_LABELS: dict[str, tuple[int, ...]] = {
    "white matter": (2, 41, 7, 46, 16, 28, 60, 85),
    "grey matter": (3, 42, 77),
    "fluid": (4, 43, 5, 44, 14, 15, 24, 72, 512),
    "soft tissue": (507, 502),
    "skin": (511,),
    "bone": (515,),
    "marrow": (516,),
    "eye": (506, 508),
    "mucosa": (530, 509, 164),
    "vein": (514,),
    "vessel": (30, 62),
    "cerebellar grey": (8, 47),
}
BRAIN = tuple(TISSUES.index(t) for t in ("white matter", "grey matter", "deep grey", "cerebellar grey", "vessel"))
"""Tissues that skull stripping keeps besides the fluid they enclose."""


LEAST_TISSUE = 0.12
"""Part of a slice that must be tissue for it to be used."""


class Anatomy(Protocol):
    """Tissue labels that contrasts are made from."""

    tissues: ClassVar[tuple[str, ...]]
    """Names by tissue index; the first is background."""

    brain: ClassVar[tuple[int, ...]]
    """Tissues that skull stripping keeps besides the fluid they enclose; none if there is no skull."""

    @property
    def name(self) -> str:
        """The subject's name."""
        ...

    @property
    def useful_slices(self) -> tuple[npt.NDArray[np.intp], ...]:
        """For each axis the indices of the slices with enough tissue to learn from."""
        ...

    def slab(self, axis: int, index: int, thickness: int) -> npt.NDArray[np.uint8]:
        """Slices around ``index`` along ``axis``: (thickness, rows, columns), head or front upwards.

        Args:
            axis: 0 sagittal, 1 coronal, 2 axial.
            index: the middle slice.
            thickness: an odd number of slices; beyond the volume the last slice repeats.
        """
        ...


@dataclass(frozen=True)
class Subject:
    """One head."""

    tissues: ClassVar[tuple[str, ...]] = TISSUES
    brain: ClassVar[tuple[int, ...]] = BRAIN

    name: str
    tissue: npt.NDArray[np.uint8]
    """(x, y, z) tissue index in RAS+ orientation, 1 mm."""

    def slab(self, axis: int, index: int, thickness: int) -> npt.NDArray[np.uint8]:
        """See `Anatomy`."""
        half = thickness // 2
        indices = np.clip(np.arange(index - half, index + half + 1), 0, self.tissue.shape[axis] - 1)
        slab = np.moveaxis(self.tissue, axis, 0)[indices]
        return np.ascontiguousarray(slab.transpose(0, 2, 1)[:, ::-1])

    @property
    def useful_slices(self) -> tuple[npt.NDArray[np.intp], ...]:
        """For each axis the indices of the slices with enough tissue to learn from."""
        return self._useful_slices

    @cached_property
    def _useful_slices(self) -> tuple[npt.NDArray[np.intp], ...]:
        inside = self.tissue > 0
        other = ((1, 2), (0, 2), (0, 1))
        return tuple(np.nonzero(inside.mean(axis=axes) >= LEAST_TISSUE)[0] for axes in other)


def read_subject(path: Path) -> Subject:
    """Read one label map (NIfTI, FreeSurfer label values) and reduce it to `TISSUES`.

    Raises:
        TrainingError: the file is not a three-dimensional volume of labels, or nearly all of it is background.
    """
    nibabel = require("nibabel", "reading label maps")
    try:
        image = nibabel.as_closest_canonical(nibabel.load(path))
        volume = np.asanyarray(image.dataobj)
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, zlib.error) as error:
        raise TrainingError(f"{path}: not a readable NIfTI file ({' '.join(str(error).split())})") from error
    if volume.ndim != 3:
        raise TrainingError(f"{path}: a label map has three dimensions, this one has {volume.ndim}")
    labels = volume.astype(np.int64)
    if labels.min() < 0 or (labels != volume).any():
        raise TrainingError(f"{path}: a label map holds whole numbers from 0, this volume others; is it an image?")
    table = np.full(int(labels.max()) + 1, TISSUES.index("deep grey"), dtype=np.uint8)
    table[0] = 0
    for tissue, values in _LABELS.items():
        present = [value for value in values if value < len(table)]
        table[present] = TISSUES.index(tissue)
    subject = Subject(path.name.removesuffix(".gz").removesuffix(".nii"), table[labels])
    if not all(slices.size for slices in subject.useful_slices):
        raise TrainingError(f"{path}: along some axis no slice is tissue over {LEAST_TISSUE:.0%} of its area; crop it")
    return subject


def read_split(folder: Path, split: Split) -> list[Subject]:
    """All subjects of a split, in order.

    Args:
        folder: holds ``subject_01.nii.gz`` ... ``subject_16.nii.gz``.
        split: which of `SPLITS`.

    Raises:
        TrainingError: a subject's file is missing.
    """
    paths = [folder / f"{name}.nii.gz" for name in SPLITS[split]]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise TrainingError(f"{folder}: label maps {', '.join(missing)} are missing; give the folder that holds them")
    return [read_subject(path) for path in paths]
