"""SMORE-2D, adapted from Zhao et al. (IEEE Transactions on Medical Imaging 2021): learn from the volume itself.

The published method restores through-plane resolution from in-plane patches. Here an EDSR learns for every volume anew
to undo in-plane what a further degradation of its slices did, and then takes the slices themselves one step up.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from minet_sdk.errors import InputError, TrainingError
from minet_sdk.kspace import degrade
from minet_sdk.normalisation import Normalisation
from minet_sdk.training.edsr import EDSR, EdsrConfig
from minet_sdk.training.network import seeded

Array = npt.NDArray[np.float32]

LEAST_SIZE = 12
"""Rows and columns of the volume degraded again: on fewer, nothing can be learnt."""


@dataclass(frozen=True)
class SmoreSettings:
    """How the network learns from one volume."""

    steps: int = 500
    batch_size: int = 16
    patch: int = 32
    """Edge of a training patch in pixels of the given volume; cut to what the volume has."""

    learning_rate: float = 1e-3
    """Of Adam at the start; it falls to zero along a cosine."""

    def __post_init__(self) -> None:
        """Refuse what cannot be learnt from."""
        for name in ("steps", "batch_size", "patch", "learning_rate"):
            if not (value := getattr(self, name)) > 0:
                raise TrainingError(f"{name} is {value}; it must be more than 0")


def restore_by_self_training(
    volume: npt.NDArray[np.generic], config: EdsrConfig, settings: SmoreSettings | None = None, seed: int = 0
) -> Array:
    """Train on a volume and restore it.

    Args:
        volume: (slices, H, W) magnitude, low resolution.
        config: of the network, whose scale is the magnification.
        settings: of the training.
        seed: of weights and patches; the same seed gives the same image on the same machine.

    Returns:
        float32 (slices, scale * H, scale * W), in the intensity of the volume.

    Raises:
        InputError: not three axes, or slices too small to be degraded again.
    """
    return restore_volume(train_on(volume, config, settings, seed), volume)


def train_on(
    volume: npt.NDArray[np.generic], config: EdsrConfig, settings: SmoreSettings | None = None, seed: int = 0
) -> EDSR:
    """The network that `restore_by_self_training` restores with, for instance to be exported; arguments as there."""
    settings = settings or SmoreSettings()
    lower, truth = _pairs(volume, config.scale)
    size = max(1, min(settings.patch // config.scale, *lower.shape[-2:]))
    rng = np.random.default_rng(seed)
    with seeded(seed):
        network = EDSR(config)
    adam = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, settings.steps)
    for _ in range(settings.steps):
        given, wanted = _batch(lower, truth, settings.batch_size, size, config.scale, rng)
        loss = functional.l1_loss(network.restore(given), wanted)
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
    return network.eval()


def restore_volume(network: EDSR, volume: npt.NDArray[np.generic]) -> Array:
    """Slice by slice: (slices, H, W) -> (slices, scale * H, scale * W), in the intensity of the volume."""
    normalisation = Normalisation()
    restored: list[Array] = []
    with torch.no_grad():
        for piece in volume.astype(np.float32):
            statistics = normalisation.statistics(piece)
            given = torch.from_numpy(normalisation.apply(piece, statistics))[None, None]
            restored.append(normalisation.undo(network.restore(given)[0, 0].numpy(), statistics))
    return np.stack(restored)


def _pairs(volume: npt.NDArray[np.generic], scale: int) -> tuple[Tensor, Tensor]:
    """Slices degraded again and the slices, (slices, H / scale, W / scale) and (slices, H, W), normalised alike.

    Slices whose size is no multiple of the scale lose their last rows and columns.
    """
    if volume.ndim != 3 or min(size // scale for size in volume.shape[1:]) < LEAST_SIZE:
        least = LEAST_SIZE * scale
        raise InputError(f"volume has shape {volume.shape}; expected (slices, H, W) with H and W at least {least}")
    height, width = (size - size % scale for size in volume.shape[1:])
    normalisation = Normalisation()
    lower: list[Array] = []
    truth: list[Array] = []
    for piece in volume[:, :height, :width].astype(np.float32):
        low = degrade(piece, scale)
        statistics = normalisation.statistics(low)
        lower.append(normalisation.apply(low, statistics))
        truth.append(normalisation.apply(piece, statistics))
    return torch.from_numpy(np.stack(lower)), torch.from_numpy(np.stack(truth))


def _batch(
    lower: Tensor, truth: Tensor, count: int, size: int, scale: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Patches of ``size`` low-resolution pixels."""
    given: list[Tensor] = []
    wanted: list[Tensor] = []
    for _ in range(count):
        index, row, column = (int(rng.integers(n)) for n in (len(lower), *(n - size + 1 for n in lower.shape[1:])))
        given.append(lower[index, row : row + size, column : column + size])
        wanted.append(truth[index, scale * row :, scale * column :][: scale * size, : scale * size])
    return torch.stack(given)[:, None], torch.stack(wanted)[:, None]
