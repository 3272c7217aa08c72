"""From headers to one grid: slices are ordered by where they lie, never by their number.

Positions and orientations are those of the Image Plane module (DICOM PS3.3 C.7.6.2), mm in patient coordinates.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from minet_sdk.dicom.header import upper_strings
from minet_sdk.dicom.scan import Series
from minet_sdk.errors import DicomError
from minet_sdk.volume import Grid

Vectors = npt.NDArray[np.float64]

SPACING_TOLERANCE = 0.02
"""Largest difference of a slice distance from the usual one, as a part of it."""

DIRECTION_TOLERANCE = 2e-3
"""Largest difference of a direction cosine, about a tenth of a degree."""

DRIFT_TOLERANCE_MM = 0.2
"""How far a slice may lie beside the line through the stack."""

SAME_POSITION_MM = 0.01


def ordered_grid(series: Series) -> tuple[Grid, list[int]]:
    """The grid of a series, and which of its files holds each slice.

    Slices run along the normal, the cross product of row and column direction.

    Raises:
        DicomError: missing or differing geometry, a mosaic or multi-frame, a duplicate, missing or displaced slice.
    """
    refuse_unsupported(series)
    headers = series.headers
    across, down, spacing = _plane(series)
    normal = np.cross(across, down)
    corners = np.stack([_numbers(series, header, "ImagePositionPatient", 3) for header in headers])
    height = corners @ normal
    order = np.argsort(height, kind="stable")
    _refuse_repeated(series, [headers[i] for i in order], height[order])
    gap = _slice_distance(series, height[order])
    if len(headers) > 1:
        sideways = corners - corners[order[0]] - np.outer(height - height[order[0]], normal)
        drift = float(np.linalg.norm(sideways, axis=1).max())
        if drift > DRIFT_TOLERANCE_MM:
            raise DicomError(f"{series.label}: slices are displaced sideways by up to {drift:.1f} mm, expected a stack")
    steps = np.stack([normal * gap, down * spacing[0], across * spacing[1]])
    shape = (len(headers), int(series.header.Rows), int(series.header.Columns))
    return Grid(shape, corners[order[0]], steps), [int(i) for i in order]


def unsupported(series: Series) -> str | None:
    """Why a series is no stack of classic single-frame grey MR images; None if it is one."""
    header = series.header
    if series.modality != "MR":
        return f"modality is {series.modality or 'missing'}, expected MR"
    if any("NumberOfFrames" in one and int(one.NumberOfFrames or 1) > 1 for one in series.headers) or (
        "Enhanced MR" in getattr(header.get("SOPClassUID", ""), "name", "")
    ):
        return "enhanced multi-frame MR; convert it to classic single-frame MR first (dcuncat, emf2sf)"
    if any("MOSAIC" in upper_strings(one, "ImageType") for one in series.headers):
        return "a mosaic (many slices tiled in one image); export it unmosaicked or convert it to classic MR first"
    for one in series.headers:
        colour = str(one.get("PhotometricInterpretation", "MONOCHROME2"))
        if int(one.get("SamplesPerPixel") or 1) != 1 or not colour.startswith("MONOCHROME"):
            return f"colour images ({colour}), expected grey MONOCHROME1 or MONOCHROME2"
    return None


def refuse_unsupported(series: Series) -> None:
    """Raise what `unsupported` finds.

    Raises:
        DicomError: the series is no stack of classic single-frame grey MR images.
    """
    reason = unsupported(series)
    if reason is not None:
        raise DicomError(f"{series.label}: {reason}")


def _plane(series: Series) -> tuple[Vectors, Vectors, Vectors]:
    """Direction along rows, direction along columns, and (row, column) spacing, which all images share."""
    first: dict[str, Vectors] = {}
    for header in series.headers:
        found = {
            "orientation (ImageOrientationPatient)": _numbers(series, header, "ImageOrientationPatient", 6),
            "PixelSpacing": _numbers(series, header, "PixelSpacing", 2),
            "size (Rows, Columns)": np.array([float(header.Rows), float(header.Columns)]),
        }
        first = first or found
        for name, value in found.items():
            tolerance = DIRECTION_TOLERANCE if name.startswith("orientation") else 1e-4 * first[name].max()
            if np.abs(value - first[name]).max() > tolerance:
                raise DicomError(
                    f"{series.label}: images differ in {name}: {first[name].tolist()} and {value.tolist()};"
                    " expected one stack of equal slices"
                )
    cosines, spacing, _ = first.values()
    across, down = cosines[:3], cosines[3:]
    lengths = np.linalg.norm(across), np.linalg.norm(down)
    if abs(across @ down) > DIRECTION_TOLERANCE or max(abs(length - 1) for length in lengths) > DIRECTION_TOLERANCE:
        raise DicomError(f"{series.label}: ImageOrientationPatient {cosines.tolist()} is not two perpendicular units")
    if spacing.min() <= 0:
        raise DicomError(f"{series.label}: PixelSpacing is {spacing.tolist()}, expected two sizes above 0 mm")
    across = across / lengths[0]
    down = down - (down @ across) * across
    return across, down / np.linalg.norm(down), spacing


def _numbers(series: Series, header: Dataset, keyword: str, count: int) -> Vectors:
    value: Any = header.get(keyword)
    try:
        numbers = np.array([float(one) for one in value], dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise DicomError(f"{series.label}: {keyword} is missing or unusable; without geometry no grid can be derived")
    return numbers


def _refuse_repeated(series: Series, headers: Sequence[Dataset], height: Vectors) -> None:
    """Headers and heights in slice order: no two images may show the same place."""
    places: dict[int, list[Dataset]] = defaultdict(list)
    place = 0
    for i, header in enumerate(headers):
        place += i > 0 and height[i] - height[i - 1] > SAME_POSITION_MM
        places[place].append(header)
    most = max(len(images) for images in places.values())
    if most == 1:
        return
    echoes = sorted({float(header.get("EchoTime") or 0) for header in headers})
    if len(echoes) > 1:
        raise DicomError(
            f"{series.label}: several echoes in one series (TE {echoes} ms); split them into one series each"
        )
    if all(len(images) == most for images in places.values()) and len(places) > 1:
        raise DicomError(
            f"{series.label}: {most} images at every slice position (dynamic, diffusion or real and imaginary parts);"
            " split them into one series each"
        )
    twice = next(images for images in places.values() if len(images) > 1)
    where = ", ".join(str(header.get("InstanceNumber", "?")) for header in twice)
    raise DicomError(f"{series.label}: duplicate slice position, instances {where}; remove the copies")


def _slice_distance(series: Series, height: Vectors) -> float:
    """Distance of neighbouring slices, mm; of a single slice, how thick it is."""
    if len(height) == 1:
        for keyword in ("SpacingBetweenSlices", "SliceThickness"):
            value = float(series.header.get(keyword) or 0)
            if value > 0:
                return value
        raise DicomError(f"{series.label}: a single slice without SliceThickness; without it its extent is unknown")
    gaps = np.diff(height)
    usual = float(np.median(gaps))
    worst = int(np.argmax(np.abs(gaps - usual)))
    if abs(gaps[worst] - usual) > SPACING_TOLERANCE * usual:
        whole = round(float(gaps[worst]) / usual)
        if whole > 1 and abs(gaps[worst] - whole * usual) <= SPACING_TOLERANCE * usual * whole:
            raise DicomError(
                f"{series.label}: {whole - 1} missing after slice {worst + 1} of {len(height)} (a step of"
                f" {gaps[worst]:.2f} mm where others are {usual:.2f} mm); send the series again"
            )
        raise DicomError(
            f"{series.label}: uneven slice spacing, {gaps.min():.2f} to {gaps.max():.2f} mm; expected equal steps"
        )
    return float((height[-1] - height[0]) / (len(height) - 1))
