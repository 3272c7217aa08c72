"""What training minimises: one object for each objective of the compared methods, with its critic if it has one."""

import math
from abc import abstractmethod
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from minet_sdk.errors import TrainingError
from minet_sdk.training.layers import SincDownsampler
from minet_sdk.training.network import Restoration
from minet_sdk.training.perception import Critic, GaborScattering, texture
from minet_sdk.training.typed import typed_fields

if TYPE_CHECKING:
    from minet_sdk.training.loading import Batch


@dataclass(frozen=True)
class ObjectiveSettings:
    """Weights of the terms; an objective uses those that it has."""

    target_weight: float = 0.7
    """Of L1(target) in eq. 6, the reference has the rest. The paper prints 0.3; small networks gain from 0.7."""

    detail_weight: float = 0.0
    """Within L1(target): of the error beyond the measured k-space alone, the whole error has the rest. What k-space
    consistency puts right afterwards then counts less, and what only the network can restore counts more."""

    intermediate_weight: float = 1.0
    """Of every intermediate image's own error, beside the restored image's 1."""

    adversarial_weight: float = 1e-3
    perceptual_weight: float = 0.1
    """The term itself is about as large as the mean squared error."""

    texture_weight: float = 1.0
    """The term itself is some hundred times smaller at x2, thirty times at x4."""

    def __post_init__(self) -> None:
        """Refuse weights that would reward errors."""
        for entry in fields(self):
            if not 0 <= (value := getattr(self, entry.name)) < math.inf:
                raise TrainingError(f"{entry.name} is {value}; it must be at least 0, and finite")
        for name in ("target_weight", "detail_weight"):
            if (value := getattr(self, name)) > 1:
                raise TrainingError(f"{name} is {value}; it must be between 0 and 1")


class Objective(nn.Module):
    """Losses of one method. All are computed in float32, also where the network runs in less."""

    discriminator: nn.Module | None
    """What an adversarial objective trains beside the network, with an optimiser of its own; None for all others."""

    def __init__(self, settings: ObjectiveSettings) -> None:
        super().__init__()
        self.settings = settings
        self.discriminator = None

    def generator_loss(self, result: Restoration, batch: "Batch") -> Tensor:
        """What the network is to make small; its gradient leaves the discriminator alone.

        Args:
            result: of the network under training.
            batch: what it was given, and the truth.

        Returns:
            A float32 scalar.
        """
        with torch.autocast(batch.truth.device.type, enabled=False):
            return self._loss(_float32(result), batch)

    def discriminator_loss(self, result: Restoration, batch: "Batch") -> Tensor | None:
        """What the discriminator is to make small; its gradient leaves the network alone. None without one."""
        return None

    @abstractmethod
    def _loss(self, result: Restoration, batch: "Batch") -> Tensor: ...


class Eq6(Objective):
    """Eq. 6 of MINet: w L1(target) + (1 - w) L1(reference); L1 of the target for networks without a reference head."""

    def _loss(self, result: Restoration, batch: "Batch") -> Tensor:
        error = result.restored - batch.truth
        target, detail = error.abs().mean(), self.settings.detail_weight
        if detail:
            scale = batch.truth.shape[-1] // batch.target.shape[-1]
            target = (1 - detail) * target + detail * beyond_measured(error, scale).abs().mean()
        if result.reference is None:
            return target
        weight = self.settings.target_weight
        return weight * target + (1 - weight) * functional.l1_loss(result.reference, batch.reference)


def beyond_measured(image: Tensor, scale: int) -> Tensor:
    """An image without the centre of its k-space that a target of lower resolution holds.

    A patch is taken to continue periodically, which errors around zero do well enough.

    Args:
        image: (N, 1, H, W) float32.
        scale: part of the frequencies along each axis that was measured is 1 / scale.
    """
    spectrum = torch.fft.rfft2(image)
    rows = torch.fft.fftfreq(image.shape[-2], device=image.device).abs() < 0.5 / scale
    columns = torch.fft.rfftfreq(image.shape[-1], device=image.device) < 0.5 / scale
    return torch.fft.irfft2(spectrum * ~(rows[:, None] & columns), s=image.shape[-2:])


class MeanAbsolute(Objective):
    """L1 of the restored image alone."""

    def _loss(self, result: Restoration, batch: "Batch") -> Tensor:
        return functional.l1_loss(result.restored, batch.truth)


class MeanSquared(Objective):
    """Mean squared error of the restored image and of all intermediate ones.

    An intermediate image of a lower resolution is compared with the truth in that resolution.
    """

    def __init__(self, settings: ObjectiveSettings) -> None:
        super().__init__(settings)
        self.halve = SincDownsampler(2)

    def _loss(self, result: Restoration, batch: "Batch") -> Tensor:
        loss = functional.mse_loss(result.restored, batch.truth)
        for image in result.intermediates:
            truth = batch.truth
            while truth.shape[-1] > image.shape[-1]:
                truth = self.halve(truth)
            loss = loss + self.settings.intermediate_weight * functional.mse_loss(image, truth)
        return loss


class Composite(MeanSquared):
    """Mean squared error with adversarial, perceptual and texture terms (Lyu et al. 2020).

    The perceptual features are those of a fixed scattering network, not of one trained on photographs; the adversarial
    term is the hinge form with a spectrally normalised critic. Both terms and the texture see the restored image only.
    """

    def __init__(self, settings: ObjectiveSettings) -> None:
        super().__init__(settings)
        self.features = GaborScattering()
        self.discriminator = Critic()

    def _loss(self, result: Restoration, batch: "Batch") -> Tensor:
        assert self.discriminator is not None
        found, expected = self.features(result.restored), self.features(batch.truth)
        pairs = list(zip(found, expected, strict=True))
        perceptual = torch.stack([functional.mse_loss(a, b) for a, b in pairs]).mean()
        gram = torch.stack([(texture(a) - texture(b)).square().sum(dim=(1, 2)).mean() for a, b in pairs]).mean()
        with _frozen(self.discriminator):
            adversarial = -self.discriminator(result.restored).mean()
        s = self.settings
        return (
            super()._loss(result, batch)
            + s.adversarial_weight * adversarial
            + s.perceptual_weight * perceptual
            + s.texture_weight * gram
        )

    def discriminator_loss(self, result: Restoration, batch: "Batch") -> Tensor:
        """Hinge loss: true images above 1, restored ones below -1."""
        assert self.discriminator is not None
        with torch.autocast(batch.truth.device.type, enabled=False):
            true = self.discriminator(batch.truth.float())
            restored = self.discriminator(result.restored.detach().float())
        return functional.relu(1 - true).mean() + functional.relu(1 + restored).mean()


OBJECTIVES: dict[str, type[Objective]] = {
    "eq6": Eq6,
    "l1": MeanAbsolute,
    "mse": MeanSquared,
    "composite": Composite,
}
"""By name, as methods and settings have it."""


def make_objective(name: str, settings: ObjectiveSettings | Mapping[str, Any] | None = None) -> Objective:
    """An objective by name.

    Args:
        name: one of `OBJECTIVES`.
        settings: weights, or those that differ from the defaults.

    Raises:
        TrainingError: no such objective or setting.
    """
    if name not in OBJECTIVES:
        raise TrainingError(f"objective is {name!r}; choose one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name](settings if isinstance(settings, ObjectiveSettings) else objective_settings(settings or {}))


def objective_settings(given: Mapping[str, Any]) -> ObjectiveSettings:
    """Weights from a settings file.

    Raises:
        TrainingError: an unknown name, or a value that is no weight.
    """
    return ObjectiveSettings(**typed_fields(ObjectiveSettings, given, "objective_settings"))


def _float32(result: Restoration) -> Restoration:
    return Restoration(
        result.restored.float(),
        None if result.reference is None else result.reference.float(),
        tuple(image.float() for image in result.intermediates),
    )


@contextmanager
def _frozen(module: nn.Module) -> Generator[None]:
    """Keep a module out of the graph that is recorded meanwhile."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
