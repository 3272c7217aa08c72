"""Which engines there are, as pure data, and which one a runtime takes.

The registry feeds `minet-sdk info`, the choices of the command line, ``backend="auto"`` and the tests.
"""

import importlib
import importlib.util
from dataclasses import dataclass
from importlib import metadata

from minet_sdk.backends.base import Runner, RunnerOptions
from minet_sdk.bundle import Precision
from minet_sdk.errors import BackendError, InputError

AUTO = "auto"


@dataclass(frozen=True)
class BackendSpec:
    """One engine."""

    name: str
    device: str
    extra: str
    """`pip install 'minet-sdk[extra]'` brings it."""

    package: str
    """The module that must be importable."""

    runner: str
    """Module and class of its runner; imported only when it is used."""

    precisions: tuple[Precision, ...]
    provider: str
    """The engine's own name of what executes."""


BACKENDS: tuple[BackendSpec, ...] = (
    BackendSpec(
        name="onnxruntime-cuda",
        device="cuda",
        extra="gpu",
        package="onnxruntime",
        runner="minet_sdk.backends.onnx_runtime:OnnxRuntimeRunner",
        precisions=("fp32", "fp16"),
        provider="CUDAExecutionProvider",
    ),
    BackendSpec(
        name="onnxruntime",
        device="cpu",
        extra="cpu",
        package="onnxruntime",
        runner="minet_sdk.backends.onnx_runtime:OnnxRuntimeRunner",
        precisions=("fp32", "fp16"),
        provider="CPUExecutionProvider",
    ),
)
"""In the order in which `auto` prefers them."""


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


def availability(spec: BackendSpec) -> Availability:
    """Probe one engine without creating anything on a device."""
    if importlib.util.find_spec(spec.package) is None:
        return Availability(spec, f"package {spec.package} is not installed: pip install 'minet-sdk[{spec.extra}]'")
    conflict = _conflict()
    if conflict:
        return Availability(spec, conflict)
    providers = importlib.import_module(spec.package).get_available_providers()
    if spec.provider not in providers:
        return Availability(
            spec, f"this onnxruntime has no {spec.provider} (it has {', '.join(providers)}): pip install "
            f"'minet-sdk[{spec.extra}]' in an environment of its own"
        )  # fmt: skip
    return Availability(spec, "")


def _conflict() -> str:
    """Both distributions of onnxruntime overwrite each other's files."""
    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if _is_installed(name)]
    if len(installed) < 2:
        return ""
    return "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: pip uninstall both, then one"


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def choose(name: str) -> Choice:
    """The engine for ``name``, or for ``auto`` the first that is available.

    Raises:
        InputError: no such backend.
        BackendError: it is not available, or none is.
    """
    if name == AUTO:
        passed: dict[str, str] = {}
        for spec in BACKENDS:
            found = availability(spec)
            if found.available:
                return Choice(spec, passed)
            passed[spec.name] = found.reason
        raise BackendError("no inference engine can run here: " + "; ".join(f"{k}: {v}" for k, v in passed.items()))
    for spec in BACKENDS:
        if spec.name == name:
            found = availability(spec)
            if not found.available:
                raise BackendError(f"backend {name} cannot run here: {found.reason}")
            return Choice(spec, {})
    raise InputError(f"backend is {name!r}; choose one of {', '.join((AUTO, *names()))}")


def make_runner(spec: BackendSpec, options: RunnerOptions) -> Runner:
    """A runner of the engine, not yet activated."""
    module, _, attribute = spec.runner.partition(":")
    return getattr(importlib.import_module(module), attribute)(spec.provider, options)
