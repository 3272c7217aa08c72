"""The derived image: what a PACS needs to show it beside its source, and never to take it for a measured one.

Attributes follow DICOM PS3.3: General Image C.7.6.1, Image Plane C.7.6.2, Common Instance Reference C.12.2, MR C.8.3.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import numpy.typing as npt
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, JPEGExtended12Bit
from pydicom.valuerep import format_number_as_ds

from minet_sdk.dicom.header import quietly, still_encoded, strings
from minet_sdk.dicom.pixels import encode
from minet_sdk.dicom.references import code, contribution, references_to, source_images
from minet_sdk.dicom.uids import hashed_uid
from minet_sdk.errors import InputError

SERIES_NUMBER_STEP = 1000
"""Added to the source's SeriesNumber."""

_LARGEST_SERIES_NUMBER = 2**31 - 1
_SHORT_TEXT = 1024
_LONG_STRING = 64

_DROPPED = {
    "ColorSpace",
    "DataSetTrailingPadding",
    "DerivationCodeSequence",
    "DerivationDescription",
    "DigitalSignaturesSequence",
    "EncryptedAttributesSequence",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "ICCProfile",
    "IconImageSequence",
    "InstanceCreatorUID",
    "LargestImagePixelValue",
    "LargestPixelValueInSeries",
    "MACParametersSequence",
    "NumberOfFrames",
    "OriginalAttributesSequence",
    "PixelAspectRatio",
    "PixelData",
    "PixelDataProviderURL",
    "PixelPaddingRangeLimit",
    "PixelPaddingValue",
    "PlanarConfiguration",
    "ReferencedPerformedProcedureStepSequence",
    "ReferencedSeriesSequence",
    "SmallestImagePixelValue",
    "SmallestPixelValueInSeries",
    "SOPInstanceStatus",
    "SourceImageSequence",
    "StudiesContainingOtherReferencedInstancesSequence",
}
"""True of the source's pixels, file or storage only; what is written anew is set afterwards."""

_DROPPED_TAGS = frozenset(Tag(keyword) for keyword in _DROPPED)

_WRITTEN = ExplicitVRLittleEndian.is_implicit_VR, ExplicitVRLittleEndian.is_little_endian
"""How images are encoded: whether without VR, and whether little-endian."""

_CURVES, _OVERLAYS = range(0x5000, 0x5100), range(0x6000, 0x6100)


@dataclass(frozen=True)
class Derivation:
    """How a series was made from its source; one for all of its images."""

    scale: int
    """Magnification of rows and columns."""

    model_name: str

    model_sha256: str
    """SHA-256 of the model bundle, 64 hexadecimal digits."""

    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    """Everything else that changes pixels, for example consistency and backend."""

    target_contrast: str = ""
    """Contrast that was restored, for example T2; empty if not known."""

    reference_contrast: str = ""
    """Contrast that guided it; empty if there was none or it is not known."""

    inline: bool = False
    """True if made in the scanner from the acquisition (PRIMARY), False if from an archive (SECONDARY)."""

    created: datetime = field(default_factory=datetime.now)
    """Date and time of series, content and instance creation."""

    def fingerprint(self) -> str:
        """What was done, as one string: model, scale, roles and settings, but not when."""
        settings = [f"{name}={self.settings[name]}" for name in sorted(self.settings)]
        roles = [self.target_contrast, self.reference_contrast, str(self.inline)]
        return "\x1e".join([self.model_sha256, str(self.scale), *roles, *settings])

    def series_uid(self, source: str, references: Sequence[str] = ()) -> str:
        """SeriesInstanceUID of the result, from those of its source and references."""
        return hashed_uid("series", source, *sorted(set(references)), self.fingerprint())


@dataclass(frozen=True, eq=False)
class Derived:
    """Result of `derive`."""

    dataset: Dataset
    """A classic MR image with file meta information, uncompressed, Explicit VR Little Endian."""

    clipped: int
    """How many restored values lay beyond what the source's stored bits hold, and were clipped."""


def derive(
    source: Dataset,
    restored: npt.NDArray[np.float32],
    *,
    derivation: Derivation,
    references: Sequence[Dataset],
    note: str = "",
) -> Derived:
    """Make the derived image of one source image.

    Identifiers are hashes of source, reference series, model and settings, so that a result that is sent again replaces
    the earlier one. The source's intensity scale, rescale, window and sense (MONOCHROME1 or 2) are kept; values beyond
    its stored bits are clipped and counted.

    Args:
        source: header of a classic MR image, as `load` gives it; not modified.
        restored: float32 (scale * Rows, scale * Columns), rescaled units, MONOCHROME2 sense.
        derivation: how it was made; the same for the whole series.
        references: headers of the images that guided it, empty if none did. They say which series guided it, and so
            must come from the same series for every image of the result.
        note: what a reader of the image must know, for example that a slice fell back to interpolation.

    Raises:
        InputError: ``restored`` has another shape, or holds NaN or infinite values.
        DicomError: the source's rescale cannot be undone.
    """
    expected = int(source.Rows) * derivation.scale, int(source.Columns) * derivation.scale
    if restored.shape != expected:
        raise InputError(f"restored image is {restored.shape}, expected (rows, columns) = {expected}")
    with quietly():
        derived = _kept(source)
        _set_identity(derived, source, derivation, references)
        _set_plane(derived, source, derivation.scale)
        clipped = _set_pixels(derived, source, restored)
        _set_provenance(derived, source, derivation, references, note)
        derived.file_meta = _file_meta(derived)
    return Derived(derived, clipped)


def _file_meta(derived: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = derived.SOPClassUID
    meta.MediaStorageSOPInstanceUID = derived.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta


def _kept(source: Dataset) -> Dataset:
    """A copy of what stays true of the derived image: patient, study, equipment, acquisition, window.

    What is still encoded as it was read stays so if that is how it will be written.
    """
    kept = Dataset()
    stays = source.original_encoding == _WRITTEN
    if stays:
        kept.set_original_encoding(*_WRITTEN, source.original_character_set)
    for tag in list(source.keys()):
        if tag.is_private or tag.group in _CURVES or tag.group in _OVERLAYS or tag in _DROPPED_TAGS:
            continue
        raw = still_encoded(source, tag) if stays else None
        if raw is not None and raw.length % 2 == 0:  # odd lengths are wrong; encoded anew they are even
            kept[tag] = raw
            continue
        element = source[tag]
        value = deepcopy(element.value) if element.VR == "SQ" or element.VM > 1 else element.value
        kept.add(DataElement(tag, element.VR, value, already_converted=True))
        if element.VR == "SQ":
            for item in value:
                item.remove_private_tags()
    return kept


def _set_identity(derived: Dataset, source: Dataset, derivation: Derivation, references: Sequence[Dataset]) -> None:
    """Identifiers, number, names and times of a new image in a new series of the same study."""
    series = sorted({str(reference.SeriesInstanceUID) for reference in references})
    derived.SOPInstanceUID = hashed_uid("image", str(source.SOPInstanceUID), *series, derivation.fingerprint())
    derived.SeriesInstanceUID = derivation.series_uid(str(source.SeriesInstanceUID), series)
    number = int(source.get("SeriesNumber") or 0) + SERIES_NUMBER_STEP
    derived.SeriesNumber = min(number, _LARGEST_SERIES_NUMBER)
    suffix = f" MINet SR x{derivation.scale}"
    name = str(source.get("SeriesDescription") or source.get("ProtocolName") or "")
    derived.SeriesDescription = (name[: _LONG_STRING - len(suffix)] + suffix).strip()
    date, time = derivation.created.strftime("%Y%m%d"), derivation.created.strftime("%H%M%S")
    derived.InstanceCreationDate = derived.SeriesDate = derived.ContentDate = date
    derived.InstanceCreationTime = derived.SeriesTime = derived.ContentTime = time
    kind = strings(source, "ImageType")[2:] or ["OTHER"]
    derived.ImageType = ["DERIVED", "PRIMARY" if derivation.inline else "SECONDARY", *kind]


def _set_plane(derived: Dataset, source: Dataset, scale: int) -> None:
    """Smaller pixels over the same field of view: the first pixel's centre moves towards the corner."""
    spacing = np.array([float(one) for one in source.PixelSpacing])
    cosines = np.array([float(one) for one in source.ImageOrientationPatient])
    along_rows, along_columns = cosines[:3], cosines[3:]
    shift = (spacing / scale - spacing) / 2
    corner = np.array([float(one) for one in source.ImagePositionPatient])
    corner += along_rows * shift[1] + along_columns * shift[0]
    derived.PixelSpacing = [format_number_as_ds(one) for one in (spacing / scale).tolist()]
    derived.ImagePositionPatient = [format_number_as_ds(one) for one in corner.tolist()]
    derived.Rows, derived.Columns = int(source.Rows) * scale, int(source.Columns) * scale


def _set_pixels(derived: Dataset, source: Dataset, restored: npt.NDArray[np.float32]) -> int:
    """Pixels in the source's bit depth, with their true range; returns how many were clipped."""
    pixels, clipped = encode(restored, source)
    content = pixels.tobytes()
    derived.HighBit = int(source.BitsStored) - 1
    derived.add(DataElement("PixelData", "OB" if pixels.itemsize == 1 else "OW", content + b"\0" * (len(content) % 2)))
    if pixels.itemsize <= 2:  # the two attributes have 16 bits
        # pydicom cannot write them without being told which of "US or SS" they are
        kind = "SS" if int(source.PixelRepresentation) else "US"
        derived.add(DataElement("SmallestImagePixelValue", kind, int(pixels.min())))
        derived.add(DataElement("LargestImagePixelValue", kind, int(pixels.max())))
    return clipped


def _set_provenance(
    derived: Dataset, source: Dataset, derivation: Derivation, references: Sequence[Dataset], note: str
) -> None:
    """What was done, by what, from which images, and that it is for research only."""
    guided = f" guided by {derivation.reference_contrast or 'a reference contrast'}" if references else ""
    contrast = f" of {derivation.target_contrast}" if derivation.target_contrast else ""
    text = [
        f"MINet AI super-resolution x{derivation.scale}{contrast}{guided}",
        f"model {derivation.model_name} sha256:{derivation.model_sha256[:16]}",
        "research use only, not a medical device",
        *[f"{name} {value}" for name, value in sorted(derivation.settings.items())],
    ]
    # what a reader must know comes first: the field is cut at its end
    note = _ascii(note)
    derived.DerivationDescription = _ascii("; ".join([note, *text] if note else text))[:_SHORT_TEXT]
    derived.DerivationCodeSequence = [code("113085", "DCM", "Spatial resampling")]
    derived.SourceImageSequence = source_images([source, *references])
    references_to(derived, [source, *references])
    equipment = contribution(derivation.model_name, derivation.model_sha256, derivation.created)
    derived.ContributingEquipmentSequence = [*(derived.get("ContributingEquipmentSequence") or []), equipment]
    derived.ContentQualification = "RESEARCH"
    derived.BurnedInAnnotation = derived.get("BurnedInAnnotation") or "NO"
    if _was_lossy(source):
        derived.LossyImageCompression = "01"
    warning = "AI super-resolution, research use only, not a medical device"
    comments = [str(derived.get("ImageComments") or ""), note, warning]
    derived.ImageComments = "; ".join(comment for comment in comments if comment)


def _was_lossy(source: Dataset) -> bool:
    """Whether the source says so, or its transfer syntax does: once lossy, always lossy (PS3.3 C.7.6.1.1.5)."""
    syntax = source.file_meta.get("TransferSyntaxUID") if hasattr(source, "file_meta") else None
    return source.get("LossyImageCompression") == "01" or syntax in (JPEGBaseline8Bit, JPEGExtended12Bit)


def _ascii(text: str) -> str:
    """Text that is valid in any character set that the source declares."""
    return text.encode("ascii", "replace").decode("ascii")
