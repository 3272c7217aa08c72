"""Series as volumes: against a phantom known everywhere in space, over what real files look like."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pixel_array
from pydicom.uid import BasicTextSRStorage

from minet_sdk.dicom import load, scan
from minet_sdk.dicom.header import KEYWORDS
from minet_sdk.dicom.read import DicomVolume
from minet_sdk.errors import DicomError

MakeSeries = Callable[..., list[Path]]
Signal = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]


def _only(folder: Path) -> DicomVolume:
    (series,) = scan(folder).series
    return load(series)


def _error(read: DicomVolume, signal: Signal) -> float:
    """Largest difference from the phantom at the positions that the grid claims."""
    grid = read.volume.grid
    assert grid is not None
    index = np.stack(np.meshgrid(*[np.arange(size) for size in grid.shape], indexing="ij"), axis=-1)
    return float(np.abs(read.volume.values - signal(grid.positions(index))).max())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"axes": np.eye(3)},
        {"axes": np.array([[0.0, 1, 0], [0, 0, -1], [-1, 0, 0]])},
        {"shuffle": False},
        {"signed": True},
        {"signed": True, "intercept": 800.0, "slope": 1.0},
        {"bits": 16},
        {"photometric": "MONOCHROME1"},
        {"photometric": "MONOCHROME1", "signed": True, "slope": 0.5, "intercept": 300.0},
        {"slope": 0.5, "intercept": -20.0},
        {"slices": 1},
        {"slices": 2},
    ],
    ids=str,
)
def test_every_voxel_is_where_the_grid_says(
    options: dict[str, Any], make_series: MakeSeries, signal: Signal, tmp_path: Path
) -> None:
    make_series(tmp_path, **options)
    read = _only(tmp_path)
    assert read.volume.values.dtype == np.float32
    assert read.volume.values.shape == (options.get("slices", 5), 24, 32)
    rounding = options.get("slope", 1.0) / 2
    assert _error(read, signal) < rounding + 0.01


def test_order_is_that_of_positions_not_of_instance_numbers(make_series: MakeSeries, tmp_path: Path) -> None:
    paths = make_series(tmp_path)
    read = _only(tmp_path)
    expected = np.stack([pixel_array(dcmread(path)) for path in paths])
    np.testing.assert_array_equal(read.volume.values, expected)
    assert [one.SOPInstanceUID for one in read.datasets] == [dcmread(path).SOPInstanceUID for path in paths]
    by_number = sorted(paths, key=lambda path: int(dcmread(path).InstanceNumber))
    assert by_number != paths
    assert not np.array_equal(read.volume.values, np.stack([pixel_array(dcmread(path)) for path in by_number]))


def test_headers_come_without_pixels_and_with_the_rest(make_series: MakeSeries, tmp_path: Path) -> None:
    make_series(tmp_path)
    first = _only(tmp_path).datasets[0]
    assert "PixelData" not in first
    assert first.PatientName == "Phantom^Series"
    assert first.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"


SYNTAXES = {
    "JPEG lossless, first order": ("dcmcjpeg +e1", "1.2.840.10008.1.2.4.70"),
    "JPEG lossless, process 14": ("dcmcjpeg +el", "1.2.840.10008.1.2.4.57"),
    "JPEG-LS lossless": ("dcmcjpls +el", "1.2.840.10008.1.2.4.80"),
    "JPEG 2000 lossless": ("gdcmconv --j2k", "1.2.840.10008.1.2.4.90"),
    "RLE": ("dcmcrle", "1.2.840.10008.1.2.5"),
    "deflated": ("dcmconv +td", "1.2.840.10008.1.2.1.99"),
    "big endian": ("dcmconv +tb", "1.2.840.10008.1.2.2"),
    "implicit": ("dcmconv +ti", "1.2.840.10008.1.2"),
}


@pytest.mark.parametrize("stored", [{}, {"signed": True, "slope": 1.0, "intercept": 800.0}], ids=["unsigned", "signed"])
@pytest.mark.parametrize("name", SYNTAXES)
def test_transfer_syntaxes_decode_bit_exact(
    name: str, stored: dict[str, Any], make_series: MakeSeries, tmp_path: Path
) -> None:
    command, syntax = SYNTAXES[name]
    plain = make_series(tmp_path / "plain", slices=2, **stored)
    (tmp_path / "other").mkdir()
    for path in plain:
        converted = tmp_path / "other" / path.name
        subprocess.run([*command.split(), str(path), str(converted)], check=True, capture_output=True)
        assert dcmread(converted).file_meta.TransferSyntaxUID == syntax
    expected = _only(tmp_path / "plain").volume.values
    np.testing.assert_array_equal(_only(tmp_path / "other").volume.values, expected)
    with_known_headers = load(scan(tmp_path / "other").series[0], whole_headers=False)
    np.testing.assert_array_equal(with_known_headers.volume.values, expected)
    assert [set(one.dir()) <= {*KEYWORDS} for one in with_known_headers.datasets] == [True, True]


@pytest.mark.parametrize("syntax", ["JPEG lossless, first order", "JPEG-LS lossless", "JPEG 2000 lossless"])
def test_the_decoders_of_the_extra_suffice(syntax: str, make_series: MakeSeries, tmp_path: Path) -> None:
    """Other decoders may be installed here too; the extra brings GDCM only."""
    (plain,) = make_series(tmp_path, slices=1)
    converted = tmp_path / "converted"
    subprocess.run([*SYNTAXES[syntax][0].split(), str(plain), str(converted)], check=True, capture_output=True)
    pixels = pixel_array(converted, decoding_plugin="gdcm")
    np.testing.assert_array_equal(pixels, pixel_array(plain))


def test_bits_beyond_the_stored_ones_are_ignored(make_series: MakeSeries, tmp_path: Path) -> None:
    """Old files keep overlays in the upper four bits."""
    (clean,) = make_series(tmp_path / "clean", slices=1)
    (used,) = make_series(tmp_path / "used", slices=1)
    dataset = dcmread(used)
    pixels = np.frombuffer(dataset.PixelData, "<u2") | 0x5000
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(used)
    np.testing.assert_array_equal(_only(used.parent).volume.values, _only(clean.parent).volume.values)


def test_negative_values_need_not_be_sign_extended(make_series: MakeSeries, tmp_path: Path) -> None:
    options = {"slices": 1, "signed": True, "slope": 1.0, "intercept": 800.0}
    (clean,) = make_series(tmp_path / "clean", **options)
    (short,) = make_series(tmp_path / "short", **options)
    dataset = dcmread(short)
    dataset.PixelData = (np.frombuffer(dataset.PixelData, "<u2") & 0x0FFF).tobytes()
    dataset.save_as(short)
    read = _only(clean.parent).volume.values
    assert read.min() < 800
    np.testing.assert_array_equal(_only(short.parent).volume.values, read)


@pytest.mark.parametrize("high", [0, 7, 16, 65535])
def test_an_impossible_high_bit_is_refused(high: int, make_series: MakeSeries, tmp_path: Path) -> None:
    def wrong(dataset: Dataset, _: int) -> None:
        dataset.HighBit = high

    make_series(tmp_path / "in", slices=1, edit=wrong)
    with pytest.raises(DicomError, match=f"HighBit is {high} of 12 stored bits; expected 11"):
        load(scan(tmp_path / "in").series[0])


def test_an_empty_high_bit_is_that_of_the_stored_bits(make_series: MakeSeries, tmp_path: Path) -> None:
    def empty(dataset: Dataset, _: int) -> None:
        dataset.HighBit = None

    make_series(tmp_path / "in", slices=1, edit=empty)
    make_series(tmp_path / "right", slices=1)
    found, right = (load(scan(tmp_path / name).series[0]).volume.values for name in ("in", "right"))
    np.testing.assert_array_equal(found, right)


def test_what_is_no_image_is_set_aside_with_its_reason(make_series: MakeSeries, tmp_path: Path) -> None:
    paths = make_series(tmp_path / "deep" / "er")
    (tmp_path / "readme.txt").write_text("hello")
    (tmp_path / ".keep").touch()
    paths[0] = paths[0].rename(tmp_path / "IM1")
    subprocess.run(["dcmmkdir", "IM1"], cwd=tmp_path, capture_output=True, check=True)
    report = dcmread(paths[0])
    for keyword in ("Rows", "Columns", "PixelData"):
        del report[keyword]
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
    report.save_as(tmp_path / "report.dcm")
    found = scan(tmp_path)
    assert [len(series.paths) for series in found.series] == [5]
    reasons = {path.name: reason for path, reason in found.skipped}
    assert reasons["readme.txt"] == reasons[".keep"] == "not a DICOM file"
    assert reasons["DICOMDIR"] == "no image (Media Storage Directory Storage)"
    assert reasons["report.dcm"] == "no image (Basic Text SR Storage)"
