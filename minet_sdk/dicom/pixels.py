"""Stored pixels to image values and back.

Values are rescaled (slope, intercept) and in the sense of MONOCHROME2, brighter is more signal: MONOCHROME1 images are
inverted within their stored range on the way in, and inverted again on the way out.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array as decode_pixels

from minet_sdk.dicom.header import plain_uid
from minet_sdk.errors import DicomError, InputError

Values = npt.NDArray[np.float32]

_NEEDED = ("BitsAllocated", "BitsStored", "PixelRepresentation", "PhotometricInterpretation", "SamplesPerPixel")


def decode(dataset: Dataset, name: str) -> Values:
    """Image values of one classic single-frame image.

    Args:
        dataset: with file meta information and PixelData, in any transfer syntax that pydicom has a decoder for.
        name: what messages call it.

    Returns:
        float32 (rows, columns), rescaled, MONOCHROME2 sense.

    Raises:
        DicomError: missing attributes, no decoder, truncated or corrupt pixel data.
    """
    missing = [keyword for keyword in (*_NEEDED, "PixelData") if dataset.get(keyword) is None]
    if missing:
        raise DicomError(f"{name}: no {missing[0]}: truncated, or not an image of grey values; restore the file")
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated or int(dataset.PixelRepresentation) not in (0, 1):
        raise DicomError(
            f"{name}: {stored} of {allocated} bits, PixelRepresentation {dataset.PixelRepresentation}:"
            " expected up to 8, 16 or 32 bits, unsigned (0) or signed (1)"
        )
    if not stored - 1 <= _high_bit(dataset) < allocated:
        raise DicomError(f"{name}: HighBit is {dataset.HighBit} of {stored} stored bits; expected {stored - 1}")
    slope, intercept = rescale(dataset)
    pixels = _in_range(_decoded(dataset, name), dataset)
    if pixels.shape != (int(dataset.Rows), int(dataset.Columns)):
        raise DicomError(f"{name}: pixel data decodes to {pixels.shape}, the header says otherwise; restore the file")
    return (_sense(pixels, dataset) * slope + intercept).astype(np.float32)


def encode(values: Values, dataset: Dataset) -> tuple[npt.NDArray[np.signedinteger | np.unsignedinteger], int]:
    """Stored pixels of image values: the inverse of `decode`, rounded, clipped to the stored range.

    Args:
        values: float32 (rows, columns), rescaled, MONOCHROME2 sense.
        dataset: whose bit depth, sign, rescale and sense to use.

    Returns:
        Little-endian integers (rows, columns), and how many pixels were clipped.

    Raises:
        InputError: values are not finite.
    """
    if not np.isfinite(values).all():
        raise InputError("restored image holds NaN or infinite values; it cannot be stored")
    slope, intercept = rescale(dataset)
    lowest, highest = stored_range(dataset)
    exact = np.rint(_sense((values.astype(np.float64) - intercept) / slope, dataset))
    clipped = int(np.count_nonzero((exact < lowest) | (exact > highest)))
    kind = "i" if dataset.PixelRepresentation else "u"
    return np.clip(exact, lowest, highest).astype(f"<{kind}{dataset.BitsAllocated // 8}"), clipped


def stored_range(dataset: Dataset) -> tuple[int, int]:
    """Smallest and largest value that the stored bits hold."""
    stored = int(dataset.BitsStored)
    if int(dataset.PixelRepresentation):
        return -(1 << (stored - 1)), (1 << (stored - 1)) - 1
    return 0, (1 << stored) - 1


def rescale(dataset: Dataset) -> tuple[float, float]:
    """RescaleSlope and RescaleIntercept, 1 and 0 if absent.

    Raises:
        DicomError: the slope is 0 or one of them is not finite.
    """
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    numbers = 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)
    if numbers[0] == 0 or not np.isfinite(numbers).all():
        raise DicomError(f"RescaleSlope {slope} and RescaleIntercept {intercept} cannot be undone; repair the header")
    return numbers


def _sense(pixels: npt.NDArray[np.float64], dataset: Dataset) -> npt.NDArray[np.float64]:
    """Turn stored values between the sense of the file and that of MONOCHROME2; its own inverse."""
    if dataset.PhotometricInterpretation != "MONOCHROME1":
        return pixels
    return sum(stored_range(dataset)) - pixels


def _decoded(dataset: Dataset, name: str) -> npt.NDArray[Any]:
    """Pixels as pydicom's decoders deliver them."""
    syntax = plain_uid(dataset.file_meta.get("TransferSyntaxUID", ""))
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise DicomError(f"{name}: no decoder for the transfer syntax {syntax.name or 'unknown'}") from error
    if not decoder.is_available:
        raise DicomError(
            f"{name}: no decoder installed for the transfer syntax {syntax.name}: pip install 'minet-sdk[dicom]'"
        )
    try:
        return decode_pixels(dataset, raw=True)
    except Exception as error:  # each decoder has its own errors for damaged data
        raise DicomError(f"{name}: truncated or corrupt pixel data ({syntax.name}); restore the file") from error


def _in_range(pixels: npt.NDArray[Any], dataset: Dataset) -> npt.NDArray[np.float64]:
    """Stored bits only, with their sign: other bits may hold overlays or nothing."""
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    wide = pixels.astype(np.int64)
    wide = (wide & ((1 << allocated) - 1)) >> (_high_bit(dataset) + 1 - stored) & ((1 << stored) - 1)
    if int(dataset.PixelRepresentation):
        wide -= (wide >> (stored - 1)) << stored
    return wide.astype(np.float64)


def _high_bit(dataset: Dataset) -> int:
    """Position of the highest stored bit; decoders of compressed pixels put it where it belongs."""
    high = dataset.get("HighBit")
    if high is None or dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return int(dataset.BitsStored) - 1
    return int(high)
