"""Pairs become batches: degraded, normalised, augmented, cut into patches; seed and number determine every batch.

A batch depends on nothing else, so that any number of workers, in any order, makes the same ones.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from minet_sdk.errors import MinetError, TrainingError
from minet_sdk.normalisation import Normalisation
from minet_sdk.training.augmentation import check_noise, check_part, misalign, noisy, show_something_else
from minet_sdk.training.pairs import Image, Pair, PairSource
from minet_sdk.training.splits import Split
from minet_sdk.training.typed import typed_fields

PATCHES_PER_SLICE = 2
LEAST_SIGNAL = 0.02
"""A training patch must be at least this bright on average, over the slice's maximum."""

PATCH_TRIES = 20

ENDLESS = 2**62
"""Number of batches of a stream that is not cut off."""

PREFETCH = 4
"""Batches that each worker keeps ready."""

_SPLIT_SEED: dict[Split, int] = {"train": 0, "validation": 1, "test": 2}


class Batch(NamedTuple):
    """Normalised network inputs and the truth, all by the target's or the reference's own whole slice."""

    target: Tensor
    """(N, 1, H, W) float32."""

    reference: Tensor
    """(N, 1, sH, sW) float32; all zeros where the reference is missing."""

    truth: Tensor
    """(N, 1, sH, sW) float32, by the target's statistics."""


@dataclass(frozen=True)
class Sample:
    """One normalised slice, arrays as in `Batch` without N and channel."""

    target: Image
    reference: Image
    truth: Image


@dataclass(frozen=True)
class Augmentation:
    """What loading changes in training pairs; what is 0 or None draws no random number.

    The defaults change nothing: synthetic pairs have all of it already (`contrast.ContrastSettings`).
    """

    mirrored: float = 0.0
    """Part of slices that are mirrored, along each axis on its own."""

    misaligned: float = 0.0
    """Part of references that are moved and turned against the target."""

    wrong_reference: float = 0.0
    """Part of references that show something else."""

    missing_reference: float = 0.0
    """Part of references that are all zeros."""

    noise: tuple[float, float] | None = None
    """Standard deviation of complex noise over the brightest pixel, drawn log-uniformly for each image."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        for name in ("mirrored", "misaligned", "wrong_reference", "missing_reference"):
            check_part(name, getattr(self, name))
        if self.noise is not None:
            check_noise(self.noise)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "Augmentation":
        """From a settings file.

        Raises:
            TrainingError: unknown names, or a value that cannot be drawn from.
        """
        return cls(**typed_fields(cls, settings, "augmentation"))

    def apply(self, pair: Pair, rng: np.random.Generator) -> Pair:
        """A changed copy of a pair."""
        reference, target = pair.reference, pair.target
        for axis in (-2, -1):
            if self.mirrored and rng.random() < self.mirrored:
                reference, target = np.flip(reference, axis), np.flip(target, axis)
        if self.misaligned and rng.random() < self.misaligned:
            reference = misalign(reference, rng)
        if self.wrong_reference and rng.random() < self.wrong_reference:
            reference = show_something_else(reference, rng)
        if self.noise is not None:
            reference, target = noisy(reference, rng, self.noise), noisy(target, rng, self.noise)
        if self.missing_reference and rng.random() < self.missing_reference:
            reference = np.zeros_like(reference)
        return Pair(reference, target)


MEASURED = Augmentation(mirrored=0.5, misaligned=0.3, wrong_reference=0.02, missing_reference=0.1, noise=(0.001, 0.01))
"""For pairs that were measured, which have none of it."""


def default_augmentation(source: PairSource) -> Augmentation:
    """`MEASURED`, or nothing for synthetic pairs."""
    return Augmentation() if source.endless else MEASURED


def sample_from_pair(pair: Pair, scale: int, normalisation: Normalisation) -> Sample:
    """Degrade the target of a pair and normalise all three images."""
    low = pair.low_resolution(scale)
    statistics = normalisation.statistics(low)
    return Sample(
        target=normalisation.apply(low, statistics),
        reference=normalisation.apply(pair.reference),
        truth=replace(normalisation, clip=None).apply(pair.truth, statistics),
    )


def collate(samples: list[Sample]) -> Batch:
    """Samples of one size as a batch.

    Raises:
        TrainingError: their sizes differ.
    """
    sizes = sorted({sample.truth.shape for sample in samples})
    if len(sizes) > 1:
        raise TrainingError(f"slices of {sizes[0]} and {sizes[1]} cannot share a batch: train on patches")

    def stack(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(sample, name) for sample in samples])[:, None])

    return Batch(stack("target"), stack("reference"), stack("truth"))


class SliceBatches(Dataset[Batch]):
    """Batch ``first + i`` of an endless stream of training patches; use with ``batch_size=None``.

    Args:
        source: pairs of the training split.
        scale: magnification.
        patch: edge of a patch, high-resolution pixels, a multiple of the scale; 0 takes whole slices.
        batch_size: patches, or slices.
        seed: of everything random.
        first: number of the first batch: a resumed run goes on where it stopped.
        length: number of batches.
        augmentation: what is changed in the pairs.
        patches_per_slice: patches that are cut from each slice, from 1 to the batch size.
        normalisation: that of the network's inputs.
    """

    def __init__(
        self,
        source: PairSource,
        *,
        scale: int,
        patch: int,
        batch_size: int,
        seed: int,
        first: int = 0,
        length: int = ENDLESS,
        augmentation: Augmentation | None = None,
        patches_per_slice: int = PATCHES_PER_SLICE,
        normalisation: Normalisation | None = None,
    ) -> None:
        if patch % scale or patch < 0:
            raise TrainingError(f"patch is {patch}; it must be a multiple of the scale {scale}")
        self.source, self.scale, self.patch = source, scale, patch
        self.batch_size, self.seed, self.first, self.length = batch_size, seed, first, length
        self.augmentation = Augmentation() if augmentation is None else augmentation
        self.patches_per_slice = patches_per_slice if patch else 1
        self.normalisation = Normalisation() if normalisation is None else normalisation

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Batch:
        if index >= self.length:
            raise IndexError(index)
        rng = np.random.default_rng((self.seed, _SPLIT_SEED["train"], self.first + index))
        patches: list[Sample] = []
        while len(patches) < self.batch_size:
            number = int(rng.integers(len(self.source)))
            pair = self.augmentation.apply(self.source.pair(number, rng), rng)
            sample = sample_from_pair(pair, self.scale, self.normalisation)
            if self.patch:
                truth = pair.truth
                self._check_size(truth, number)
                patches += [self._cut(sample, truth, rng) for _ in range(self.patches_per_slice)]
            else:
                patches.append(sample)
        return collate(patches[: self.batch_size])

    def _check_size(self, image: Image, number: int) -> None:
        if min(image.shape) < self.patch:
            raise TrainingError(
                f"{self.source.volume(number)} has slices of {image.shape[0]} x {image.shape[1]}, smaller than patches"
                f" of {self.patch}; make them smaller"
            )

    def _cut(self, sample: Sample, image: Image, rng: np.random.Generator) -> Sample:
        """A patch that shows something, aligned with the low-resolution grid."""
        size, scale = self.patch, self.scale
        least = LEAST_SIGNAL * image.max()
        row = column = 0
        for _ in range(PATCH_TRIES):
            row, column = (scale * int(rng.integers((n - size) // scale + 1)) for n in image.shape)
            if image[row : row + size, column : column + size].mean() > least:
                break
        high = (slice(row, row + size), slice(column, column + size))
        low = tuple(slice(s.start // scale, s.stop // scale) for s in high)
        return Sample(sample.target[low], sample.reference[high], sample.truth[high])


class WholeSlices(Dataset[Batch]):
    """A fixed set of whole slices for validation or test, batches of one; each is made once and kept.

    Of an endless source its subjects take turns; of measured data the slices are spread evenly over all.

    Args:
        source: pairs of the split.
        split: whose seed to use, so that splits of an endless source never show the same.
        scale: magnification.
        count: how many; None, and any number above it, takes every slice of measured data.
        normalisation: that of the network's inputs.
    """

    def __init__(
        self,
        source: PairSource,
        split: Split,
        scale: int,
        count: int | None = None,
        normalisation: Normalisation | None = None,
    ) -> None:
        self.source, self.scale = source, scale
        self.split: Split = split
        self.normalisation = Normalisation() if normalisation is None else normalisation
        total = len(source) if count is None else count
        if source.endless:
            self.indices = [index % len(source) for index in range(total)]
        else:
            total = min(total, len(source))
            self.indices = [int(one) for one in (np.arange(total) + 0.5) * len(source) / total]
        self._kept: dict[int, Batch] = {}

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Batch:
        if not 0 <= index < len(self):
            raise IndexError(index)
        if index not in self._kept:
            self._kept[index] = collate([sample_from_pair(self.pair(index), self.scale, self.normalisation)])
        return self._kept[index]

    def pair(self, index: int) -> Pair:
        """The pair that a batch is made of, in its own intensity scale."""
        return self.source.pair(self.indices[index], np.random.default_rng((0, _SPLIT_SEED[self.split], index)))

    def subject(self, index: int) -> str:
        """Whom a batch shows."""
        return self.source.subject(self.indices[index])


@dataclass(frozen=True)
class _Failure:
    """What a worker sends instead of a batch that it cannot make."""

    error: MinetError


class _Told(Dataset[Any]):
    """The same batches; in a worker, errors of this SDK are sent like batches."""

    def __init__(self, batches: Dataset[Batch]) -> None:
        self.batches: Any = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch | _Failure:
        try:
            return self.batches[index]
        except MinetError as error:
            if get_worker_info() is None:
                raise
            return _Failure(error)


class BatchLoader(DataLoader[Batch]):
    """Loads ready batches in order.

    An error that a worker meets is raised as the one line that it is: PyTorch would add a traceback to its message.

    Args:
        batches: by number.
        loading: further arguments of `DataLoader`.
    """

    def __init__(self, batches: Dataset[Batch], **loading: Any) -> None:
        super().__init__(_Told(batches), batch_size=None, **loading)

    def __iter__(self) -> Any:
        """Batches; the first error ends them."""
        batches: Iterator[Any] = super().__iter__()
        for batch in batches:
            if isinstance(batch, _Failure):
                raise batch.error
            yield batch


def make_loader(batches: Dataset[Batch], workers: int = 0) -> BatchLoader:
    """A loader of ready batches, in order.

    Args:
        batches: `SliceBatches` or `WholeSlices`.
        workers: processes that make them ahead of time; 0 makes each when it is asked for.
    """
    return BatchLoader(batches, shuffle=False, **loader_options(workers))


def loader_options(workers: int) -> dict[str, Any]:
    """How a `DataLoader` keeps a GPU fed: batches ahead of time, in memory that a copy to the GPU can be made from."""
    ahead = {"prefetch_factor": PREFETCH} if workers else {}
    return {"num_workers": workers, "pin_memory": torch.cuda.is_available(), **ahead}
