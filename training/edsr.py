"""EDSR (Lim et al., CVPR Workshops 2017): single-contrast super-resolution by residual blocks on the target's grid.

The images have one channel and are normalised, so the RGB mean shift of the publication falls away.
"""

import math
from dataclasses import dataclass
from typing import get_args

from torch import Tensor, nn
from torch.nn import functional

from minet_sdk.errors import TrainingError
from minet_sdk.training.architecture import Architecture, Skip
from minet_sdk.training.layers import SincUpsampler, doublings
from minet_sdk.training.network import Network, Restoration, add_detail_only


@dataclass(frozen=True)
class EdsrConfig(Architecture):
    """Architecture of one EDSR. The defaults are the publication's baseline."""

    kind = "edsr"

    blocks: int = 16
    channels: int = 64
    residual_scaling: float = 1.0
    """What each block's result is multiplied by before it is added; the publication's large network has 0.1."""

    skip: Skip = "none"
    """`sinc` adds the windowed-sinc interpolation of the target."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        super().__post_init__()
        if self.reference:
            raise TrainingError("EDSR is a single-contrast network: it takes no reference")
        self.check_at_least_one("blocks", "channels")
        if not 0 < self.residual_scaling < math.inf:
            raise TrainingError(f"residual_scaling is {self.residual_scaling}; it must be above 0, and finite")
        self.check_choices(skip=get_args(Skip))


class PlainBlock(nn.Module):
    """Two 3x3 convolutions and a skip; neither batch normalisation nor attention."""

    def __init__(self, channels: int, scaling: float = 1.0) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.scaling = scaling

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        change = self.second(functional.relu(self.first(x)))
        return x + (change if self.scaling == 1 else self.scaling * change)


class EDSR(Network):
    """Head, residual blocks with a skip over them all, sub-pixel convolutions, tail."""

    def __init__(self, config: EdsrConfig) -> None:
        super().__init__()
        self._config = config
        c = config.channels
        self.head = nn.Conv2d(1, c, 3, padding=1)
        self.blocks = nn.Sequential(*[PlainBlock(c, config.residual_scaling) for _ in range(config.blocks)])
        self.last = nn.Conv2d(c, c, 3, padding=1)
        self.upsampler = nn.Sequential(*doublings(c, config.scale))
        self.tail = nn.Conv2d(c, 1, 3, padding=1)
        if config.skip == "sinc":
            self.interpolate = SincUpsampler(config.scale)
            add_detail_only(self.tail)

    @property
    def config(self) -> EdsrConfig:
        """What it looks like."""
        return self._config

    def interpolated(self, target: Tensor) -> Tensor | None:
        """The image that the network adds detail to; None without a skip."""
        return self.interpolate(target) if self.config.skip == "sinc" else None

    def restore(self, target: Tensor, reference_features: Tensor | None = None) -> Tensor:
        """(N, 1, H, W) -> (N, 1, sH, sW)."""
        first = self.head(target.to(self.head.weight.dtype))
        detail = self.tail(self.upsampler(first + self.last(self.blocks(first)))).to(target.dtype)
        return detail + self.interpolate(target) if self.config.skip == "sinc" else detail

    def forward(self, target: Tensor, reference: Tensor | None = None) -> Restoration:
        """Restore a batch; see `Network.forward`."""
        self.check_reference(reference)
        return Restoration(self.restore(target))
