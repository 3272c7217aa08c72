"""The steps as data, the most valuable first: when the time is up, what is left over matters least."""

import importlib.util
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One step; its module in `gpu_steps` has the function ``run(context)``."""

    name: str
    finds: str
    """What it finds out, for `--dry-run`."""

    limit_seconds: float
    needs: tuple[str, ...] = ()
    """Modules without which it finds out nothing."""

    one_of: tuple[str, ...] = ()
    """Modules of which one is needed; each that is there adds to what the step finds out."""

    def missing(self) -> list[str]:
        """Packages that must be installed first."""
        missing = [name for name in self.needs if not is_installed(name)]
        if self.one_of and not any(is_installed(name) for name in self.one_of):
            missing.append(" or ".join(self.one_of))
        return missing


_KERNELS = ("torch", "cuda.core")
_NETWORKS = ("torch", "onnx", "safetensors")
_EXPORT = (*_NETWORKS, "onnxscript")
_ENGINES = ("tensorrt", "tensorrt_rtx", "onnxruntime")

STEPS: tuple[Step, ...] = (
    Step("environment", "GPU, driver, clocks, packages", 40),
    Step("kernels", "every kernel of the shipped PTX against float64, bitwise repeatable", 90, _KERNELS),
    Step("bandwidth", "a copy's bandwidth, and each kernel's share of it", 50, _KERNELS),
    Step("operator", "torch.ops.minet against plain PyTorch: values, gradients, speed", 60, _KERNELS),
    Step("engines", "engines of minet-x2: every route in fp16, every precision", 200, _EXPORT, _ENGINES),
    Step("parity", "every engine and precision against the fp32 network", 60, (*_NETWORKS, "pydicom"), _ENGINES),
    Step("latency", "engines against each other: routes, CUDA graphs, prefetch", 120, _NETWORKS, _ENGINES),
    Step("networks", "both networks in PyTorch: eager, channels_last, compiled, with the kernels", 130, _NETWORKS),
    Step("device_tests", "the tests that are marked gpu", 120, ("torch", "pytest")),
)


def step_named(name: str) -> Step:
    """The step of that name."""
    return {step.name: step for step in STEPS}[name]


def is_installed(module: str) -> bool:
    """Whether a module can be found, without importing more than its parents."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
