"""The compared networks against an independent float64 NumPy implementation, written here from their descriptions."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from minet_sdk.errors import InputError, TrainingError
from minet_sdk.training.architecture import Architecture
from minet_sdk.training.edsr import EdsrConfig
from minet_sdk.training.lyu import LyuConfig
from minet_sdk.training.network import Network, build
from minet_sdk.training.zeng import ZengConfig

Array = npt.NDArray[np.float64]
Weights = dict[str, Array]

EDSR = EdsrConfig(blocks=2, channels=16, residual_scaling=0.3)
ZENG = ZengConfig(depth=2, guided_depth=2, channels=16)
LYU = LyuConfig(encoder_blocks=2, decoder_blocks=1, channels=16)
CONFIGS: dict[str, Architecture] = {
    f"{config.kind} x{scale}, skip {skip}": replace(config, scale=scale, skip=skip)
    for config in (EDSR, ZENG, LYU)
    for scale in (2, 4)
    for skip in ("none", "sinc")
}
AGREEMENT = 5e-6
"""Largest difference over the largest value: float32 through some twenty layers."""


def convolve(x: Array, weights: Weights, name: str) -> Array:
    """Zero-padded 3x3 convolution of (N, C, H, W)."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), (2, 3))
    bias = weights.get(f"{name}.bias", np.zeros(1))
    return np.einsum("nchwyx,ocyx->nohw", windows, weights[f"{name}.weight"], optimize=True) + bias[:, None, None]


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def doubled(x: Array, weights: Weights, name: str, times: int) -> Array:
    """Convolution to 4C channels, whose groups of four become the corners of 2 x 2 cells; ``times`` over."""
    for step in range(times):
        wide = convolve(x, weights, f"{name}.{2 * step}")
        x = np.empty((wide.shape[0], wide.shape[1] // 4, 2 * wide.shape[2], 2 * wide.shape[3]))
        for corner in range(4):
            x[:, :, corner // 2 :: 2, corner % 2 :: 2] = wide[:, corner::4]
    return x


def window(distance: Array) -> Array:
    """Sinc under a Kaiser window (beta 6) that reaches eight samples to either side."""
    return np.sinc(distance) * np.i0(6 * np.sqrt(np.maximum(0, 1 - (distance / 8) ** 2))) / np.i0(6)


def resampling(size: int, up: int, down: int = 1) -> Array:
    """Rows of an interpolation by ``up`` or a low-pass and thinning by ``down``, on the FFT grid, edges repeated."""
    rows = np.zeros((size * up // down, size))
    for row in range(len(rows)):
        position = row * down / up
        taps = np.arange(int(np.floor(position)) - 8 * down, int(np.floor(position)) + 8 * down + 1)
        weight = np.where(np.abs(taps - position) < 8 * down, window((taps - position) / down), 0)
        np.add.at(rows[row], np.clip(taps, 0, size - 1), weight / weight.sum())
    return rows


def resampled(image: Array, up: int, down: int = 1) -> Array:
    vertical, horizontal = (resampling(size, up, down) for size in image.shape[-2:])
    return vertical @ image @ horizontal.T


def blocks(x: Array, weights: Weights, name: str, count: int, scaling: float = 1.0) -> Array:
    for block in range(count):
        inner = relu(convolve(x, weights, f"{name}{block}.first"))
        x = x + scaling * convolve(inner, weights, f"{name}{block}.second")
    return x


def edsr(config: EdsrConfig, weights: Weights, target: Array, reference: Array | None, fault: str) -> list[Array]:
    first = convolve(target, weights, "head")
    scaling = 1.0 if fault == "no residual scaling" else config.residual_scaling
    body = convolve(blocks(first, weights, "blocks.", config.blocks, scaling), weights, "last")
    total = body if fault == "no skip over the blocks" else first + body
    image = convolve(doubled(total, weights, "upsampler", config.scale // 2), weights, "tail")
    return [image + resampled(target, config.scale) if config.skip == "sinc" else image]


def zeng(config: ZengConfig, weights: Weights, target: Array, reference: Array | None, fault: str) -> list[Array]:
    assert reference is not None
    x = relu(convolve(target, weights, "target_head"))
    for layer in range(config.depth):
        x = relu(convolve(x, weights, f"target_layers.{2 * layer}"))
    alone = convolve(doubled(x, weights, "upsampler", config.scale // 2), weights, "target_tail")
    if config.skip == "sinc":
        alone = alone + resampled(target, config.scale)
    joint = {"joint.weight": np.concatenate([weights["image_head.weight"], weights["reference_head.weight"]], axis=1)}
    pair = np.concatenate([reference, alone] if fault == "swapped fusion" else [alone, reference], axis=1)
    x = relu(convolve(pair, {**joint, "joint.bias": weights["image_head.bias"]}, "joint"))
    for layer in range(config.guided_depth):
        x = relu(convolve(x, weights, f"guided_layers.{2 * layer}"))
    change = convolve(x, weights, "guided_tail")
    return [alone, change if fault == "the second half starts anew" else alone + change]


def lyu(config: LyuConfig, weights: Weights, target: Array, reference: Array | None, fault: str) -> list[Array]:
    assert reference is not None
    images, image = list[Array](), target
    for level in range(config.levels):
        name = f"levels.{level}"
        shrink = config.scale // 2 ** (level + 1)
        guide = reference if shrink == 1 else resampled(reference, 1, shrink)
        if shrink > 1 and fault == "half a pixel off":
            guide = reference.reshape(*reference.shape[:2], guide.shape[2], 2, guide.shape[3], 2).mean(axis=(3, 5))
        features: list[Array] = []
        for encoder, given in (("target_encoder", image), ("reference_encoder", guide)):
            head = convolve(given, weights, f"{name}.{encoder}.0")
            features.append(blocks(head, weights, f"{name}.{encoder}.1.", config.encoder_blocks))
        encoded, guide = doubled(features[0], weights, f"{name}.target_encoder.2", 1), features[1]
        halves = [guide, encoded] if fault == "swapped fusion" else [encoded, guide]
        fused = convolve(np.concatenate(halves, axis=1), weights, f"{name}.fusion")
        result = convolve(blocks(fused, weights, f"{name}.decoder.", config.decoder_blocks), weights, f"{name}.tail")
        image = result + resampled(image, 2) if config.skip == "sinc" else result
        images.append(image)
    return images


FORMULAS: dict[str, Any] = {"edsr": edsr, "zeng": zeng, "lyu": lyu}


def random_network(config: Architecture) -> Network:
    """No parameter is zero or special."""
    network = build(config, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


def random_inputs(config: Architecture) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Two samples, neither square nor even."""
    generator = torch.Generator().manual_seed(3)
    target = torch.randn(2, 1, 9, 7, generator=generator)
    reference = torch.randn(2, 1, 9 * config.scale, 7 * config.scale, generator=generator)
    return target, reference if config.reference else None


def difference(config: Architecture, fault: str = "") -> float:
    """Largest difference over largest value, over all images."""
    network, inputs = random_network(config), random_inputs(config)
    with torch.no_grad():
        got = network(*inputs)
    weights = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}
    target, reference = (None if tensor is None else tensor.double().numpy() for tensor in inputs)
    expected = FORMULAS[config.kind](config, weights, target, reference, fault)
    pairs = zip([*got.intermediates, got.restored], expected, strict=True)
    return max(float(np.abs(a.double().numpy() - b).max() / np.abs(b).max()) for a, b in pairs)


@pytest.mark.parametrize("name", CONFIGS)
def test_network_equals_its_description(name: str) -> None:
    assert difference(CONFIGS[name]) < AGREEMENT


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        (EDSR, "no residual scaling"),
        (EDSR, "no skip over the blocks"),
        (ZENG, "swapped fusion"),
        (ZENG, "the second half starts anew"),
        (LYU, "swapped fusion"),
        (replace(LYU, scale=4), "half a pixel off"),
    ],
)
def test_comparison_notices_a_planted_fault(config: Architecture, fault: str) -> None:
    assert difference(config, fault) > 50 * AGREEMENT


def count(config: Architecture) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(config).parameters())


@pytest.mark.parametrize(
    ("config", "published"),
    [
        (EdsrConfig(2), 1_369_859),
        (EdsrConfig(4), 1_517_571),
        (EdsrConfig(2, 32, 256), 40_729_603),
        (EdsrConfig(4, 32, 256), 43_089_923),
    ],
)
def test_edsr_has_the_published_size(config: EdsrConfig, published: int) -> None:
    """The publication's own networks take and give three channels: 1.37, 1.52, 40.7 and 43.1 million parameters."""
    two_more_channels = 2 * 9 * config.channels + 2 * (9 * config.channels + 1)
    assert count(config) + two_more_channels == published


@pytest.mark.parametrize("config", [replace(c, scale=4) for c in (ZENG, LYU)], ids=lambda c: c.kind)
def test_reference_can_be_encoded_before_the_target_exists(config: Architecture) -> None:
    network = random_network(config)
    target, reference = random_inputs(config)
    assert reference is not None
    features = network.encode_reference(reference)
    layout = network.features
    assert layout is not None
    rows, columns = (layout.multiple * size for size in target.shape[-2:])
    assert features.shape == (2, layout.number, layout.channels, rows, columns)
    assert torch.equal(network.restore(target, features), network(target, reference).restored)
    assert not torch.allclose(network(target, reference.flip(-1)).restored, network(target, reference).restored)


@pytest.mark.parametrize("name", [name for name in CONFIGS if "sinc" in name])
def test_network_with_a_skip_starts_as_the_interpolation(name: str) -> None:
    network = build(CONFIGS[name])
    target, reference = random_inputs(CONFIGS[name])
    interpolated = network.interpolated(target)
    assert interpolated is not None
    result = network(target, reference)
    assert torch.equal(result.restored, interpolated)
    expected = resampled(target.double().numpy(), CONFIGS[name].scale)
    for image in result.intermediates:
        if image.shape == interpolated.shape:
            np.testing.assert_allclose(image.detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (EDSR, {"reference": True}, "EDSR is a single-contrast network"),
        (ZENG, {"reference": False}, "needs a reference"),
        (LYU, {"reference": False}, "needs a reference"),
        (LYU, {"scale": 3}, "scale is 3"),
        (LYU, {"decoder_blocks": 0}, "lyu has decoder_blocks 0; must be at least 1"),
        (ZENG, {"skip": "bicubic"}, "choose one of none, sinc"),
    ],
)
def test_config_refuses_what_cannot_be_built(config: Architecture, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        replace(config, **changes)


def test_reference_must_match_the_network() -> None:
    target, reference = random_inputs(ZENG)
    with pytest.raises(InputError, match="needs a reference"):
        build(ZENG)(target)
    with pytest.raises(InputError, match="takes no reference"):
        build(EDSR)(target, reference)
    with pytest.raises(InputError, match="EDSR takes no reference"):
        build(EDSR).encode_reference(target)
