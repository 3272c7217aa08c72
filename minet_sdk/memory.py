"""Bytes: what an engine takes, where only an estimate can tell, what the process took, how people write them."""

import importlib
import math
import re
import sys

from minet_sdk.bundle import Bundle
from minet_sdk.errors import InputError

ALLOWANCE = 2.5
"""Bytes that an engine takes for each byte of images alive at once: it copies, and asks the system for more than it
needs. Measured for ONNX Runtime on the bundled models, resident, 320^2 and 640^2: 1.9 to 2.1."""

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def estimated(bundle: Bundle, pixels: int) -> int | None:
    """Bytes that an engine takes to prepare and restore one slice.

    Weights, and `Manifest.bytes_per_pixel` times `ALLOWANCE` for every pixel.

    Args:
        bundle: the model.
        pixels: of the restored slice.

    Returns:
        None if the bundle does not say.
    """
    per_pixel = bundle.manifest.bytes_per_pixel
    if per_pixel is None:
        return None
    weights = 0 if bundle.bare else sum((bundle.location / name).stat().st_size for name in bundle.manifest.files)
    return weights + math.ceil(ALLOWANCE * per_pixel * pixels)


def parsed_bytes(text: str) -> int:
    """Bytes of a text such as ``2GiB``, ``800 MB`` or ``1073741824``.

    Raises:
        InputError: it is none.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?b)?\s*", text, re.IGNORECASE)
    if match is None:
        raise InputError(f"{text!r} is no amount of memory: give a number with KiB, MiB, GiB, KB, MB or GB")
    return int(float(match[1]) * _UNITS[(match[2] or "").upper()])


def as_mib(count: int) -> str:
    """Bytes for a sentence."""
    return f"{count / 2**20:.0f} MiB" if count >= 2**20 else f"{count} bytes"


def peak_memory_mib() -> float | None:
    """Highest resident memory of this process so far; None where the system does not tell (Windows)."""
    try:
        resource = importlib.import_module("resource")
    except ModuleNotFoundError:
        return None
    per_mib = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_mib
