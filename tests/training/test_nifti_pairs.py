"""NIfTI collections under their published names: what is paired with what, on which grid, in which slices."""

import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import pytest

from minet_sdk.errors import FileFormatError, TrainingError
from minet_sdk.training.nifti_pairs import LAYOUTS, Named
from minet_sdk.training.pairs import Pair, PairSource, open_source
from minet_sdk.training.splits import Part

THIN = (1.0, 1.0, 3.0)


def scene(position: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Smooth signal at points (..., 3) in mm (RAS), nearly 0 beyond 16 mm along z."""
    x, y, z = position[..., 0], position[..., 1], position[..., 2]
    body = 1000 * np.exp(-(((x - 3) / 14) ** 2 + ((y + 2) / 11) ** 2))
    return body * (1 + 0.3 * np.sin(x / 5) + 0.2 * np.cos(y / 4 + z / 9)) / (1 + np.exp((np.abs(z) - 16) / 0.1))


def write(
    path: Path,
    shape: tuple[int, int, int] = (32, 28, 16),
    spacing: tuple[float, float, float] = THIN,
    axes: tuple[int, int, int] = (0, 1, 2),
    gain: float = 1.0,
) -> Path:
    """The scene as a file; array axis ``i`` runs along patient axis ``axes[i]``, the middle at the origin."""
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, list(axes)] * spacing
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    index = np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"), axis=-1)
    values = gain * scene(index @ affine[:3, :3].T + affine[:3, 3])
    nibabel.Nifti1Image(values.astype(np.float32), affine).to_filename(path)
    return path


def open_folder(folder: Path, part: Part = "all", **options: Any) -> PairSource:
    return open_source("nifti", folder, part, options)


def pair_of(source: PairSource, index: int) -> Pair:
    return source.pair(index, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("layout", "path", "meaning"),
    [
        ("ixi", "IXI-T1/IXI002-Guys-0828-T1.nii.gz", Named("IXI002", "", "T1")),
        ("ixi", "IXI646-HH-2653-PD.nii.gz", Named("IXI646", "", "PD")),
        ("ixi", "IXI002-Guys-0828-MRA.nii.gz", None),
        ("ixi", "IXI002-Guys-0828-DTI-00.nii.gz", None),
        ("brats", "BraTS20_Training_001/BraTS20_Training_001_t1ce.nii.gz", Named("BraTS20_Training_001", "", "T1c")),
        ("brats", "BraTS20_Training_001/BraTS20_Training_001_t2.nii", Named("BraTS20_Training_001", "", "T2")),
        ("brats", "BraTS20_Training_001/BraTS20_Training_001_seg.nii.gz", None),
        ("brats", "BraTS2021_00000/BraTS2021_00000_flair.nii.gz", Named("BraTS2021_00000", "", "FLAIR")),
        ("brats", "BraTS-GLI-00005-001/BraTS-GLI-00005-001-t1n.nii.gz", Named("BraTS-GLI-00005", "001", "T1")),
        ("brats", "BraTS-GLI-00005-001/BraTS-GLI-00005-001-t2f.nii.gz", Named("BraTS-GLI-00005", "001", "FLAIR")),
        ("brats", "BraTS-GLI-00005-001/BraTS-GLI-00005-001-seg.nii.gz", None),
        ("brats", "BraTS-GoAT-00000/BraTS-GoAT-00000-t1c.nii.gz", Named("BraTS-GoAT-00000", "", "T1c")),
        ("brats", "BraTS-GoAT-00000/BraTS-GoAT-00000-seg.nii.gz", None),
        ("bids", "sub-01/anat/sub-01_T1w.nii.gz", Named("sub-01", "", "T1")),
        ("bids", "sub-01/ses-2/anat/sub-01_ses-2_run-1_PDw.nii.gz", Named("sub-01", "ses-2", "PD")),
        ("bids", "sub-01/anat/sub-01_ce-gadolinium_T1w.nii.gz", Named("sub-01", "", "T1c")),
        ("bids", "derivatives/prep/sub-01/anat/sub-01_T1w.nii.gz", None),
        ("bids", "sub-01/func/sub-01_task-rest_bold.nii.gz", None),
        ("bids", "sub-02/anat/sub-01_T1w.nii.gz", None),
    ],
)
def test_names_mean_what_the_collections_say(layout: str, path: str, meaning: Named | None) -> None:
    for name, rule in LAYOUTS.items():
        assert rule(Path(path)) == (meaning if name == layout else None)


def test_ixi_reference_is_brought_onto_the_targets_grid(tmp_path: Path) -> None:
    """T1 of IXI is sagittal, T2 axial: compared with the scene itself. Planted fault: moved by one millimetre."""
    write(tmp_path / "IXI-T2" / "IXI002-Guys-0828-T2.nii.gz", gain=2)
    write(tmp_path / "IXI-T1" / "IXI002-Guys-0828-T1.nii.gz", (40, 52, 40), (1.0, 1.0, 1.0), axes=(1, 2, 0))
    source = open_folder(tmp_path)
    assert source.describe()["layout"] == "ixi"
    assert "1 of 1 references were resampled onto their target's grid" in source.notes
    record = source.describe()["volumes"]["IXI002"]
    assert record["reference_resampled"]
    assert record["slice_axis"] == "slices"
    for index in range(2, len(source) - 2):
        pair = pair_of(source, index)
        np.testing.assert_allclose(pair.reference[4:-4, 4:-4], pair.truth[4:-4, 4:-4] / 2, atol=30)
        moved = np.roll(pair.reference, 1, axis=1)
        assert np.abs(moved - pair.truth / 2)[4:-4, 4:-4].max() > 60


def test_equal_grids_are_left_alone(tmp_path: Path) -> None:
    for name in ("BraTS2021_00000", "BraTS2021_00001"):
        write(tmp_path / name / f"{name}_t1ce.nii.gz", spacing=(1, 1, 1))
        write(tmp_path / name / f"{name}_flair.nii.gz", spacing=(1, 1, 1), gain=3)
    source = open_folder(tmp_path, target="FLAIR", reference="T1c")
    assert source.notes == ()
    assert source.subjects == ("BraTS2021_00000", "BraTS2021_00001")
    np.testing.assert_allclose(3 * pair_of(source, 2).reference, pair_of(source, 2).truth, rtol=1e-5)


def test_empty_slices_are_skipped_and_counted(tmp_path: Path) -> None:
    """16 slices of 3 mm, tissue within 16 mm of the middle: slices 3 to 12."""
    write(tmp_path / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    write(tmp_path / "sub-01" / "anat" / "sub-01_T2w.nii.gz")
    (tmp_path / "sub-01" / "anat" / "sub-01_T2w.json").write_text("{}")
    source = open_folder(tmp_path)
    positions = (np.arange(16) - 7.5) * 3
    assert len(source) == int((np.abs(positions) < 16).sum()) == 10
    assert source.describe()["volumes"]["sub-01"]["empty_slices"] == 6


@pytest.mark.parametrize(
    ("spacing", "axes", "option", "axis", "size"),
    [
        ((1.0, 1.0, 3.0), (0, 1, 2), "auto", "slices", (28, 32)),
        ((3.0, 1.0, 1.0), (2, 1, 0), "auto", "columns", (16, 28)),
        ((1.0, 1.0, 1.0), (0, 2, 1), "auto", "rows", (16, 32)),
        ((1.0, 1.0, 1.0), (0, 1, 2), "columns", "columns", (16, 28)),
    ],
)
def test_slices_are_cut_across_the_thickest_axis_or_head_to_foot(
    tmp_path: Path,
    spacing: tuple[float, float, float],
    axes: tuple[int, int, int],
    option: str,
    axis: str,
    size: tuple[int, int],
) -> None:
    """Sizes are cropped to multiples of four, here from 29 and 32 columns and 18 slices."""
    for contrast in ("T1w", "T2w"):
        write(tmp_path / "sub-01" / "anat" / f"sub-01_{contrast}.nii.gz", (32, 29, 18), spacing, axes)
    source = open_folder(tmp_path, slice_axis=option)
    assert source.describe()["volumes"]["sub-01"]["slice_axis"] == axis
    assert pair_of(source, 0).truth.shape == pair_of(source, 0).reference.shape == size


def test_sessions_are_pairs_of_one_subject(tmp_path: Path) -> None:
    for number in range(1, 5):
        for session in ("ses-1", "ses-2"):
            for contrast in ("T1w", "run-2_T2w", "run-1_T2w"):
                subject = f"sub-{number}"
                write(tmp_path / subject / session / "anat" / f"{subject}_{session}_{contrast}.nii", (12, 12, 8))
    write(tmp_path / "sub-5" / "anat" / "sub-5_T1w.nii.gz", (12, 12, 8))
    parts: dict[Part, PairSource] = {name: open_folder(tmp_path, name) for name in ("train", "validation", "test")}
    assert [len(parts[name].subjects) for name in parts] == [2, 1, 1]
    assert len(set().union(*(source.subjects for source in parts.values()))) == 4
    for source in parts.values():
        assert {name.split("/")[0] for name in source.volumes()} == set(source.subjects)
        assert len(source.volumes()) == 2 * len(source.subjects)
    notes = parts["train"].notes
    assert "1 of 9 sessions left out: not both T2 and T1" in notes
    assert any("sub-1/ses-1: 2 T2 images, sub-1_ses-1_run-1_T2w.nii is used" in note for note in notes)


def test_splits_follow_a_file_where_there_is_one(tmp_path: Path) -> None:
    for subject in ("sub-1", "sub-2"):
        for contrast in ("T1w", "T2w"):
            write(tmp_path / subject / "anat" / f"{subject}_{contrast}.nii", (12, 12, 8))
    splits = tmp_path / "splits.csv"
    splits.write_text("subject,split\nsub-2,train\nsub-1,test\n")
    assert open_folder(tmp_path, "train", splits=str(splits)).subjects == ("sub-2",)
    assert open_folder(tmp_path, "all", splits=splits).split("test").subjects == ("sub-1",)
    with pytest.raises(TrainingError, match="no usable slice of the validation split among 2 subjects"):
        open_folder(tmp_path, "validation", splits=splits)
    splits.write_text("subject,split\nsub-2,train\n")
    with pytest.raises(TrainingError, match="names no split for sub-1"):
        open_folder(tmp_path, splits=splits)


def test_any_names_can_be_listed(tmp_path: Path) -> None:
    write(tmp_path / "average" / "t1.nii.gz")
    write(tmp_path / "average" / "t2.nii.gz", gain=2)
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("reference,target,subject,split\naverage/t1.nii.gz,average/t2.nii.gz,icbm,test\n")
    source = open_folder(tmp_path, "test", pairs=str(pairs))
    assert source.subjects == ("icbm",)
    np.testing.assert_allclose(2 * pair_of(source, 1).reference, pair_of(source, 1).truth, rtol=1e-5)
    pairs.write_text("average/t1.nii.gz,average/t3.nii.gz\n")
    with pytest.raises(TrainingError, match=r"line 1: .*t3\.nii\.gz is no volume file that exists"):
        open_folder(tmp_path, pairs=pairs)


def test_every_row_of_a_list_has_its_own_reference(tmp_path: Path) -> None:
    """One target guided by two references: each pair by itself, and two volumes of one subject."""
    for name, gain in (("t1", 1.0), ("t2", 2.0), ("pd", 3.0)):
        write(tmp_path / f"{name}.nii.gz", gain=gain)
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("reference,target\nt1.nii.gz,t2.nii.gz\npd.nii.gz,t2.nii.gz\n")
    source = open_folder(tmp_path, pairs=pairs)
    assert list(source.volumes()) == ["t2.nii.gz with t1.nii.gz", "t2.nii.gz with pd.nii.gz"]
    assert source.subjects == ("t2.nii.gz",)
    for indices, gain in zip(source.volumes().values(), (1.0, 3.0), strict=True):
        pair = pair_of(source, indices[1])
        np.testing.assert_allclose(pair.reference / gain, pair.truth / 2, rtol=1e-4)
    pairs.write_text(pairs.read_text() + "./t1.nii.gz,t2.nii.gz\n")
    with pytest.raises(TrainingError, match="line 4: the pair of line 2 once more; keep one row"):
        open_folder(tmp_path, pairs=pairs)


def test_listed_pairs_that_share_a_file_are_one_subject(tmp_path: Path) -> None:
    """No split ever separates them; the record says that the subjects were guessed."""
    pairs = tmp_path / "pairs.csv"
    rows: list[str] = []
    for number in range(12):
        for contrast in ("t1", "t2", "pd"):
            write(tmp_path / f"p{number:02d}_{contrast}.nii", (12, 12, 8))
        rows += [f"p{number:02d}_t1.nii,p{number:02d}_{contrast}.nii\n" for contrast in ("t2", "pd")]
    pairs.write_text("".join(["reference,target\n", *rows]))
    whole = open_folder(tmp_path, pairs=pairs)
    assert whole.subjects == tuple(f"p{number:02d}_pd.nii" for number in range(12))
    assert whole.describe()["notes"] == [
        "the pair list names no subjects: 0 are told by file names, 12 guessed, one for each set of pairs that share"
        " a file; a column subject would settle it"
    ]
    seen = [
        {name[:3] for name in open_folder(tmp_path, part, pairs=pairs).volumes()}
        for part in ("train", "validation", "test")
    ]
    assert [len(patients) for patients in seen] == [10, 1, 1]
    assert len(set().union(*seen)) == 12


def test_names_of_the_collections_tell_the_subjects_of_a_list(tmp_path: Path) -> None:
    for name in ("IXI002-Guys-0828-T1", "IXI002-Guys-0828-T2", "IXI002-Guys-0828-PD", "other1", "other2"):
        write(tmp_path / f"{name}.nii", (12, 12, 8))
    for session in ("ses-1", "ses-2"):
        for contrast in ("T1w", "T2w"):
            write(tmp_path / "set" / "sub-1" / session / "anat" / f"sub-1_{session}_{contrast}.nii", (12, 12, 8))
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(
        "IXI002-Guys-0828-T1.nii,IXI002-Guys-0828-T2.nii\n"
        "other1.nii,IXI002-Guys-0828-PD.nii\n"
        "other1.nii,other2.nii\n"
        "set/sub-1/ses-1/anat/sub-1_ses-1_T1w.nii,set/sub-1/ses-1/anat/sub-1_ses-1_T2w.nii\n"
        "set/sub-1/ses-2/anat/sub-1_ses-2_T1w.nii,set/sub-1/ses-2/anat/sub-1_ses-2_T2w.nii\n"
    )
    source = open_folder(tmp_path, pairs=pairs)
    assert source.subjects == ("IXI002", "sub-1")
    assert len(source.volumes()) == 5
    assert any("2 are told by file names, 0 guessed" in note for note in source.notes)


def test_listed_subjects_share_no_file(tmp_path: Path) -> None:
    for name in ("t1", "t2", "pd"):
        write(tmp_path / f"{name}.nii", (12, 12, 8))
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("reference,target,subject\nt1.nii,t2.nii,a\nt1.nii,pd.nii,b\n")
    with pytest.raises(TrainingError, match=r"lines 2 and 3: subjects a and b share .*t1\.nii; give both rows one"):
        open_folder(tmp_path, pairs=pairs)
    pairs.write_text("reference,target,subject\nt1.nii,t2.nii,a\nt1.nii,pd.nii,\n")
    with pytest.raises(TrainingError, match="line 3: no subject, but others have one"):
        open_folder(tmp_path, pairs=pairs)
    pairs.write_text("reference,target,subject\nt1.nii,t2.nii,a\nt1.nii,pd.nii,a\n")
    assert open_folder(tmp_path, pairs=pairs).subjects == ("a",)
    assert open_folder(tmp_path, pairs=pairs).notes == ()


def shifted(path: Path, by: float) -> None:
    """The same file with a number added to all values, which run up to about 1000."""
    image = nibabel.Nifti1Image.from_filename(path)
    values = image.get_fdata() + by
    nibabel.Nifti1Image(values.astype(np.float32), image.affine).to_filename(path)


def test_targets_below_zero_are_refused(tmp_path: Path) -> None:
    """The low resolution of a target of either sign, a magnitude, would not be that of its truth."""
    target = write(tmp_path / "IXI002-Guys-0828-T2.nii.gz", (48, 44, 16))
    write(tmp_path / "IXI002-Guys-0828-T1.nii.gz", (48, 44, 16))
    before = pair_of(open_folder(tmp_path), 2).truth
    shifted(target, -0.5)
    after = pair_of(open_folder(tmp_path), 2).truth
    np.testing.assert_allclose(after, np.maximum(before - 0.5, 0), atol=1e-3)
    assert after.min() == 0
    shifted(target, -50)
    with pytest.raises(
        TrainingError, match=r"0828-T2\.nii\.gz: the target has values from -50.5 to .* a magnitude"
    ) as told:
        open_folder(tmp_path)
    assert "\n" not in str(told.value)
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("IXI002-Guys-0828-T1.nii.gz,IXI002-Guys-0828-T2.nii.gz\n")
    with pytest.raises(TrainingError, match="undo its z-scoring or shift it"):
        open_folder(tmp_path, pairs=pairs)


def test_cache_folder_spares_decoding(tmp_path: Path) -> None:
    """With the cache the volumes are not read again: a damaged file, its time and size kept, goes unnoticed."""
    for contrast in ("T1w", "T2w"):
        path = write(tmp_path / "data" / "sub-1" / "anat" / f"sub-1_{contrast}.nii", (12, 12, 8))
    first = open_folder(tmp_path / "data", cache=tmp_path / "cache")
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    with pytest.raises(FileFormatError):
        open_folder(tmp_path / "data")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = open_folder(tmp_path / "data", cache=tmp_path / "cache")
    np.testing.assert_array_equal(pair_of(first, 1).target, pair_of(again, 1).target)
    assert again.describe()["volumes"] == first.describe()["volumes"]


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no layout of ixi, brats, bids among 0 NIfTI files"):
        open_folder(tmp_path)
    write(tmp_path / "scan.nii.gz", (8, 8, 8))
    with pytest.raises(TrainingError, match=r"among 1 NIfTI files \(such as scan\.nii\.gz\)"):
        open_folder(tmp_path)
    write(tmp_path / "IXI002-Guys-0828-T1.nii.gz", (8, 8, 8))
    with pytest.raises(TrainingError, match="no subject has both T2 and T1; there are T1"):
        open_folder(tmp_path)
    write(tmp_path / "BraTS2021_00000_t2.nii.gz", (8, 8, 8))
    with pytest.raises(TrainingError, match="several layouts of ixi, brats"):
        open_folder(tmp_path)
    with pytest.raises(TrainingError, match="no option contrast; expected some of target"):
        open_folder(tmp_path, contrast="T1")
    with pytest.raises(TrainingError, match="is no folder"):
        open_folder(tmp_path / "nowhere")
