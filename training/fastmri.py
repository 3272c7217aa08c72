"""The knee set of fastMRI as its HDF5 files hold it: k-space in, complex images out, PD guiding FS-PD.

Layout: ``kspace`` complex64 (slices, rows, columns) or (slices, coils, rows, columns), centred; an ISMRMRD header as
XML; the attributes ``acquisition`` and ``patient_id``. Source: Zbontar et al., arXiv:1811.08839.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from minet_sdk.errors import TrainingError
from minet_sdk.kspace import from_kspace
from minet_sdk.requirements import require
from minet_sdk.training.array_cache import ArrayCache, fingerprint
from minet_sdk.training.pair_list import ListedPair, read_pair_list
from minet_sdk.training.pairs import Pair, magnitude, record_of
from minet_sdk.training.splits import Part, Split, agreed_splits, draw_splits
from minet_sdk.training.subjects import joined, listed_subjects
from minet_sdk.training.volume_pairs import VolumePair, VolumePairs, choose_splits

Kspace = npt.NDArray[np.complex64]

_XML = {"mrd": "http://www.ismrm.org/ISMRMRD"}
_MATRIX = "mrd:encoding/mrd:reconSpace/mrd:matrixSize"


@dataclass(frozen=True)
class FastMriOptions:
    """What to take from a folder of fastMRI files."""

    pairs: Path | None = None
    """Pair list, see `pair_list.read_pair_list`; None pairs the volumes of each patient_id."""

    reference: str = "CORPD_FBK"
    """Attribute ``acquisition`` of references."""

    target: str = "CORPDFS_FBK"
    """Attribute ``acquisition`` of targets."""

    splits: Path | None = None
    """CSV with the columns subject (patient_id) and split. None takes them from the pair list, else from the names of
    the published folders, see `open_pairs`."""

    cache: Path | None = None
    """Folder for decoded images; None decodes each slice when it is needed."""


@dataclass(frozen=True)
class FastMriFile:
    """What a file says about itself."""

    path: Path
    slices: int
    coils: int
    """0 for single-coil files, which have no coil axis."""

    acquisition: str
    patient: str
    size: tuple[int, int]
    """Rows and columns of its images, 320 x 320 in the published set."""


def read_header(path: Path) -> FastMriFile:
    """Attributes and shapes, without k-space.

    Raises:
        TrainingError: the file is damaged, has another layout, or is undersampled.
        MissingPackageError: h5py is not installed.
    """
    h5py = require("h5py", "reading fastMRI files")
    try:
        with h5py.File(path, "r") as file:
            names = set(file)
            missing = {"kspace", "ismrmrd_header"} - names
            if missing:
                raise TrainingError(f"{path}: has no {', '.join(sorted(missing))}; expected a fastMRI file of k-space")
            if "mask" in names:
                raise TrainingError(f"{path}: its k-space is undersampled (a test or challenge file): not usable here")
            kspace = file["kspace"]
            shape, dtype = tuple(kspace.shape), kspace.dtype
            header = file["ismrmrd_header"][()]
            acquisition, patient = (_text(file.attrs.get(name, "")) for name in ("acquisition", "patient_id"))
    except (OSError, KeyError, RuntimeError) as error:
        raise TrainingError(f"{path}: damaged, or no HDF5 file") from error
    if len(shape) not in (3, 4) or dtype.kind != "c":
        raise TrainingError(
            f"{path}: kspace is {dtype} {shape}; expected complex (slices, rows, columns) or (slices, coils, ...)"
        )
    size = _size(header, path)
    if size[0] > shape[-2] or size[1] > shape[-1]:
        raise TrainingError(
            f"{path}: k-space is {shape[-2]} x {shape[-1]}, the image {size[0]} x {size[1]}: there is nothing to crop"
        )
    return FastMriFile(path, shape[0], shape[1] if len(shape) == 4 else 0, acquisition, patient, size)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _size(header: bytes | str, path: Path) -> tuple[int, int]:
    """Matrix size of the header's reconSpace: x counts the samples along the readout, which are the rows."""
    try:
        matrix = ElementTree.fromstring(header).find(_MATRIX, _XML)
        assert matrix is not None
        x, y = (int(matrix.findtext(f"mrd:{name}", "", _XML)) for name in "xy")
    except (ElementTree.ParseError, AssertionError, ValueError) as error:
        raise TrainingError(f"{path}: its ISMRMRD header has no reconSpace matrixSize; the file is damaged") from error
    return x, y


def complex_images(kspace: Kspace, size: tuple[int, int]) -> Kspace:
    """Images of centred k-space, the readout's oversampling cropped away in image space.

    The crop is made on the complex image, so that the phase, and with it k-space, stays true.

    Args:
        kspace: (..., rows, columns) complex, DC in the middle.
        size: rows and columns to keep, those in the middle.

    Returns:
        complex64 (..., rows, columns).
    """
    images = np.fft.fftshift(from_kspace(kspace), axes=(-2, -1))
    top, left = ((have - keep) // 2 for have, keep in zip(images.shape[-2:], size, strict=True))
    return np.ascontiguousarray(images[..., top : top + size[0], left : left + size[1]], dtype=np.complex64)


_Files = tuple[FastMriFile, FastMriFile, ListedPair | None]
"""Target and reference, and the row of the list that names them."""


@dataclass(frozen=True)
class FastMriReader:
    """Slices of two files."""

    files: dict[str, tuple[FastMriFile, FastMriFile]]
    """Target and reference by key."""

    cache: ArrayCache

    def read(self, volume: VolumePair, index: int) -> Pair:
        """The target complex, coil by coil; the reference as magnitude."""
        target, reference = (self._images(file, index) for file in self.files[volume.key])
        return Pair(magnitude(reference), target)

    def _images(self, file: FastMriFile, index: int) -> Kspace:
        name = f"{file.size}|{fingerprint(file.path)}"
        if self.cache.folder is None:
            return self.cache.array(f"{index}|{name}", lambda: complex_images(_kspace(file, index), file.size))
        return np.array(self.cache.array(name, lambda: _volume(file))[index])


def _volume(file: FastMriFile) -> Kspace:
    return np.stack([complex_images(_kspace(file, index), file.size) for index in range(file.slices)])


def _kspace(file: FastMriFile, index: int) -> Kspace:
    """One slice; the file is open only meanwhile, since workers are forked."""
    h5py = require("h5py", "reading fastMRI files")
    try:
        with h5py.File(file.path, "r") as opened:
            return opened["kspace"][index]
    except (OSError, KeyError, RuntimeError) as error:
        raise TrainingError(f"{file.path}: slice {index} cannot be read; the file is damaged") from error


def open_pairs(path: Path | None, options: FastMriOptions, part: Part) -> VolumePairs:
    """Open a folder of fastMRI files, searched with the folders below it.

    Splits are those of ``options.splits``, else of the pair list's column, else of the published folders: patients of
    a folder named ``..._val`` are the test split, those of ``..._train`` are drawn for training (90 %) and validation,
    so that no network is selected on what it is tested on. Files in other folders are drawn 80 / 10 / 10.

    Raises:
        TrainingError: no files, or files or a list that do not fit; a patient in two splits.
    """
    if path is None or not path.is_dir():
        raise TrainingError(f"fastMRI data: {path} is no folder; expected one with .h5 files in or below it")
    found = sorted(path.rglob("*.h5"))
    if not found:
        raise TrainingError(f"{path}: no .h5 files in or below this folder; expected those of the fastMRI knee set")
    notes: list[str] = []
    if options.pairs is None:
        files: Sequence[_Files] = [
            (target, reference, None) for target, reference in _by_patient(found, options, notes)
        ]
    else:
        files = _by_list(found, read_pair_list(options.pairs), options)
    subjects = _subjects(files, str(options.pairs), notes)
    listed = {target.path: row for target, _, row in files}
    volumes: list[VolumePair] = []
    for (target, reference, _), subject in zip(files, subjects, strict=True):
        count = min(target.slices, reference.slices)
        if target.slices != reference.slices:
            notes.append(
                f"{target.path.name} has {target.slices} slices, its reference {reference.path.name}"
                f" {reference.slices}: the first {count} of both are used"
            )
        record = {"reference": reference.path.name, "coils": target.coils}
        volumes.append(VolumePair(target.path.stem, subject, tuple(range(count)), str(target.path), record))
    rows = [(volume.subject, Path(volume.key), listed[Path(volume.key)]) for volume in volumes]
    given = None if options.splits else _given_splits(rows, str(options.pairs or path))
    reader = FastMriReader({str(t.path): (t, r) for t, r, _ in files}, ArrayCache(options.cache))
    return VolumePairs(
        "fastmri",
        volumes,
        choose_splits((one.subject for one in volumes), options.splits, given),
        reader,
        record={"folder": path.name, "options": record_of(options)},
        notes=notes,
        part=part,
    )


def _by_patient(
    found: Iterable[Path], options: FastMriOptions, notes: list[str]
) -> list[tuple[FastMriFile, FastMriFile]]:
    """Pairs of the volumes of each patient that has one of both kinds."""
    patients: dict[str, dict[str, list[FastMriFile]]] = defaultdict(lambda: defaultdict(list))
    for file in map(read_header, found):
        patients[file.patient][file.acquisition].append(file)
    pairs: list[tuple[FastMriFile, FastMriFile]] = []
    single = several = 0
    for patient, by_kind in patients.items():
        targets, references = by_kind.get(options.target, []), by_kind.get(options.reference, [])
        if patient and len(targets) == len(references) == 1:
            pairs.append((targets[0], references[0]))
        elif patient and targets and references:
            several += 1
        else:
            single += 1
    if single:
        notes.append(f"{single} patients left out: not both {options.target} and {options.reference}")
    if several:
        notes.append(f"{several} patients left out: several volumes of a kind; a pair list would say which belong")
    if not pairs:
        raise TrainingError(
            f"no patient_id has one {options.target} and one {options.reference} volume;"
            " name the pairs in a CSV file (option pairs)"
        )
    return pairs


def _by_list(
    found: Iterable[Path], listed: Iterable[ListedPair], options: FastMriOptions
) -> list[tuple[FastMriFile, FastMriFile, ListedPair]]:
    """Pairs of a list; names are file names, with or without .h5."""
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in found:
        by_name[path.stem].append(path)
    pairs: list[tuple[FastMriFile, FastMriFile, ListedPair]] = []
    for row in listed:
        files: list[FastMriFile] = []
        for name, kind in ((row.target, options.target), (row.reference, options.reference)):
            where = f"{options.pairs}, line {row.line}"
            paths = by_name.get(Path(name).name.removesuffix(".h5"), [])
            if len(paths) != 1:
                raise TrainingError(f"{where}: {len(paths)} files are named {name}; expected one in the data folder")
            files.append(read_header(paths[0]))
            if files[-1].acquisition != kind:
                raise TrainingError(
                    f"{where}: {name} is {files[-1].acquisition or 'of no acquisition'}, expected {kind};"
                    " are the columns swapped?"
                )
        pairs.append((files[0], files[1], row))
    twice = [name for name, count in Counter(target.path.name for target, _, _ in pairs).items() if count > 1]
    if twice:
        raise TrainingError(f"{options.pairs}: {', '.join(twice)} stand there twice as target; keep one row each")
    return pairs


def _subjects(pairs: Sequence[_Files], where: str, notes: list[str]) -> list[str]:
    """One name for each pair: that of the list, else pairs that share a patient, by either file, are one subject."""
    patients = [tuple(file.patient or file.path.stem for file in pair[:2]) for pair in pairs]
    mixed = sum(target != reference for target, reference in patients)
    if mixed:
        notes.append(f"{mixed} listed pairs join volumes of different patient_id; both count as one subject")
    rows = [row for _, _, row in pairs if row is not None]
    shared = [[f"patient {file.patient}" if file.patient else file.path.name for file in pair[:2]] for pair in pairs]
    if rows and (listed := listed_subjects(rows, shared, where)):
        return listed
    names: dict[int, str] = {}
    numbers = joined(patients)
    for number, both in zip(numbers, patients, strict=True):
        names[number] = min(names.get(number, both[0]), *both)
    return [names[number] for number in numbers]


def _given_splits(volumes: list[tuple[str, Path, ListedPair | None]], where: str) -> dict[str, Split] | None:
    """Splits of the pair list, else of the published folders; None if neither tells."""
    listed = agreed_splits([(subject, row.split if row else None) for subject, _, row in volumes], where)
    if listed is not None:
        return listed
    folders = [(subject, path.parent.name.rpartition("_")[2]) for subject, path, _ in volumes]
    if not all(folder in ("train", "val") for _, folder in folders):
        return None
    published = agreed_splits(((subject, "test" if folder == "val" else "train") for subject, folder in folders), where)
    assert published is not None
    training = [subject for subject, split in published.items() if split == "train"]
    return {**published, **draw_splits(training, {"train": 0.9, "validation": 0.1})}
