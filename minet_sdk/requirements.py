"""Optional packages are imported here, so that a missing one is named with its remedy."""

import importlib
from typing import Any

from minet_sdk.errors import MissingPackageError

_EXTRA_OF = {
    "onnxruntime": "cpu",
    "torch": "train",
    "lightning": "train",
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
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] != root:
            raise
        extra = _EXTRA_OF.get(root)
        remedy = f"pip install 'minet-sdk[{extra}]'" if extra else f"pip install {root}"
        raise MissingPackageError(f"{feature} needs the package {root}, which is not installed: {remedy}") from error
