"""DICOM studies as training data: which series are paired, who is a subject, and that voxels lie where they should."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from minet_sdk.errors import DicomError, TrainingError
from minet_sdk.training.dicom_pairs import pseudonym
from minet_sdk.training.pairs import Pair, PairSource, open_source
from minet_sdk.training.splits import Part

_PHANTOM = importlib.util.spec_from_file_location("phantom", Path(__file__).parents[1] / "dicom" / "conftest.py")
assert _PHANTOM is not None
assert _PHANTOM.loader is not None
phantom = importlib.util.module_from_spec(_PHANTOM)
_PHANTOM.loader.exec_module(phantom)

T1: dict[str, Any] = {"te": 12.0, "tr": 500.0, "description": "t1_tse_tra"}
PD: dict[str, Any] = {"te": 20.0, "tr": 3000.0, "description": "pd_tse_tra"}


def write_study(folder: Path, patient: str, study: str, *references: dict[str, Any], slices: int = 5) -> None:
    """A T2 series and others, all of full resolution."""
    common: dict[str, Any] = {"slices": slices, "study": study, "PatientID": patient}
    phantom.write_phantom_series(folder / "5", **common)
    for number, changes in enumerate(references, start=6):
        phantom.write_phantom_series(folder / str(number), number=number, **{**common, **changes})


def open_folder(folder: Path, part: Part = "all", **options: Any) -> PairSource:
    return open_source("dicom", folder, part, options)


def pair_of(source: PairSource, index: int) -> Pair:
    return source.pair(index, np.random.default_rng(0))


def test_series_of_one_grid_are_paired_slice_by_slice(tmp_path: Path) -> None:
    """Both show the same phantom, so that they agree; planted fault: the neighbouring slice does not."""
    write_study(tmp_path, "P7", "one", T1)
    source = open_folder(tmp_path)
    assert source.notes == ()
    assert len(source) == 5
    record = next(iter(source.describe()["volumes"].values()))
    assert (record["target_contrast"], record["reference_contrast"]) == ("T2", "T1")
    assert not record["reference_resampled"]
    for index in range(4):
        np.testing.assert_allclose(pair_of(source, index).reference, pair_of(source, index).truth, atol=1)
        assert np.abs(pair_of(source, index + 1).reference - pair_of(source, index).truth).max() > 20


def test_series_of_other_grids_are_resampled_and_told(tmp_path: Path) -> None:
    write_study(tmp_path, "P7", "one", {**T1, "slices": 10, "gap": 2.2, "size": (46, 50), "spacing": (0.8, 0.8)})
    source = open_folder(tmp_path)
    assert source.notes == ("1 of 1 references were resampled onto their target's grid",)
    for index in range(len(source)):
        pair = pair_of(source, index)
        assert np.abs(pair.reference - pair.truth)[3:-3, 3:-3].max() < 30


def test_patients_are_subjects_and_never_named(tmp_path: Path) -> None:
    """Two studies of one patient lie in one split; records hold no PatientID and no UID."""
    for number, patient in enumerate(("P1", "P1", "P2", "P3", "P4")):
        write_study(tmp_path / str(number), patient, f"study{number}", T1, slices=2)
    parts: dict[Part, PairSource] = {name: open_folder(tmp_path, name) for name in ("train", "validation", "test")}
    subjects = [subject for source in parts.values() for subject in source.subjects]
    assert sorted(subjects) == sorted(pseudonym(name) for name in ("P1", "P2", "P3", "P4"))
    whole = open_folder(tmp_path)
    assert len([name for name in whole.volumes() if name.startswith(pseudonym("P1"))]) == 2
    text = json.dumps(whole.describe())
    assert "P1" not in text
    assert "1.2." not in text
    assert "2.25." not in text


def test_first_guiding_contrast_is_taken_unless_another_is_asked_for(tmp_path: Path) -> None:
    write_study(tmp_path, "P1", "one", PD, T1)
    asked: list[dict[str, Any]] = [{}, {"reference": "PD"}, {"target_name": "t2_tse", "reference_name": "6"}]
    contrasts = [
        next(iter(open_folder(tmp_path, **options).describe()["volumes"].values()))["reference_contrast"]
        for options in asked
    ]
    assert contrasts == ["T1", "PD", "PD"]


def test_studies_without_one_pair_are_left_out_with_their_reason(tmp_path: Path) -> None:
    write_study(tmp_path / "good", "P1", "one", T1)
    write_study(tmp_path / "lonely", "P2", "two")
    write_study(tmp_path / "many", "P3", "three", T1, {**T1, "description": "t1 again"})
    write_study(tmp_path / "apart", "P4", "four", {**T1, "frame": "other"})
    write_study(tmp_path / "derived", "P5", "five", {**T1, "ImageType": ["DERIVED", "SECONDARY"]})
    source = open_folder(tmp_path)
    assert source.subjects == (pseudonym("P1"),)
    assert sum("no T2 with T1 or PD in one space" in note for note in source.notes) == 3
    assert sum("2 pairs of T1 and T2; name them" in note for note in source.notes) == 1


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="is no folder"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(DicomError, match="no DICOM images"):
        open_folder(tmp_path)
    write_study(tmp_path, "P1", "one")
    with pytest.raises(TrainingError, match="no study with a pair of series; study 1 of 1 left out"):
        open_folder(tmp_path)
    with pytest.raises(TrainingError, match="dicom data: target is 'T9'; expected T1 or T2"):
        open_folder(tmp_path, target="T9")
    with pytest.raises(TrainingError, match="give both or none"):
        open_folder(tmp_path, target_name="5")


def test_targets_below_zero_are_refused(tmp_path: Path) -> None:
    """A rescale intercept, as phase images have it."""
    write_study(tmp_path, "P7", "one", T1)
    for path in sorted((tmp_path / "5").iterdir()):
        file = pydicom.dcmread(path)
        file.RescaleSlope, file.RescaleIntercept = 1, -100
        file.save_as(path)
    with pytest.raises(
        TrainingError, match=r"/5/.*: the target has values from -21 to 938; expected a magnitude image"
    ):
        open_folder(tmp_path)
