"""An exponential moving average of the weights: smoother than the last step, validated and saved in its place."""

from collections.abc import Mapping
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from minet_sdk.training.module import RestorationModule


class WeightAverage(Callback):
    """Averages the network's weights after every step and lends the average to validation.

    It must stand after whatever saves the validated network and before whatever saves the state to resume from.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: list[Tensor] = []
        self.trained: list[Tensor] = []

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start from the weights as they are, unless the run was resumed."""
        weights = _weights(pl_module)
        if not self.average:
            self.average = [weight.clone() for weight in weights]
        self.average = [average.to(weight.device) for average, weight in zip(self.average, weights, strict=True)]

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the average towards the weights; faster at first, when they are far from any average."""
        step = batch_idx + 1
        decay = min(self.decay, (1 + step) / (10 + step))
        for average, weight in zip(self.average, _weights(pl_module), strict=True):
            average.lerp_(weight, 1 - decay)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Put the average in place of the weights."""
        weights = _weights(pl_module)
        self.trained = [weight.clone() for weight in weights]
        _copy(weights, self.average)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Put the weights back."""
        _copy(_weights(pl_module), self.trained)
        self.trained = []

    def state_dict(self) -> dict[str, Any]:
        """The average, for the checkpoint."""
        return {"average": self.average}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a checkpoint's average."""
        self.average = list(state_dict["average"])


def _weights(module: lightning.LightningModule) -> list[Tensor]:
    assert isinstance(module, RestorationModule)
    network: nn.Module = module.network
    return [weight.data for weight in network.parameters()]


def _copy(into: list[Tensor], values: list[Tensor]) -> None:
    for destination, value in zip(into, values, strict=True):
        destination.copy_(value)
