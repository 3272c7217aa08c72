"""Reading headers that may be wrong: an attribute whose value is no value of its kind counts as absent.

What depends on an attribute then says that it is missing, instead of failing somewhere inside.

Most attributes are the same in every image of a series: `Reader` decodes and judges each distinct one once.
"""

import math
import re
import warnings
from collections.abc import Generator, Hashable
from contextlib import contextmanager
from enum import Enum, auto
from pathlib import Path
from typing import Any

from pydicom import config, dcmread
from pydicom.datadict import dictionary_has_tag, dictionary_VM, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag
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

_UID_LETTERS = re.compile(r"[0-9.]{1,64}")
"""Not the whole rule: identifiers with leading zeros are wrong but common."""

_TAGS: list[BaseTag | int] = [Tag(keyword) for keyword in KEYWORDS]
_DECIDING = frozenset(_TAGS)

_PIXEL_TAGS: list[BaseTag | int] = [
    Tag(keyword) for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData")
]
"""What decoding needs besides."""

_PLAIN = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UI", "US"})
"""Value representations whose elements stand for themselves: no sequence, no bulk data, nothing ambiguous."""

_LONGEST_SHARED = 1024
"""Bytes of an element that images may share; longer ones, such as pixels, are hardly ever the same."""


@contextmanager
def quietly() -> Generator[None]:
    """Keep pydicom's remarks about invalid values from the user: what matters is found and said otherwise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Verdict(Enum):
    """What an element is."""

    READABLE = auto()
    EMPTY = auto()

    UNREADABLE = auto()
    """It cannot be decoded, or decisions rest on it and it has another form."""


class Reader:
    """Reads the images of a folder or a series."""

    def __init__(self) -> None:
        self._judged: dict[Hashable, tuple[Verdict, DataElement | None]] = {}

    def header(self, path: Path) -> Dataset:
        """The attributes of `KEYWORDS` that a file has, without empty and unreadable ones.

        They are decoded, and not to be modified: images share those that are equal.

        Raises:
            InvalidDicomError: not a DICOM file.
            Exception: whatever pydicom raises for a damaged one.
        """
        with quietly():
            header = dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
            self._decode_all(header, Verdict.READABLE)
            self._decode_all(header.file_meta, Verdict.READABLE, Verdict.EMPTY)
        return header

    def dataset(self, path: Path) -> Dataset:
        """A whole file, without unreadable attributes.

        What is left encoded is decoded where it is used, with pydicom's remarks unless this is done `quietly`; what
        nothing asks for is written as it was read.

        Raises:
            Exception: whatever pydicom raises for a damaged file.
        """
        with quietly():
            dataset = dcmread(path)
            self._drop_unreadable(dataset)
            self._drop_unreadable(dataset.file_meta)
        return dataset

    def pixels(self, path: Path, header: Dataset) -> Dataset:
        """An image of which `header` has given the header: this and the pixels, nothing judged again.

        Raises:
            Exception: whatever pydicom raises for a damaged file.
        """
        with quietly():
            dataset = dcmread(path, specific_tags=_PIXEL_TAGS)
            self._drop_unreadable(dataset.file_meta)
            dataset.update(header)
        return dataset

    def _decode_all(self, dataset: Dataset, *kept: Verdict) -> None:
        for tag in list(dataset.keys()):
            verdict, element = self._judge(dataset, tag)
            if verdict not in kept:
                del dataset[tag]
            elif element is not None:
                dataset[tag] = element

    def _drop_unreadable(self, dataset: Dataset) -> None:
        for tag in list(dataset.keys()):
            if self._judge(dataset, tag)[0] is Verdict.UNREADABLE:
                del dataset[tag]

    def _judge(self, dataset: Dataset, tag: BaseTag) -> tuple[Verdict, DataElement | None]:
        """What an element is, and the element if it was met before; else it is decoded where it is."""
        key = _identity(dataset, tag)
        known = None if key is None else self._judged.get(key)
        if known is not None:
            return known
        verdict = self._decode(dataset, tag)
        if key is not None:
            self._judged[key] = verdict, dataset[tag] if verdict is Verdict.READABLE else None
        return verdict, None

    def _decode(self, dataset: Dataset, tag: BaseTag) -> Verdict:
        """Decode an element; in a sequence, remove what its items have of unreadable ones."""
        try:
            element: Any = dataset[tag]
            if element.VR == "SQ":
                for item in element.value:
                    self._drop_unreadable(item)
            if tag in _DECIDING and not _has_its_form(element):
                return Verdict.UNREADABLE
            return Verdict.EMPTY if element.is_empty else Verdict.READABLE
        except Exception:  # pydicom raises whatever a damaged byte leads to
            return Verdict.UNREADABLE


def still_encoded(dataset: Dataset, tag: BaseTag) -> RawDataElement | None:
    """An element as it stands in the file, if nothing has decoded it yet and it stands for itself.

    None for a sequence, for bulk data, and for what has no value representation that could be relied on.
    """
    raw = dataset.get_item(tag)
    if not isinstance(raw, RawDataElement) or raw.value is None:
        return None
    representation = raw.VR
    if representation is None and not tag.is_private and dictionary_has_tag(tag):
        representation = dictionary_VR(tag)
    return raw if representation in _PLAIN else None


def _identity(dataset: Dataset, tag: BaseTag) -> Hashable | None:
    """What decoding and judging an element depends on; None if on more than the element, or if this is long."""
    raw = still_encoded(dataset, tag)
    if raw is None or len(raw.value or b"") > _LONGEST_SHARED:
        return None
    encoding = dataset.original_character_set
    return tag, raw.VR, raw.value, raw.is_little_endian, encoding if isinstance(encoding, str) else tuple(encoding)


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
