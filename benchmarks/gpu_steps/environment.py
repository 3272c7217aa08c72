"""Step: which GPU, driver, clocks and packages the figures belong to."""

import platform
import subprocess
from importlib import metadata

from gpu_steps.results import Context
from minet_sdk.cuda.driver import probe

PACKAGES = (
    "minet-sdk",
    "numpy",
    "torch",
    "triton",
    "cuda-core",
    "cuda-bindings",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-cu13",
    "tensorrt-cu12",
    "tensorrt-rtx-cu13",
    "pycuda",
    "pydicom",
)
QUERY = (
    "name",
    "driver_version",
    "memory.total",
    "pstate",
    "power.limit",
    "temperature.gpu",
    "clocks.sm",
    "clocks.mem",
    "clocks.max.sm",
    "clocks.max.mem",
    "ecc.mode.current",
    "utilization.gpu",
)


def run(context: Context) -> None:
    """Ask the driver, nvidia-smi and the package index of this Python; PyTorch too, if it is there."""
    driver = probe()
    context.record("driver", {"problem": driver.reason, "cuda": driver.version, "gpus": [str(g) for g in driver.gpus]})
    context.record("machine", {"system": platform.platform(), "processor": platform.machine()})
    context.record("packages", {name: version for name in PACKAGES if (version := _version(name))})
    with context.attempt("nvidia-smi"):
        _ask_nvidia_smi(context)
    if context.device == "cuda":
        with context.attempt("torch"):
            _ask_torch(context)


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _ask_nvidia_smi(context: Context) -> None:
    command = ["nvidia-smi", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
    except FileNotFoundError:
        context.skip("nvidia-smi is not installed: no clocks")
        return
    if done.returncode:
        context.skip(f"nvidia-smi gives no clocks: {(done.stdout + done.stderr).strip()[:200]}")
        return
    first = [value.strip() for value in done.stdout.splitlines()[0].split(",")]
    context.record("nvidia_smi", dict(zip(QUERY, first, strict=False)))


def _ask_torch(context: Context) -> None:
    import torch

    found = torch.cuda.get_device_properties(0)
    context.record(
        "gpu",
        {
            "name": found.name,
            "compute_capability": [found.major, found.minor],
            "memory_gib": round(found.total_memory / 2**30, 1),
            "multiprocessors": found.multi_processor_count,
            "l2_mib": round(found.L2_cache_size / 2**20, 1),
            "cuda_of_torch": torch.version.cuda,
            "cudnn_of_torch": torch.backends.cudnn.version(),
        },
    )
