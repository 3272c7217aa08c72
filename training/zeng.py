"""Zeng et al., Computers in Biology and Medicine 2018: one convolutional network, two restored images.

The first half restores the target alone; the second takes that image together with the reference and corrects it. Both
images are compared with the truth. The fusion is early: the reference's pixels enter the second half's first layer.
"""

from dataclasses import dataclass, field
from typing import get_args

from torch import Tensor, nn
from torch.nn import functional

from minet_sdk.errors import TrainingError
from minet_sdk.training.architecture import Architecture, Skip
from minet_sdk.training.layers import SincUpsampler, doublings
from minet_sdk.training.network import FeatureLayout, Network, Restoration, add_detail_only


@dataclass(frozen=True)
class ZengConfig(Architecture):
    """Architecture of one network of Zeng et al."""

    kind = "zeng"

    reference: bool = field(default=True, kw_only=True)
    depth: int = 8
    """3x3 convolutions on the target's grid that the single-contrast half has after its first."""

    guided_depth: int = 8
    """3x3 convolutions on the restored grid that the multi-contrast half has after its first."""

    channels: int = 64
    skip: Skip = "none"
    """`sinc` adds the windowed-sinc interpolation of the target to the single-contrast image."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        super().__post_init__()
        if not self.reference:
            raise TrainingError("the network of Zeng et al. is a multi-contrast network: it needs a reference")
        self.check_at_least_one("depth", "guided_depth", "channels")
        self.check_choices(skip=get_args(Skip))


def chain(channels: int, depth: int) -> nn.Sequential:
    """3x3 convolutions, each followed by a ReLU."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)


class Zeng(Network):
    """Single-contrast half, then multi-contrast half.

    The first layer of the second half is one 3x3 convolution over two channels, image and reference, written as one
    convolution for each: what the reference contributes is a feature that needs no target.
    """

    def __init__(self, config: ZengConfig) -> None:
        super().__init__()
        self._config = config
        c = config.channels
        self.target_head = nn.Conv2d(1, c, 3, padding=1)
        self.target_layers = chain(c, config.depth)
        self.upsampler = nn.Sequential(*doublings(c, config.scale))
        self.target_tail = nn.Conv2d(c, 1, 3, padding=1)
        self.image_head = nn.Conv2d(1, c, 3, padding=1)
        self.reference_head = nn.Conv2d(1, c, 3, padding=1, bias=False)
        self.guided_layers = chain(c, config.guided_depth)
        self.guided_tail = nn.Conv2d(c, 1, 3, padding=1)
        if config.skip == "sinc":
            self.interpolate = SincUpsampler(config.scale)
            add_detail_only(self.target_tail)
            add_detail_only(self.guided_tail)

    @property
    def config(self) -> ZengConfig:
        """What it looks like."""
        return self._config

    @property
    def features(self) -> FeatureLayout:
        """Layout of `encode_reference`'s result."""
        return FeatureLayout(1, self.config.channels, self.config.scale)

    def interpolated(self, target: Tensor) -> Tensor | None:
        """The image that the network adds detail to; None without a skip."""
        return self.interpolate(target) if self.config.skip == "sinc" else None

    def encode_reference(self, reference: Tensor) -> Tensor:
        """The reference's part of the fusion: (N, 1, sH, sW) -> (N, 1, C, sH, sW)."""
        return self.reference_head(reference.to(self.reference_head.weight.dtype)).unsqueeze(1)

    def restore(self, target: Tensor, reference_features: Tensor | None) -> Tensor:
        """The multi-contrast image: (N, 1, H, W) and `encode_reference`'s result -> (N, 1, sH, sW)."""
        return self._images(target, reference_features)[1]

    def forward(self, target: Tensor, reference: Tensor | None = None) -> Restoration:
        """Restore a batch; see `Network.forward`. The single-contrast image is an intermediate."""
        self.check_reference(reference)
        assert reference is not None
        alone, guided = self._images(target, self.encode_reference(reference))
        return Restoration(guided, intermediates=(alone,))

    def _images(self, target: Tensor, reference_features: Tensor | None) -> tuple[Tensor, Tensor]:
        """The single-contrast and the multi-contrast image."""
        assert reference_features is not None
        dtype = self.target_head.weight.dtype
        first = functional.relu(self.target_head(target.to(dtype)))
        alone = self.target_tail(self.upsampler(self.target_layers(first))).to(target.dtype)
        if self.config.skip == "sinc":
            alone = alone + self.interpolate(target)
        fused = functional.relu(self.image_head(alone.to(dtype)) + reference_features.unbind(1)[0])
        return alone, alone + self.guided_tail(self.guided_layers(fused)).to(target.dtype)
