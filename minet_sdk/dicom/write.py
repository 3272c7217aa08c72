"""A finished series appears in one step: written beside its place first, then renamed."""

import re
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from pydicom.dataset import Dataset

from minet_sdk.dicom.header import quietly
from minet_sdk.errors import DicomError, InputError

_OURS = re.compile(r"IM_\d{4,}\.dcm|.*\.jsonl?")


def write_series(datasets: Iterable[Dataset], folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Write a series as ``IM_0001.dcm`` and on; after any failure the folder is as it was before.

    Args:
        datasets: the images in slice order; a generator is consumed one image at a time.
        folder: where they go; made if it does not exist, with its parents.
        overwrite: replace a folder that holds an earlier result (``IM_*.dcm`` and ``*.json`` files, nothing else).

    Returns:
        The files, in slice order.

    Raises:
        InputError: the folder is not empty, holds what no earlier result holds, or cannot be written.
        DicomError: an image has an attribute that cannot be encoded.
    """
    refuse_occupied(folder, overwrite=overwrite)
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        fresh = temporary / folder.name
        fresh.mkdir()
        names: list[str] = []
        for number, dataset in enumerate(datasets, start=1):
            names.append(f"IM_{number:04d}.dcm")
            _save(dataset, fresh / names[-1])
        if folder.exists():
            folder.replace(temporary / "before")
        try:
            fresh.replace(folder)
        except OSError:
            if (temporary / "before").exists():
                (temporary / "before").replace(folder)
            raise
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return [folder / name for name in names]


def _save(dataset: Dataset, path: Path) -> None:
    try:
        with quietly():
            dataset.save_as(path, enforce_file_format=True)
    except OSError:
        raise
    except Exception as error:  # pydicom raises whatever an attribute of the source leads to
        raise DicomError(f"{path.name}: an attribute cannot be encoded: {' '.join(str(error).split())}") from error


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
        if not entry.is_file() or not _OURS.fullmatch(entry.name):
            raise InputError(f"{folder}: holds {entry.name}, which is no earlier result; choose another output")
