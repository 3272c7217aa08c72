"""Reading headers that may be wrong: an attribute whose value is no value of its kind counts as absent.

What depends on an attribute then says that it is missing, instead of failing somewhere inside.
"""

import math
import re
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom import config, dcmread
from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID

IDENTIFIERS = ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"]
"""What a derived image must refer to."""

KEYWORDS = [
    *IDENTIFIERS,
    "AngioFlag",
    "BitsAllocated",
    "BitsStored",
    "Columns",
    "EchoTime",
    "FlipAngle",
    "FrameOfReferenceUID",
    "HighBit",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "ImageType",
    "InstanceNumber",
    "InversionTime",
    "Modality",
    "NumberOfFrames",
    "PhotometricInterpretation",
    "PixelRepresentation",
    "PixelSpacing",
    "RepetitionTime",
    "RescaleIntercept",
    "RescaleSlope",
    "Rows",
    "SamplesPerPixel",
    "ScanOptions",
    "ScanningSequence",
    "SequenceName",
    "SequenceVariant",
    "SeriesDescription",
    "SeriesNumber",
    "SliceThickness",
    "SpacingBetweenSlices",
    "SpecificCharacterSet",
]
"""The attributes that decisions are made from."""

_PIXELS = ["ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData"]
"""What decoding needs besides."""

_UID_LETTERS = re.compile(r"[0-9.]{1,64}")
"""Not the whole rule: identifiers with leading zeros are wrong but common."""

_TAGS = {tag_for_keyword(keyword) for keyword in KEYWORDS}


@contextmanager
def quietly() -> Generator[None]:
    """Keep pydicom's remarks about invalid values from the user: what matters is found and said otherwise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_header(path: Path) -> Dataset:
    """The attributes of `KEYWORDS` that a file has, without empty and unreadable ones.

    Raises:
        InvalidDicomError: not a DICOM file.
        Exception: whatever pydicom raises for a damaged one.
    """
    with quietly():
        header = dcmread(path, stop_before_pixels=True, specific_tags=list(KEYWORDS))
        _drop_unreadable(header)
        _drop_unreadable(header.file_meta)
    for tag in list(header.keys()):
        if header[tag].is_empty:
            del header[tag]
    return header


def read_dataset(path: Path) -> Dataset:
    """A whole file, without unreadable attributes.

    Raises:
        Exception: whatever pydicom raises for a damaged file.
    """
    with quietly():
        dataset = dcmread(path)
        _drop_unreadable(dataset)
        _drop_unreadable(dataset.file_meta)
    return dataset


def read_pixels(path: Path, header: Dataset) -> Dataset:
    """An image of which `read_header` has given the header: this and the pixels, nothing decoded again.

    Raises:
        Exception: whatever pydicom raises for a damaged file.
    """
    with quietly():
        dataset = dcmread(path, specific_tags=list(_PIXELS))
        _drop_unreadable(dataset.file_meta)
        dataset.update(header)
    return dataset


def strings(header: Dataset, keyword: str) -> list[str]:
    """The values of a text attribute; none where it is absent or empty."""
    value: Any = header.get(keyword) or []
    return [value] if isinstance(value, str) else [str(one) for one in value]


def upper_strings(header: Dataset, keyword: str) -> list[str]:
    """The same in capitals, as the standard has terms."""
    return [value.upper() for value in strings(header, keyword)]


def plain_uid(value: object) -> UID:
    """A UID without pydicom's remarks, for looking up its name."""
    return UID(str(value), validation_mode=config.IGNORE)


def _drop_unreadable(dataset: Dataset) -> None:
    """Decode every element; remove those that cannot be decoded, or that decisions rest on and have another form."""
    for tag in list(dataset.keys()):
        try:
            element: Any = dataset[tag]
            if element.VR == "SQ":
                for item in element.value:
                    _drop_unreadable(item)
            if int(tag) in _TAGS and not _has_its_form(element):
                del dataset[tag]
        except Exception:  # pydicom raises whatever a damaged byte leads to
            del dataset[tag]


def _has_its_form(element: DataElement) -> bool:
    """Whether type, number of values and, for decimals, finiteness are as the data dictionary has them."""
    if dictionary_VR(element.tag) != element.VR:
        return False
    if element.is_empty:
        return True
    if dictionary_VM(element.tag) == "1" and element.VM != 1:
        return False
    values: Any = element.value if element.VM > 1 else [element.value]
    if element.VR in ("DS", "IS", "US"):
        return all(math.isfinite(float(value)) for value in values)
    if element.VR == "UI":
        return all(_UID_LETTERS.fullmatch(value) for value in values)
    return all(isinstance(value, str) for value in values)
