"""Slices for calibration: halves that do not meet, a folder of one's own, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest

from minet_sdk.demo import study_folder
from minet_sdk.errors import ExportError
from minet_sdk.export.slices import Slices, bundled_slices, read_slices
from minet_sdk.kspace import degrade
from minet_sdk.normalisation import Normalisation


def ramp(count: int, height: int = 8, width: int = 12) -> Slices:
    values = np.arange(count * height * width, dtype=np.float32).reshape(count, height, width)
    return Slices(values, -values, "ramp")


def test_halves_share_no_slice() -> None:
    whole = ramp(5)
    seen, unseen = whole.halves()
    assert [len(half.targets) for half in (seen, unseen)] == [3, 2]
    np.testing.assert_array_equal(seen.targets, whole.targets[[0, 2, 4]])
    np.testing.assert_array_equal(unseen.references, whole.references[[1, 3]])
    with pytest.raises(ExportError, match=r"ramp has 1 slice; expected at least 2"):
        ramp(1).halves()


def test_spread_takes_both_ends() -> None:
    whole = ramp(20)
    np.testing.assert_array_equal(whole.spread(3).targets, whole.targets[[0, 10, 19]])
    assert len(whole.spread(50).targets) == 20


def test_inputs_are_what_the_network_gets() -> None:
    slices = ramp(2)
    low = degrade(slices.targets[1], 2)
    given = slices.inputs(2, Normalisation())[1]
    assert given.target.shape == (1, 1, 4, 6)
    np.testing.assert_allclose(given.target[0, 0], (low - low.mean()) / low.std(), atol=1e-5)
    assert given.reference.mean() == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(Normalisation().undo(given.target[0, 0], given.statistics), low, rtol=1e-5)
    with pytest.raises(ExportError, match="ramp: slices are 8 x 10; expected multiples of the scale 4"):
        ramp(2, 8, 10).inputs(4, Normalisation())


def test_hash_is_of_values_and_roles() -> None:
    slices = ramp(3)
    assert slices.sha256() == ramp(3).sha256()
    assert len({slices.sha256(), slices.swapped().sha256(), ramp(3, 12, 8).sha256()}) == 3


def test_what_is_no_stack_of_pairs_is_refused() -> None:
    values = np.zeros((3, 8, 8), np.float32)
    with pytest.raises(ExportError, match=r"target \(3, 8, 8\) and reference \(2, 8, 8\)"):
        Slices(values, values[:2], "mine")
    with pytest.raises(ExportError, match="mine: some values are not finite"):
        Slices(values, np.full_like(values, np.nan), "mine")


def test_own_folder_is_read_like_the_bundled_study(tmp_path: Path) -> None:
    for role, contrast in (("target", "t2"), ("reference", "t1")):
        shutil.copytree(study_folder() / contrast, tmp_path / "study" / role)
    own, bundled = read_slices(tmp_path / "study"), bundled_slices()
    assert own.sha256() == bundled.sha256()
    assert own.source == "folder study"
    shutil.rmtree(tmp_path / "study" / "reference")
    with pytest.raises(ExportError, match="has no folder 'reference'"):
        read_slices(tmp_path / "study")
    shutil.copytree(study_folder(), tmp_path / "study" / "reference")
    with pytest.raises(ExportError, match="has 2 DICOM series; expected one"):
        read_slices(tmp_path / "study")


def test_series_of_one_shape_must_lie_in_one_place(tmp_path: Path) -> None:
    for role, contrast in (("target", "t2"), ("reference", "t1")):
        shutil.copytree(study_folder() / contrast, tmp_path / role)
    for path in (tmp_path / "reference").iterdir():
        dataset = pydicom.dcmread(path)
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, float(z) + 5]
        dataset.save_as(path)
    with pytest.raises(ExportError, match="target and reference have one shape but not one place"):
        read_slices(tmp_path)
