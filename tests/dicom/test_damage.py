"""What cannot be processed is refused, each with its own one-line reason."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, RLELossless

from minet_sdk.dicom import Derivation, derive, load, only_series, scan, write_series
from minet_sdk.errors import DicomError, MinetError

MakeSeries = Callable[..., list[Path]]
Damage = Callable[[list[Path]], object]


def _edit(path: Path, **attributes: Any) -> None:
    dataset = dcmread(path)
    for keyword, value in attributes.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path)


def _edit_all(paths: list[Path], **attributes: Any) -> None:
    for path in paths:
        _edit(path, **attributes)


def _copy(paths: list[Path], **attributes: Any) -> None:
    path = paths[1].with_name("copy.dcm")
    path.write_bytes(paths[1].read_bytes())
    _edit(path, SOPInstanceUID=UID("1.2.3.4"), **attributes)


def _copy_all(paths: list[Path]) -> None:
    for number, path in enumerate(paths):
        copy = path.with_name(f"copy{number}.dcm")
        copy.write_bytes(path.read_bytes())
        _edit(copy, SOPInstanceUID=UID(f"1.2.3.{number}"))


def _echoes(paths: list[Path]) -> None:
    _copy_all(paths)
    _edit_all(sorted(paths[0].parent.glob("copy*.dcm")), EchoTime=12)


def _cut(path: Path, part: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])


def _move(path: Path, distance: float, axis: int) -> None:
    """Move an image along its rows (0), columns (1) or normal (2)."""
    dataset = dcmread(path)
    across, down = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3)
    directions = [across, down, np.cross(across, down)]
    corner = np.array(dataset.ImagePositionPatient, float) + distance * directions[axis]
    _edit(path, ImagePositionPatient=[f"{value:.8f}" for value in corner])


def _corrupt_jpeg(paths: list[Path]) -> None:
    dataset = dcmread(paths[2])
    dataset.compress(RLELossless)
    content = bytearray(dataset.PixelData)
    content[20:24] = b"\xff\xff\xff\x7f"
    dataset.PixelData = bytes(content)
    dataset.save_as(paths[2])


def _unknown_syntax(paths: list[Path]) -> None:
    for path in paths:
        dataset = dcmread(path)
        dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.100")
        dataset.PixelData = encapsulate([bytes(dataset.PixelData)])
        dataset.save_as(path, implicit_vr=False, little_endian=True)


def _enhanced(paths: list[Path]) -> None:
    for path in paths[1:]:
        path.unlink()
    dataset = dcmread(paths[0])
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.4.1")
    dataset.NumberOfFrames = 2
    dataset.PixelData = bytes(dataset.PixelData) * 2
    dataset.save_as(paths[0])


DAMAGES: dict[str, tuple[str, Damage]] = {
    "missing slice": ("1 missing after slice 2 of 4", lambda paths: paths[2].unlink()),
    "uneven spacing": ("uneven slice spacing", lambda paths: _move(paths[2], 0.7, axis=2)),
    "displaced slice": ("displaced sideways", lambda paths: _move(paths[2], 3, axis=0)),
    "duplicate slice": ("duplicate slice position", _copy),
    "two volumes": ("2 images at every slice position", _copy_all),
    "several echoes": (r"several echoes.*12\.0, 99\.0", _echoes),
    "mosaic": ("mosaic", lambda paths: _edit_all(paths, ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"])),
    "enhanced": ("enhanced multi-frame.*emf2sf", _enhanced),
    "colour": (
        "colour images.*RGB",
        lambda paths: _edit_all(paths, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0),
    ),
    "palette": ("colour", lambda paths: _edit_all(paths, PhotometricInterpretation="PALETTE COLOR")),
    "copied identifier": ("same SOPInstanceUID", lambda paths: _edit_all(paths, SOPInstanceUID=UID("1.2.3"))),
    "no identifier": ("no SOPInstanceUID", lambda paths: _edit_all(paths, SOPInstanceUID=None)),
    "modality": ("modality is CT, expected MR", lambda paths: _edit_all(paths, Modality="CT")),
    "sizes differ": ("differ in size", lambda paths: _edit(paths[3], Rows=12)),
    "orientations differ": (
        "differ in orientation",
        lambda paths: _edit(paths[3], ImageOrientationPatient=[1, 0, 0, 0, 0, -1]),
    ),
    "spacings differ": ("differ in PixelSpacing", lambda paths: _edit(paths[3], PixelSpacing=[2, 2])),
    "no position": ("ImagePositionPatient is missing", lambda paths: _edit(paths[3], ImagePositionPatient=None)),
    "no orientation": ("ImageOrientationPatient is", lambda paths: _edit_all(paths, ImageOrientationPatient=None)),
    "no spacing": ("PixelSpacing is missing", lambda paths: _edit_all(paths, PixelSpacing=None)),
    "spacing of zero": ("sizes above 0", lambda paths: _edit_all(paths, PixelSpacing=[0, 0])),
    "skewed plane": ("perpendicular", lambda paths: _edit_all(paths, ImageOrientationPatient=[1, 0, 0, 1, 0, 0])),
    "no bits": ("no BitsStored", lambda paths: _edit_all(paths, BitsStored=None)),
    "no pixels": ("no PixelData", lambda paths: _edit(paths[1], PixelData=None)),
    "no rows": ("without Rows", lambda paths: _edit(paths[1], Rows=None)),
    "slope of zero": ("RescaleSlope 0", lambda paths: _edit_all(paths, RescaleSlope=0, RescaleIntercept=0)),
    "truncated pixels": ("truncated or corrupt pixel data", lambda paths: _cut(paths[2], 0.8)),
    "truncated header": ("restore", lambda paths: _cut(paths[2], 0.2)),
    "corrupt RLE": ("truncated or corrupt pixel data", _corrupt_jpeg),
    "no decoder": ("no decoder", _unknown_syntax),
    "empty file": ("an empty file", lambda paths: paths[2].write_bytes(b"")),
    "text for DICOM": ("no DICOM file", lambda paths: paths[1].write_text("hello" * 99)),
    "empty folder": ("no DICOM images", lambda paths: [path.unlink() for path in paths]),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named_in_one_line(name: str, make_series: MakeSeries, tmp_path: Path) -> None:
    message, damage = DAMAGES[name]
    damage(make_series(tmp_path))
    with pytest.raises(DicomError, match=message) as caught:
        load(scan(tmp_path).series[0])
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DicomError, match="no such folder"):
        scan(tmp_path / "gone")


def _damage_at_random(random: np.random.Generator, paths: list[Path]) -> None:
    """Overwrite, cut, empty or remove bytes of one file, header or pixels."""
    path = paths[int(random.integers(len(paths)))]
    content = bytearray(path.read_bytes())
    kind = int(random.integers(4))
    if kind == 0:
        path.write_bytes(content[: int(random.integers(len(content)))])
        return
    end = len(content) if kind == 1 else len(content) - 200
    for _ in range(int(random.integers(1, 30))):
        content[int(random.integers(end))] = int(random.integers(256))
    if kind == 2:
        start = int(random.integers(end))
        del content[start : start + int(random.integers(1, 40))]
    path.write_bytes(content)


@pytest.mark.parametrize("seed", range(60))
def test_random_damage_never_ends_in_anything_but_a_named_error(
    seed: int, make_series: MakeSeries, tmp_path: Path
) -> None:
    random = np.random.default_rng(seed)
    _damage_at_random(random, make_series(tmp_path / "in", slices=3, size=(8, 8)))
    derivation = Derivation(scale=2, model_name="minet-x2", model_sha256="0" * 64)
    message = ""
    try:
        read = load(only_series(scan(tmp_path / "in"), "target"))
        fine = np.kron(read.volume.values, np.ones((2, 2), np.float32))
        images = [
            derive(source, fine[index], derivation=derivation, references=[]).dataset
            for index, source in enumerate(read.datasets)
        ]
        write_series(images, tmp_path / "out")
        written = len(images)
    except MinetError as error:
        message, written = str(error), 0
    assert message.count("\n") == 0
    assert sorted(entry.name for entry in tmp_path.iterdir()) == (["in", "out"] if written else ["in"])
    assert len(list((tmp_path / "out").glob("*"))) == written


def test_an_optional_attribute_that_is_no_number_counts_as_absent(make_series: MakeSeries, tmp_path: Path) -> None:
    for path in make_series(tmp_path, ti=123.456):
        path.write_bytes(path.read_bytes().replace(b"DS\x08\x00123.456 ", b"DS\x08\x00one.two "))
    read = load(scan(tmp_path).series[0])
    header: Dataset = read.datasets[0]
    assert "InversionTime" not in header
    assert header.EchoTime == 99
