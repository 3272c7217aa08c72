"""Phantom MR series with every property that real ones have, written as real files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import format_number_as_ds

from minet_sdk.dicom.uids import hashed_uid

MakeSeries = Callable[..., list[Path]]

TURNED = np.linalg.qr(np.array([[1.0, 0.3, -0.2], [-0.25, 1.0, 0.15], [0.2, -0.1, 1.0]]))[0].T
"""Row direction, column direction and normal of an oblique plane."""


def phantom(position: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Smooth signal between about 100 and 1600 at points (..., 3) in mm; without any symmetry."""
    x, y, z = position[..., 0], position[..., 1], position[..., 2]
    first = 900 * np.exp(-((x - 6) ** 2 + (y + 4) ** 2 + (z - 12) ** 2) / 200)
    second = 600 * np.exp(-((x + 9) ** 2 / 60 + (y - 5) ** 2 / 120 + (z - 4) ** 2 / 150))
    return 100 + first + second + 3 * x - 2 * y + z


def write_phantom_series(
    folder: Path,
    *,
    number: int = 5,
    description: str = "t2_tse_tra",
    slices: int = 5,
    size: tuple[int, int] = (24, 32),
    spacing: tuple[float, float] = (1.5, 1.25),
    gap: float = 4.0,
    axes: npt.NDArray[np.float64] = TURNED,
    te: float = 99.0,
    tr: float = 5200.0,
    ti: float | None = None,
    sequence: str = "SE",
    options: str = "",
    photometric: str = "MONOCHROME2",
    signed: bool = False,
    bits: int = 12,
    slope: float | None = None,
    intercept: float = 0.0,
    shuffle: bool = True,
    study: str = "study",
    frame: str = "frame",
    edit: Callable[[Dataset, int], None] | None = None,
    **attributes: Any,
) -> list[Path]:
    """Write a series; file names and instance numbers are in random order if shuffled.

    Returns:
        The files in slice order, along the normal.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(number)
    names = random.permutation(slices) if shuffle else np.arange(slices)
    across, down = axes[0], axes[1]
    normal = np.cross(across, down)
    centre = np.array([2.0, -3.0, 8.0])
    paths: list[Path] = []
    for index in range(slices):
        corner = centre + normal * gap * (index - (slices - 1) / 2)
        corner = corner - across * spacing[1] * (size[1] - 1) / 2 - down * spacing[0] * (size[0] - 1) / 2
        rows, columns = np.meshgrid(np.arange(size[0]), np.arange(size[1]), indexing="ij")
        position = corner + rows[..., None] * down * spacing[0] + columns[..., None] * across * spacing[1]
        stored = np.rint((phantom(position) - intercept) / (slope or 1))
        lowest, highest = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
        if photometric == "MONOCHROME1":
            stored = lowest + highest - stored
        assert lowest <= stored.min()
        assert stored.max() <= highest
        dataset = Dataset()
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
        dataset.SOPClassUID = MRImageStorage
        dataset.SOPInstanceUID = hashed_uid(study, str(number), str(index))
        dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = "20260101"
        dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = "101112"
        dataset.AccessionNumber = "A1"
        dataset.Modality = "MR"
        dataset.Manufacturer = "Phantom"
        dataset.ManufacturerModelName = "P1"
        dataset.ReferringPhysicianName = ""
        dataset.SeriesDescription = description
        dataset.PatientName = "Phantom^Series"
        dataset.PatientID = "P1"
        dataset.PatientBirthDate = "19700101"
        dataset.PatientSex = "O"
        dataset.BodyPartExamined = "BRAIN"
        dataset.ScanningSequence = sequence
        dataset.SequenceVariant = "SP" if sequence == "GR" else "SK"
        dataset.ScanOptions = options
        dataset.MRAcquisitionType = "2D"
        dataset.SliceThickness = gap
        dataset.RepetitionTime = tr
        dataset.EchoTime = te
        if ti is not None:
            dataset.InversionTime = ti
        dataset.SpacingBetweenSlices = gap
        dataset.EchoTrainLength = 9
        dataset.MagneticFieldStrength = 3
        dataset.SoftwareVersions = "1"
        dataset.ProtocolName = description
        dataset.AcquisitionMatrix = [0, size[1], size[0], 0]
        dataset.InPlanePhaseEncodingDirection = "ROW"
        dataset.FlipAngle = 90
        dataset.PatientPosition = "HFS"
        dataset.StudyInstanceUID = hashed_uid(study)
        dataset.SeriesInstanceUID = hashed_uid(study, str(number))
        dataset.StudyID = "1"
        dataset.SeriesNumber = number
        dataset.AcquisitionNumber = 1
        dataset.InstanceNumber = int(names[index]) + 1
        dataset.ImagePositionPatient = [format_number_as_ds(float(value)) for value in corner]
        dataset.ImageOrientationPatient = [format_number_as_ds(float(value)) for value in (*across, *down)]
        dataset.FrameOfReferenceUID = hashed_uid(study, frame)
        dataset.PositionReferenceIndicator = ""
        dataset.SliceLocation = format_number_as_ds(float(corner @ normal))
        dataset.SamplesPerPixel = 1
        dataset.PhotometricInterpretation = photometric
        dataset.Rows, dataset.Columns = size
        dataset.PixelSpacing = list(spacing)
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits, bits - 1
        dataset.PixelRepresentation = int(signed)
        kind = "SS" if signed else "US"
        dataset.add(DataElement("SmallestImagePixelValue", kind, int(stored.min())))
        dataset.add(DataElement("LargestImagePixelValue", kind, int(stored.max())))
        dataset.WindowCenter, dataset.WindowWidth = 800, 1600
        if slope is not None:
            dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = slope, intercept, "US"
        dataset.LossyImageCompression = "00"
        block = dataset.private_block(0x0051, "PHANTOM HEADER", create=True)
        block.add_new(0x0B, "LO", "private")
        dataset.add(DataElement("PixelData", "OW", stored.astype("<i2" if signed else "<u2").tobytes()))
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        if edit is not None:
            edit(dataset, index)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        paths.append(folder / f"{number:02d}_{names[index]:03d}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


@pytest.fixture(scope="session")
def make_series() -> MakeSeries:
    """See `write_phantom_series`."""
    return write_phantom_series


@pytest.fixture(scope="session")
def signal() -> Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]:
    """What the phantom is at any point of the patient's space."""
    return phantom
