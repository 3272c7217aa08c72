"""Lyu et al., IEEE Transactions on Medical Imaging 2020: progressive, one level for each doubling.

Each level encodes image and reference apart, joins them as features, and gives an image of twice the size: one level
restores x2, two restore x4, the second starting from the first's image.
"""

from dataclasses import dataclass, field
from typing import get_args

import torch
from torch import Tensor, nn

from minet_sdk.errors import TrainingError
from minet_sdk.training.architecture import Architecture, Skip
from minet_sdk.training.edsr import PlainBlock
from minet_sdk.training.layers import PhaseFolding, SincDownsampler, SincUpsampler, doublings
from minet_sdk.training.network import FeatureLayout, Network, Restoration, add_detail_only


@dataclass(frozen=True)
class LyuConfig(Architecture):
    """Architecture of one network of Lyu et al."""

    kind = "lyu"

    reference: bool = field(default=True, kw_only=True)
    encoder_blocks: int = 4
    """Residual blocks of each encoder, of which a level has two."""

    decoder_blocks: int = 4
    """Residual blocks of a level after the fusion."""

    channels: int = 64
    skip: Skip = "none"
    """`sinc` adds the windowed-sinc interpolation of what a level starts from to what it gives."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        super().__post_init__()
        if not self.reference:
            raise TrainingError("the network of Lyu et al. is a multi-contrast network: it needs a reference")
        self.check_at_least_one("encoder_blocks", "decoder_blocks", "channels")
        self.check_choices(skip=get_args(Skip))

    @property
    def levels(self) -> int:
        """One for x2, two for x4."""
        return self.scale // 2


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*[PlainBlock(channels) for _ in range(count)])


class Level(nn.Module):
    """One doubling: two encoders, fusion in feature space, decoder."""

    def __init__(self, config: LyuConfig) -> None:
        super().__init__()
        c = config.channels
        self.target_encoder = nn.Sequential(
            nn.Conv2d(1, c, 3, padding=1), _blocks(c, config.encoder_blocks), nn.Sequential(*doublings(c, 2))
        )
        self.reference_encoder = nn.Sequential(nn.Conv2d(1, c, 3, padding=1), _blocks(c, config.encoder_blocks))
        self.fusion = nn.Conv2d(2 * c, c, 3, padding=1)
        self.decoder = _blocks(c, config.decoder_blocks)
        self.tail = nn.Conv2d(c, 1, 3, padding=1)
        self.interpolate = SincUpsampler(2) if config.skip == "sinc" else None
        if self.interpolate is not None:
            add_detail_only(self.tail)

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """(N, 1, H, W) and the reference's features (N, C, 2H, 2W) -> (N, 1, 2H, 2W)."""
        encoded = self.target_encoder(image.to(self.tail.weight.dtype))
        decoded = self.decoder(self.fusion(torch.cat([encoded, reference], dim=1)))
        result = self.tail(decoded).to(image.dtype)
        return result if self.interpolate is None else result + self.interpolate(image)


class Lyu(Network):
    """The levels, and the reference in the resolution of each."""

    def __init__(self, config: LyuConfig) -> None:
        super().__init__()
        self._config = config
        self.levels = nn.ModuleList([Level(config) for _ in range(config.levels)])
        if config.levels == 2:
            self.downsample = SincDownsampler(2)
            self.fold = PhaseFolding(2)

    @property
    def config(self) -> LyuConfig:
        """What it looks like."""
        return self._config

    @property
    def features(self) -> FeatureLayout:
        """Layout of `encode_reference`'s result."""
        return FeatureLayout(1 if self.config.levels == 1 else 1 + 4, self.config.channels, 2)

    def interpolated(self, target: Tensor) -> Tensor | None:
        """The target through the skips of all levels; None without skips."""
        if self.config.skip == "none":
            return None
        for level in self.levels:
            target = level.get_submodule("interpolate")(target)
        return target

    def encode_reference(self, reference: Tensor) -> Tensor:
        """Features of the reference for all levels: (N, 1, sH, sW) -> (N, K, C, 2H, 2W).

        K is 1 at x2. At x4 it is 5: the first level's features, and the four pixels of each 2 x 2 cell of the second
        level's, row by row.
        """
        dtype = next(self.levels.parameters()).dtype
        if self.config.levels == 1:
            return self._encoder(0)(reference.to(dtype)).unsqueeze(1)
        coarse = self._encoder(0)(self.downsample(reference).to(dtype))
        fine = self._encoder(1)(reference.to(dtype))
        return torch.stack([coarse, *self.fold(fine)], dim=1)

    def restore(self, target: Tensor, reference_features: Tensor | None) -> Tensor:
        """The last level's image: (N, 1, H, W) and `encode_reference`'s result -> (N, 1, sH, sW)."""
        return self._images(target, reference_features)[-1]

    def forward(self, target: Tensor, reference: Tensor | None = None) -> Restoration:
        """Restore a batch; see `Network.forward`. The images of all levels but the last are intermediates."""
        self.check_reference(reference)
        assert reference is not None
        *between, restored = self._images(target, self.encode_reference(reference))
        return Restoration(restored, intermediates=tuple(between))

    def _encoder(self, level: int) -> nn.Module:
        return self.levels[level].get_submodule("reference_encoder")

    def _images(self, target: Tensor, reference_features: Tensor | None) -> list[Tensor]:
        """What each level gives."""
        assert reference_features is not None
        first, *phases = reference_features.unbind(1)
        images = [self.levels[0](target, first)]
        if self.config.levels == 2:
            images.append(self.levels[1](images[0], self.fold.unfold(phases)))
        return images
