"""MINet (Feng et al., MICCAI 2021): restore a low-resolution target contrast under the guidance of a sharp reference.

The reference branch never depends on the target (eq. 1), so `encode_reference` can run before the target exists.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from minet_sdk.training.config import MinetConfig
from minet_sdk.training.integration import MultiStageIntegration
from minet_sdk.training.layers import ChannelSpatialAttention, ResidualGroup, SincUpsampler, Upsampler
from minet_sdk.training.network import FeatureLayout, Network, Restoration, add_detail_only, seeded


class MINet(Network):
    """The whole network; which parts exist follows from the config."""

    def __init__(self, config: MinetConfig) -> None:
        super().__init__()
        self._config = config
        c, stages = config.channels, config.stages
        folded = config.grid == "target"
        pixels = config.scale**2 if folded else 1
        upsampling = [] if folded else [Upsampler(c, config.scale)]
        self.target_head = nn.Sequential(nn.Conv2d(1, c, 3, padding=1), *upsampling)
        self.target_groups = nn.ModuleList([ResidualGroup(c, config.blocks) for _ in range(stages)])
        if config.reference:
            self.reference_head = nn.Conv2d(pixels, c, 3, padding=1)
            self.reference_groups = nn.ModuleList([ResidualGroup(c, config.blocks) for _ in range(stages)])
            self.fusions = nn.ModuleList([nn.Conv2d(2 * c, c, 1) for _ in range(stages)])
            self.reference_tail = nn.Conv2d(c, pixels, 3, padding=1)
        if config.integration == "affinity":
            self.integration = MultiStageIntegration(config.affinity)
        if config.integration != "none":
            self.reduction = nn.Conv2d(config.stage_features * c, c, 3, padding=1)
        if config.attention:
            self.target_attention = ChannelSpatialAttention(c)
            if config.reference:
                self.reference_attention = ChannelSpatialAttention(c)
        self.target_tail = nn.Conv2d(c, pixels, 3, padding=1)
        if config.skip == "sinc":
            self.interpolate = SincUpsampler(config.scale)
            add_detail_only(self.target_tail)

    @property
    def config(self) -> MinetConfig:
        """What it looks like."""
        return self._config

    @property
    def features(self) -> FeatureLayout | None:
        """Layout of `encode_reference`'s result."""
        c = self.config
        return FeatureLayout(c.stages + 1, c.channels, c.scale if c.grid == "restored" else 1) if c.reference else None

    def interpolated(self, target: Tensor) -> Tensor | None:
        """The image that the network adds detail to; None without a skip."""
        return self.interpolate(target) if self.config.skip == "sinc" else None

    def encode_reference(self, reference: Tensor) -> Tensor:
        """Eq. 1: (N, 1, sH, sW) -> (N, L + 1, C, sH, sW), the features before and after every stage.

        On the target's grid the features are (N, L + 1, C, H, W).
        """
        if self.config.grid == "target":
            reference = functional.pixel_unshuffle(reference, self.config.scale)
        features = [self.reference_head(reference)]
        for group in self.reference_groups:
            features.append(group(features[-1]))
        return torch.stack(features, dim=1)

    def restore(self, target: Tensor, reference_features: Tensor | None) -> Tensor:
        """Eq. 2-5: (N, 1, H, W) and `encode_reference`'s result -> (N, 1, sH, sW)."""
        first = self.target_head(target)
        current = first
        outputs: list[Tensor] = []
        for stage, group in enumerate(self.target_groups):
            if reference_features is not None:
                guided = torch.cat([reference_features[:, stage], current], dim=1)
                current = current + self.fusions[stage](guided)
            current = group(current)
            outputs.append(current)
        total = first + (self.target_attention(current) if self.config.attention else current)
        if self.config.integration != "none":
            stages = torch.stack(outputs, dim=1)
            if reference_features is not None:
                stages = torch.cat([reference_features[:, 1:], stages], dim=1)
            total = total + self.reduction(self.integrate(stages))
        restored = self._unfold(self.target_tail(total))
        return restored + self.interpolate(target) if self.config.skip == "sinc" else restored

    def _unfold(self, image: Tensor) -> Tensor:
        """Channels back to the pixels they stand for, where the stages ran on the target's grid."""
        return functional.pixel_shuffle(image, self.config.scale) if self.config.grid == "target" else image

    def integrate(self, stages: Tensor) -> Tensor:
        """Eq. 7-8 without the reduction: (N, M, C, H, W) -> (N, M * C, H, W), reference stages first."""
        if self.config.integration == "affinity":
            stages = self.integration(stages)
        return stages.flatten(1, 2)

    def forward(self, target: Tensor, reference: Tensor | None = None) -> Restoration:
        """Restore a batch.

        Args:
            target: (N, 1, H, W) normalised low-resolution target.
            reference: (N, 1, sH, sW) normalised reference; None exactly if the network has no reference branch.

        Raises:
            InputError: a reference is missing or superfluous.
        """
        self.check_reference(reference)
        if reference is None:
            return Restoration(self.restore(target, None))
        features = self.encode_reference(reference)
        last = features[:, -1]
        own = self.reference_tail(self.reference_attention(last) if self.config.attention else last)
        return Restoration(self.restore(target, features), self._unfold(own))


def build(config: MinetConfig, seed: int = 0) -> MINet:
    """A freshly initialised MINet; the same seed gives the same weights."""
    with seeded(seed):
        return MINet(config)
