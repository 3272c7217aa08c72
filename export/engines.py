"""Bundle in, TensorRT and TensorRT-RTX plans beside it: what can be built here is built, the rest says why not."""

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import onnx

from minet_sdk.backends.tensorrt_builder import BuiltPlan, engine_from_onnx
from minet_sdk.backends.tensorrt_plans import golden_size, integration_of
from minet_sdk.bundle import Bundle, Graph, Precision
from minet_sdk.cuda.driver import gpu_problem, probe
from minet_sdk.engines import ANY_GPU, Engine, Integration, Plan, bundle_folder, cache_folder, load, store
from minet_sdk.errors import BackendError, ExportError, MinetError, first_line
from minet_sdk.gpus import Capability, Gpu, format_capability, lacks_precision
from minet_sdk.profiles import Profile, covering, profile_set

Route = Literal["mix", "fold", "inlined"]
"""How TensorRT computes the integration: with this SDK's kernels, that mix the features or fold the weights of the next
convolution, or from the node's ONNX body. TensorRT-RTX takes no plugins and always inlines the body."""

FeatureInputs = Literal["stacked", "separate"]
"""What the kernels read: see `minet_sdk.export.plugin_graph`."""

Status = Literal["built", "skipped", "failed"]

ENGINES: tuple[Engine, ...] = get_args(Engine)

_MODULES: dict[Engine, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_WITH_KERNELS: dict[Route, Integration] = {"mix": "plugin-mix", "fold": "plugin-fold"}
_GPU_ORDINAL = 0
"""CUDA's default device, which the builder takes too."""


@dataclass(frozen=True)
class Outcome:
    """What became of one plan, or of all plans of an engine that cannot be built here."""

    engine: Engine
    graph: Graph | None
    """None if the whole engine was skipped."""

    status: Status
    reason: str = ""
    """Why it was skipped or failed; empty if built."""

    plan: Plan | None = None


def obstacle(engine: Engine, precision: Precision, compute_capabilities: Sequence[Capability] | None = None) -> str:
    """Why no plan of an engine can be built here, in one line; empty if nothing speaks against it.

    Args:
        engine: to build for.
        precision: of the bundle.
        compute_capabilities: that TensorRT-RTX shall build for; None for its default.
    """
    name = _MODULES[engine]
    if importlib.util.find_spec(name) is None:
        return f"package {name} is not installed: pip install 'minet-sdk[{engine}]'"
    try:
        importlib.import_module(name)
    except (ImportError, OSError) as error:
        return f"package {name} is installed and cannot be loaded: {first_line(error)}"
    if engine == "tensorrt-rtx":
        return lacks_precision(precision, compute_capabilities or ())
    if problem := gpu_problem(probe(), _GPU_ORDINAL):
        return f"its builder measures kernels on the GPU that the plan is for: {problem}"
    return lacks_precision(precision, [_gpu().compute_capability])


def build_engines(
    bundle: Bundle,
    engines: Sequence[Engine] = ENGINES,
    profiles: Sequence[Profile] | None = None,
    *,
    graphs: Sequence[Graph] | None = None,
    route: Route = "mix",
    inputs: FeatureInputs = "stacked",
    compute_capabilities: Sequence[Capability] | None = None,
    tf32: bool = False,
    report: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Build plans for a bundle and put them into its folder `engines`.

    A plan of the same key is replaced; damaged ones and those of an older bundle are removed: they never load again.

    Args:
        bundle: folder that `export_bundle` wrote.
        engines: to build for.
        profiles: sizes of the low-resolution target; None is the named set ``all``. If none of them covers the golden
            vector, a profile of its size is added: every plan is checked with it before its first use.
        graphs: to build; None is what the runtime runs.
        route: of the integration in TensorRT.
        inputs: of the kernels: one tensor of all stages, or one for each stage.
        compute_capabilities: TensorRT-RTX only; None for every GPU that its builder targets by default.
        tf32: see `engine_from_onnx`.
        report: called with each outcome as soon as it is known.

    Returns:
        One outcome a plan, or one for an engine that was skipped as a whole.

    Raises:
        ExportError: the bundle is a bare .onnx file.
        BackendError: its folder cannot be written.
    """
    if bundle.bare:
        raise ExportError(f"{bundle.location} is a bare .onnx file: give a bundle folder")
    manifest = bundle.manifest
    wanted = covering(profile_set("all", manifest.scale) if profiles is None else profiles, golden_size(bundle))
    if graphs is None:
        graphs = ("reference", "target") if manifest.needs_reference else ("model",)
    _remove_stale(bundle)
    outcomes: list[Outcome] = []

    def add(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if report is not None:
            report(outcome)

    for engine in engines:
        if reason := obstacle(engine, manifest.precision, compute_capabilities):
            add(Outcome(engine, None, "skipped", reason))
            continue
        for graph in graphs:
            try:
                if engine == "tensorrt":
                    built, integration = _build_tensorrt(bundle, graph, wanted, route, inputs, tf32)
                    key = built.key(bundle, graph, integration, _gpu())
                else:
                    built = engine_from_onnx(
                        importlib.import_module(_MODULES[engine]),
                        bundle.graph(graph),
                        wanted,
                        compute_capabilities=compute_capabilities,
                        tf32=tf32,
                    )
                    key = built.key(bundle, graph, integration_of(bundle, graph))
            except MinetError as error:
                add(Outcome(engine, graph, "failed", str(error)))
                continue
            add(Outcome(engine, graph, "built", plan=store(bundle_folder(bundle), key, built.data, built.details())))
    return outcomes


def good_for(plan: Plan) -> tuple[str, str]:
    """Two lines for a person: where a plan runs, and what has not been checked yet."""
    key = plan.key
    if key.engine == "tensorrt":
        place = f"{key.gpu}, with TensorRT {key.engine_version} and a driver for CUDA {key.driver} or newer"
    else:
        place = "any NVIDIA GPU of compute capability "
        place += f"{_portable_capabilities(key.precision)} or newer" if key.gpu == ANY_GPU else key.gpu
        place += f", with TensorRT-RTX {key.engine_version} exactly"
        place += " and an NVIDIA driver for CUDA 13 (580) or newer"
    return (
        f"runs on {place}",
        f'loads through Runtime("{plan.path.parent.parent}", backend="{key.engine}") or from C++ (docs/engines.md); '
        "not compared with the golden vector yet, which needs the GPU: the runtime does it at the first load",
    )


def _portable_capabilities(precision: Precision) -> str:
    """Those that NVIDIA names for a default build, without GPUs that lack the precision."""
    named = ((8, 0), (8, 6), (8, 9), (12, 0))
    return ", ".join(format_capability(c) for c in named if not lacks_precision(precision, [c]))


def _gpu() -> Gpu:
    driver = probe()
    device = driver.gpus[_GPU_ORDINAL]
    return Gpu(device.name, device.compute_capability, ".".join(str(part) for part in driver.version or ()))


def _build_tensorrt(
    bundle: Bundle, graph: Graph, profiles: Sequence[Profile], route: Route, inputs: FeatureInputs, tf32: bool
) -> tuple[BuiltPlan, Integration]:
    """Build with this SDK's kernels for the integration unless the route is the node's own body."""
    from minet_sdk.export.plugin_graph import rewrite
    from minet_sdk.kernels.binaries import target_for
    from minet_sdk.kernels.tensorrt_plugin import register

    trt = importlib.import_module(_MODULES["tensorrt"])
    gpu = _gpu()
    timings = cache_folder(bundle).parent / f"timings-{trt.__version__}-{gpu.label.replace(' ', '-')}.cache"
    integration = integration_of(bundle, graph)
    source: Path | bytes = bundle.graph(graph)
    if route != "inlined" and integration == "inlined":
        register(trt, target_for(gpu.compute_capability))
        model = rewrite(onnx.load_model(bundle.graph(graph), load_external_data=False), route=route, inputs=inputs)
        source, integration = model.SerializeToString(), _WITH_KERNELS[route]
    built = engine_from_onnx(trt, source, profiles, weights_beside=bundle.graph(graph), tf32=tf32, timing_cache=timings)
    return built, integration


def _remove_stale(bundle: Bundle) -> None:
    """Plans of another bundle remain when a bundle is exported again into the same folder."""
    for path in sorted(bundle_folder(bundle).glob("*.plan")):
        try:
            stale = load(path).key.bundle_sha256 != bundle.sha256
        except BackendError:
            stale = True
        if stale:
            path.unlink()
            path.with_suffix(".json").unlink(missing_ok=True)
