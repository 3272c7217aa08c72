"""Serialised TensorRT or TensorRT-RTX engines from ONNX graphs: strongly typed, and no failure without its cause.

Works with the module `tensorrt` (10.16 to 11) or `tensorrt_rtx` that it is given. The builders report by log and by
returning nothing; here the first cause in the log becomes an error, and a plan that cannot work is refused.
"""

import re
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minet_sdk.atomic import replacing
from minet_sdk.backends.tensorrt_log import Messages, logger_of
from minet_sdk.bundle import Bundle, Graph
from minet_sdk.engines import AMPERE_PLUS, ANY_GPU, Engine, EngineKey, Integration
from minet_sdk.errors import BackendError, InputError, first_line
from minet_sdk.gpus import Capability, Gpu, format_capability
from minet_sdk.profiles import Profile, Size, format_size

_MOST_ELEMENTS = 2**31 - 1
"""Of one tensor. Beyond that kernels run out of 32-bit offsets and GPUs out of memory."""

_MOST_REMARKS = 20
_AXIS = re.compile(r"(?:(\d+)\*)?([NHW])")
_ACTIVATIONS = re.compile(r"Total Activation Memory: (\d+) bytes")


@dataclass(frozen=True)
class Tensor:
    """An input or output of an engine."""

    name: str
    mode: str
    """``input`` or ``output``."""

    dtype: str
    shape: tuple[int, ...]
    """-1 where it depends on the size of the target."""


@dataclass(frozen=True)
class BuiltPlan:
    """A serialised engine, and what the builder said of it."""

    data: bytes
    engine: Engine
    engine_version: str
    profiles: tuple[Profile, ...]
    """In the engine's order."""

    capabilities: tuple[Capability, ...]
    """That it was built for; empty for the builder's default."""

    settings: tuple[str, ...]
    """See `EngineKey.settings`."""

    tensors: tuple[Tensor, ...]
    activation_bytes: int | None
    """Device memory of one execution context at the largest size, without weights; None if the log does not tell."""

    seconds: float
    remarks: tuple[str, ...]
    """The builder's warnings, and what else is worth knowing."""

    def details(self) -> dict[str, Any]:
        """Plain data for the .json of the plan."""
        return {
            "tensors": [{**vars(tensor), "shape": list(tensor.shape)} for tensor in self.tensors],
            "activation_bytes": self.activation_bytes,
            "build_seconds": round(self.seconds, 3),
            "remarks": list(self.remarks),
        }

    def key(self, bundle: Bundle, graph: Graph, integration: Integration, gpu: Gpu | None = None) -> EngineKey:
        """The key to store it under.

        Args:
            bundle: that the graph belongs to.
            graph: of the bundle.
            integration: how the plan computes it.
            gpu: that it was built on; needed for TensorRT, unused for TensorRT-RTX.
        """
        if self.engine == "tensorrt-rtx":
            place, driver = ", ".join(format_capability(c) for c in self.capabilities) or ANY_GPU, ANY_GPU
        elif gpu is None:
            raise InputError("a TensorRT plan belongs to a GPU: say which one it was built on")
        else:
            place, driver = AMPERE_PLUS if "hardware-compatible" in self.settings else gpu.label, gpu.driver
        return EngineKey(
            engine=self.engine,
            engine_version=self.engine_version,
            graph=graph,
            bundle_sha256=bundle.sha256,
            precision=bundle.manifest.precision,
            profiles=self.profiles,
            gpu=place,
            driver=driver,
            integration=integration,
            settings=self.settings,
        )


def engine_of(trt: Any) -> Engine:
    """Which of the two engines a module is."""
    return "tensorrt-rtx" if trt.__name__.startswith("tensorrt_rtx") else "tensorrt"


def engine_from_onnx(
    trt: Any,
    onnx: Path | bytes,
    profiles: Sequence[Profile],
    *,
    weights_beside: Path | None = None,
    compute_capabilities: Sequence[Capability] | None = None,
    tf32: bool = False,
    version_compatible: bool = False,
    hardware_compatible: bool = False,
    timing_cache: Path | None = None,
) -> BuiltPlan:
    """Build one graph of a bundle.

    Args:
        trt: the module `tensorrt` or `tensorrt_rtx`.
        onnx: path of the graph, or its bytes. A graph with nodes that are plugins needs them registered in ``trt``.
        profiles: sizes of the low-resolution target; those of the inputs follow from the names of their axes.
        weights_beside: with bytes whose weights lie in a file of their own: a path in the folder of that file.
        compute_capabilities: to build for; TensorRT-RTX only. None is the builder's default: 8.0 and newer.
        tf32: let float32 convolutions and products round their inputs to 10 bits. Otherwise float32 is float32.
        version_compatible: let newer versions of TensorRT load the plan; TensorRT only, may be slower.
        hardware_compatible: let all GPUs from Ampere on load the plan; TensorRT only, may be slower.
        timing_cache: file of measured kernel times; read if it exists, written after the build; TensorRT only. With
            the same cache the builder chooses the same kernels again.

    Returns:
        The plan; it has not run yet, so compare it with the golden vector before use.

    Raises:
        InputError: an option of the other engine.
        BackendError: the builder cannot start, refuses the graph or a profile, or fails; the message has its cause.
    """
    capabilities = tuple(sorted(set(compute_capabilities or ())))
    _check_options(engine_of(trt), capabilities, version_compatible, hardware_compatible)
    settings = _Settings(capabilities, tf32, version_compatible, hardware_compatible, timing_cache)
    try:
        return _build(trt, onnx, tuple(profiles), weights_beside, settings)
    except BackendError as error:
        _let_go(error)
        raise


@dataclass(frozen=True)
class _Settings:
    """Of the builder; see `engine_from_onnx`."""

    capabilities: tuple[Capability, ...]
    tf32: bool
    version_compatible: bool
    hardware_compatible: bool
    timing_cache: Path | None

    @property
    def names(self) -> tuple[str, ...]:
        """Those that belong into the key."""
        on = {
            "tf32": self.tf32,
            "version-compatible": self.version_compatible,
            "hardware-compatible": self.hardware_compatible,
        }
        return tuple(name for name in on if on[name])


def _build(
    trt: Any, onnx: Path | bytes, profiles: tuple[Profile, ...], weights_beside: Path | None, settings: _Settings
) -> BuiltPlan:
    start = time.perf_counter()
    log = logger_of(trt)
    title = f"{engine_of(trt)} {trt.__version__}"
    subject = str(onnx) if isinstance(onnx, Path) else "the graph"
    with log.collect() as preparation:
        builder = _or_error(lambda: trt.Builder(log), preparation, f"{title} cannot make a builder here")
        network = _network(trt, builder, title)
        parser = _or_error(lambda: trt.OnnxParser(network, log), preparation, f"{title} cannot make a parser here")
        _parse(parser, preparation, onnx, weights_beside, f"{title} refuses {subject}")
        config = builder.create_builder_config()
        _configure(trt, config, settings, title)
        _add_profiles(builder, network, config, profiles, preparation, subject)
        timings = settings.timing_cache if engine_of(trt) == "tensorrt" else None
        if timings is not None:
            _read_timings(config, timings)
    with log.collect() as messages:
        serialised = builder.build_serialized_network(network, config)
    if serialised is None:
        raise BackendError(f"{title} cannot build {subject}: {messages.cause()}")
    contradictions = [text for text in messages.warnings if "not self-consistent" in text]
    if contradictions:
        raise BackendError(f"{title} cannot run {subject} in these profiles: {contradictions[0]}")
    remarks = list(dict.fromkeys(preparation.warnings + messages.warnings))[:_MOST_REMARKS]
    if timings is not None:
        remarks += _write_timings(config, timings)
    return BuiltPlan(
        data=bytes(memoryview(serialised)),
        engine=engine_of(trt),
        engine_version=trt.__version__,
        profiles=profiles,
        capabilities=settings.capabilities,
        settings=settings.names,
        tensors=_tensors(network),
        activation_bytes=_activation_bytes(messages),
        seconds=time.perf_counter() - start,
        remarks=tuple(remarks),
    )


def _let_go(error: BaseException) -> None:
    """Free the builder that the error's traceback holds: it is large, and must not end in a garbage collection."""
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__


def _check_options(
    engine: Engine, capabilities: tuple[Capability, ...], version_compatible: bool, hardware_compatible: bool
) -> None:
    if engine == "tensorrt" and capabilities:
        raise InputError(
            "compute capabilities are chosen for tensorrt-rtx only: tensorrt builds for the GPU it runs on"
        )
    if engine == "tensorrt-rtx" and (version_compatible or hardware_compatible):
        raise InputError(
            "version_compatible and hardware_compatible are options of tensorrt: a plan of tensorrt-rtx loads on many "
            "GPUs anyway, and only in the version that built it"
        )


def _or_error(make: Callable[[], Any], messages: Messages, subject: str) -> Any:
    """What a constructor of the bindings makes; they raise TypeError if the library gives nothing."""
    try:
        return make()
    except (RuntimeError, TypeError) as error:
        reason = messages.cause() if messages.errors else first_line(error)
        raise BackendError(f"{subject}: {reason}") from error


def _network(trt: Any, builder: Any, title: str) -> Any:
    """An empty network, strongly typed: TensorRT 10 must be told so, later ones know nothing else."""
    flag = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    network = builder.create_network(1 << int(flag))
    if not network.get_flag(flag):
        raise BackendError(f"{title} makes no strongly typed networks: install tensorrt 10.16 or newer")
    return network


def _parse(parser: Any, messages: Messages, onnx: Path | bytes, weights_beside: Path | None, subject: str) -> None:
    if isinstance(onnx, Path):
        parsed = parser.parse_from_file(str(onnx))
    elif weights_beside is None:
        parsed = parser.parse(onnx)
    else:
        parsed = parser.parse(onnx, str(weights_beside))
    if parsed:
        return
    found = [parser.get_error(index) for index in range(parser.num_errors)]
    faults = [f"node {e.node_name()} ({e.node_operator()}): {e.desc()}" for e in found if e.node_name()]
    faults = faults or [error.desc() for error in found] or [messages.cause()]
    first = " ".join(faults[0].split())
    raise BackendError(f"{subject}: {first}" + (f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""))


def _configure(trt: Any, config: Any, settings: _Settings, title: str) -> None:
    flags = trt.BuilderFlag
    # A value that is not finite must reach the image, where the runtime sees it.
    config.set_flag(flags.STRICT_NANS)
    (config.set_flag if settings.tf32 else config.clear_flag)(flags.TF32)
    if settings.version_compatible:
        config.set_flag(flags.VERSION_COMPATIBLE)
    if settings.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if settings.capabilities:
        _set_capabilities(trt, config, settings.capabilities, title)


def _set_capabilities(trt: Any, config: Any, capabilities: tuple[Capability, ...], title: str) -> None:
    members = trt.ComputeCapability.__members__
    config.num_compute_capabilities = len(capabilities)
    for index, (major, minor) in enumerate(capabilities):
        name = f"SM{major}{minor}"
        if name not in members or not config.set_compute_capability(members[name], index):
            known = ", ".join(f"{n[2:-1]}.{n[-1]}" for n in members if n.startswith("SM"))
            raise BackendError(
                f"{title} does not build for compute capability {format_capability((major, minor))}: choose of {known}"
            )


def _add_profiles(
    builder: Any, network: Any, config: Any, profiles: Sequence[Profile], messages: Messages, subject: str
) -> None:
    """One optimisation profile for each of ``profiles``, unless all inputs have one shape only."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    dynamic = [tensor for tensor in inputs if -1 in tuple(tensor.shape)]
    if not dynamic:
        return
    if not profiles:
        raise BackendError(f"{subject} takes targets of any size: say with a profile which ones to build for")
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    for profile in profiles:
        _check_volumes(profile, [*inputs, *outputs], dynamic, subject)
        added = builder.create_optimization_profile()
        for tensor in dynamic:
            low, best, high = (
                _shape(tensor, size, subject) for size in (profile.minimum, profile.optimum, profile.maximum)
            )
            added.set_shape(tensor.name, low, best, high)
        if config.add_optimization_profile(added) < 0:
            raise BackendError(f"{subject} cannot have the profile {profile}: {messages.cause()}")


def _shape(tensor: Any, size: Size, subject: str) -> tuple[int, ...]:
    """Shape of an input for a target of N, H, W: export names each axis N, H, W, or a multiple such as 2*H."""
    lengths = dict(zip("NHW", size, strict=True))
    shape = list(tensor.shape)
    if shape[0] not in (-1, size[0]):
        raise BackendError(f"{subject} takes {shape[0]} slice at once, the profile asks for {size[0]}: give HxW sizes")
    for axis, length in enumerate(shape):
        if length != -1:
            continue
        name = tensor.get_dimension_name(axis)
        match = _AXIS.fullmatch(name or "")
        if match is None:
            raise BackendError(
                f"{subject}: axis {axis} of {tensor.name} is named {name!r}, expected N, H, W or a multiple of one: "
                "only graphs that `minet-sdk export` wrote can be built"
            )
        shape[axis] = int(match[1] or 1) * lengths[match[2]]
    return tuple(shape)


def _check_volumes(profile: Profile, tensors: list[Any], dynamic: list[Any], subject: str) -> None:
    """Refuse a maximum that no GPU holds before the builder reserves memory for it."""
    pixels = 1
    for tensor in dynamic:
        shape = _shape(tensor, profile.maximum, subject)
        pixels = max(pixels, shape[0] * shape[-2] * shape[-1])
    for tensor in tensors:
        features = 1
        for length in tuple(tensor.shape):
            features *= max(1, length)
        if features * pixels > _MOST_ELEMENTS:
            raise BackendError(
                f"{subject}: with targets of {format_size(profile.maximum)} the tensor {tensor.name} has "
                f"{features * pixels} elements, at most {_MOST_ELEMENTS} are possible: give a smaller maximum"
            )


def _tensors(network: Any) -> tuple[Tensor, ...]:
    inputs = [("input", network.get_input(index)) for index in range(network.num_inputs)]
    outputs = [("output", network.get_output(index)) for index in range(network.num_outputs)]
    return tuple(
        Tensor(t.name, mode, "float32" if t.dtype.name == "FLOAT" else t.dtype.name.lower(), tuple(t.shape))
        for mode, t in [*inputs, *outputs]
    )


def _activation_bytes(messages: Messages) -> int | None:
    found = [match for text in messages.remarks if (match := _ACTIVATIONS.search(text))]
    return int(found[-1][1]) if found else None


def _read_timings(config: Any, path: Path) -> None:
    """Use a timing cache; one that is unreadable, damaged or of another GPU is replaced after the build."""
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    if not config.set_timing_cache(config.create_timing_cache(data), False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _write_timings(config: Any, path: Path) -> list[str]:
    """Keep what was measured; why not, if that fails: a plan is worth more than the time to build the next."""
    data = bytes(memoryview(config.get_timing_cache().serialize()))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        return [f"the timing cache {path} cannot be written: {error}"]
    return []
