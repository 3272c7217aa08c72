"""The training step of MINet: loss of eq. 6, learning-rate schedule, validation measures."""

import math
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional

from minet_sdk.kspace import zero_filled
from minet_sdk.measures import psnr, ssim
from minet_sdk.training.config import MinetConfig
from minet_sdk.training.model import MINet, Restoration, build
from minet_sdk.training.synthetic import Batch

PAPER_TARGET_WEIGHT = 0.3
"""Eq. 6 as printed: 0.3 L1(target) + 0.7 L1(reference)."""


@dataclass(frozen=True)
class OptimiserSettings:
    """How the weights are found."""

    steps: int
    learning_rate: float = 1e-3
    warm_up: int = 50
    """Steps over which the learning rate rises from 0."""

    final_part: float = 0.01
    """The cosine ends at this part of the learning rate."""

    target_weight: float = 0.7
    """Weight of L1(target) in eq. 6, the reference has the rest. The paper prints 0.3; small networks gain from 0.7."""

    clip_norm: float = 1.0


def restoration_loss(result: Restoration, batch: Batch, target_weight: float) -> Tensor:
    """Eq. 6 with free weights; without a reference branch plain L1 of the target."""
    target = functional.l1_loss(result.restored.float(), batch.truth)
    if result.reference is None:
        return target
    return target_weight * target + (1 - target_weight) * functional.l1_loss(result.reference.float(), batch.reference)


class MinetModule(lightning.LightningModule):
    """MINet under training."""

    def __init__(self, config: MinetConfig, optimiser: OptimiserSettings, seed: int) -> None:
        super().__init__()
        self.model: MINet = build(config, seed)
        self.settings = optimiser
        self.validation: list[dict[str, float]] = []

    def _run(self, batch: Batch) -> Restoration:
        return self.model(batch.target, batch.reference if self.model.config.reference else None)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        loss = restoration_loss(self._run(batch), batch, self.settings.target_weight)
        self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=False)
        self.log("learning_rate", self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget the slices of the last validation."""
        self.validation = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Measures of one slice, beside those of zero-filled k-space."""
        restored = self._run(batch).restored.float()
        low, truth, image = (tensor[:, 0].numpy(force=True) for tensor in (batch.target, batch.truth, restored))
        floor = low.min()
        baseline = zero_filled(low - floor, self.model.config.scale) + floor
        shift = truth.min()
        self.validation.append(
            {
                "psnr": psnr(truth - shift, image - shift),
                "ssim": ssim(truth - shift, image - shift),
                "zero_filled_psnr": psnr(truth - shift, baseline - shift),
            }
        )

    def on_validation_epoch_end(self) -> None:
        """Log means over slices and the gain over zero-filled k-space in dB."""
        means = {key: sum(row[key] for row in self.validation) / len(self.validation) for key in self.validation[0]}
        means["gain_db"] = means["psnr"] - means["zero_filled_psnr"]
        self.log_dict(means, prog_bar=False)
        self.log("gain", means["gain_db"], prog_bar=True, logger=False)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam, linear warm-up, cosine."""
        s = self.settings
        adam = torch.optim.Adam(self.model.parameters(), lr=s.learning_rate)

        def factor(step: int) -> float:
            cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / s.steps)))
            return min(1.0, (step + 1) / max(1, s.warm_up)) * (s.final_part + (1 - s.final_part) * cosine)

        schedule: Any = torch.optim.lr_scheduler.LambdaLR(adam, factor)
        return {"optimizer": adam, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
