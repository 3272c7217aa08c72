"""The scattering features against SciPy in float64, and what they respond to."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.ndimage import correlate
from torch import nn

from minet_sdk.training.perception import Critic, GaborScattering

Image = npt.NDArray[np.float64]


def gabor(orientation: int) -> npt.NDArray[np.complex128]:
    """Complex filter without mean and of unit energy, written here from its description."""
    y, x = np.mgrid[-3:4, -3:4]
    envelope = np.exp(-(x**2 + y**2) / (2 * 1.5**2))
    angle = orientation * np.pi / 6
    wave = envelope * np.exp(1j * np.pi / 2 * (x * np.cos(angle) + y * np.sin(angle)))
    wave -= envelope * wave.real.sum() / envelope.sum()
    return wave / np.sqrt(np.sum(np.abs(wave) ** 2))


def moduli(image: Image) -> list[Image]:
    found: list[Image] = []
    for orientation in range(6):
        wave = gabor(orientation)
        real, imaginary = (correlate(image, part, mode="nearest") for part in (wave.real, wave.imag))
        found.append(np.sqrt(real**2 + imaginary**2 + 1e-6))
    return found


def halved(image: Image) -> Image:
    return image.reshape(image.shape[0] // 2, 2, image.shape[1] // 2, 2).mean(axis=(1, 3))


def test_features_are_two_layers_of_scattering() -> None:
    image = np.random.default_rng(0).normal(size=(12, 16))
    first = moduli(image)
    second = [maps for source in [image, *first] for maps in moduli(halved(source))]
    found = GaborScattering()(torch.from_numpy(image).float()[None, None])
    assert [tuple(layer.shape) for layer in found] == [(1, 6, 12, 16), (1, 42, 6, 8)]
    for layer, expected in zip(found, (first, second), strict=True):
        np.testing.assert_allclose(layer[0].numpy(), np.stack(expected), atol=2e-6)


def test_features_ignore_brightness_and_tell_directions_apart() -> None:
    features = GaborScattering()
    flat, _ = features(torch.full((1, 1, 16, 16), 7.0))
    assert float(flat.max()) < 2e-3
    stripes = torch.sin(np.pi / 2 * torch.arange(32.0)).expand(1, 1, 32, 32)
    across, _ = features(stripes)
    along, _ = features(stripes.transpose(2, 3))
    assert int(across.mean(dim=(2, 3)).argmax()) == 0
    assert int(along.mean(dim=(2, 3)).argmax()) == 3
    assert not list(features.parameters())


def test_features_have_a_gradient_where_the_image_is_flat() -> None:
    image = torch.zeros(1, 1, 16, 16, requires_grad=True)
    torch.cat([layer.flatten() for layer in GaborScattering()(image)]).sum().backward()
    assert image.grad is not None
    assert bool(torch.isfinite(image.grad).all())


def test_critic_cannot_change_faster_than_its_input() -> None:
    """Spectral normalisation, measured: every layer has a largest singular value of one."""
    critic = Critic(8).train()
    for _ in range(30):
        critic(torch.randn(1, 1, 16, 16))
    critic.eval()
    for layer in critic.layers.children():
        if not isinstance(layer, nn.Conv2d):
            continue
        weight = layer.weight.detach().flatten(1)
        assert float(torch.linalg.matrix_norm(weight, 2)) == pytest.approx(1, rel=0.02)
    assert critic(torch.zeros(2, 1, 24, 16)).shape == (2, 1, 3, 2)
