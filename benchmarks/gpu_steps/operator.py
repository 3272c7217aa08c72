"""Step: `torch.ops.minet` on this GPU against plain PyTorch: the same values and gradients, and how much faster."""

from collections.abc import Callable

import torch
from torch import Tensor

from gpu_steps import exact
from gpu_steps.measuring import interleaved, ratio
from gpu_steps.results import Context
from minet_sdk.kernels.torch_operator import integrate
from minet_sdk.training.integration import MultiStageIntegration

STAGES, CHANNELS = 12, 64
BOUND = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""Of H and of its gradient, relative to the largest value; plain PyTorch rounds A itself to the features' format."""


def run(context: Context) -> None:
    """Values and gradients in every format, then speed in float16."""
    side = 12 if context.tiny else 320
    for dtype, bound in BOUND.items():
        with context.attempt(str(dtype)):
            for layout in ("linear", "hwc8"):
                _check(context, dtype, layout, side, bound)
    with context.attempt("compile"):
        _check_compiled(context, 12)
    for side in (12,) if context.tiny else (320, 640):
        with context.attempt(f"speed at {side}"):
            _time(context, side)


def _features(context: Context, dtype: torch.dtype, layout: str, side: int) -> Tensor:
    return exact.random_features((1, STAGES * CHANNELS, side, side), dtype, context.device, layout)


def _module(context: Context) -> MultiStageIntegration:
    return MultiStageIntegration("cosine").to(context.device)


def _plain(module: MultiStageIntegration) -> Callable[[Tensor], Tensor]:
    return lambda features: module(features.unflatten(1, (STAGES, CHANNELS))).flatten(1, 2)


def _through_operator(module: MultiStageIntegration) -> Callable[[Tensor], Tensor]:
    return lambda features: integrate(features, STAGES, "cosine", module.log_temperature.exp())


def _check(context: Context, dtype: torch.dtype, layout: str, side: int, bound: float) -> None:
    """Values and gradients against plain PyTorch in float32, whose own error is in the bound."""
    features, module = _features(context, dtype, layout, side), _module(context)
    weights = torch.randn(
        features.shape, generator=torch.Generator(context.device).manual_seed(5), device=context.device
    )
    results: list[tuple[Tensor, ...]] = []
    mixed = features
    for function, source in ((_plain(module), features.float()), (_through_operator(module), features)):
        leaf = source.detach().requires_grad_()
        mixed = function(leaf)
        gradients = torch.autograd.grad((mixed.float() * weights).sum(), (leaf, module.log_temperature))
        results.append((mixed.detach().float(), gradients[0].float(), gradients[1]))
    if mixed.stride() != features.stride():
        context.problem(f"{dtype} {layout}: the result has strides {mixed.stride()}, not {features.stride()}")
    for name, expected, found in zip(("values", "gradient", "temperature"), *results, strict=True):
        error = float((found - expected).abs().max() / expected.abs().max())
        context.record(f"errors/{dtype} {layout}/{name}", error)
        if not error <= bound * (10 if name == "temperature" else 1):
            context.problem(f"{dtype} {layout}: {name} differ by {error:.1e}, expected at most {bound:.1e}")


def _check_compiled(context: Context, side: int) -> None:
    """The operators inside a compiled function."""
    features, module = _features(context, torch.float32, "linear", side), _module(context)
    function = _through_operator(module)
    backend = "aot_eager" if context.tiny else "inductor"
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    with torch.no_grad():
        error = float((compiled(features) - function(features)).abs().max())
    context.record("errors/compiled", error)
    if not error <= 1e-4:
        context.problem(f"compiled result differs by {error:.1e}")


def _time(context: Context, side: int) -> None:
    """Forward in both layouts, and a training step's forward and backward."""
    module = _module(context)
    plain, through = _plain(module), _through_operator(module)
    linear, hwc8 = (_features(context, torch.float16, layout, side) for layout in ("linear", "hwc8"))
    leaf = linear.detach().requires_grad_()

    def forward(function: Callable[[Tensor], Tensor], features: Tensor) -> Callable[[], object]:
        return context.synchronised(lambda: function(features))

    def step(function: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        def both() -> object:
            with torch.enable_grad():
                return torch.autograd.grad(function(leaf).float().mean(), leaf)

        return context.synchronised(both)

    candidates = {
        "plain": forward(plain, linear),
        "plain, channels_last": forward(plain, hwc8),
        "operator": forward(through, linear),
        "operator, channels_last": forward(through, hwc8),
        "operator, given temperature": forward(lambda f: integrate(f, STAGES, "cosine", 0.1), linear),
        "plain, forward and backward": step(plain),
        "operator, forward and backward": step(through),
    }
    rounds, calls = (1, 1) if context.tiny else (7, 10)
    with torch.no_grad():
        latencies, failed = interleaved(candidates, rounds=rounds, calls=calls, seconds=context.remaining() / 3)
    for name, latency in latencies.items():
        context.record(f"latency/{side}/{name}", latency.to_dict())
    for name, reason in failed.items():
        context.problem(f"{name} at {side}: {reason}")
    for suffix in ("", ", channels_last", ", forward and backward"):
        if f"plain{suffix}" in latencies and f"operator{suffix}" in latencies:
            speedup = ratio(latencies[f"plain{suffix}"], latencies[f"operator{suffix}"])
            context.record(f"speedup/{side}/operator{suffix}", vars(speedup))
