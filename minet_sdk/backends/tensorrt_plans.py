"""Where the runtime's TensorRT plans come from: the bundle, the user's cache, or a build on first use."""

import logging
import time
from pathlib import Path
from typing import Any

from minet_sdk.backends.tensorrt_builder import engine_from_onnx, engine_of
from minet_sdk.bundle import Bundle, Graph
from minet_sdk.engines import Integration, Plan, cache_folder, find, store
from minet_sdk.errors import BackendError
from minet_sdk.gpus import Gpu
from minet_sdk.profiles import Size, covering, profile_set

PROFILES = "all"
"""The set of clinical matrices that a plan built on first use covers."""

_log = logging.getLogger("minet_sdk")


def obtain(trt: Any, bundle: Bundle, graph: Graph, gpu: Gpu) -> tuple[Plan, str]:
    """A plan that runs on this GPU, and in one line where it comes from.

    Plans from `minet-sdk export` compute the integration with this SDK's kernels; one that is built here has the
    graph's own operations instead.

    Args:
        trt: the module `tensorrt` or `tensorrt_rtx`.
        bundle: opened.
        graph: of it.
        gpu: that will run the plan.

    Raises:
        BackendError: there is none and none can be built.
    """
    target = golden_size(bundle)
    search = find(bundle, graph, engine=engine_of(trt), engine_version=trt.__version__, gpu=gpu, target=target)
    for name, reason in search.passed_over.items():
        _log.info("plan %s passed over: %s", name, reason)
    if search.plan is not None:
        return search.plan, f"{search.plan.path} ({search.plan.key.integration})"
    _log.warning(
        "no %s plan of %s.onnx for %s: building one now, without this SDK's kernels; `minet-sdk export` builds ahead",
        engine_of(trt),
        graph,
        gpu.name,
    )
    started = time.perf_counter()
    profiles = covering(profile_set(PROFILES, bundle.manifest.scale), target)
    built = engine_from_onnx(trt, bundle.graph(graph), profiles)
    plan = store(cache_folder(bundle), built.key(bundle, graph, integration_of(bundle, graph), gpu), built.data,
                 built.details())  # fmt: skip
    seconds = time.perf_counter() - started
    _log.info("built %s in %.1f s", plan.path, seconds)
    return plan, f"{plan.path} ({plan.key.integration}), built in {seconds:.1f} s"


def golden_size(bundle: Bundle) -> Size:
    """N, H, W of the golden vector's target, which every plan must cover to be checked before use.

    Raises:
        BackendError: the bundle has no golden vector.
    """
    golden = bundle.golden()
    if golden is None:
        raise BackendError(f"{bundle.location} has no golden vector to check a plan with: open a bundle folder")
    batch, _, height, width = golden.target.shape
    return batch, height, width


def integration_of(bundle: Bundle, graph: Graph) -> Integration:
    """How a bundle's own graph computes the integration."""
    return "none" if graph == "reference" or bundle.manifest.affinity == "none" else "inlined"


def kernel_cache(bundle: Bundle, plan: Plan, gpu: Gpu) -> Path:
    """Where TensorRT-RTX keeps the kernels that it compiled for a plan on this GPU."""
    place = f"{gpu.label}, driver {gpu.driver}".replace(", ", "-").replace(" ", "-").replace("/", "-")
    return cache_folder(bundle) / f"{plan.path.stem}-{place}.kernels"
