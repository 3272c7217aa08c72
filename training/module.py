"""One step of training and of validation, as Lightning wants it; with an adversarial objective, the two steps of it."""

from typing import Any

import lightning
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn import functional

from minet_sdk.kspace import zero_filled
from minet_sdk.measures import psnr, ssim
from minet_sdk.training.loading import Batch
from minet_sdk.training.network import Network, Restoration
from minet_sdk.training.objectives import Objective
from minet_sdk.training.schedule import rate_factor
from minet_sdk.training.settings import TrainingSettings

MEASURES = ("psnr", "ssim", "zero_filled_psnr")


class RestorationModule(lightning.LightningModule):
    """A network under training with an objective that needs one optimiser."""

    def __init__(
        self, network: Network, objective: Objective, settings: TrainingSettings, teacher: Network | None = None
    ) -> None:
        """Keep the teacher out of the registered modules: it is neither trained nor part of a checkpoint."""
        super().__init__()
        self.network = network
        self.objective = objective
        self.settings = settings
        self._unregistered = [] if teacher is None else [teacher.requires_grad_(False).eval()]
        self._sums = torch.zeros(len(MEASURES) + 1, dtype=torch.float64)

    def restore(self, batch: Batch, network: Network | None = None) -> Restoration:
        """What the network, or another one, makes of a batch."""
        network = network or self.network
        return network(batch.target, batch.reference if network.guided else None)

    def on_fit_start(self) -> None:
        """Bring the teacher to the network's device."""
        for teacher in self._unregistered:
            teacher.to(self.device)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Everything random and the learning rate follow from the number of the step, and so survive an interruption.

        ``batch_idx`` is that number, since a run is one epoch for Lightning.
        """
        _seed_step(self.settings.seed, batch_idx, self.global_rank, self.device)
        s = self.settings
        factor = rate_factor(batch_idx, s.steps, s.schedule, s.warm_up, s.final_part)
        for optimiser in self.trainer.optimizers:
            for group in optimiser.param_groups:
                group["lr"] = factor * group["peak"]

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Loss of one batch, with its parts for the log."""
        return self.generator_losses(self.restore(batch), batch)

    def generator_losses(self, result: Restoration, batch: Batch) -> dict[str, Tensor]:
        """The objective's loss; with a teacher also the distance to its image, weighted."""
        loss = self.objective.generator_loss(result, batch)
        if not self._unregistered:
            return {"loss": loss}
        with torch.no_grad():
            taught = self.restore(batch, self._unregistered[0]).restored
        distance = functional.l1_loss(result.restored.float(), taught.float())
        return {"loss": loss + self.settings.teacher_weight * distance, "distance_to_teacher": distance}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient's norm; Lightning's own clipping refuses fused optimisers."""
        if self.settings.clip_norm:
            parameters = [one for group in optimizer.param_groups for one in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.settings.clip_norm)

    def on_validation_epoch_start(self) -> None:
        """Forget the slices of the last validation."""
        self._sums = torch.zeros_like(self._sums)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Measures of one slice, beside those of zero-filled k-space."""
        restored = self.restore(batch).restored.float()
        low, truth, image = (tensor[:, 0].numpy(force=True) for tensor in (batch.target, batch.truth, restored))
        floor = low.min()
        baseline = zero_filled(low - floor, self.network.config.scale) + floor
        shift = truth.min()
        measures = (
            psnr(truth - shift, image - shift),
            ssim(truth - shift, image - shift),
            psnr(truth - shift, baseline - shift),
        )
        self._sums += torch.tensor((*measures, 1.0), dtype=torch.float64)

    def on_validation_epoch_end(self) -> None:
        """Means over the slices of all devices, and the gain over zero-filled k-space in dB."""
        sums = self._sums.to(self.device)
        if self.trainer.world_size > 1:
            sums = self.trainer.strategy.reduce(sums, reduce_op="sum")
        assert isinstance(sums, Tensor)
        *totals, slices = sums.tolist()
        means = {name: total / slices for name, total in zip(MEASURES, totals, strict=True)}
        means["gain_db"] = means["psnr"] - means["zero_filled_psnr"]
        self.log_dict(means, logger=False, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Adam over the network."""
        return self._adam(self.network, self.settings.learning_rate)

    def _adam(self, module: nn.Module, peak: float) -> torch.optim.Optimizer:
        """Adam in its fused form, which halves the cost of a small step; 16-mixed needs the other to clip gradients."""
        fused = self.settings.precision != "16-mixed"
        return torch.optim.Adam([{"params": list(module.parameters()), "peak": peak}], lr=peak, fused=fused)


class AdversarialModule(RestorationModule):
    """A network under training against a discriminator: a step of the one, then a step of the other."""

    def __init__(
        self, network: Network, objective: Objective, settings: TrainingSettings, teacher: Network | None = None
    ) -> None:
        super().__init__(network, objective, settings, teacher)
        self.automatic_optimization = False

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """One step of the generator, then one of the discriminator on the same images."""
        generator, critic = self._optimisers()
        self.toggle_optimizer(generator)
        result = self.restore(batch)
        losses = self.generator_losses(result, batch)
        self._step(generator, losses["loss"])
        self.untoggle_optimizer(generator)
        self.toggle_optimizer(critic)
        loss = self.objective.discriminator_loss(_detached(result), batch)
        assert loss is not None
        self._step(critic, loss)
        self.untoggle_optimizer(critic)
        return {name: value.detach() for name, value in losses.items()} | {"discriminator_loss": loss.detach()}

    def configure_optimizers(self) -> Any:
        """Adam over the network, Adam over the discriminator."""
        assert self.objective.discriminator is not None
        critic = self._adam(self.objective.discriminator, self.settings.discriminator_learning_rate)
        return super().configure_optimizers(), critic

    def _optimisers(self) -> tuple[LightningOptimizer, LightningOptimizer]:
        optimisers = self.optimizers()
        assert isinstance(optimisers, list)
        generator, critic = optimisers
        assert isinstance(generator, LightningOptimizer)
        assert isinstance(critic, LightningOptimizer)
        return generator, critic

    def _step(self, optimiser: LightningOptimizer, loss: Tensor) -> None:
        self.manual_backward(loss)
        optimiser.step()
        optimiser.zero_grad()


def _detached(result: Restoration) -> Restoration:
    """The images without the network that made them."""
    return Restoration(
        result.restored.detach(),
        None if result.reference is None else result.reference.detach(),
        tuple(image.detach() for image in result.intermediates),
    )


def _seed_step(seed: int, step: int, rank: int, device: torch.device) -> None:
    """Seed this device's generator, and no other, by run, step and rank."""
    mixed = (seed * 1_000_003 + step) * 4_099 + rank
    torch.default_generator.manual_seed(mixed % 2**63)
    if device.type == "cuda":
        torch.cuda.manual_seed(mixed % 2**63)
