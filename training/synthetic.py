"""Training and validation samples made on the fly from label maps; sample number and seed determine every one."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from minet_sdk.kspace import degrade
from minet_sdk.normalisation import Normalisation
from minet_sdk.training.contrast import ContrastSettings, Pair, random_pair
from minet_sdk.training.labels import Split, Subject

PATCHES_PER_SLICE = 2
LEAST_SIGNAL = 0.02
"""A training patch must be at least this bright on average, over the slice's maximum."""

PATCH_TRIES = 20

_SPLIT_SEED: dict[Split, int] = {"train": 0, "validation": 1, "test": 2}


class Batch(NamedTuple):
    """Normalised network inputs and the truth, all by the target's or the reference's own whole slice."""

    target: Tensor
    """(N, 1, H, W) float32."""

    reference: Tensor
    """(N, 1, sH, sW) float32."""

    truth: Tensor
    """(N, 1, sH, sW) float32, by the target's statistics."""


@dataclass(frozen=True)
class Sample:
    """One normalised slice, arrays as in `Batch` without N and channel."""

    target: npt.NDArray[np.float32]
    reference: npt.NDArray[np.float32]
    truth: npt.NDArray[np.float32]


def sample_from_pair(pair: Pair, scale: int, normalisation: Normalisation) -> Sample:
    """Degrade the target of a pair and normalise all three images."""
    low = degrade(pair.target, scale)
    statistics = normalisation.statistics(low)
    return Sample(
        target=normalisation.apply(low, statistics),
        reference=normalisation.apply(pair.reference),
        truth=replace(normalisation, clip=None).apply(pair.target, statistics),
    )


def _collate(samples: list[Sample]) -> Batch:
    def stack(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(sample, name) for sample in samples])[:, None])

    return Batch(stack("target"), stack("reference"), stack("truth"))


class TrainingBatches(Dataset[Batch]):
    """Batch ``first + i`` of an endless stream; use with ``batch_size=None``."""

    def __init__(
        self,
        subjects: list[Subject],
        settings: ContrastSettings,
        *,
        scale: int,
        patch: int,
        batch_size: int,
        seed: int,
        first: int,
        length: int,
    ) -> None:
        self.subjects, self.settings = subjects, settings
        self.scale, self.patch, self.batch_size = scale, patch, batch_size
        self.seed, self.first, self.length = seed, first, length
        self.normalisation = Normalisation()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Batch:
        if index >= self.length:
            raise IndexError(index)
        rng = np.random.default_rng((self.seed, _SPLIT_SEED["train"], self.first + index))
        patches: list[Sample] = []
        while len(patches) < self.batch_size:
            subject = self.subjects[rng.integers(len(self.subjects))]
            pair = random_pair(subject, rng, self.settings)
            sample = sample_from_pair(pair, self.scale, self.normalisation)
            patches += [self._cut(sample, pair.target, rng) for _ in range(PATCHES_PER_SLICE)]
        return _collate(patches[: self.batch_size])

    def _cut(self, sample: Sample, image: npt.NDArray[np.float32], rng: np.random.Generator) -> Sample:
        """A patch that shows something, aligned with the low-resolution grid."""
        size, scale = self.patch, self.scale
        row = column = 0
        for _ in range(PATCH_TRIES):
            row, column = (scale * int(rng.integers((n - size) // scale + 1)) for n in image.shape)
            if image[row : row + size, column : column + size].mean() > LEAST_SIGNAL:
                break
        high = (slice(row, row + size), slice(column, column + size))
        low = tuple(slice(s.start // scale, s.stop // scale) for s in high)
        return Sample(sample.target[low], sample.reference[high], sample.truth[high])


class WholeSlices(Dataset[Batch]):
    """A fixed set of whole slices for validation or test, in the order subject 1, 2, 3, 1, ...; batches of one."""

    def __init__(
        self, subjects: list[Subject], settings: ContrastSettings, split: Split, scale: int, count: int
    ) -> None:
        normalisation = Normalisation()
        self.batches: list[Batch] = []
        for index in range(count):
            rng = np.random.default_rng((0, _SPLIT_SEED[split], index))
            pair = random_pair(subjects[index % len(subjects)], rng, settings)
            self.batches.append(_collate([sample_from_pair(pair, scale, normalisation)]))

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        return self.batches[index]
