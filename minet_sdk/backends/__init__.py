"""Which engines there are, as pure data, and which one a runtime takes.

The registry feeds `minet-sdk info`, the choices of the command line, ``backend="auto"`` and the tests.
"""

import importlib
from dataclasses import dataclass
from typing import Any

from minet_sdk.backends.base import Runner, RunnerOptions
from minet_sdk.bundle import NATIVE_PLAN, Precision
from minet_sdk.errors import BackendError, InputError

AUTO = "auto"


@dataclass(frozen=True)
class BackendSpec:
    """One engine."""

    name: str
    device: str
    extra: str
    """`pip install 'minet-sdk[extra]'` brings it; empty if it comes with the SDK."""

    package: str
    """The module that must be importable; empty if it comes with the SDK."""

    probe: str
    """Module and function that says why the engine cannot run here: (spec, options, precision) -> one line or empty."""

    runner: str
    """Module and class of its runner; imported only when it is used."""

    precisions: tuple[Precision, ...]
    provider: str
    """The engine's own name of what executes."""

    opens_bare: bool = False
    """Whether it runs a lone .onnx file, without the prefetch graphs and hashes of a bundle."""

    file: str = ""
    """The file of a bundle that it runs instead of the ONNX graphs, which not every bundle has."""


_EVERY_PRECISION: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8", "fp8")

BACKENDS: tuple[BackendSpec, ...] = (
    BackendSpec(
        name="tensorrt",
        device="cuda",
        extra="tensorrt",
        package="tensorrt",
        probe="minet_sdk.backends.probes:tensorrt",
        runner="minet_sdk.backends.tensorrt:TensorRtRunner",
        precisions=_EVERY_PRECISION,
        provider="tensorrt",
    ),
    BackendSpec(
        name="tensorrt-rtx",
        device="cuda",
        extra="tensorrt-rtx",
        package="tensorrt_rtx",
        probe="minet_sdk.backends.probes:tensorrt",
        runner="minet_sdk.backends.tensorrt:TensorRtRunner",
        precisions=_EVERY_PRECISION,
        provider="tensorrt_rtx",
    ),
    BackendSpec(
        name="onnxruntime-tensorrt",
        device="cuda",
        extra="gpu",
        package="onnxruntime",
        probe="minet_sdk.backends.probes:onnxruntime",
        runner="minet_sdk.backends.onnx_runtime:OnnxRuntimeRunner",
        precisions=("fp32", "fp16"),
        provider="TensorrtExecutionProvider",
        opens_bare=True,
    ),
    BackendSpec(
        name="onnxruntime-cuda",
        device="cuda",
        extra="gpu",
        package="onnxruntime",
        probe="minet_sdk.backends.probes:onnxruntime",
        runner="minet_sdk.backends.onnx_runtime:OnnxRuntimeRunner",
        precisions=("fp32", "fp16"),
        provider="CUDAExecutionProvider",
        opens_bare=True,
    ),
    BackendSpec(
        name="native",
        device="cpu",
        extra="",
        package="",
        probe="minet_sdk.backends.probes:native",
        runner="minet_sdk.backends.native:NativeRunner",
        precisions=("fp32",),
        provider="native",
        file=NATIVE_PLAN,
    ),
    BackendSpec(
        name="openvino",
        device="cpu",
        extra="openvino",
        package="openvino",
        probe="minet_sdk.backends.probes:openvino",
        runner="minet_sdk.backends.openvino:OpenVinoRunner",
        precisions=("fp32", "fp16", "bf16", "int8"),
        provider="CPU",
    ),
    BackendSpec(
        name="onnxruntime",
        device="cpu",
        extra="cpu",
        package="onnxruntime",
        probe="minet_sdk.backends.probes:onnxruntime",
        runner="minet_sdk.backends.onnx_runtime:OnnxRuntimeRunner",
        precisions=("fp32", "fp16", "int8", "fp8"),
        provider="CPUExecutionProvider",
        opens_bare=True,
    ),
)
"""In the order in which `auto` prefers them."""


@dataclass(frozen=True)
class Need:
    """What a model asks of an engine."""

    precision: Precision | None = None
    """None if it is not known before the engine has read the model."""

    bare: bool = False
    """A lone .onnx file."""

    files: frozenset[str] | None = None
    """What the bundle holds; None for the engine by itself."""


@dataclass(frozen=True)
class Availability:
    """Whether an engine can run here."""

    spec: BackendSpec
    reason: str
    """Why not; empty if it can."""

    @property
    def available(self) -> bool:
        """Whether a runtime can be made with it."""
        return not self.reason


@dataclass(frozen=True)
class Choice:
    """The engine that a runtime uses, and those it passed over."""

    spec: BackendSpec
    passed_over: dict[str, str]
    """Reason by backend name."""


def names() -> tuple[str, ...]:
    """All backend names, preferred first."""
    return tuple(spec.name for spec in BACKENDS)


def availability(spec: BackendSpec, need: Need | None = None, options: RunnerOptions | None = None) -> Availability:
    """Probe one engine without creating anything on a device.

    Args:
        spec: the engine.
        need: what the model asks for; None for the engine by itself.
        options: of the runner; they say which device is meant.
    """
    need = need or Need()
    if need.bare and not spec.opens_bare:
        return Availability(spec, "opens bundles only, not a lone .onnx file")
    if need.precision is not None and need.precision not in spec.precisions:
        return Availability(spec, f"runs {', '.join(spec.precisions)}, not {need.precision}")
    if need.files is not None and spec.file and spec.file not in need.files:
        return Availability(spec, f"the model has no {spec.file}: export it again")
    return Availability(spec, _attribute(spec.probe)(spec, options or RunnerOptions(), need.precision))


def choose(name: str, need: Need | None = None, options: RunnerOptions | None = None) -> Choice:
    """The engine for ``name``, or for ``auto`` the first that can run the model here.

    Raises:
        InputError: no such backend.
        BackendError: it cannot, or none can.
    """
    if name == AUTO:
        passed: dict[str, str] = {}
        for spec in BACKENDS:
            found = availability(spec, need, options)
            if found.available:
                return Choice(spec, passed)
            passed[spec.name] = found.reason
        raise BackendError("no inference engine can run here: " + "; ".join(f"{k}: {v}" for k, v in passed.items()))
    for spec in BACKENDS:
        if spec.name == name:
            found = availability(spec, need, options)
            if not found.available:
                raise BackendError(f"backend {name} cannot run here: {found.reason}")
            return Choice(spec, {})
    raise InputError(f"backend is {name!r}; choose one of {', '.join((AUTO, *names()))}")


def make_runner(spec: BackendSpec, options: RunnerOptions) -> Runner:
    """A runner of the engine, not yet activated."""
    return _attribute(spec.runner)(spec.provider, spec.precisions, options)


def _attribute(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
