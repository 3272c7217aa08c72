"""Volumes in plain files: NumPy arrays and NIfTI.

Array order is (slices, rows, columns) everywhere; a NIfTI voxel (i, j, k) is ``values[k, j, i]``, in any orientation.
"""

import gzip
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minet_sdk.atomic import replacing
from minet_sdk.errors import FileFormatError, InputError
from minet_sdk.requirements import require
from minet_sdk.volume import Grid, Volume

SUFFIXES = (".npy", ".npz", ".nii", ".nii.gz")
"""File names that `read_volume` and `write_volume` understand."""

_LPS_FROM_RAS = np.array([-1.0, -1.0, 1.0])
_MM_PER_UNIT = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}
_SCANNER_SPACE = 1
_DESCRIPTION_LENGTH = 79
_DAMAGE = (OSError, EOFError, ValueError, KeyError, MemoryError, zlib.error, zipfile.BadZipFile)


def suffix_of(path: Path) -> str | None:
    """Which of `SUFFIXES` a file name ends in, None if none."""
    name = path.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def is_volume_file(path: Path) -> bool:
    """Whether a file name ends in one of `SUFFIXES`."""
    return suffix_of(path) is not None


def read_volume(path: Path) -> Volume:
    """Read one volume.

    A NumPy file holds a real array (slices, rows, columns) or (rows, columns). An .npz holds that array alone or as
    ``values``, then optionally with ``origin`` and ``steps`` as `Grid` defines them. A NIfTI is three-dimensional.

    Raises:
        FileFormatError: the file is missing, damaged, not what its name says, not real-valued or not finite.
        MissingPackageError: a NIfTI, and nibabel is not installed.
    """
    suffix = _suffix(path)
    if not path.is_file():
        raise FileFormatError(f"{path}: no such file")
    if suffix.startswith(".nii"):
        values, grid = _read_nifti(path)
    else:
        values, grid = _read_numpy(path, suffix)
    if not np.isfinite(values).all():
        raise FileFormatError(f"{path}: holds NaN or infinite values; replace them first")
    return Volume(values, grid)


def check_output(path: Path, *, has_grid: bool) -> None:
    """Find out before the work whether `write_volume` can write its result; makes the folder of the file.

    Raises:
        InputError: another suffix, a NIfTI of a volume without a grid, or a folder that cannot be made or written to.
        MissingPackageError: a NIfTI, and nibabel is not installed.
    """
    suffix = suffix_of(path)
    if suffix is None:
        raise InputError(f"{path}: the output of a file is a file; let its name end in {', '.join(SUFFIXES)}")
    if suffix.startswith(".nii"):
        require("nibabel", feature=f"writing {path.name}")
        if not has_grid:
            raise _no_place(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"cannot write {path}: no permission to write to {path.parent}")


def write_volume(volume: Volume, path: Path, note: str = "") -> None:
    """Write one volume as float32, under a temporary name first, so that a failure leaves no broken file.

    Args:
        volume: .npz keeps its grid as ``origin`` and ``steps``, .npy keeps the values only.
        path: where to; its suffix (`SUFFIXES`) chooses the format.
        note: ASCII text for the description field of a NIfTI (79 characters), for example "research use only".

    Raises:
        InputError: another suffix, a NIfTI of a volume without a grid, or the file cannot be written.
        MissingPackageError: a NIfTI, and nibabel is not installed.
    """
    suffix = suffix_of(path)
    if suffix is None:
        raise InputError(f"{path}: cannot write this format, expected a name ending in {', '.join(SUFFIXES)}")
    content = _nifti_bytes(path, volume, note) if suffix.startswith(".nii") else b""
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            if suffix == ".npy":
                np.save(file, volume.values)
            elif suffix == ".npz":
                place = {} if volume.grid is None else {"origin": volume.grid.origin, "steps": volume.grid.steps}
                np.savez_compressed(file, allow_pickle=False, values=volume.values, **place)
            else:
                file.write(gzip.compress(content, mtime=0) if suffix == ".nii.gz" else content)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def _suffix(path: Path) -> str:
    suffix = suffix_of(path)
    if suffix is None:
        raise FileFormatError(f"{path}: unknown format, expected a name ending in {', '.join(SUFFIXES)}")
    return suffix


def _real(path: Path, values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """(slices, rows, columns) float32 of a real array with two or three axes."""
    if values.dtype.kind not in "biuf":
        raise FileFormatError(f"{path}: holds {values.dtype} values, expected real numbers; take the magnitude first")
    if values.ndim not in (2, 3) or values.size == 0:
        raise FileFormatError(f"{path}: has shape {values.shape}, expected one volume (slices, rows, columns)")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values[None] if values.ndim == 2 else values, dtype=np.float32)


def _read_numpy(path: Path, suffix: str) -> tuple[npt.NDArray[np.float32], Grid | None]:
    try:
        loaded: Any = np.load(path, allow_pickle=False)
        if suffix == ".npy":
            arrays = {"values": np.asarray(loaded)}
        else:
            with loaded:
                arrays = {str(name): np.asarray(loaded[name]) for name in loaded.files}
    except (*_DAMAGE, AttributeError, TypeError) as error:
        raise FileFormatError(f"{path}: damaged, or no {suffix} file of plain numbers") from error
    name = "values" if "values" in arrays else next(iter(arrays), "")
    if not arrays or (name != "values" and len(arrays) > 1):
        raise FileFormatError(f"{path}: holds {sorted(arrays)}, expected one array or one named 'values'")
    values = _real(path, arrays[name])
    if not {"origin", "steps"} <= arrays.keys():
        return values, None
    origin, steps = arrays["origin"], arrays["steps"]
    numbers = all(part.dtype.kind in "iuf" and np.isfinite(part).all() for part in (origin, steps))
    if not numbers or origin.shape != (3,) or steps.shape != (3, 3) or not np.linalg.det(steps):
        raise FileFormatError(f"{path}: 'origin' and 'steps' are no grid, expected shapes (3,) and (3, 3) in mm")
    return values, Grid(_shape(values), origin.astype(np.float64), steps.astype(np.float64))


def _read_nifti(path: Path) -> tuple[npt.NDArray[np.float32], Grid]:
    nibabel = require("nibabel", feature=f"reading {path.name}")
    try:
        image = nibabel.load(path)
        if not isinstance(image, nibabel.Nifti1Image):
            raise FileFormatError(f"{path}: holds {type(image).__name__}, expected a NIfTI file")
        shape = image.shape
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if len(shape) not in (2, 3):
            raise FileFormatError(f"{path}: has {len(shape)} dimensions {shape}, expected one volume; split it first")
        voxels = np.asanyarray(image.dataobj).reshape(*shape, *[1] * (3 - len(shape)))
        affine = np.asarray(image.affine, dtype=np.float64)
        unit = _MM_PER_UNIT[image.header.get_xyzt_units()[0]]
    except (*_DAMAGE, nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError) as error:
        raise FileFormatError(f"{path}: damaged, or no NIfTI file") from error
    values = _real(path, voxels.transpose(2, 1, 0))
    if not np.isfinite(affine).all() or not np.linalg.det(affine[:3, :3]):
        raise FileFormatError(f"{path}: its affine is singular; repair the header (sform or qform)")
    lps = affine[:3] * unit * _LPS_FROM_RAS[:, None]
    return values, Grid(_shape(values), lps[:, 3], lps[:, 2::-1].T.copy())


def _nifti_bytes(path: Path, volume: Volume, note: str) -> bytes:
    """An uncompressed NIfTI-1 file; the orientation stands in sform and, unless sheared, in qform."""
    nibabel = require("nibabel", feature=f"writing {path.name}")
    if volume.grid is None:
        raise _no_place(path)
    affine = np.eye(4)
    affine[:3, :3] = volume.grid.steps[::-1].T * _LPS_FROM_RAS[:, None]
    affine[:3, 3] = volume.grid.origin * _LPS_FROM_RAS
    image = nibabel.Nifti1Image(volume.values.transpose(2, 1, 0).astype(np.float32), affine)
    image.set_sform(affine, _SCANNER_SPACE)
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    perpendicular = np.abs(axes.T @ axes - np.eye(3)).max() < 1e-4
    image.set_qform(affine, _SCANNER_SPACE if perpendicular else 0)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = note.encode("ascii", "replace")[:_DESCRIPTION_LENGTH]
    return image.to_bytes()


def _no_place(path: Path) -> InputError:
    return InputError(f"cannot write {path}: a plain array has no place in the patient; write .npy instead")


def _shape(values: npt.NDArray[np.float32]) -> tuple[int, int, int]:
    slices, rows, columns = values.shape
    return slices, rows, columns
