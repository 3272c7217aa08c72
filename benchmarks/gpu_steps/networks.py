"""Step: the networks in PyTorch, every way that PyTorch users would run them; what the engines are measured against.

All variants are the modules that export turns into graphs, so engines and PyTorch compute the same thing.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gpu_steps.measuring import interleaved
from gpu_steps.results import Context
from gpu_steps.source_tree import ROOT
from minet_sdk.bundle import Precision
from minet_sdk.export.graphs import ModelGraph
from minet_sdk.training.checkpoint import load_checkpoint
from minet_sdk.training.config import MinetConfig, preset
from minet_sdk.training.integration import use_kernels
from minet_sdk.training.model import MINet, build

CHECKPOINT = ROOT / "minet_sdk" / "models" / "minet-x2" / "checkpoint.safetensors"
SIDES = (320, 640)
"""Of the restored image."""

TINY_SIDE = 32
TINY_CONFIG = MinetConfig(stages=2, blocks=1, channels=16, affinity="cosine", skip="sinc")
"""Stand in for both on a CPU."""

VARIANTS: tuple[tuple[str, Precision, bool, bool, bool], ...] = (
    ("eager fp32", "fp32", False, False, False),
    ("eager fp16", "fp16", False, False, False),
    ("eager fp16 channels_last", "fp16", True, False, False),
    ("eager fp16 kernels", "fp16", False, False, True),
    ("eager fp16 channels_last kernels", "fp16", True, False, True),
    ("compiled fp16", "fp16", False, True, False),
    ("compiled fp16 channels_last", "fp16", True, True, False),
)
"""Name, precision, channels_last, compiled, with this project's integration kernels."""


def run(context: Context) -> None:
    """Both networks at both sizes; what has no time left is said to be missing."""
    prefer_speed()
    networks: dict[str, Callable[[], MINet]] = {"minet-x2": minet_x2, "paper": lambda: build(preset("paper", 2))}
    if context.tiny:
        networks = {"tiny": lambda: build(TINY_CONFIG)}
    for name, make in networks.items():
        network = make().eval()
        for side in (TINY_SIDE,) if context.tiny else SIDES:
            if context.remaining() < 10:
                context.skip(f"{name} at {side}: no time left")
                continue
            with context.attempt(f"{name} at {side}"):
                _time(context, name, network, side)


def prefer_speed() -> None:
    """What PyTorch does not do by default and a user after speed would; but float32 remains float32."""
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False


def minet_x2(checkpoint: Path = CHECKPOINT) -> MINet:
    """The bundled x2 network."""
    return load_checkpoint(checkpoint).minet


def module(network: MINet, precision: Precision, device: str, channels_last: bool, kernels: bool) -> nn.Module:
    """What export makes a graph of, as an inference module: (N, 1, H, W), (N, 1, sH, sW) float32 -> (N, 1, sH, sW)."""
    graph = ModelGraph(network, precision).eval().to(device)
    if channels_last:
        graph = graph.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] # an overload is missing
    if kernels:
        use_kernels(graph)
    return graph


def inputs(network: MINet, side: int, device: str, batch: int = 1) -> tuple[Tensor, Tensor]:
    """A target and a reference of normalised noise; latency does not depend on values."""
    generator = torch.Generator().manual_seed(0)
    low = side // network.config.scale
    target = torch.randn((batch, 1, low, low), generator=generator)
    reference = torch.randn((batch, 1, side, side), generator=generator)
    return target.to(device), reference.to(device)


def _time(context: Context, name: str, network: MINet, side: int) -> None:
    """All variants of one network at one size, in turns."""
    torch.compiler.reset()
    target, reference = inputs(network, side, context.device)
    candidates: dict[str, Callable[[], object]] = {}
    for variant, precision, channels_last, compiled, kernels in VARIANTS:
        what = f"{name} {side} {variant}"
        if compiled and context.remaining() < 40:
            context.skip(f"{what}: no time left to compile it")
            continue
        with context.attempt(what), torch.no_grad():
            graph: Any = module(network, precision, context.device, channels_last, kernels)
            if compiled:
                graph = torch.compile(graph, backend="aot_eager" if context.tiny else "inductor", dynamic=False)
            graph(target, reference)
            candidates[variant] = context.synchronised(lambda graph=graph: graph(target, reference))
    rounds, calls = (1, 1) if context.tiny else (5, 10)
    with torch.no_grad():
        latencies, failed = interleaved(candidates, rounds=rounds, calls=calls, seconds=context.remaining() / 4)
    for variant, latency in latencies.items():
        context.record(f"latency/{name} {side}/{variant}", latency.to_dict())
    for variant, reason in failed.items():
        context.problem(f"{name} {side} {variant}: {reason}")
