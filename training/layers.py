"""The building blocks: MINet's residual groups and channel-spatial attention, upsampling, interpolation, folding."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

CHANNEL_REDUCTION = 16
SINC_TAPS = 16
SINC_BETA = 6.0


class ChannelAttention(nn.Module):
    """Squeeze-and-excitation of RCAN: one weight per channel from the channel's mean."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // CHANNEL_REDUCTION)
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.excite = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        pooled = x.mean(dim=(-2, -1), keepdim=True)
        return x * torch.sigmoid(self.excite(functional.relu(self.squeeze(pooled))))


class ResidualBlock(nn.Module):
    """RCAB: two 3x3 convolutions, channel attention, skip; no batch normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.attention = ChannelAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return x + self.attention(self.second(functional.relu(self.first(x))))


class ResidualGroup(nn.Module):
    """A chain of residual blocks, a 3x3 convolution and a skip over them all."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*[ResidualBlock(channels) for _ in range(blocks)])
        self.last = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return x + self.last(self.blocks(x))


class Upsampler(nn.Sequential):
    """log2(scale) times a 3x3 convolution to 4C channels and a pixel shuffle, then one more 3x3 convolution."""

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__(*doublings(channels, scale), nn.Conv2d(channels, channels, 3, padding=1))


def doublings(channels: int, scale: int) -> list[nn.Module]:
    """log2(scale) times a 3x3 convolution to 4C channels and a pixel shuffle."""
    layers: list[nn.Module] = []
    for _ in range(int(math.log2(scale))):
        layers += [nn.Conv2d(channels, 4 * channels, 3, padding=1), nn.PixelShuffle(2)]
    return layers


class ChannelSpatialAttention(nn.Module):
    """F_Att, eq. 4: x * sigmoid(conv3d(x)) + x, the 3x3x3 convolution running over (C, H, W).

    It is computed as a 2D convolution whose C x C weight is a band of width three: the same sums, several times faster
    on a CPU than a one-channel 3D convolution.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.weight = nn.Parameter(torch.empty(1, 1, 3, 3, 3))
        self.bias = nn.Parameter(torch.zeros(1))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return x * torch.sigmoid(functional.conv2d(x, self.band(), self.bias.expand(self.channels), padding=1)) + x

    def band(self) -> Tensor:
        """The banded weight (C, C, 3, 3): output channel c sees channels c-1, c, c+1."""
        eye = torch.eye(self.channels, device=self.weight.device, dtype=self.weight.dtype)
        below = torch.roll(eye, -1, dims=1).tril()
        return torch.einsum("kij,kyx->ijyx", torch.stack([below, eye, below.T]), self.weight[0, 0])


class SincUpsampler(nn.Module):
    """Fixed interpolation on the FFT grid: a sinc under a Kaiser window, edges repeated.

    Nearly zero-filled k-space, but local: 16 low-resolution samples each way, so that tiles and patches agree. Always
    float32: the image itself passes through here, and bfloat16 would cost it 46 dB.
    """

    kernel: Tensor

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        taps = torch.arange(SINC_TAPS, dtype=torch.float64) - (SINC_TAPS // 2 - 1)
        rows: list[Tensor] = []
        for phase in range(scale):
            weight = _windowed_sinc(phase / scale - taps)
            rows.append(weight / weight.sum())
        one = torch.stack(rows)
        full = torch.einsum("ai,bj->abij", one, one).reshape(scale * scale, 1, SINC_TAPS, SINC_TAPS)
        self.register_buffer("kernel", full.float(), persistent=False)

    def forward(self, target: Tensor) -> Tensor:
        """(N, 1, H, W) -> (N, 1, scale * H, scale * W)."""
        before, after = SINC_TAPS // 2 - 1, SINC_TAPS // 2
        with torch.autocast(target.device.type, enabled=False):
            padded = functional.pad(target.float(), (before, after, before, after), mode="replicate")
            return functional.pixel_shuffle(functional.conv2d(padded, self.kernel), self.scale)


class SincDownsampler(nn.Module):
    """The counterpart of `SincUpsampler`: low-pass by the same windowed sinc, stretched, then thinned by the factor.

    Nearly the centre of k-space as `minet_sdk.kspace.degrade` takes it, but local, so that patches agree with slices.
    Low-resolution sample i lies on sample factor * i. Always float32.
    """

    kernel: Tensor

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.reach = factor * SINC_TAPS // 2 - 1
        distance = torch.arange(-self.reach, self.reach + 1, dtype=torch.float64) / factor
        weight = _windowed_sinc(distance)
        weight = weight / weight.sum()
        self.register_buffer("kernel", torch.outer(weight, weight)[None, None].float(), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 1, factor * H, factor * W) -> (N, 1, H, W)."""
        with torch.autocast(image.device.type, enabled=False):
            padded = functional.pad(image.float(), 4 * (self.reach,), mode="replicate")
            return functional.conv2d(padded, self.kernel, stride=self.factor)


class PhaseFolding(nn.Module):
    """The pixels of every factor x factor cell as images of their own, its phases, and back."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, C, factor * H, factor * W) -> factor^2 times (N, C, H, W), the cell row by row."""
        folded = functional.pixel_unshuffle(image, self.factor)
        return list(folded.unflatten(1, (image.shape[1], self.factor**2)).unbind(2))

    def unfold(self, phases: list[Tensor]) -> Tensor:
        """Inverse of `forward`."""
        return functional.pixel_shuffle(torch.stack(phases, dim=2).flatten(1, 2), self.factor)


def _windowed_sinc(distance: Tensor) -> Tensor:
    """Sinc under a Kaiser window that reaches `SINC_TAPS` / 2 samples to either side."""
    inside = (1 - (distance / (SINC_TAPS / 2)) ** 2).clamp(min=0)
    return torch.sinc(distance) * torch.special.i0(SINC_BETA * torch.sqrt(inside))
