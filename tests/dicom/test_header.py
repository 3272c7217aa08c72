"""Headers of a series: what is wrong in one image is wrong in that one alone, however many share the rest."""

import subprocess
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import config, dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian

from minet_sdk.dicom import Derivation, derive, load, scan, write_series
from minet_sdk.dicom.header import KEYWORDS, Reader, quietly

MakeSeries = Callable[..., list[Path]]

DERIVATION = Derivation(scale=2, model_name="m", model_sha256="0" * 64, created=datetime(2026, 1, 2, 3, 4, 5))

ENCODINGS = pytest.mark.parametrize("option", ["+te", "+ti", "+tb"])
"""Explicit VR, implicit VR and big-endian, as dcmtk calls them."""


def _damaged(path: Path, keyword: str, value: bytes) -> None:
    """Put bytes in the place of a value, whatever their length."""
    with config.disable_value_validation():
        dataset = dcmread(path)
        vr = dataset[keyword].VR
        dataset[keyword] = DataElement(Tag(keyword), vr, value.decode("latin-1"), already_converted=True)
        dataset.save_as(path)


def _in_encoding(path: Path, option: str) -> None:
    subprocess.run(["dcmconv", option, str(path), str(path)], check=True)


def _values(dataset: Dataset, tags: list[Any] | None = None) -> Mapping[int, Any]:
    with quietly():
        return {int(tag): dataset[tag].value for tag in (tags or list(dataset.keys()))}


def test_a_value_that_is_wrong_in_one_image_is_absent_there_alone(make_series: MakeSeries, tmp_path: Path) -> None:
    paths = make_series(tmp_path, shuffle=False)
    _damaged(paths[2], "EchoTime", b"99.0.0")
    found = dict(zip(*_scanned(tmp_path), strict=True))
    assert ["EchoTime" in found[path] for path in paths] == [True, True, False, True, True]
    assert ["EchoTime" in one for one in load(scan(tmp_path).series[0]).datasets] == [True, True, False, True, True]


def _scanned(folder: Path) -> tuple[tuple[Path, ...], tuple[Dataset, ...]]:
    (series,) = scan(folder).series
    return series.paths, series.headers


def test_the_order_of_good_and_bad_does_not_matter(make_series: MakeSeries, tmp_path: Path) -> None:
    paths = make_series(tmp_path, shuffle=False)
    for path in paths[:4]:
        _damaged(path, "FlipAngle", b"ninety")
    reader = Reader()
    assert ["FlipAngle" in reader.header(path) for path in paths] == [False] * 4 + [True]
    assert ["FlipAngle" in reader.dataset(path) for path in reversed(paths)] == [True] + [False] * 4


def test_what_breaks_the_rules_in_every_image_is_read_without_remarks(make_series: MakeSeries, tmp_path: Path) -> None:
    """An identifier with a leading zero, where only the file meta information says what the file is."""
    for path in make_series(tmp_path):
        dataset = dcmread(path)
        del dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.4")
        dataset.save_as(path)
        content = path.read_bytes()
        assert content.count(b"1.2.840.10008.5.1.4.1.1.4\0") == 1
        path.write_bytes(content.replace(b"1.2.840.10008.5.1.4.1.1.4\0", b"1.2.840.10008.5.1.4.1.01.4"))
    _, headers = _scanned(tmp_path)
    assert len(headers) == 5
    assert {str(one.file_meta.MediaStorageSOPClassUID) for one in headers} == {"1.2.840.10008.5.1.4.1.01.4"}


@ENCODINGS
def test_what_many_images_share_reads_as_pydicom_reads_it(option: str, make_series: MakeSeries, tmp_path: Path) -> None:
    paths = make_series(tmp_path, SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg")
    for path in paths:
        _in_encoding(path, option)
    reader = Reader()
    for path in paths:
        expected = dcmread(path)
        header, dataset = reader.header(path), reader.dataset(path)
        tags = [Tag(keyword) for keyword in KEYWORDS if expected.get(keyword) not in (None, "", [])]
        assert _values(header) == _values(expected, tags)
        assert _values(dataset) == _values(expected)
        assert dataset.PatientName == "Müller^Jörg"


def test_the_same_bytes_in_another_character_set_are_another_text(make_series: MakeSeries, tmp_path: Path) -> None:
    paths = make_series(tmp_path, slices=2, shuffle=False, SpecificCharacterSet="ISO_IR 100", description="Schädel")
    content = paths[1].read_bytes()
    assert content.count(b"ISO_IR 100") == 1
    paths[1].write_bytes(content.replace(b"ISO_IR 100", b"ISO_IR 144"))
    reader = Reader()
    assert [str(reader.header(path).SeriesDescription) for path in paths] == ["Schädel", "Schфdel"]


def test_changing_one_whole_header_changes_no_other(make_series: MakeSeries, tmp_path: Path) -> None:
    make_series(tmp_path)
    datasets = load(scan(tmp_path).series[0]).datasets
    datasets[0].EchoTime, datasets[1].Manufacturer = 1, "other"
    assert [float(one.EchoTime) for one in datasets] == [1, 99, 99, 99, 99]
    assert [one.Manufacturer for one in datasets] == ["Phantom", "other", "Phantom", "Phantom", "Phantom"]


@ENCODINGS
def test_what_is_kept_is_written_alike_from_every_encoding(
    option: str, make_series: MakeSeries, tmp_path: Path
) -> None:
    """Element by element what pydicom decodes of the source, in the second image as in the first."""
    paths = make_series(
        tmp_path / "in", slices=2, shuffle=False, SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg"
    )
    for path in paths:
        _in_encoding(path, option)
    read = load(scan(tmp_path / "in").series[0])
    images = [
        derive(one, np.ones((48, 64), np.float32), derivation=DERIVATION, references=[]).dataset
        for one in read.datasets
    ]
    for source, written in zip(paths, write_series(images, tmp_path / "out"), strict=True):
        before, after = dcmread(source), dcmread(written)
        assert after.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        for keyword in ("PatientName", "EchoTime", "AcquisitionMatrix", "ScanningSequence", "ImageOrientationPatient"):
            assert after[keyword].VR == before[keyword].VR
            assert after[keyword].value == before[keyword].value


def test_an_element_of_odd_length_is_written_even(make_series: MakeSeries, tmp_path: Path) -> None:
    paths = make_series(tmp_path / "in", slices=2, shuffle=False, SoftwareVersions="12")
    for path in paths:
        content = path.read_bytes()
        assert content.count(b"LO\x02\x0012") == 1
        path.write_bytes(content.replace(b"LO\x02\x0012", b"LO\x03\x00123"))
    read = load(scan(tmp_path / "in").series[0])
    images = [derive(one, np.ones((48, 64), np.float32), derivation=DERIVATION, references=[]) for one in read.datasets]
    for path in write_series((one.dataset for one in images), tmp_path / "out"):
        assert b"LO\x04\x00123 " in path.read_bytes()
