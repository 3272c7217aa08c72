"""Optional packages are imported here, so that a missing one is named with its remedy, and none reports its use."""

import importlib
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from minet_sdk.errors import MissingPackageError

_EXTRA_OF = {
    "onnxruntime": "cpu",
    "openvino": "openvino",
    "torch": "train",
    "lightning": "train",
    "h5py": "train",
    "yaml": "train",
    "onnx": "export",
    "onnxscript": "export",
    "nibabel": "nifti",
    "SimpleITK": "dicom",
    "matplotlib": "demo",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt-rtx",
    "cuda": "tensorrt",
    "pycuda": "pycuda",
}

_REPORTS_THROUGH = {"openvino": "openvino_telemetry"}
"""Packages that tell their maker over the network that they were imported, unless this other one is missing."""

_lock = threading.Lock()


def require(module: str, feature: str) -> Any:
    """Import an optional module.

    Args:
        module: name of the module, for example ``onnxruntime`` or ``onnx.helper``.
        feature: what the user was trying to do; it starts the error message.

    Raises:
        MissingPackageError: the module is not installed; the message names the extra that brings it.
    """
    root = module.split(".")[0]
    try:
        with _unreported(root):
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] != root:
            raise
        extra = _EXTRA_OF.get(root)
        remedy = f"pip install 'minet-sdk[{extra}]'" if extra else f"pip install {root}"
        raise MissingPackageError(f"{feature} needs the package {root}, which is not installed: {remedy}") from error


@contextmanager
def _unreported(root: str) -> Generator[None]:
    """Hide the package that a first import would report through: patients' images are near, and nobody was asked."""
    reporter = _REPORTS_THROUGH.get(root)
    if reporter is None or root in sys.modules:
        yield
        return
    with _lock:
        loaded = {reporter: sys.modules[reporter]} if reporter in sys.modules else {}
        sys.modules[reporter] = None  # pyright: ignore[reportArgumentType] # Python's mark of what must not be found
        try:
            yield
        finally:
            del sys.modules[reporter]
            sys.modules.update(loaded)
