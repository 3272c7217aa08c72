"""MINet against an independent float64 NumPy implementation of its equations, written here from the paper."""

import math
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from minet_sdk.errors import InputError, TrainingError
from minet_sdk.training.config import Affinity, MinetConfig, preset
from minet_sdk.training.model import MINet, build

Array = npt.NDArray[np.float64]
Weights = dict[str, Array]

TINY = MinetConfig(stages=2, blocks=1, channels=16, affinity="cosine")
GAIN = 0.7
TEMPERATURE = 0.5
"""Warm enough for every stage to take from every other, so that S and its transpose differ."""

AGREEMENT = 5e-6
"""Largest difference over the largest value: float32 through some twenty layers."""


def convolve(x: Array, weights: Weights, name: str) -> Array:
    """Zero-padded 2D convolution of (N, C, H, W), as a sum over a sliding window."""
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    edge = weight.shape[-1] // 2
    padded = np.pad(x, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[-2:], axis=(-2, -1))
    return np.einsum("nchwyx,ocyx->nohw", windows, weight, optimize=True) + bias[:, None, None]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def channel_spatial_attention(x: Array, weights: Weights, name: str) -> Array:
    """Eq. 4 with a real 3D convolution over (C, H, W)."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3, 3), axis=(1, 2, 3))
    kernel = weights[f"{name}.weight"][0, 0]
    return x * sigmoid(np.einsum("nchwkyx,kyx->nchw", windows, kernel) + weights[f"{name}.bias"]) + x


def residual_group(x: Array, weights: Weights, name: str, blocks: int, fault: str) -> Array:
    inner = x
    for block in range(blocks):
        prefix = f"{name}.blocks.{block}"
        y = convolve(np.maximum(convolve(inner, weights, f"{prefix}.first"), 0), weights, f"{prefix}.second")
        pooled = y.mean(axis=(-2, -1), keepdims=True)
        squeezed = np.maximum(convolve(pooled, weights, f"{prefix}.attention.squeeze"), 0)
        inner = inner + y * sigmoid(convolve(squeezed, weights, f"{prefix}.attention.excite"))
    result = convolve(inner, weights, f"{name}.last")
    return result if fault == "group skip" else x + result


def pixel_shuffle(x: Array, fault: str) -> Array:
    """(N, 4C, H, W) -> (N, C, 2H, 2W): the four channels of a group are the corners of a 2 x 2 cell, row by row."""
    batch, channels, height, width = x.shape
    result = np.empty((batch, channels // 4, 2 * height, 2 * width))
    for corner in range(4):
        row, column = divmod(corner, 2)
        if fault == "pixel shuffle":
            row, column = column, row
        result[:, :, row::2, column::2] = x[:, corner::4]
    return result


def unfold(x: Array, scale: int) -> Array:
    """(N, scale^2, H, W) -> (N, 1, scale * H, scale * W): channel k is pixel divmod(k, scale) of its cell."""
    batch, channels, height, width = x.shape
    result = np.empty((batch, 1, scale * height, scale * width))
    for channel in range(channels):
        row, column = divmod(channel, scale)
        result[:, 0, row::scale, column::scale] = x[:, channel]
    return result


def fold(x: Array, scale: int) -> Array:
    """(N, 1, scale * H, scale * W) -> (N, scale^2, H, W): the inverse of `unfold`."""
    return np.concatenate([x[:, :, row::scale, column::scale] for row in range(scale) for column in range(scale)], 1)


def sinc_matrix(size: int, scale: int) -> Array:
    """(scale * size, size): sinc of 16 taps under a Kaiser window (beta 6) on the FFT grid, edges repeated."""
    matrix = np.zeros((scale * size, size))
    for out in range(scale * size):
        position = out / scale
        taps = np.arange(int(np.floor(position)) - 7, int(np.floor(position)) + 9)
        weight = np.sinc(position - taps) * np.i0(6 * np.sqrt(np.maximum(0, 1 - ((position - taps) / 8) ** 2)))
        for tap, value in zip(taps, weight / weight.sum(), strict=True):
            matrix[out, min(max(tap, 0), size - 1)] += value
    return matrix


def integrate(stages: list[Array], weights: Weights, mode: Affinity, fault: str) -> list[Array]:
    """Eq. 7-8 sample by sample, stage by stage."""
    mixed = [np.empty_like(stage) for stage in stages]
    for sample in range(stages[0].shape[0]):
        flat = [stage[sample].ravel() for stage in stages]
        energy = np.array([[a @ b for b in flat] for a in flat])
        gain = 1.0
        if mode == "cosine":
            length = np.array([np.linalg.norm(a) for a in flat])
            energy = energy / np.outer(length, length) / np.exp(weights["integration.log_temperature"])
        if mode == "released":
            energy = energy.max(axis=1, keepdims=True) - energy
            gain = float(weights["integration.gain"][0])
        attention = np.exp(energy - energy.max(axis=1, keepdims=True))
        attention /= attention.sum(axis=1, keepdims=True)
        if fault == "transposed S":
            attention = attention.T
        for i, stage in enumerate(stages):
            own = 0 if fault == "no F in H" else stage[sample]
            mixed[i][sample] = own + gain * sum(attention[i, j] * stages[j][sample] for j in range(len(stages)))
    return mixed


def restore(
    config: MinetConfig, weights: Weights, target: Array, reference: Array | None, fault: str = ""
) -> tuple[Array, Array | None]:
    """Restored target and restored reference, eq. 1-5 and 7-8."""
    first = current = convolve(target, weights, "target_head.0")
    if config.grid == "restored":
        doublings = {2: 1, 4: 2}[config.scale]
        for step in range(doublings):
            first = pixel_shuffle(convolve(first, weights, f"target_head.1.{2 * step}"), fault)
        first = current = convolve(first, weights, f"target_head.1.{2 * doublings}")
    elif reference is not None:
        reference = fold(reference, config.scale)
    guide = None if reference is None else convolve(reference, weights, "reference_head")
    targets: list[Array] = []
    references: list[Array] = []
    for stage in range(config.stages):
        if guide is not None:
            following = residual_group(guide, weights, f"reference_groups.{stage}", config.blocks, fault)
            halves = [following if fault == "fusion takes the next stage" else guide, current]
            if fault == "swapped fusion halves":
                halves.reverse()
            fused = convolve(np.concatenate(halves, axis=1), weights, f"fusions.{stage}")
            current = fused if fault == "no fusion residual" else current + fused
            guide = following
            references.append(guide)
        current = residual_group(current, weights, f"target_groups.{stage}", config.blocks, fault)
        targets.append(current)
    attended = channel_spatial_attention(current, weights, "target_attention") if config.attention else current
    total = attended if fault == "no F0 in eq. 5" else first + attended
    if config.integration != "none":
        stages = targets + references if fault == "target stages first" else references + targets
        if config.integration == "affinity":
            stages = integrate(stages, weights, config.affinity, fault)
        total = total + convolve(np.concatenate(stages, axis=1), weights, "reduction")
    restored = convolve(total, weights, "target_tail")
    if config.grid == "target":
        restored = unfold(restored, config.scale)
    if config.skip == "sinc":
        rows, columns = (sinc_matrix(n, config.scale) for n in target.shape[-2:])
        restored = restored + rows @ target @ columns.T
    if guide is None:
        return restored, None
    if config.attention:
        guide = channel_spatial_attention(guide, weights, "reference_attention")
    own = convolve(guide, weights, "reference_tail")
    return restored, unfold(own, config.scale) if config.grid == "target" else own


def random_network(config: MinetConfig) -> MINet:
    """A network in which no parameter, biases included, is zero or special."""
    network = build(config, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        if config.integration == "affinity" and config.affinity == "released":
            network.integration.gain.fill_(GAIN)
        if config.integration == "affinity" and config.affinity == "cosine":
            network.integration.log_temperature.fill_(math.log(TEMPERATURE))
    return network.eval()


def random_inputs(config: MinetConfig) -> tuple[Tensor, Tensor | None]:
    """Two samples, not square."""
    generator = torch.Generator().manual_seed(3)
    height, width = (8, 6) if config.scale == 2 else (4, 5)
    target = torch.randn(2, 1, height, width, generator=generator)
    reference = torch.randn(2, 1, config.scale * height, config.scale * width, generator=generator)
    return target, reference if config.reference else None


def differences(config: MinetConfig, fault: str = "") -> list[float]:
    """Largest difference over largest value, of the restored target and of the restored reference."""
    network = random_network(config)
    inputs = random_inputs(config)
    with torch.no_grad():
        got: tuple[Any, ...] = network(*inputs)
    weights = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}
    target, reference = (None if tensor is None else tensor.double().numpy() for tensor in inputs)
    assert target is not None
    expected = restore(config, weights, target, reference, fault)
    assert (got[1] is None) == (expected[1] is None)
    return [
        float(np.abs(a.double().numpy() - b).max() / np.abs(b).max())
        for a, b in zip(got[:2], expected, strict=True)
        if b is not None
    ]


VARIANTS = {
    **{
        f"{mode} x{scale}{'' if reference else ', no reference'}": replace(
            TINY, scale=scale, affinity=mode, reference=reference
        )
        for mode in get_args(Affinity)
        for scale in (2, 4)
        for reference in (True, False)
    },
    "reduction only": replace(TINY, integration="reduction"),
    "no H": replace(TINY, integration="none"),
    "no H, no reference": replace(TINY, integration="none", reference=False),
    "no attention": replace(TINY, attention=False),
    "sinc x2": replace(TINY, skip="sinc"),
    "sinc x4, no reference": replace(TINY, skip="sinc", scale=4, reference=False),
    "two blocks, three stages": replace(TINY, blocks=2, stages=3),
    "target's grid x2": replace(TINY, grid="target"),
    "target's grid x4": replace(TINY, grid="target", scale=4, skip="sinc"),
    "target's grid, no reference": replace(TINY, grid="target", reference=False),
}


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_network_equals_the_equations(config: MinetConfig) -> None:
    assert max(differences(config)) < AGREEMENT


@pytest.mark.parametrize(
    "fault",
    [
        "group skip",
        "pixel shuffle",
        "transposed S",
        "no F in H",
        "fusion takes the next stage",
        "swapped fusion halves",
        "no fusion residual",
        "no F0 in eq. 5",
        "target stages first",
    ],
)
def test_comparison_notices_a_planted_fault(fault: str) -> None:
    assert differences(TINY, fault)[0] > 50 * AGREEMENT


def count(config: MinetConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in MINet(config).parameters())


def test_parameter_counts_of_the_paper() -> None:
    paper = preset("paper", 2)
    assert count(paper) == 6_481_626
    assert count(replace(paper, scale=4)) == 6_629_338
    assert count(replace(paper, reference=False)) == 3_308_397


def convolution_products(config: MinetConfig) -> float:
    """Multiplications of all convolutions with weights at 320 x 320 restored pixels, 1e9."""
    products = 0

    def add(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal products
        assert isinstance(module, nn.Conv2d)
        products += output[0, 0].numel() * module.weight.numel()

    with torch.device("meta"):
        network = MINet(replace(config, integration="reduction", skip="none"))
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(add)
        network(torch.empty(1, 1, 320 // config.scale, 320 // config.scale), torch.empty(1, 1, 320, 320))
    pixels = (320 if config.grid == "restored" else 320 // config.scale) ** 2
    attention = 2 * 27 * config.channels * pixels
    return (products + attention) / 1e9


@pytest.mark.parametrize(("scale", "giga"), [(2, 647.3), (4, 648.2)])
def test_work_of_the_paper_at_320(scale: int, giga: float) -> None:
    assert convolution_products(preset("paper", scale)) == pytest.approx(giga, abs=0.06)


@pytest.mark.parametrize("scale", [2, 4])
def test_fast_has_a_quarter_of_the_work_of_small(scale: int) -> None:
    assert convolution_products(preset("small", scale)) > 4 * convolution_products(preset("fast", scale))


@pytest.mark.parametrize("scale", [2, 4])
def test_deep_has_less_than_half_of_the_work_of_small(scale: int) -> None:
    assert convolution_products(preset("small", scale)) > 2 * convolution_products(preset("deep", scale))


def test_reference_stream_does_not_depend_on_the_target() -> None:
    network = random_network(TINY)
    target, reference = random_inputs(TINY)
    assert reference is not None
    target.requires_grad_()
    first = network(target, reference)
    (gradient,) = torch.autograd.grad(first.reference.sum(), target, allow_unused=True)
    assert gradient is None
    prefetched = network.restore(target, network.encode_reference(reference))
    assert torch.equal(prefetched, first.restored)
    assert not torch.allclose(network(target, reference.flip(-1)).restored, first.restored)


def test_sinc_network_starts_as_the_interpolation() -> None:
    config = replace(TINY, skip="sinc")
    target, reference = random_inputs(config)
    network = build(config)
    assert torch.equal(network(target, reference).restored, network.interpolate(target))


def test_same_seed_same_weights_without_touching_the_global_generator() -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    first, second, other = build(TINY, 4), build(TINY, 4), build(TINY, 5)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.reduction.weight, other.reduction.weight)


def test_reference_must_match_the_network() -> None:
    target, reference = random_inputs(TINY)
    with pytest.raises(InputError, match="needs a reference"):
        build(TINY)(target)
    with pytest.raises(InputError, match="takes no reference"):
        build(replace(TINY, reference=False))(target, reference)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": 3}, "scale is 3"),
        ({"channels": 24}, "multiple of 16"),
        ({"stages": 0}, "at least 1"),
        ({"affinity": "mean"}, "choose one of paper, released, cosine"),
        ({"integration": "sum"}, "choose one of affinity, reduction, none"),
        ({"skip": "bicubic"}, "choose one of none, sinc"),
    ],
)
def test_config_refuses_what_cannot_be_built(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        replace(TINY, **change)


def test_config_survives_plain_data() -> None:
    config = replace(TINY, scale=4, reference=False, skip="sinc")
    assert MinetConfig.from_dict(config.to_dict()) == config
    with pytest.raises(TrainingError, match="unknown fields \\['depth'\\]"):
        MinetConfig.from_dict({**config.to_dict(), "depth": 3})
