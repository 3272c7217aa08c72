"""Volume files against nibabel, SimpleITK and dcm2niix, and what becomes of damaged ones."""

import gzip
import subprocess
from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel
import nibabel.affines
import numpy as np
import pytest
import SimpleITK

from minet_sdk.dicom import load, scan
from minet_sdk.errors import FileFormatError, InputError
from minet_sdk.files import SUFFIXES, is_volume_file, read_volume, write_volume
from minet_sdk.volume import Grid, Volume

STUDY = Path(__file__).parents[1] / "minet_sdk" / "study"
LPS_FROM_RAS = np.array([-1.0, -1.0, 1.0])


@pytest.fixture
def oblique() -> Volume:
    random = np.random.default_rng(5)
    axes = np.linalg.qr(random.normal(size=(3, 3)))[0]
    grid = Grid((3, 4, 5), np.array([1.0, -20.0, 30.0]), axes * np.array([[4.0], [1.5], [1.25]]))
    return Volume(random.normal(size=grid.shape).astype(np.float32), grid)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_is_read_again(suffix: str, oblique: Volume, tmp_path: Path) -> None:
    path = tmp_path / f"volume{suffix}"
    assert is_volume_file(path)
    write_volume(oblique, path)
    again = read_volume(path)
    np.testing.assert_array_equal(again.values, oblique.values)
    assert again.values.dtype == np.float32
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert oblique.grid is not None
    if suffix == ".npy":
        assert again.grid is None
    else:
        assert again.grid is not None
        assert again.grid.matches(oblique.grid, tolerance_mm=1e-4)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_simpleitk_finds_every_voxel_where_it_is(suffix: str, oblique: Volume, tmp_path: Path) -> None:
    path = tmp_path / f"volume{suffix}"
    write_volume(oblique, path)
    image = SimpleITK.ReadImage(str(path))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), oblique.values)
    assert oblique.grid is not None
    for index in ((0, 0, 0), (2, 3, 4), (1, 0, 4)):
        position = image.TransformIndexToPhysicalPoint(index[::-1])
        np.testing.assert_allclose(position, oblique.grid.positions(index), atol=1e-4)


def test_the_nifti_header_says_what_it_is(oblique: Volume, tmp_path: Path) -> None:
    write_volume(oblique, tmp_path / "a.nii", note="MINet x2, research use only " + "x" * 100)
    image: Any = nibabel.load(tmp_path / "a.nii")
    assert image.get_data_dtype() == np.float32
    assert image.header.get_xyzt_units()[0] == "mm"
    assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 1
    np.testing.assert_allclose(image.header.get_sform(), image.header.get_qform(), atol=1e-4)
    assert bytes(image.header["descrip"]).startswith(b"MINet x2, research use only xxx")


def test_the_same_volume_gives_the_same_bytes(oblique: Volume, tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        write_volume(oblique, tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_any_orientation_is_read(order: tuple[int, int, int], tmp_path: Path) -> None:
    voxels = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)
    for signs in product((-1, 1), repeat=3):
        affine = np.eye(4)
        affine[:3, :3] = np.eye(3)[list(order)] * np.array(signs) * np.array([2.0, 3.0, 4.0])
        affine[:3, 3] = (7, -8, 9)
        nibabel.Nifti1Image(voxels, affine).to_filename(tmp_path / "any.nii")
        volume = read_volume(tmp_path / "any.nii")
        assert volume.grid is not None
        for index in ((0, 0, 0), (2, 1, 3), (2, 3, 4)):
            assert volume.values[index[::-1]] == voxels[index]
            position = nibabel.affines.apply_affine(affine, index) * LPS_FROM_RAS
            np.testing.assert_allclose(volume.grid.positions(index[::-1]), position, atol=1e-9)


def test_metres_become_millimetres(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.float32), np.diag([0.001, 0.002, 0.004, 1.0]))
    image.header.set_xyzt_units("meter")
    image.to_filename(tmp_path / "metres.nii")
    grid = read_volume(tmp_path / "metres.nii").grid
    assert grid is not None
    np.testing.assert_allclose(grid.spacing, (4, 2, 1), rtol=1e-6)


def test_dcm2niix_and_the_dicom_reader_agree(tmp_path: Path) -> None:
    command = ["dcm2niix", "-o", str(tmp_path), "-f", "t1", str(STUDY / "t1")]
    subprocess.run(command, check=True, capture_output=True)
    converted = read_volume(tmp_path / "t1.nii")
    read = load(scan(STUDY / "t1").series[0]).volume
    assert converted.grid is not None
    assert read.grid is not None
    random = np.random.default_rng(1)
    index = random.integers(0, converted.values.shape, size=(200, 3))
    there = np.rint(read.grid.indices(converted.grid.positions(index))).astype(int)
    np.testing.assert_allclose(read.grid.positions(there), converted.grid.positions(index), atol=1e-3)
    np.testing.assert_array_equal(read.values[tuple(there.T)], converted.values[tuple(index.T)])


def test_arrays_of_two_axes_and_unnamed_archives_are_one_volume(tmp_path: Path) -> None:
    np.save(tmp_path / "slice.npy", np.ones((4, 5), np.uint16))
    np.savez(tmp_path / "archive.npz", np.ones((2, 4, 5)))
    assert read_volume(tmp_path / "slice.npy").values.shape == (1, 4, 5)
    assert read_volume(tmp_path / "archive.npz").values.shape == (2, 4, 5)


def _nifti(path: Path, voxels: Any) -> None:
    nibabel.Nifti1Image(voxels, np.eye(4)).to_filename(path)


def _cut(path: Path, part: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])


def _truncated_nifti(path: Path) -> None:
    _nifti(path, np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32))
    _cut(path, 0.6)


def _header_only_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(b"\0" * 100))


def _huge(path: Path) -> None:
    """A header that claims far more voxels than there are."""
    _nifti(path, np.zeros((4, 4, 4), np.float32))
    content = bytearray(path.read_bytes() if path.suffix == ".nii" else gzip.decompress(path.read_bytes()))
    content[42:48] = np.array([32000, 32000, 32000], "<i2").tobytes()
    path.write_bytes(bytes(content) if path.suffix == ".nii" else gzip.compress(bytes(content)))


def _placed(path: Path, origin: object, steps: object) -> None:
    np.savez(path, allow_pickle=False, values=np.zeros((2, 4, 4)), origin=np.asarray(origin), steps=np.asarray(steps))


DAMAGED: list[tuple[str, str, Callable[[Path], object]]] = [
    ("text.nii", "damaged|no NIfTI", lambda path: path.write_text("not an image\n" * 50)),
    ("text.nii.gz", "damaged|no NIfTI", lambda path: path.write_text("not an image\n" * 50)),
    ("text.npy", "damaged", lambda path: path.write_text("not an array")),
    ("text.npz", "damaged", lambda path: path.write_text("not an archive")),
    ("empty.nii", "damaged", lambda path: path.touch()),
    ("empty.nii.gz", "damaged", lambda path: path.touch()),
    ("empty.npy", "damaged", lambda path: path.touch()),
    ("empty.npz", "damaged", lambda path: path.touch()),
    ("cut.nii", "damaged", _truncated_nifti),
    ("cut.nii.gz", "damaged", _truncated_nifti),
    ("short.nii.gz", "damaged", _header_only_gzip),
    ("huge.nii", "damaged", _huge),
    ("four.nii", "4 dimensions .*split", lambda path: _nifti(path, np.zeros((4, 4, 4, 3), np.float32))),
    ("complex.nii", "take the magnitude", lambda path: _nifti(path, np.zeros((4, 4, 4), np.complex64))),
    ("nan.nii", "NaN", lambda path: _nifti(path, np.full((4, 4, 4), np.nan, np.float32))),
    ("four.npy", "one volume", lambda path: np.save(path, np.zeros((2, 3, 4, 4)))),
    ("none.npy", "one volume", lambda path: np.save(path, np.zeros((0, 4, 4)))),
    ("words.npy", "real numbers", lambda path: np.save(path, np.array([["a", "b"]]))),
    ("objects.npy", "damaged", lambda path: np.save(path, np.array([{}, {}]), allow_pickle=True)),
    ("two.npz", "one array", lambda path: np.savez(path, a=np.zeros((2, 4, 4)), b=np.zeros((2, 4, 4)))),
    ("grid.npz", "no grid", lambda path: np.savez(path, values=np.zeros((2, 4, 4)), origin=[0.0], steps=np.eye(3))),
    ("nowhere.npz", "no grid", lambda path: _placed(path, [0.0] * 3, np.full((3, 3), np.nan))),
    ("somewhere.npz", "no grid", lambda path: _placed(path, ["here"] * 3, np.eye(3))),
    ("image.png", "unknown format", lambda path: path.touch()),
]


@pytest.mark.parametrize(("name", "message", "damage"), DAMAGED, ids=[name for name, _, _ in DAMAGED])
def test_damaged_files_are_named_in_one_line(
    name: str, message: str, damage: Callable[[Path], object], tmp_path: Path
) -> None:
    damage(tmp_path / name)
    with pytest.raises(FileFormatError, match=message) as caught:
        read_volume(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"gone\.nii: no such file"):
        read_volume(tmp_path / "gone.nii")


def test_a_failed_write_leaves_nothing(oblique: Volume, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write"):
        write_volume(oblique, tmp_path / "missing" / "a.npy")
    with pytest.raises(InputError, match="place in the patient"):
        write_volume(Volume(oblique.values), tmp_path / "a.nii")
    with pytest.raises(InputError, match="cannot write this format"):
        write_volume(oblique, tmp_path / "a.png")
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        write_volume(oblique, tmp_path / "folder.npy")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder.npy"]
