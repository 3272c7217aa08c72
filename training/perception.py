"""What the composite objective sees an image with: fixed scattering features, their texture, and a critic that learns.

Nothing here is downloaded or trained on photographs. The features are a scattering network (Mallat 2012): Gabor filters
of several orientations, modulus, again at half the resolution. That is an honest stand-in for the VGG features of the
publications, and it is what the model cards of adversarially trained networks say.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

ORIENTATIONS = 6
GABOR_SIZE = 7
GABOR_SIGMA = 1.5
"""Pixels, of the Gaussian envelope."""

GABOR_FREQUENCY = math.pi / 2
"""Radians a pixel: a period of four pixels, what x2 super-resolution has to restore."""

MODULUS_FLOOR = 1e-6
"""Added to the squared modulus, so that its root has a gradient everywhere."""


def gabor_filters() -> tuple[Tensor, Tensor]:
    """Real and imaginary filters, (ORIENTATIONS, 1, GABOR_SIZE, GABOR_SIZE) each: no mean, unit energy together."""
    axis = torch.arange(GABOR_SIZE, dtype=torch.float64) - GABOR_SIZE // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    envelope = torch.exp(-(x**2 + y**2) / (2 * GABOR_SIGMA**2))
    angle = torch.arange(ORIENTATIONS, dtype=torch.float64)[:, None, None] * math.pi / ORIENTATIONS
    phase = GABOR_FREQUENCY * (x * torch.cos(angle) + y * torch.sin(angle))
    real = envelope * phase.cos()
    real = real - envelope * (real.sum(dim=(1, 2), keepdim=True) / envelope.sum())
    imaginary = envelope * phase.sin()
    energy = (real.square() + imaginary.square()).sum(dim=(1, 2), keepdim=True).sqrt()
    return (real / energy)[:, None].float(), (imaginary / energy)[:, None].float()


class GaborScattering(nn.Module):
    """Two layers of oriented moduli: of the image, then of the image and of the first layer at half the resolution."""

    real: Tensor
    imaginary: Tensor

    def __init__(self) -> None:
        super().__init__()
        real, imaginary = gabor_filters()
        self.register_buffer("real", real, persistent=False)
        self.register_buffer("imaginary", imaginary, persistent=False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, 1, H, W) -> (N, 6, H, W) and (N, 42, H // 2, W // 2)."""
        first = self._moduli(image)
        coarse = functional.avg_pool2d(torch.cat([image, first], dim=1), 2)
        return [first, self._moduli(coarse)]

    def _moduli(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, ORIENTATIONS * C, H, W), edges repeated."""
        batch, channels = images.shape[:2]
        padded = functional.pad(images.flatten(0, 1)[:, None], 4 * (GABOR_SIZE // 2,), mode="replicate")
        real, imaginary = functional.conv2d(padded, self.real), functional.conv2d(padded, self.imaginary)
        return (real.square() + imaginary.square() + MODULUS_FLOOR).sqrt().unflatten(0, (batch, channels)).flatten(1, 2)


def texture(features: Tensor) -> Tensor:
    """Gram matrix over the pixels: (N, C, H, W) -> (N, C, C), divided by C H W (Gatys et al. 2016)."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat[0].numel()


class Critic(nn.Module):
    """Judges patches of an image: strided convolutions under spectral normalisation (Miyato et al. 2018)."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for width in (channels, 2 * channels, 4 * channels):
            layers += [spectral_norm(nn.Conv2d(before, width, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
            before = width
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(before, 1, 3, padding=1)))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 1, H, W) -> (N, 1, H // 8, W // 8): high where a patch looks true."""
        return self.layers(image)
