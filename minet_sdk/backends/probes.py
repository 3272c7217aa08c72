"""Why an engine cannot run here, in one line each: package, conflict, driver, device; cheapest question first."""

import functools
import importlib
import importlib.util
from importlib import metadata
from typing import Any

from minet_sdk.backends import BackendSpec
from minet_sdk.backends.base import RunnerOptions
from minet_sdk.bundle import Precision
from minet_sdk.cuda.driver import Driver, gpu_problem, probe
from minet_sdk.errors import first_line
from minet_sdk.gpus import lacks_precision

_LAYER_MODULES = {"cuda-core": "cuda.core", "pycuda": "pycuda"}
_CPU_PROVIDER = "CPUExecutionProvider"
_CUDA_MAJORS = (12, 13, 14)

_RELU = (
    b'\x08\x08:3\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x11"
)
"""An ONNX model of one node, y = Relu(x), one float32 each."""

_SILENT = 4
"""Of ONNX Runtime's log: what fails is told by this SDK, in one line."""


def onnxruntime(spec: BackendSpec, options: RunnerOptions, precision: Precision | None) -> str:
    """Why ONNX Runtime cannot run with the provider of the spec; empty if it can."""
    if not _exists(spec.package):
        return _missing(spec.package, spec)
    # Both distributions overwrite each other's files.
    if _is_installed("onnxruntime") and _is_installed("onnxruntime-gpu"):
        return (
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: pip uninstall both, then "
            f"pip install 'minet-sdk[{spec.extra}]'"
        )
    providers = importlib.import_module(spec.package).get_available_providers()
    if spec.provider not in providers:
        return (
            f"this onnxruntime has no {spec.provider} (it has {', '.join(providers)}): pip install "
            f"'minet-sdk[{spec.extra}]' in an environment of its own"
        )
    if spec.provider == _CPU_PROVIDER:
        return ""
    return device_problem(probe(), options, precision) or lacks_libraries(spec.package, spec.provider)


@functools.cache
def lacks_libraries(package: str, provider: str) -> str:
    """Why a provider that ONNX Runtime lists does not start; empty if it does.

    It lists what it was built with. Whether cuDNN or TensorRT are there too shows only when a session asks for them:
    one that finds them missing runs somewhere else.
    """
    ort: Any = importlib.import_module(package)
    options = ort.SessionOptions()
    options.log_severity_level = _SILENT
    try:
        started = ort.InferenceSession(_RELU, options, providers=[provider]).get_providers()
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        return f"{provider} does not start: {first_line(error)}"
    if provider in started:
        return ""
    libraries = "TensorRT's libraries" if "Tensorrt" in provider else "CUDA's libraries or cuDNN"
    return f"this onnxruntime has {provider}, but {libraries} of the version it was built for are not found"


def openvino(spec: BackendSpec, options: RunnerOptions, precision: Precision | None) -> str:
    """Why OpenVINO cannot run; empty if it can."""
    if not _exists(spec.package):
        return _missing(spec.package, spec)
    try:
        return importlib.import_module("minet_sdk.backends.openvino").lacking(precision)
    except (ImportError, OSError, RuntimeError) as error:
        return f"package {spec.package} does not load: {first_line(error)}"


def tensorrt(spec: BackendSpec, options: RunnerOptions, precision: Precision | None) -> str:
    """Why TensorRT or TensorRT-RTX cannot run; empty if it can."""
    layer = _LAYER_MODULES.get(options.device_layer, "")
    for module in (spec.package, layer):
        if module and not _exists(module):
            return _missing(module, spec)
    problem = device_problem(probe(), options, precision, cuda_needed(spec.package))
    if problem:
        return problem
    try:
        importlib.import_module(spec.package)
    except (ImportError, OSError, RuntimeError) as error:
        return f"package {spec.package} does not load: {first_line(error)}"
    return ""


def native(spec: BackendSpec, options: RunnerOptions, precision: Precision | None) -> str:
    """Why the SDK's own CPU engine cannot run; empty if it can."""
    return importlib.import_module("minet_sdk.backends.native").probe()


def device_problem(
    driver: Driver, options: RunnerOptions, precision: Precision | None, cuda: tuple[int, int] | None = None
) -> str:
    """Why the device of the options cannot run a precision; empty if it can."""
    problem = gpu_problem(driver, options.device, cuda)
    if problem or precision is None:
        return problem
    gpu = driver.gpus[options.device]
    lacking = lacks_precision(precision, [gpu.compute_capability])
    return f"{lacking} ({gpu.name})" if lacking else ""


def cuda_needed(package: str) -> tuple[int, int] | None:
    """The CUDA version that an installed package was built for, as its distribution's name says; None if unsaid."""
    root = package.replace("_", "-")
    majors = [major for major in _CUDA_MAJORS if _is_installed(f"{root}-cu{major}")]
    return (max(majors), 0) if majors else None


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _missing(module: str, spec: BackendSpec) -> str:
    extra = "pycuda" if module == "pycuda" else spec.extra
    return f"package {module} is not installed: pip install 'minet-sdk[{extra}]'"
