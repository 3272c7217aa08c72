"""Layers that are computed otherwise than they are defined, against their definition."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from minet_sdk.kspace import zero_filled
from minet_sdk.training.layers import ChannelSpatialAttention, SincUpsampler, Upsampler

SCALES = (2, 4)


def test_banded_attention_is_the_3d_convolution() -> None:
    layer = ChannelSpatialAttention(16).double()
    with torch.no_grad():
        layer.bias.fill_(0.3)
    x = torch.randn(2, 16, 7, 6, generator=torch.Generator().manual_seed(0)).double()
    convolved = functional.conv3d(x[:, None], layer.weight, layer.bias, padding=1)[:, 0]
    torch.testing.assert_close(layer(x), x * torch.sigmoid(convolved) + x, rtol=1e-12, atol=1e-12)
    mirrored = functional.conv3d(x[:, None], layer.weight.flip(2), layer.bias, padding=1)[:, 0]
    assert not torch.allclose(layer(x), x * torch.sigmoid(mirrored) + x, rtol=1e-2)


def test_gradient_of_the_band_is_that_of_the_3d_convolution() -> None:
    layer = ChannelSpatialAttention(16).double()
    x = torch.randn(1, 16, 5, 5, generator=torch.Generator().manual_seed(1)).double()
    parameters = [layer.weight, layer.bias]
    own = torch.autograd.grad(layer(x).square().sum(), parameters)
    convolved = functional.conv3d(x[:, None], layer.weight, layer.bias, padding=1)[:, 0]
    expected = torch.autograd.grad((x * torch.sigmoid(convolved) + x).square().sum(), parameters)
    torch.testing.assert_close(own, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("scale", SCALES)
def test_upsampler_magnifies_by_its_scale(scale: int) -> None:
    upsampler = Upsampler(16, scale)
    assert upsampler(torch.zeros(1, 16, 3, 5)).shape == (1, 16, 3 * scale, 5 * scale)
    assert sum(isinstance(layer, nn.PixelShuffle) for layer in upsampler) == {2: 1, 4: 2}[scale]


@pytest.mark.parametrize("scale", SCALES)
def test_sinc_keeps_the_measured_samples_and_the_mean_value(scale: int) -> None:
    upsampler = SincUpsampler(scale)
    image = torch.rand(2, 1, 12, 9, generator=torch.Generator().manual_seed(0))
    large = upsampler(image)
    assert large.shape == (2, 1, 12 * scale, 9 * scale)
    torch.testing.assert_close(large[..., ::scale, ::scale], image, rtol=1e-6, atol=1e-6)
    flat = torch.full((1, 1, 8, 8), 0.7)
    torch.testing.assert_close(upsampler(flat), torch.full((1, 1, 8 * scale, 8 * scale), 0.7), rtol=1e-6, atol=0)


def band_limited(size: int) -> Tensor:
    """(1, 1, size, size), positive and periodic, nothing above half of its Nyquist frequency."""
    rng = np.random.default_rng(3)
    spectrum = np.fft.fft2(rng.standard_normal((size, size)))
    frequency = np.abs(np.fft.fftfreq(size))
    spectrum *= np.outer(frequency < 0.25, frequency < 0.25)
    image = np.fft.ifft2(spectrum).real
    return torch.from_numpy(10 + image / image.std()).float()[None, None]


def error_db(image: np.ndarray, expected: np.ndarray, edge: int) -> float:
    """Power of the interior's difference over that of the expected structure, dB."""
    inside = (..., slice(edge, -edge), slice(edge, -edge))
    return float(10 * np.log10(np.mean((image - expected)[inside] ** 2) / np.var(expected[inside])))


@pytest.mark.parametrize("scale", SCALES)
def test_sinc_is_zero_filling_away_from_the_border(scale: int) -> None:
    image = band_limited(48)
    expected = zero_filled(image.numpy(), scale)
    edge = 8 * scale
    assert error_db(SincUpsampler(scale)(image).numpy(), expected, edge) < -45


@pytest.mark.parametrize("scale", SCALES)
def test_zero_filling_is_far_from_a_half_pixel_grid(scale: int) -> None:
    """The planted fault of the test above: the grid of image libraries, as `align_corners=False` draws it."""
    image = band_limited(48)
    expected = zero_filled(image.numpy(), scale)
    shifted = functional.interpolate(image, scale_factor=scale, mode="bicubic", align_corners=False)
    assert error_db(shifted.numpy(), expected, 8 * scale) > -15


def test_sinc_stays_float32_under_autocast() -> None:
    image = band_limited(16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        large = SincUpsampler(2)(image)
    assert large.dtype == torch.float32
    torch.testing.assert_close(large, SincUpsampler(2)(image))
