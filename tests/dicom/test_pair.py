"""Which two series of a study belong together, and what is said when that is not clear."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from minet_sdk.dicom import Contrast, contrast_of, find_pair, only_series, scan
from minet_sdk.errors import DicomError

MakeSeries = Callable[..., list[Path]]

# echo, repetition and inversion times as vendors' protocols have them
PROTOCOLS: list[tuple[Contrast, dict[str, Any]]] = [
    (Contrast.T1, {"te": 10, "tr": 550}),
    (Contrast.T1, {"te": 9.8, "tr": 2000, "ti": 860, "sequence": ["SE", "IR"]}),
    (Contrast.T1, {"te": 2.98, "tr": 2300, "ti": 900, "sequence": ["GR", "IR"]}),
    (Contrast.T1, {"te": 4.6, "tr": 20, "sequence": "GR"}),
    (Contrast.T2, {"te": 99, "tr": 5200}),
    (Contrast.T2, {"te": 408, "tr": 3200}),
    (Contrast.T2, {"te": 70, "tr": 3500, "options": "FS"}),
    (Contrast.FLAIR, {"te": 120, "tr": 9000, "ti": 2500, "sequence": ["SE", "IR"]}),
    (Contrast.FLAIR, {"te": 388, "tr": 5000, "ti": 1650, "sequence": ["SE", "IR"]}),
    (Contrast.PD, {"te": 30, "tr": 2700}),
    (Contrast.FS_PD, {"te": 33, "tr": 2870, "options": ["PFP", "FS"]}),
    (Contrast.FS_PD, {"te": 35, "tr": 4000, "ti": 160, "sequence": ["SE", "IR"]}),
    (Contrast.OTHER, {"te": 20, "tr": 600, "sequence": "GR"}),
    (Contrast.OTHER, {"te": 80, "tr": 5000, "sequence": "EP"}),
    (Contrast.OTHER, {"te": 99, "tr": 5200, "ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}),
    (Contrast.OTHER, {"te": 5, "tr": 22, "sequence": "GR", "description": "tof_3d"}),
    (Contrast.UNKNOWN, {"te": 50, "tr": 1200, "description": "abc", "sequence": "RM"}),
]


@pytest.mark.parametrize(("contrast", "protocol"), PROTOCOLS, ids=str)
def test_contrast_follows_from_the_acquisition(
    contrast: Contrast, protocol: dict[str, Any], make_series: MakeSeries, tmp_path: Path
) -> None:
    described = {"description": "protocol 7"} | protocol
    make_series(tmp_path, slices=1, **described)
    assert contrast_of(scan(tmp_path).series[0].header) is contrast


@pytest.mark.parametrize(
    ("description", "contrast"),
    [
        ("t2_tse_dark-fluid", Contrast.FLAIR),
        ("PD fat sat sag", Contrast.FS_PD),
        ("Ax T2 FRFSE", Contrast.T2),
        ("sag pd tse", Contrast.PD),
        ("3D MPRAGE", Contrast.T1),
        ("ep2d_diff_b1000", Contrast.UNKNOWN),
        ("DWI b1000", Contrast.OTHER),
    ],
)
def test_the_description_decides_only_where_the_acquisition_is_silent(description: str, contrast: Contrast) -> None:
    header = Dataset()
    header.SeriesDescription = description
    assert contrast_of(header) is contrast
    header.EchoTime, header.RepetitionTime, header.ScanningSequence = 99, 5200, "SE"
    assert contrast_of(header) is Contrast.T2


T1 = {"number": 3, "description": "t1_se_tra", "te": 10, "tr": 550, "size": (48, 64), "spacing": (0.75, 0.625)}
T2 = {"number": 5, "description": "t2_tse_tra"}


@pytest.fixture
def study(make_series: MakeSeries, tmp_path: Path) -> Path:
    """A T1, a T2 with half the resolution, a localizer, a diffusion map and a derived T2."""
    make_series(tmp_path / "a", **T1)
    make_series(tmp_path / "b", **T2)
    make_series(tmp_path / "c", **(T1 | {"number": 1, "description": "localizer", "slices": 3}))
    make_series(tmp_path / "d", number=7, description="ADC", ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "ADC"])
    make_series(tmp_path / "e", number=1005, description="t2_tse_tra SR", ImageType=["DERIVED", "SECONDARY", "M"])
    return tmp_path


def test_the_one_pair_is_found(study: Path) -> None:
    pair = find_pair(scan(study))
    assert (pair.target.number, pair.reference.number) == (5, 3)
    assert "T2 target series 5" in pair.reason
    assert "2.00 times finer" in pair.reason


def test_a_reference_must_resolve_the_targets_plane(make_series: MakeSeries, study: Path) -> None:
    """A second T1 in another plane has small pixels, but not where the target needs them."""
    sagittal = np.array([[0.0, 1, 0], [0, 0, -1], [-1, 0, 0]])
    make_series(study / "f", **(T1 | {"number": 9, "description": "t1_se_sag"}), axes=sagittal)
    assert find_pair(scan(study)).reference.number == 3
    thin = {"number": 10, "description": "t1_3d_sag", "gap": 0.7, "slices": 24}
    make_series(study / "g", **(T1 | thin), axes=sagittal)
    with pytest.raises(DicomError, match="2 possible pairs"):
        find_pair(scan(study))


def test_several_pairs_are_listed_not_chosen_from(make_series: MakeSeries, study: Path) -> None:
    make_series(study / "f", **(T1 | {"number": 4, "description": "t1_se_tra_km"}))
    with pytest.raises(DicomError) as caught:
        find_pair(scan(study))
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "2 possible pairs",
        "--reference",
        "series 3 't1_se_tra' (5 files): T1, 48 x 64 at 0.75 mm",
        "t1_se_tra_km",
        "series 1 'localizer' (3 files): localizer",
        "series 7 'ADC' (5 files): derived",
    ):
        assert part in message
    assert find_pair(scan(study), reference="km").reference.number == 4
    assert find_pair(scan(study), reference="3").reference.number == 3


@pytest.mark.parametrize(
    "other",
    [
        {"frame": "moved"},
        {"study": "other"},
        {"size": (24, 32), "spacing": (1.5, 1.25)},
        {"te": 20, "tr": 600, "sequence": "GR"},
        {"ImageType": ["DERIVED", "SECONDARY"]},
    ],
    ids=["another frame of reference", "another study", "as coarse", "another contrast", "derived"],
)
def test_what_does_not_fit_is_not_paired(other: dict[str, Any], make_series: MakeSeries, tmp_path: Path) -> None:
    make_series(tmp_path / "a", **(T1 | other))
    make_series(tmp_path / "b", **T2)
    with pytest.raises(DicomError, match="no pair"):
        find_pair(scan(tmp_path))


def test_names_override_contrast_and_spacing(study: Path) -> None:
    found = scan(study)
    pair = find_pair(found, target="t1_se", reference="t2_tse")
    assert (pair.target.number, pair.reference.number) == (3, 5)
    assert find_pair(found, target="t2_tse_tra").target.number == 5
    assert find_pair(found, target=pair.reference.uid).target.number == 5
    assert find_pair(found, target="1005").target.number == 1005


@pytest.mark.parametrize(
    ("target", "reference", "message"),
    [
        ("t9", None, "target 't9' is no"),
        ("t", None, "means [23] series"),
        ("5", "5", "same series"),
        (None, "ADC", "no pair"),
    ],
)
def test_names_that_do_not_fit_are_answered(
    target: str | None, reference: str | None, message: str, study: Path
) -> None:
    with pytest.raises(DicomError, match=message):
        find_pair(scan(study), target, reference)


def test_named_series_must_share_a_space(make_series: MakeSeries, tmp_path: Path) -> None:
    make_series(tmp_path / "a", **T1, frame="moved")
    make_series(tmp_path / "b", **T2)
    with pytest.raises(DicomError, match="different frames of reference"):
        find_pair(scan(tmp_path), target="5", reference="3")


def test_a_broken_series_is_listed_with_its_fault(make_series: MakeSeries, tmp_path: Path) -> None:
    make_series(tmp_path / "a", **T1)[2].unlink()
    make_series(tmp_path / "b", **T2)
    with pytest.raises(DicomError, match=r"no pair.*'t1_se_tra' \(4 files\): 1 missing after slice 2"):
        find_pair(scan(tmp_path))
    with pytest.raises(DicomError, match="1 missing"):
        find_pair(scan(tmp_path), target="5", reference="3")


def test_a_folder_for_one_role_holds_one_series(study: Path) -> None:
    assert only_series(scan(study / "a"), "reference").number == 3
    assert only_series(scan(study / "e"), "target").number == 1005
    with pytest.raises(DicomError, match=r"expected one MR series as target, found 2.*t1_se_tra.*t2_tse_tra"):
        only_series(scan(study), "target")
