"""What the NVIDIA driver says of itself, asked through ctypes in a process of its own.

No package is needed, nothing stays initialised in the caller, and a driver that hangs or crashes costs a time-out.
"""

import ctypes
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
TIMEOUT_SECONDS = 20.0

LEAST_CAPABILITY = (7, 5)
"""Turing, the oldest GPU that the kernels and current TensorRT run on."""

_NO_DEVICE = 100
_STUB_LIBRARY = 34
_COMPUTE_CAPABILITY_MAJOR = 75
_COMPUTE_CAPABILITY_MINOR = 76
"""Of the enumeration CUdevice_attribute."""


@dataclass(frozen=True)
class Gpu:
    """One device that the driver lists."""

    ordinal: int
    name: str
    compute_capability: tuple[int, int]

    def __str__(self) -> str:
        major, minor = self.compute_capability
        return f"{self.name} (compute capability {major}.{minor})"


@dataclass(frozen=True)
class Driver:
    """The answer of the driver."""

    reason: str
    """Why no GPU can be used, in one line; empty if one can."""

    version: tuple[int, int] | None = None
    """Newest CUDA version that the driver supports."""

    gpus: tuple[Gpu, ...] = ()

    @property
    def supports(self) -> str:
        """The version as text, such as ``13.0``."""
        return _dotted(self.version or (0, 0))


@cache
def probe(library: str = LIBRARY, timeout_seconds: float = TIMEOUT_SECONDS) -> Driver:
    """Ask the driver once; later calls get the same answer.

    Args:
        library: the driver's library, as the dynamic loader finds it.
        timeout_seconds: how long the driver may take.
    """
    missing = _load_problem(library)
    if missing:
        return Driver(missing)
    if not Path(sys.executable).stem.lower().startswith("python"):
        # Python inside another program: that program is not ours to start a second time.
        return _parsed(_answer(library))
    command = [sys.executable, "-I", "-S", __file__, library]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_seconds, check=False)
    except subprocess.TimeoutExpired:
        return Driver(f"the NVIDIA driver ({library}) did not answer within {timeout_seconds:g} s: check `nvidia-smi`")
    if done.returncode != 0:
        return Driver(f"the NVIDIA driver ({library}) crashed with exit code {done.returncode}: check `nvidia-smi`")
    return _parsed(json.loads(done.stdout))


def gpu_problem(driver: Driver, ordinal: int, cuda_needed: tuple[int, int] | None = None) -> str:
    """Why a GPU cannot be used for a package built for a CUDA version, in one line; empty if it can."""
    if driver.reason:
        return driver.reason
    if cuda_needed is not None and driver.version is not None and driver.version < cuda_needed:
        return (
            f"the NVIDIA driver supports CUDA {driver.supports} and {_dotted(cuda_needed)} is needed: update the driver"
        )
    if ordinal >= len(driver.gpus):
        return f"device {ordinal} is asked for and there {_count(len(driver.gpus))}"
    gpu = driver.gpus[ordinal]
    if gpu.compute_capability < LEAST_CAPABILITY:
        return f"GPU {ordinal} is {gpu}; {_dotted(LEAST_CAPABILITY)} (Turing) or newer is needed"
    return ""


def _load_problem(library: str) -> str:
    """Loading the library runs no driver code worth a process; most machines without a GPU end here."""
    try:
        ctypes.CDLL(library)
    except OSError as error:
        if "cannot open shared object file: No such file" in str(error) or "Could not find module" in str(error):
            return f"no NVIDIA driver: {library} is not found"
        return f"the NVIDIA driver cannot be loaded: {str(error).splitlines()[0]}"
    return ""


def _parsed(answer: dict[str, Any]) -> Driver:
    if answer["reason"]:
        return Driver(answer["reason"])
    gpus = tuple(Gpu(i, name, (major, minor)) for i, (name, major, minor) in enumerate(answer["gpus"]))
    return Driver("", (answer["version"] // 1000, answer["version"] % 1000 // 10), gpus)


def _answer(library: str) -> dict[str, Any]:
    """Initialise the driver here and now; plain data."""
    driver = ctypes.CDLL(library)
    status = driver.cuInit(0)
    if status == _NO_DEVICE:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
        return {"reason": f"the NVIDIA driver finds no GPU{hidden}"}
    if status == _STUB_LIBRARY:
        return {"reason": f"{library} is the CUDA toolkit's stub and no driver: take its folder off the library path"}
    if status != 0:
        return {"reason": f"the NVIDIA driver does not start: cuInit gives error {status}{_explained(driver, status)}"}
    version, count = ctypes.c_int(), ctypes.c_int()
    for call in (driver.cuDriverGetVersion(ctypes.byref(version)), driver.cuDeviceGetCount(ctypes.byref(count))):
        if call != 0:
            return {"reason": f"the NVIDIA driver fails with error {call}{_explained(driver, call)}"}
    if count.value == 0:
        return {"reason": "the NVIDIA driver finds no GPU"}
    return {"reason": "", "version": version.value, "gpus": [_gpu(driver, i) for i in range(count.value)]}


def _gpu(driver: Any, ordinal: int) -> tuple[str, int, int]:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGet(ctypes.byref(device), ordinal)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), _COMPUTE_CAPABILITY_MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), _COMPUTE_CAPABILITY_MINOR, device)
    return name.value.decode(errors="replace"), major.value, minor.value


def _explained(driver: Any, status: int) -> str:
    """The driver's own name and words for an error, if it has any."""
    texts: list[str] = []
    for function in ("cuGetErrorName", "cuGetErrorString"):
        text = ctypes.c_char_p()
        if getattr(driver, function)(status, ctypes.byref(text)) == 0 and text.value:
            texts.append(text.value.decode(errors="replace"))
    return f" ({': '.join(texts)})" if texts else ""


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _count(gpus: int) -> str:
    return "is 1 GPU" if gpus == 1 else f"are {gpus} GPUs"


if __name__ == "__main__":
    print(json.dumps(_answer(sys.argv[1])))
