"""Find out which series a folder holds, from headers alone.

What is no image is set aside with its reason; what claims to be DICOM and cannot be read stops the scan.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from minet_sdk.dicom.header import Reader, plain_uid
from minet_sdk.errors import DicomError

_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")


@dataclass(frozen=True, eq=False)
class Series:
    """The images of one series, as found: not yet sorted, not yet checked."""

    uid: str
    """SeriesInstanceUID."""

    paths: tuple[Path, ...]
    """One file per image."""

    headers: tuple[Dataset, ...]
    """One header per file, with the attributes of `header.KEYWORDS` that it has."""

    @property
    def header(self) -> Dataset:
        """The first file's header."""
        return self.headers[0]

    @property
    def number(self) -> int | None:
        """SeriesNumber, None if absent."""
        value = self.header.get("SeriesNumber")
        return None if value is None else int(value)

    @property
    def description(self) -> str:
        """SeriesDescription in printable characters, empty if absent."""
        text = str(self.header.get("SeriesDescription") or "")
        return "".join(letter if letter.isprintable() else "?" for letter in text)

    @property
    def modality(self) -> str:
        """Modality, empty if absent."""
        return str(self.header.get("Modality") or "")

    @property
    def label(self) -> str:
        """How messages name the series: its number, description and size."""
        number = "without number" if self.number is None else str(self.number)
        return f"series {number} '{self.description}' ({len(self.paths)} files)"


@dataclass(frozen=True, eq=False)
class Scan:
    """What a folder holds."""

    folder: Path

    series: tuple[Series, ...]
    """Every series with at least one image, of any modality, by SeriesNumber."""

    skipped: tuple[tuple[Path, str], ...]
    """Files that hold no image, each with the reason."""


def scan(folder: Path) -> Scan:
    """Read the headers of every DICOM file in a folder and the folders below it.

    Raises:
        DicomError: no such folder, no DICOM image in it, or a damaged DICOM file.
    """
    if not folder.is_dir():
        raise DicomError(f"{folder}: no such folder; expected a folder of DICOM files")
    found: dict[str, list[tuple[Path, Dataset]]] = defaultdict(list)
    skipped: list[tuple[Path, str]] = []
    reader = Reader()
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        outcome = _header(reader, path)
        if isinstance(outcome, str):
            skipped.append((path, outcome))
        else:
            found[str(outcome.get("SeriesInstanceUID", ""))].append((path, outcome))
    if not found:
        seen = (
            f"{len(skipped)} other files, such as {skipped[0][0].name}: {skipped[0][1]}" if skipped else "it is empty"
        )
        raise DicomError(f"{folder}: no DICOM images in this folder ({seen})")
    series = [
        Series(uid, tuple(path for path, _ in files), tuple(header for _, header in files))
        for uid, files in found.items()
    ]
    series.sort(key=lambda one: (one.number is None, one.number or 0, one.uid))
    return Scan(folder, tuple(series), tuple(skipped))


def _header(reader: Reader, path: Path) -> Dataset | str:
    """The header of an image file, or why the file is passed over."""
    try:
        header = reader.header(path)
    except InvalidDicomError as error:
        if path.name.startswith(".") or path.suffix.lower() not in ("", *_DICOM_SUFFIXES):
            return "not a DICOM file"
        if path.suffix or path.stat().st_size == 0:
            what = "an empty file" if path.stat().st_size == 0 else "no DICOM file in spite of its name"
            raise DicomError(f"{path}: {what}; restore it or remove it from the folder") from error
        return "not a DICOM file"
    except OSError as error:
        raise DicomError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # pydicom raises whatever a damaged byte leads to
        raise DicomError(f"{path}: damaged DICOM header; restore the file or remove it from the folder") from error
    storage = plain_uid(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID", ""))
    if "Rows" in header and "Columns" in header:
        return header
    if not storage or storage.name in ("MR Image Storage", "Enhanced MR Image Storage"):
        raise DicomError(f"{path}: an MR image without Rows and Columns: damaged or truncated header; restore the file")
    return f"no image ({storage.name})"
