"""The sequences that tell where a derived image comes from."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from pydicom.dataset import Dataset

from minet_sdk import __version__

_LONG_STRING = 64


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """A coded entry (DICOM PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = meaning
    return item


def source_images(images: Sequence[Dataset]) -> list[Dataset]:
    """Items of SourceImageSequence: every image that went into the pixels."""
    items: list[Dataset] = []
    for image in images:
        item = _reference(image)
        item.SpatialLocationsPreserved = "NO"
        item.PurposeOfReferenceCodeSequence = [code("121322", "DCM", "Source image for image processing operation")]
        items.append(item)
    return items


def references_to(derived: Dataset, images: Sequence[Dataset]) -> None:
    """Say in which series, and in which other study if need be, the images are to be found (PS3.3 C.12.2)."""
    studies: dict[str, dict[str, list[Dataset]]] = defaultdict(lambda: defaultdict(list))
    for image in images:
        studies[str(image.StudyInstanceUID)][str(image.SeriesInstanceUID)].append(_reference(image))
    here = studies.pop(str(derived.StudyInstanceUID), {})
    derived.ReferencedSeriesSequence = _series_items(here)
    others: list[Dataset] = []
    for study, series in studies.items():
        item = Dataset()
        item.StudyInstanceUID = study
        item.ReferencedSeriesSequence = _series_items(series)
        others.append(item)
    if others:
        derived.StudiesContainingOtherReferencedInstancesSequence = others


def contribution(model_name: str, model_sha256: str, created: datetime) -> Dataset:
    """Item of ContributingEquipmentSequence for this SDK and its model (PS3.3 C.12.1)."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code("109102", "DCM", "Processing Equipment")]
    item.Manufacturer = "minet-sdk"
    item.ManufacturerModelName = "minet-sdk"
    item.SoftwareVersions = [f"minet-sdk {__version__}", model_name[:_LONG_STRING], model_sha256[:_LONG_STRING]]
    item.ContributionDateTime = created.strftime("%Y%m%d%H%M%S")
    item.ContributionDescription = "MINet AI super-resolution, research use only"
    return item


def _series_items(series: dict[str, list[Dataset]]) -> list[Dataset]:
    items: list[Dataset] = []
    for uid, instances in series.items():
        item = Dataset()
        item.SeriesInstanceUID = uid
        item.ReferencedInstanceSequence = instances
        items.append(item)
    return items


def _reference(image: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = image.SOPClassUID
    item.ReferencedSOPInstanceUID = image.SOPInstanceUID
    return item
