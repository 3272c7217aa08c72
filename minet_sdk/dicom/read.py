"""One series as a volume: pixels in slice order, on a grid, with the headers that the derived series is made from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from minet_sdk.dicom.geometry import ordered_grid
from minet_sdk.dicom.header import IDENTIFIERS, Reader, quietly
from minet_sdk.dicom.pixels import decode
from minet_sdk.dicom.scan import Scan, Series, scan
from minet_sdk.errors import DicomError
from minet_sdk.volume import Volume

__all__ = ["DicomSlice", "DicomVolume", "Scan", "Series", "load", "read_slices", "scan"]


@dataclass(frozen=True, eq=False)
class DicomVolume:
    """A series that is ready to be processed."""

    volume: Volume
    """float32 (slices, rows, columns), rescaled, MONOCHROME2 sense; slices in order of position along the normal."""

    datasets: list[Dataset]
    """One header per slice, in slice order, without pixel data."""

    series: Series


@dataclass(frozen=True, eq=False)
class DicomSlice:
    """One image of a series."""

    values: npt.NDArray[np.float32]
    """(rows, columns), rescaled, MONOCHROME2 sense."""

    dataset: Dataset
    """Its header, without pixel data."""


def load(series: Series, *, whole_headers: bool = True) -> DicomVolume:
    """Read and check the images of a series.

    Args:
        series: as `scan` found it.
        whole_headers: see `read_slices`.

    Raises:
        DicomError: the series is no even stack of classic grey MR images, or a file is damaged; the message says which
            and what to do.
    """
    grid, order = ordered_grid(series)
    values = np.empty(grid.shape, dtype=np.float32)
    datasets: list[Dataset] = []
    for position, one in enumerate(read_slices(series, order, whole_headers=whole_headers)):
        values[position] = one.values
        datasets.append(one.dataset)
    return DicomVolume(Volume(values, grid), datasets, series)


def read_slices(series: Series, order: Sequence[int], *, whole_headers: bool = True) -> Iterator[DicomSlice]:
    """Read and check the images of a series one after the other.

    Args:
        series: a stack of slices.
        order: which of its files holds each slice, as `ordered_grid` gives it.
        whole_headers: with every attribute, which a derived image needs of its source; or with those that the scan
            has read already, which is all that it needs of a reference.

    Raises:
        DicomError: see `load`; when the iteration comes to the file.
    """
    images: dict[str, Path] = {}
    reader = Reader()
    for index in order:
        path = series.paths[index]
        try:
            dataset = reader.dataset(path) if whole_headers else reader.pixels(path, series.headers[index])
        except Exception as error:  # pydicom raises whatever a damaged byte leads to
            raise DicomError(f"{path}: damaged or truncated DICOM file; restore it") from error
        missing = [keyword for keyword in IDENTIFIERS if not dataset.get(keyword)]
        if missing:
            raise DicomError(f"{path}: no {missing[0]}, so that nothing could refer to this image; repair the header")
        if dataset.SOPInstanceUID in images:
            raise DicomError(f"{path}: same SOPInstanceUID as {images[dataset.SOPInstanceUID].name}; remove the copy")
        images[dataset.SOPInstanceUID] = path
        with quietly():
            values = decode(dataset, str(path))
        del dataset.PixelData
        yield DicomSlice(values, dataset)
