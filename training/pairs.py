"""Where training pairs come from: one interface for every kind of data, opened by name.

A source is split by subject, never by slice, and says what it holds, so that a checkpoint can record it.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from minet_sdk.errors import TrainingError
from minet_sdk.kspace import degrade
from minet_sdk.training.splits import Part, Split
from minet_sdk.training.typed import typed_fields

Image = npt.NDArray[np.float32]

Kind = Literal["synthetic", "fastmri", "dicom", "nifti"]


@dataclass(frozen=True)
class Pair:
    """A reference and a target of one slice, aligned and perfectly sampled, in any intensity scale.

    A reference that is missing is all zeros.
    """

    reference: Image
    """(rows, columns) float32 magnitude."""

    target: Image | npt.NDArray[np.complex64]
    """Magnitude (rows, columns) float32; or complex64 (rows, columns), or (coils, rows, columns) of several coils."""

    @property
    def truth(self) -> Image:
        """What is to be restored, (rows, columns) float32: the target's magnitude, root sum of squares over coils."""
        return magnitude(self.target)

    def low_resolution(self, scale: int) -> Image:
        """The target as `kspace.degrade` makes it, (rows / scale, columns / scale) float32.

        A complex target loses the outer k-space of the complex image, coil by coil: the magnitude comes after, as in a
        scanner.
        """
        return magnitude(degrade(self.target, scale))


@dataclass(frozen=True)
class MagnitudePair(Pair):
    """A pair without phase."""

    target: Image
    """(rows, columns) float32."""


def magnitude(image: Image | npt.NDArray[np.complex64]) -> Image:
    """(rows, columns) float32 magnitude of an image, root sum of squares over a leading coil axis if there is one."""
    values = np.abs(image) if np.iscomplexobj(image) else image
    if values.ndim == 3:
        values = np.sqrt(np.square(values).sum(axis=0))
    return values.astype(np.float32, copy=False)


class PairSource(ABC):
    """Pairs of slices of some subjects. Picklable: workers of a loader hold copies of it."""

    endless: bool = False
    """Whether `pair` makes a new pair at each call (synthetic data), or reads a slice that exists."""

    notes: tuple[str, ...] = ()
    """What was approximated, left out or assumed on opening, one line each: for the user to see."""

    @property
    @abstractmethod
    def subjects(self) -> tuple[str, ...]:
        """Names of the subjects, each once."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of slices; of subjects if the source is endless."""

    @abstractmethod
    def pair(self, index: int, rng: np.random.Generator) -> Pair:
        """One pair.

        Args:
            index: 0 to ``len - 1``.
            rng: the only source of chance; sources of measured data draw nothing from it.
        """

    @abstractmethod
    def subject(self, index: int) -> str:
        """Whom a pair shows."""

    @abstractmethod
    def volume(self, index: int) -> str:
        """Which volume a pair is a slice of: measures are taken over whole volumes."""

    @abstractmethod
    def split(self, name: Split) -> "PairSource":
        """The part of this source whose subjects belong to a split.

        Raises:
            TrainingError: no subject does.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """For the record of a checkpoint, as JSON can hold it: kind, options, subjects and notes."""

    def volumes(self) -> dict[str, tuple[int, ...]]:
        """The indices of each volume's pairs, in slice order."""
        found: dict[str, list[int]] = {}
        for index in range(len(self)):
            found.setdefault(self.volume(index), []).append(index)
        return {name: tuple(indices) for name, indices in found.items()}


@dataclass(frozen=True)
class _Entry:
    """One kind of data."""

    module: str
    """Below ``minet_sdk.training``; it has ``open_pairs(path, options, part) -> PairSource``."""

    options: str
    """Name of the frozen dataclass of its options."""

    summary: str


KINDS: dict[Kind, _Entry] = {
    "synthetic": _Entry("synthetic", "SyntheticOptions", "made on the fly from label maps, or knees made of nothing"),
    "fastmri": _Entry("fastmri", "FastMriOptions", "the HDF5 files of the fastMRI knee set, PD guiding FS-PD"),
    "dicom": _Entry("dicom_pairs", "DicomOptions", "DICOM studies with two series each"),
    "nifti": _Entry("nifti_pairs", "NiftiOptions", "NIfTI volumes named as in IXI, BraTS or BIDS"),
}


def open_source(
    kind: Kind, path: Path | None, split: Part = "train", options: Mapping[str, Any] | object | None = None
) -> PairSource:
    """Open data of one kind.

    Args:
        kind: one of `KINDS`.
        path: where the data lie; None for data that need none (synthetic knees).
        split: whose subjects; ``all`` for data that serve one purpose as a whole.
        options: the kind's options: their dataclass, or a mapping by name as a settings file has it, or None.

    Raises:
        TrainingError: unknown kind, option or split, no data there, or none of this split.
    """
    options = options_of(kind, options)
    if split not in get_args(Part):
        raise TrainingError(f"split is {split!r}; expected one of {', '.join(get_args(Part))}")
    return _module(kind).open_pairs(path, options, split)


def options_of(kind: Kind, options: Mapping[str, Any] | object | None = None) -> Any:
    """The dataclass of a kind's options, as `open_source` takes them.

    Raises:
        TrainingError: unknown kind or option, or a value that an option cannot have.
    """
    if kind not in KINDS:
        raise TrainingError(f"kind of data '{kind}' is unknown; expected one of {', '.join(KINDS)}")
    form = getattr(_module(kind), KINDS[kind].options)
    if options is None or isinstance(options, Mapping):
        given = cast("Mapping[str, Any]", options or {})
        return form(**typed_fields(form, given, f"{kind} data", lacks="have no option"))
    if not isinstance(options, form):
        raise TrainingError(f"options of {kind} data are a {type(options).__name__}; expected {form.__name__}")
    return options


def _module(kind: Kind) -> Any:
    return importlib.import_module(f"minet_sdk.training.{KINDS[kind].module}")


def record_of(options: Any) -> dict[str, Any]:
    """Options as JSON can hold them; of a path only its name, which tells nothing about the machine."""

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return value.name
        if is_dataclass(value) and not isinstance(value, type):
            return record_of(value)
        if isinstance(value, Mapping):
            return {str(name): plain(inner) for name, inner in value.items()}
        return [plain(inner) for inner in value] if isinstance(value, tuple | list) else value

    return {one.name: plain(getattr(options, one.name)) for one in fields(options)}
