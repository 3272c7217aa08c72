"""Classic MR series in and out: reading, pairing two contrasts, and the derived series that a PACS accepts."""

from minet_sdk.dicom.contrast import Contrast, contrast_of
from minet_sdk.dicom.derive import Derivation, Derived, derive
from minet_sdk.dicom.pair import Pair, find_pair, only_series, space_conflict
from minet_sdk.dicom.read import DicomVolume, load
from minet_sdk.dicom.scan import Scan, Series, scan
from minet_sdk.dicom.write import write_series

__all__ = [
    "Contrast",
    "Derivation",
    "Derived",
    "DicomVolume",
    "Pair",
    "Scan",
    "Series",
    "contrast_of",
    "derive",
    "find_pair",
    "load",
    "only_series",
    "scan",
    "space_conflict",
    "write_series",
]
