"""A finished series appears in one step: written beside its place first, then renamed."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info

from minet_sdk import __version__
from minet_sdk.dicom.header import quietly
from minet_sdk.dicom.uids import IMPLEMENTATION_UID
from minet_sdk.errors import DicomError, InputError

_OURS = re.compile(r"IM_\d{4,}\.dcm|.*\.jsonl?")


def write_series(datasets: Iterable[Dataset], folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Write a series as ``IM_0001.dcm`` and on; after any failure the folder is as it was before.

    Args:
        datasets: the images in slice order; a generator is consumed one image at a time.
        folder: where they go; made if it does not exist, with its parents.
        overwrite: replace a folder that holds an earlier result: ``IM_*.dcm`` that this SDK wrote, ``*.json``, nothing
            else.

    Returns:
        The files, in slice order.

    Raises:
        InputError: the folder is not empty, holds what no earlier result holds, or cannot be written.
        DicomError: an image has an attribute that cannot be encoded.
    """
    folder = folder.resolve()
    refuse_occupied(folder, overwrite=overwrite)
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        place = folder if _must_stay(folder) else folder.parent
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=place))
        fresh = temporary / "fresh"
        fresh.mkdir()
        names: list[str] = []
        for number, dataset in enumerate(datasets, start=1):
            names.append(f"IM_{number:04d}.dcm")
            _save(dataset, fresh / names[-1])
        (_exchange_content if place == folder else _exchange)(folder, fresh, temporary / "before")
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return [folder / name for name in names]


def _must_stay(folder: Path) -> bool:
    """Whether a folder cannot be renamed, or somebody stands in it: its content is exchanged instead."""
    here = Path.cwd()
    return folder.is_dir() and (
        os.path.ismount(folder) or not os.access(folder.parent, os.W_OK) or folder in (here, *here.parents)
    )


def _exchange(folder: Path, fresh: Path, before: Path) -> None:
    """Put a folder in the place of another one, if there is one; after any failure that one is back."""
    if folder.exists():
        folder.replace(before)
    try:
        fresh.replace(folder)
    except BaseException:
        if before.exists():
            before.replace(folder)
        raise


def _exchange_content(folder: Path, fresh: Path, before: Path) -> None:
    """Put the files of a folder in the place of those of the folder that it is in; after any failure those are back."""
    hidden = fresh.parent
    before.mkdir()
    moved: list[tuple[Path, Path]] = []
    earlier = [(entry, before / entry.name) for entry in folder.iterdir() if entry != hidden]
    try:
        for source, place in (*earlier, *((entry, folder / entry.name) for entry in fresh.iterdir())):
            source.replace(place)
            moved.append((source, place))
    except BaseException:
        for source, place in reversed(moved):
            place.replace(source)
        raise


def _save(dataset: Dataset, path: Path) -> None:
    """Write an image, with this SDK as the one that wrote it."""
    dataset.file_meta.ImplementationClassUID = IMPLEMENTATION_UID
    dataset.file_meta.ImplementationVersionName = f"MINET_SDK_{__version__}"[:16]
    content = BytesIO()
    try:
        with quietly():
            dataset.save_as(content, enforce_file_format=True)
    except Exception as error:  # pydicom raises whatever an attribute of the source leads to
        raise DicomError(f"{path.name}: an attribute cannot be encoded: {_first_line(error)}") from error
    path.write_bytes(content.getbuffer())


def _first_line(error: Exception) -> str:
    """Of its message: pydicom's may hold a whole traceback."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def refuse_occupied(folder: Path, *, overwrite: bool = False) -> None:
    """Check a place for output before any work is done.

    Raises:
        InputError: a file stands there, or a folder that is not empty and may not be replaced.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file, expected a folder or nothing; choose another output")
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    if entries and not overwrite:
        raise InputError(f"{folder}: not empty ({len(entries)} entries); choose another output or allow overwriting")
    for entry in entries:
        if not entry.is_file() or not _OURS.fullmatch(entry.name) or not _is_ours(entry):
            raise InputError(f"{folder}: holds {entry.name}, which is no earlier result; choose another output")
    ancestor = next(place for place in (folder, *folder.resolve().parents) if place.exists())
    if not ancestor.is_dir() or not os.access(ancestor, os.W_OK):
        raise InputError(
            f"cannot write {folder}: {ancestor} is no folder that may be written to; choose another output"
        )


def _is_ours(path: Path) -> bool:
    """Whether this SDK wrote a DICOM file; acquired ones often have the same names."""
    if path.suffix != ".dcm":
        return True
    try:
        return read_file_meta_info(path).get("ImplementationClassUID") == IMPLEMENTATION_UID
    except Exception:  # pydicom raises whatever a damaged byte leads to
        return False
