"""Label maps: splits, the tissue of each label, slabs, and files that are no label maps."""

from itertools import combinations
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
import pytest

from minet_sdk.errors import TrainingError
from minet_sdk.training.labels import SPLITS, TISSUES, Subject, read_split, read_subject


def write(path: Path, volume: npt.NDArray[np.generic], affine: npt.NDArray[np.float64] | None = None) -> Path:
    nibabel.Nifti1Image(volume, np.eye(4) if affine is None else affine).to_filename(path)
    return path


def test_splits_are_disjoint_and_complete() -> None:
    names = [name for subjects in SPLITS.values() for name in subjects]
    assert sorted(names) == [f"subject_{number:02d}" for number in range(1, 17)]
    for first, second in combinations(SPLITS.values(), 2):
        assert not set(first) & set(second)
    assert [len(SPLITS[split]) for split in ("train", "validation", "test")] == [10, 3, 3]


def test_read_split_reads_its_subjects_in_order(labels: Path) -> None:
    for split, names in SPLITS.items():
        assert tuple(subject.name for subject in read_split(labels, split)) == names


@pytest.mark.parametrize(
    ("label", "tissue"),
    [
        (0, "background"), (2, "white matter"), (42, "grey matter"), (17, "deep grey"), (43, "fluid"), (24, "fluid"),
        (507, "soft tissue"), (511, "skin"), (515, "bone"), (516, "marrow"), (506, "eye"), (530, "mucosa"),
        (514, "vein"), (47, "cerebellar grey"),
    ],
)  # fmt: skip
def test_freesurfer_labels_become_tissues(tmp_path: Path, label: int, tissue: str) -> None:
    volume = np.full((8, 8, 8), 2, dtype=np.int16)
    volume[3, 4, 5] = label
    subject = read_subject(write(tmp_path / "head.nii.gz", volume))
    assert TISSUES[subject.tissue[3, 4, 5]] == tissue
    assert TISSUES[subject.tissue[0, 0, 0]] == "white matter"


def test_any_orientation_is_read_as_ras(tmp_path: Path) -> None:
    volume = np.full((6, 7, 8), 2, dtype=np.int16)
    volume[0, 1, 2] = 3
    flipped = read_subject(write(tmp_path / "lps.nii", volume, np.diag([-1.0, -1.0, 1.0, 1.0])))
    grey = TISSUES.index("grey matter")
    assert np.argwhere(flipped.tissue == grey).tolist() == [[5, 5, 2]]
    assert flipped.name == "lps"


def test_slab_puts_head_or_front_upwards_and_repeats_the_last_slice() -> None:
    x, y, z = np.meshgrid(*(np.arange(n, dtype=np.uint8) for n in (4, 5, 6)), indexing="ij")
    axial = Subject("position", 36 * x + 6 * y + z).slab(2, 5, 3)
    assert axial.shape == (3, 5, 4)
    rows, columns = np.meshgrid(np.arange(5), np.arange(4), indexing="ij")
    for piece, slice_index in zip(axial, (4, 5, 5), strict=True):
        np.testing.assert_array_equal(piece, 36 * columns + 6 * (4 - rows) + slice_index)
    sagittal = Subject("position", z).slab(0, 2, 1)
    np.testing.assert_array_equal(sagittal[0], np.repeat(np.arange(5, -1, -1)[:, None], 5, axis=1))


def test_useful_slices_hold_tissue(subject: Subject) -> None:
    for axis, slices in enumerate(subject.useful_slices):
        part = [float((np.take(subject.tissue, index, axis) > 0).mean()) for index in range(48)]
        assert [index for index in range(48) if part[index] >= 0.12] == slices.tolist()
        assert 20 < len(slices) < 48


def test_missing_subjects_are_named(tmp_path: Path, labels: Path) -> None:
    for name in ("subject_11", "subject_13"):
        (tmp_path / f"{name}.nii.gz").symlink_to(labels / f"{name}.nii.gz")
    with pytest.raises(TrainingError, match=r"label maps subject_12\.nii\.gz are missing"):
        read_split(tmp_path, "validation")


def test_files_that_are_no_label_maps_are_refused_in_one_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    text = tmp_path / "text.nii.gz"
    text.write_text("not an image\n")
    whole = write(tmp_path / "whole.nii.gz", rng.integers(0, 5, (16, 16, 16)).astype(np.int16)).read_bytes()
    truncated = tmp_path / "truncated.nii.gz"
    truncated.write_bytes(whole[: len(whole) // 2])
    bad = {
        text: "not a readable NIfTI file",
        truncated: "not a readable NIfTI file",
        write(tmp_path / "series.nii", np.ones((4, 4, 4, 2), dtype=np.int16)): "has three dimensions, this one has 4",
        write(tmp_path / "image.nii", rng.random((8, 8, 8))): "whole numbers",
        write(tmp_path / "negative.nii", np.full((8, 8, 8), -2, dtype=np.int16)): "whole numbers",
        write(tmp_path / "empty.nii", np.zeros((8, 8, 8), dtype=np.int16)): "no slice is tissue",
    }
    for path, message in bad.items():
        with pytest.raises(TrainingError, match=message) as caught:
            read_subject(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
