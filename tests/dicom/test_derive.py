"""The derived image, attribute by attribute, and what the standard tools say of it."""

import re
import subprocess
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import nibabel
import nibabel.affines
import numpy as np
import numpy.typing as npt
import pytest
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array
from pydicom.uid import JPEGBaseline8Bit

from minet_sdk.dicom import Derivation, DicomVolume, derive, load, scan, write_series
from minet_sdk.errors import DicomError, InputError

MakeSeries = Callable[..., list[Path]]

SHA = "0123456789abcdef" * 4
DERIVATION = Derivation(
    scale=2,
    model_name="minet-x2",
    model_sha256=SHA,
    settings={"consistency": "soft", "backend": "onnxruntime"},
    target_contrast="T2",
    reference_contrast="T1",
    created=datetime(2026, 2, 3, 4, 5, 6),
)


KEPT = [
    "AccessionNumber",
    "AcquisitionDate",
    "AcquisitionMatrix",
    "AcquisitionTime",
    "BitsStored",
    "EchoTime",
    "FrameOfReferenceUID",
    "ImageOrientationPatient",
    "InstanceNumber",
    "Manufacturer",
    "Modality",
    "PatientBirthDate",
    "PatientID",
    "PatientName",
    "PatientSex",
    "PixelRepresentation",
    "RepetitionTime",
    "SOPClassUID",
    "SliceLocation",
    "SliceThickness",
    "SpacingBetweenSlices",
    "StudyDate",
    "StudyInstanceUID",
    "WindowCenter",
    "WindowWidth",
]
GONE = ["PixelAspectRatio", "PixelPaddingValue", "DataSetTrailingPadding", "ICCProfile", "IconImageSequence"]


def _enlarged(read: DicomVolume, scale: int) -> npt.NDArray[np.float32]:
    """Every pixel repeated: a result whose values are known."""
    return np.kron(read.volume.values, np.ones((scale, scale), np.float32))


def _derive_all(
    folder: Path,
    reference: Sequence[Dataset] = (),
    derivation: Derivation = DERIVATION,
    note: str = "",
) -> list[Dataset]:
    read = load(scan(folder).series[0])
    fine = _enlarged(read, derivation.scale)
    return [
        derive(source, fine[index], derivation=derivation, references=reference, note=note).dataset
        for index, source in enumerate(read.datasets)
    ]


@pytest.fixture
def source(make_series: MakeSeries, tmp_path: Path) -> Dataset:
    make_series(tmp_path / "source", slices=1)
    return load(scan(tmp_path / "source").series[0]).datasets[0]


@pytest.fixture
def reference(make_series: MakeSeries, tmp_path: Path) -> Dataset:
    make_series(tmp_path / "reference", slices=1, number=3, description="t1", te=10, tr=550)
    return load(scan(tmp_path / "reference").series[0]).datasets[0]


@pytest.fixture
def derived(source: Dataset, reference: Dataset) -> Dataset:
    return _one(source, references=[reference])


def _one(
    source: Dataset, references: Sequence[Dataset] = (), derivation: Derivation = DERIVATION, note: str = ""
) -> Dataset:
    flat = np.full((int(source.Rows) * derivation.scale, int(source.Columns) * derivation.scale), 500, np.float32)
    return derive(source, flat, derivation=derivation, references=references, note=note).dataset


# Judged by standard tools


def _dciodvfy_errors(path: Path) -> list[str]:
    told = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
    lines = (told.stdout + told.stderr).splitlines()
    assert "MRImage" in lines
    return [line for line in lines if line.startswith("Error")]


def _far_corner(path: Path) -> npt.NDArray[np.float64]:
    """Patient coordinates that dcposn gives for the last row and column."""
    dataset = dcmread(path, stop_before_pixels=True)
    command = ["dcposn", "-row", str(dataset.Rows - 1), "-col", str(dataset.Columns - 1), str(path)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    return np.array([float(value) for value in re.findall(r"[XYZ]=(\S+)", told.stdout + told.stderr)])


@pytest.mark.parametrize(
    ("scale", "options"),
    [
        (2, {}),
        (4, {}),
        (2, {"axes": np.eye(3)}),
        (2, {"signed": True, "slope": 1.0, "intercept": 800.0}),
        (4, {"photometric": "MONOCHROME1"}),
        (2, {"bits": 16, "slope": 0.5, "intercept": 0.0}),
    ],
    ids=["oblique x2", "oblique x4", "axial", "signed", "MONOCHROME1", "16 bits"],
)
def test_dciodvfy_and_dcposn_agree(
    scale: int, options: dict[str, Any], make_series: MakeSeries, reference: Dataset, tmp_path: Path
) -> None:
    measured = make_series(tmp_path / "in", slices=2, **options)[1]
    derivation = Derivation(scale=scale, model_name="minet", model_sha256=SHA)
    path = write_series(_derive_all(tmp_path / "in", [reference], derivation, note="fallback"), tmp_path / "out")[1]
    assert _dciodvfy_errors(path) == []
    corner = _far_corner(path)
    assert corner.shape == (3,)
    np.testing.assert_allclose(corner, _far_corner(measured), atol=1e-3)


def test_dcposn_notices_a_first_pixel_in_the_wrong_place(make_series: MakeSeries, tmp_path: Path) -> None:
    """Left where it was, or moved along rows by what belongs to columns."""
    (measured,) = make_series(tmp_path / "in", slices=1)
    source, (derived,) = dcmread(measured), _derive_all(tmp_path / "in")
    first = np.array(source.ImagePositionPatient, float)
    shift = np.array(derived.ImagePositionPatient, float) - first
    across, down = np.array(derived.ImageOrientationPatient, float).reshape(2, 3)
    for name, wrong in (("unshifted", 0 * shift), ("swapped", across * (shift @ down) + down * (shift @ across))):
        derived.ImagePositionPatient = [f"{value:.8f}" for value in first + wrong]
        (path,) = write_series([derived], tmp_path / name)
        assert np.abs(_far_corner(path) - _far_corner(measured)).max() > 0.02


def test_dciodvfy_notices_a_missing_attribute(derived: Dataset, tmp_path: Path) -> None:
    (path,) = write_series([derived], tmp_path / "out")
    assert _dciodvfy_errors(path) == []
    del derived.ImageOrientationPatient
    (path,) = write_series([derived], tmp_path / "broken")
    assert _dciodvfy_errors(path) != []


def test_dcm2niix_sees_the_same_volume(make_series: MakeSeries, tmp_path: Path) -> None:
    make_series(tmp_path / "in")
    write_series(_derive_all(tmp_path / "in"), tmp_path / "out")
    images: list[Any] = []
    for name in ("in", "out"):
        command = ["dcm2niix", "-b", "n", "-o", str(tmp_path), "-f", f"{name}_volume", str(tmp_path / name)]
        subprocess.run(command, check=True, capture_output=True)
        images.append(nibabel.load(tmp_path / f"{name}_volume.nii"))
    coarse, fine = images
    assert coarse.shape == (32, 24, 5)
    assert fine.shape == (64, 48, 5)
    for part in (0, 0.5, 1):  # outer corners and centre of the field of view
        places = [
            nibabel.affines.apply_affine(one.affine, part * np.array([*one.shape[:2], 0]) - [0.5, 0.5, 0])
            for one in (coarse, fine)
        ]
        np.testing.assert_allclose(places[0], places[1], atol=2e-3)
    np.testing.assert_array_equal(np.kron(coarse.get_fdata(), np.ones((2, 2, 1))), fine.get_fdata())


def test_the_result_reads_as_the_refined_volume(make_series: MakeSeries, tmp_path: Path) -> None:
    make_series(tmp_path / "in")
    write_series(_derive_all(tmp_path / "in"), tmp_path / "out")
    coarse, fine = (load(scan(tmp_path / name).series[0]) for name in ("in", "out"))
    assert coarse.volume.grid is not None
    assert fine.volume.grid is not None
    assert fine.volume.grid.matches(coarse.volume.grid.refined(2), tolerance_mm=1e-5)


# What no tool checks


def test_it_says_what_it_is(derived: Dataset, source: Dataset) -> None:
    assert list(derived.ImageType) == ["DERIVED", "SECONDARY", "M", "ND"]
    assert "MINet AI super-resolution x2 of T2 guided by T1" in derived.DerivationDescription
    assert "model minet-x2 sha256:0123456789abcdef" in derived.DerivationDescription
    assert "research use only, not a medical device" in derived.DerivationDescription
    assert "consistency soft" in derived.DerivationDescription
    assert "research use only" in derived.ImageComments
    assert derived.ContentQualification == "RESEARCH"
    assert derived.BurnedInAnnotation == "NO"
    assert derived.SeriesDescription == "t2_tse_tra MINet SR x2"
    (code,) = derived.DerivationCodeSequence
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("113085", "DCM")
    (equipment,) = derived.ContributingEquipmentSequence
    assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert SHA in equipment.SoftwareVersions
    assert source.ImageType[0] == "ORIGINAL"


def test_inline_results_are_primary(source: Dataset) -> None:
    inline = Derivation(scale=2, model_name="m", model_sha256=SHA, inline=True)
    assert list(_one(source, derivation=inline).ImageType)[:2] == ["DERIVED", "PRIMARY"]


def test_a_note_comes_first_and_survives_the_length_limit(source: Dataset) -> None:
    note = "bicubic interpolation instead of the model: deadline of 200 ms passed \N{EN DASH} slow"
    long = Derivation(scale=2, model_name="m", model_sha256=SHA, settings={f"s{i}": "x" * 50 for i in range(40)})
    derived = _one(source, derivation=long, note=note)
    assert derived.DerivationDescription.startswith("bicubic interpolation instead of the model")
    assert "research use only" in derived.DerivationDescription
    assert len(derived.DerivationDescription) <= 1024
    assert derived.DerivationDescription.isascii()


def test_it_refers_to_its_sources(derived: Dataset, source: Dataset, reference: Dataset) -> None:
    sources = [item.ReferencedSOPInstanceUID for item in derived.SourceImageSequence]
    assert sources == [source.SOPInstanceUID, reference.SOPInstanceUID]
    for item in derived.SourceImageSequence:
        assert item.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    series = {item.SeriesInstanceUID: item.ReferencedInstanceSequence for item in derived.ReferencedSeriesSequence}
    assert list(series) == [source.SeriesInstanceUID, reference.SeriesInstanceUID]
    assert series[reference.SeriesInstanceUID][0].ReferencedSOPInstanceUID == reference.SOPInstanceUID


def test_a_reference_of_another_study_is_listed_there(make_series: MakeSeries, source: Dataset, tmp_path: Path) -> None:
    make_series(tmp_path / "prior", slices=1, study="prior")
    prior = load(scan(tmp_path / "prior").series[0]).datasets[0]
    derived = _one(source, references=[prior])
    assert [item.SeriesInstanceUID for item in derived.ReferencedSeriesSequence] == [source.SeriesInstanceUID]
    (study,) = derived.StudiesContainingOtherReferencedInstancesSequence
    assert study.StudyInstanceUID == prior.StudyInstanceUID
    (path,) = write_series([derived], tmp_path / "out")
    assert _dciodvfy_errors(path) == []


def test_what_was_measured_is_kept(derived: Dataset, source: Dataset) -> None:
    for keyword in KEPT:
        assert derived[keyword].value == source[keyword].value, keyword


def test_what_is_new_is_new(derived: Dataset, source: Dataset) -> None:
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "ContentDate"):
        assert derived[keyword].value != source[keyword].value, keyword
    assert derived.SeriesNumber == 1005
    assert derived.ContentDate == derived.SeriesDate == derived.InstanceCreationDate == "20260203"
    assert derived.ContentTime == derived.SeriesTime == derived.InstanceCreationTime == "040506"
    assert derived.file_meta.MediaStorageSOPInstanceUID == derived.SOPInstanceUID
    assert derived.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"


def test_what_is_no_longer_true_is_dropped(source: Dataset) -> None:
    source.PixelAspectRatio = [1, 1]
    source.add(DataElement("PixelPaddingValue", "US", 0))
    source.add(DataElement(0x60000010, "US", 24))
    source.add(DataElement(0x60003000, "OW", b"\0" * 96))
    source.add(DataElement(0x50000005, "US", 2))
    source.add(DataElement("DataSetTrailingPadding", "OB", b"\0\0"))
    source.add(DataElement("ICCProfile", "OB", b"\0\0"))
    icon = Dataset()
    icon.Rows = 4
    source.IconImageSequence = [icon]
    request = Dataset()
    request.RequestedProcedureID = "1"
    request.private_block(0x0051, "PHANTOM HEADER", create=True).add_new(1, "LO", "private")
    source.RequestAttributesSequence = [request]
    derived = _one(source)
    assert not [element for element in derived.iterall() if element.tag.is_private]
    assert not [element for element in derived if element.tag.group in (0x5000, 0x6000)]
    for keyword in (
        "PixelAspectRatio",
        "PixelPaddingValue",
        "DataSetTrailingPadding",
        "ICCProfile",
        "IconImageSequence",
    ):
        assert keyword not in derived
    assert derived.RequestAttributesSequence[0].RequestedProcedureID == "1"
    assert "IconImageSequence" in source


def test_the_source_stays_as_it_was(source: Dataset) -> None:
    request = Dataset()
    request.private_block(0x0051, "PHANTOM HEADER", create=True).add_new(1, "LO", "private")
    source.RequestAttributesSequence = [request]
    before = deepcopy(source)
    derived = _one(source)
    for element in derived:
        element.value = None
    assert source == before


@pytest.mark.parametrize("kept", ["01", "00", None])
def test_once_lossy_always_lossy(kept: str | None, source: Dataset) -> None:
    source.LossyImageCompression = kept
    assert _one(source).get("LossyImageCompression") == kept
    source.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    assert _one(source).LossyImageCompression == "01"


def test_long_names_and_numbers_stay_legal(source: Dataset, tmp_path: Path) -> None:
    source.SeriesDescription = "x" * 64
    source.SeriesNumber = 2147483647
    source.ImagePositionPatient = ["-123.45678901234", "1e-7", "0.3333333333333"]
    source.PixelSpacing = ["0.3333333333333", "0.6999999999999"]
    derived = _one(source)
    assert derived.SeriesDescription == "x" * 52 + " MINet SR x2"
    assert derived.SeriesNumber == 2147483647
    write_series([derived], tmp_path / "out")
    again = dcmread(tmp_path / "out" / "IM_0001.dcm")
    for keyword in ("ImagePositionPatient", "PixelSpacing"):
        assert all(len(str(value)) <= 16 for value in again[keyword].value)


def test_the_same_input_gets_the_same_identifiers(source: Dataset, reference: Dataset) -> None:
    first = _one(source, references=[reference])
    later = replace(DERIVATION, model_name="renamed", created=datetime(2030, 1, 1))
    again = _one(source, references=[reference], derivation=later, note="a slice fell back")
    assert (again.SOPInstanceUID, again.SeriesInstanceUID) == (first.SOPInstanceUID, first.SeriesInstanceUID)
    assert re.fullmatch(r"2\.25\.[1-9]\d{1,38}", first.SOPInstanceUID)
    others = [
        _one(source, references=[]),
        _one(source, references=[reference], derivation=replace(DERIVATION, settings={"consistency": "off"})),
        _one(source, references=[reference], derivation=replace(DERIVATION, model_sha256="0" * 64)),
        _one(source, references=[reference], derivation=replace(DERIVATION, scale=4)),
    ]
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert len({str(one[keyword].value) for one in [first, *others]}) == 5


def test_one_series_has_one_identifier_and_many_images(make_series: MakeSeries, tmp_path: Path) -> None:
    make_series(tmp_path / "in")
    images = _derive_all(tmp_path / "in")
    assert len({image.SeriesInstanceUID for image in images}) == 1
    assert images[0].SeriesInstanceUID == DERIVATION.series_uid(load(scan(tmp_path / "in").series[0]).series.uid)
    assert len({image.SOPInstanceUID for image in images}) == 5


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"photometric": "MONOCHROME1"},
        {"signed": True, "slope": 1.0, "intercept": 800.0},
        {"photometric": "MONOCHROME1", "signed": True, "slope": 0.5, "intercept": 600.0},
        {"bits": 16, "slope": 0.25, "intercept": -30.0},
    ],
    ids=["plain", "MONOCHROME1", "signed", "all", "16 bits"],
)
def test_pixels_go_out_as_they_came_in(options: dict[str, Any], make_series: MakeSeries, tmp_path: Path) -> None:
    make_series(tmp_path / "in", slices=2, **options)
    read = load(scan(tmp_path / "in").series[0])
    files = write_series(_derive_all(tmp_path / "in"), tmp_path / "out")
    for index, path in enumerate(files):
        written = dcmread(path)
        stored = pixel_array(Path(str(read.datasets[index].filename)))
        np.testing.assert_array_equal(pixel_array(path), np.kron(stored, np.ones((2, 2), stored.dtype)))
        assert written.PhotometricInterpretation == options.get("photometric", "MONOCHROME2")
        assert (written.SmallestImagePixelValue, written.LargestImagePixelValue) == (stored.min(), stored.max())
    np.testing.assert_array_equal(load(scan(tmp_path / "out").series[0]).volume.values, _enlarged(read, 2))


def test_an_8_bit_image_of_odd_size_is_padded(make_series: MakeSeries, tmp_path: Path) -> None:
    def to_8_bits(dataset: Dataset, _: int) -> None:
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.add(DataElement("PixelData", "OB", bytes(dataset.Rows * dataset.Columns) + b"\0"))

    make_series(tmp_path / "in", slices=1, size=(5, 7), edit=to_8_bits)
    once = Derivation(scale=1, model_name="m", model_sha256=SHA)
    (path,) = write_series(_derive_all(tmp_path / "in", derivation=once), tmp_path / "out")
    assert len(dcmread(path).PixelData) == 36
    assert pixel_array(path).shape == (5, 7)


def test_values_beyond_16_bits_are_written(make_series: MakeSeries, tmp_path: Path) -> None:
    def to_32_bits(dataset: Dataset, _: int) -> None:
        wide = np.frombuffer(dataset.PixelData, "<u2").astype("<u4") * 100
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 32, 32, 31
        dataset.PixelData = wide.tobytes()

    make_series(tmp_path / "in", slices=2, edit=to_32_bits)
    files = write_series(_derive_all(tmp_path / "in"), tmp_path / "out")
    read = load(scan(tmp_path / "in").series[0])
    assert read.volume.values.max() > 2**16
    np.testing.assert_array_equal(load(scan(tmp_path / "out").series[0]).volume.values, _enlarged(read, 2))
    assert all("LargestImagePixelValue" not in dcmread(path) for path in files)


def test_one_value_of_the_image_type_is_one_value(make_series: MakeSeries, tmp_path: Path) -> None:
    make_series(tmp_path / "in", slices=1, ImageType="ORIGINAL")
    (image,) = _derive_all(tmp_path / "in")
    assert list(image.ImageType) == ["DERIVED", "SECONDARY", "OTHER"]


def test_sources_that_bend_the_rules_are_still_processed(make_series: MakeSeries, tmp_path: Path) -> None:
    """Identifiers with leading zeros, texts and decimals that are too long: wrong, and common."""
    (path,) = make_series(tmp_path / "in", slices=1)
    content = path.read_bytes()
    head = content.index(b"UI", content.index(b"\x08\x00\x18\x00")) + 4
    length = int.from_bytes(content[head - 2 : head], "little")
    wrong = b"1.2.03.004." + b"7" * (length - 12) + b"\0"
    path.write_bytes(content[:head] + wrong + content[head + length :])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(path)
        dataset.SeriesDescription = "T2 " * 40
        dataset.StudyDescription = "x" * 100
        dataset.save_as(path)
    (image,) = _derive_all(tmp_path / "in")
    write_series([image], tmp_path / "out")
    assert image.SourceImageSequence[0].ReferencedSOPInstanceUID.startswith("1.2.03.004.777")
    assert len(image.SeriesDescription) == 64


def test_clipping_is_counted(source: Dataset) -> None:
    values = np.full((48, 64), 100, np.float32)
    values[0, :3] = -5, 4095.4, 4096
    result = derive(source, values, derivation=DERIVATION, references=[])
    assert result.clipped == 2
    pixels = np.frombuffer(result.dataset.PixelData, "<u2")
    assert pixels[:4].tolist() == [0, 4095, 4095, 100]


def test_what_cannot_be_stored_is_refused(source: Dataset) -> None:
    with pytest.raises(InputError, match=r"\(24, 32\), expected .*\(48, 64\)"):
        derive(source, np.zeros((24, 32), np.float32), derivation=DERIVATION, references=[])
    with pytest.raises(InputError, match="NaN"):
        derive(source, np.full((48, 64), np.nan, np.float32), derivation=DERIVATION, references=[])
    source.RescaleSlope, source.RescaleIntercept = 0, 0
    with pytest.raises(DicomError, match="RescaleSlope"):
        _one(source)
