"""Step: how long a caller waits for a restored slice, over all engines that are there, in rounds against each other.

Host arrays in and out, the reference prepared before (prefetch), k-space consistency off, unless a name says otherwise.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gpu_steps.engines import built_bundles, usable_backends
from gpu_steps.measuring import Latency, interleaved, ratio
from gpu_steps.networks import SIDES, TINY_SIDE, minet_x2, module, prefer_speed
from gpu_steps.results import Context
from minet_sdk.backends import BackendSpec, Need, availability
from minet_sdk.bundle import open_bundle
from minet_sdk.runtime import Runtime

Array = npt.NDArray[np.float32]

RATIOS: dict[str, tuple[str, str]] = {
    "fold over mix": ("tensorrt mix", "tensorrt fold"),
    "mix over inlined": ("tensorrt inlined", "tensorrt mix"),
    "separate over stacked": ("tensorrt mix", "tensorrt mix separate"),
}
"""How many times faster the second candidate is than the first."""

BEST = ("tensorrt mix", "tensorrt", "tensorrt-rtx")
"""The engine that CUDA graphs and device arrays are tried on: the first of these that is there."""


def run(context: Context) -> None:
    """Both networks at both sizes, everything open at once."""
    backends = usable_backends(context)
    if not backends:
        context.skip("no engine here runs on the GPU: see backends")
        return
    bundles = built_bundles(context) or {"minet-x2 fp32": {"path": "minet-x2", "precision": "fp32"}}
    for network in ("minet-x2", "paper"):
        own = {name: entry for name, entry in bundles.items() if name.startswith(f"{network} ")}
        if "fp16" in {entry["precision"] for entry in own.values()}:
            own = {name: entry for name, entry in own.items() if entry["precision"] == "fp16"}
        for side in (TINY_SIDE,) if context.tiny else SIDES:
            if not own or context.remaining() < 10:
                context.skip(f"{network} at {side}: {'no time left' if own else 'no bundle of it'}")
                continue
            with context.attempt(f"{network} at {side}"), ExitStack() as stack:
                _compare(context, network, side, _candidates(context, stack, network, side, own, backends))


def _candidates(
    context: Context,
    stack: ExitStack,
    network: str,
    side: int,
    bundles: dict[str, dict[str, str]],
    backends: Sequence[BackendSpec],
) -> dict[str, Callable[[], object]]:
    """A call for each way to restore the slice."""
    target, reference = _slice(side)
    candidates: dict[str, Callable[[], object]] = {}
    bases: dict[str, tuple[str, str]] = {}
    routed = any("route" in entry for entry in bundles.values())
    for (name, entry), spec in product(bundles.items(), backends):
        # Where TensorRT has a plan of each route, the bundle without one has only its reference graph.
        if ("route" in entry) != (routed and spec.name == "tensorrt"):
            continue
        label = f"{spec.name} {entry['route']}" if "route" in entry else spec.name
        if reason := availability(spec, Need(precision=open_bundle(entry["path"]).manifest.precision)).reason:
            context.skip(f"{name} on {spec.name}: {reason}")
            continue
        with context.attempt(f"{network} {side} {label}"):
            runtime = stack.enter_context(Runtime(entry["path"], backend=spec.name, consistency="off"))
            candidates[label] = _prepared(runtime, target, reference)
            candidates[f"{label}, no prefetch"] = lambda runtime=runtime: runtime(target, reference)
            bases[label] = (entry["path"], spec.name)
    best = next((label for label in BEST if label in bases), None)
    if best is not None:
        path, backend = bases[best]
        with context.attempt(f"{network} {side} without CUDA graphs"):
            plain = stack.enter_context(Runtime(path, backend=backend, consistency="off", cuda_graphs=False))
            candidates[f"{best}, no graphs"] = _prepared(plain, target, reference)
        with context.attempt(f"{network} {side} device arrays"):
            runtime = stack.enter_context(Runtime(path, backend=backend, consistency="off"))
            candidates[f"{best}, device arrays"] = _on_device(runtime, target, reference)
    if network == "minet-x2":
        with context.attempt(f"{network} {side} PyTorch"):
            candidates["PyTorch fp16 channels_last, no prefetch"] = _pytorch(context, target, reference)
    return candidates


def _compare(context: Context, network: str, side: int, candidates: dict[str, Callable[[], object]]) -> None:
    rounds, calls = (2, 1) if context.tiny else (7, 20)
    found, failed = interleaved(candidates, rounds=rounds, calls=calls, seconds=context.remaining() / 4)
    for name, reason in failed.items():
        context.problem(f"{network} {side} {name}: {reason}")
    where = f"{network} {side}"
    for name, latency in found.items():
        context.record(f"latency/{where}/{name}", latency.to_dict())
    pairs = dict(RATIOS)
    best = next((label for label in (*BEST, *found) if label in found and f"{label}, no prefetch" in found), None)
    if best is not None:
        pairs["graphs over none"] = (f"{best}, no graphs", best)
        pairs["prefetch over none"] = (f"{best}, no prefetch", best)
    _record_ratios(context, where, found, pairs)


def _record_ratios(context: Context, where: str, found: dict[str, Latency], pairs: dict[str, tuple[str, str]]) -> None:
    for name, (slower, faster) in pairs.items():
        if slower in found and faster in found:
            context.record(f"ratios/{where}/{name}", vars(ratio(found[slower], found[faster])))


def _slice(side: int) -> tuple[Array, Array]:
    """A target and a reference with the statistics of images; both networks magnify by 2."""
    rng = np.random.default_rng(0)
    target, reference = (np.abs(rng.normal(300, 100, (n, n))).astype(np.float32) for n in (side // 2, side))
    return target, reference


def _prepared(runtime: Runtime, target: Array, reference: Array) -> Callable[[], object]:
    features = runtime.prepare(reference)
    return lambda: runtime(target, features)


def _on_device(runtime: Runtime, target: Array, reference: Array) -> Callable[[], object]:
    """Tensors in and out on PyTorch's stream."""
    on_device: Any = torch.from_numpy(target).cuda()
    features = runtime.prepare(torch.from_numpy(reference).cuda(), stream=torch.cuda.current_stream())

    def call() -> object:
        result = runtime(on_device, features, stream=torch.cuda.current_stream())
        torch.cuda.synchronize()
        return result

    return call


def _pytorch(context: Context, target: Array, reference: Array) -> Callable[[], object]:
    """The anchor that the step `networks` measures too: host tensors in and out, like the runtime's."""
    prefer_speed()
    graph = module(minet_x2(), "fp16", context.device, channels_last=True, kernels=False)
    inputs = [torch.from_numpy((image - image.mean()) / image.std())[None, None] for image in (target, reference)]

    def call() -> object:
        with torch.no_grad():
            return graph(*(image.to(context.device) for image in inputs)).cpu()

    return call
