"""Samples and batches: what truth, target and reference have to do with each other, on which grid, by which seed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from minet_sdk.normalisation import Normalisation
from minet_sdk.training.contrast import ContrastSettings, Pair, random_pair
from minet_sdk.training.labels import Subject, read_split
from minet_sdk.training.synthetic import Batch, Sample, TrainingBatches, WholeSlices, sample_from_pair

SETTINGS = ContrastSettings(size=48)
CLEAN = replace(SETTINGS, noise=(1e-6, 1.0000001e-6), blurred=1)
SCALES = (2, 4)


def batches(subjects: list[Subject], **changes: Any) -> TrainingBatches:
    arguments: dict[str, Any] = {"scale": 2, "patch": 24, "batch_size": 3, "seed": 0, "first": 0, "length": 4}
    return TrainingBatches(subjects, SETTINGS, **{**arguments, **changes})


def equal(first: Batch, second: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def low_pass(image: npt.NDArray[np.generic], scale: int) -> npt.NDArray[np.float64]:
    """Mean-preserving centre crop of k-space, written out: the sum over the kept frequencies at every sample."""
    size = image.shape[-1]
    kept = np.arange(size // scale) - size // scale // 2
    analysis = np.exp(-2j * np.pi * np.outer(kept, np.arange(size)) / size) / size
    synthesis = np.exp(2j * np.pi * np.outer(np.arange(0, size, scale), kept) / size)
    line = synthesis @ analysis
    return np.abs(line @ image @ line.T)


@pytest.fixture(scope="module")
def subjects(labels: Path) -> list[Subject]:
    return read_split(labels, "train")


@pytest.mark.parametrize("scale", SCALES)
def test_truth_degraded_is_the_target(subject: Subject, scale: int) -> None:
    """In the target's own intensity scale, so that a brightness fault cannot hide in the normalisation."""
    pair = random_pair(subject, np.random.default_rng(0), SETTINGS)
    sample = sample_from_pair(pair, scale, Normalisation())
    low = low_pass(pair.target, scale)
    mean, deviation = low.mean(), low.std()
    truth = sample.truth.astype(np.float64) * deviation + mean
    np.testing.assert_allclose(truth, pair.target, atol=1e-5)
    np.testing.assert_allclose(low_pass(truth, scale), sample.target.astype(np.float64) * deviation + mean, atol=1e-5)
    assert sample.truth.mean() == pytest.approx(0, abs=0.05)
    assert np.abs(low_pass(sample.truth * scale, scale) - np.abs(sample.target)).max() > 1


def test_reference_is_normalised_by_itself(subject: Subject) -> None:
    pair = random_pair(subject, np.random.default_rng(0), SETTINGS)
    sample = sample_from_pair(Pair(100 * pair.reference + 5, pair.target), 2, Normalisation())
    np.testing.assert_allclose(
        sample.reference, (pair.reference - pair.reference.mean()) / pair.reference.std(), atol=1e-4
    )
    assert sample.target.mean() == pytest.approx(0, abs=1e-5)
    assert sample.target.std() == pytest.approx(1, abs=1e-5)


def test_truth_is_never_clipped(subject: Subject) -> None:
    pair = random_pair(subject, np.random.default_rng(0), SETTINGS)
    sample = sample_from_pair(pair, 2, Normalisation(clip=0.5))
    assert np.abs(sample.target).max() == 0.5
    assert np.abs(sample.reference).max() == 0.5
    assert sample.truth.max() > 1


@pytest.mark.parametrize("scale", SCALES)
def test_whole_slices_are_the_pairs_of_their_index(subjects: list[Subject], scale: int) -> None:
    slices = WholeSlices(subjects[:2], SETTINGS, "validation", scale, 3)
    assert len(slices) == 3
    for index in range(3):
        pair = random_pair(subjects[index % 2], np.random.default_rng((0, 1, index)), SETTINGS)
        expected = sample_from_pair(pair, scale, Normalisation())
        for tensor, image in zip(slices[index], (expected.target, expected.reference, expected.truth), strict=True):
            np.testing.assert_array_equal(tensor.numpy(), image[None, None])


def test_splits_never_share_a_sample(subjects: list[Subject]) -> None:
    validation = WholeSlices(subjects[:1], SETTINGS, "validation", 2, 2)
    test = WholeSlices(subjects[:1], SETTINGS, "test", 2, 2)
    assert not any(equal(validation[i], test[j]) for i in range(2) for j in range(2))


@pytest.mark.parametrize(("scale", "patch", "count"), [(2, 24, 3), (4, 32, 4), (4, 48, 1)])
def test_batches_have_the_promised_form(subjects: list[Subject], scale: int, patch: int, count: int) -> None:
    batch = batches(subjects, scale=scale, patch=patch, batch_size=count)[0]
    assert batch.target.shape == (count, 1, patch // scale, patch // scale)
    assert batch.reference.shape == batch.truth.shape == (count, 1, patch, patch)
    assert all(tensor.dtype == torch.float32 and torch.isfinite(tensor).all() for tensor in batch)


def test_batches_follow_from_seed_and_number_alone(subjects: list[Subject]) -> None:
    stream = batches(subjects)
    later = batches(subjects, first=2, length=2)
    assert equal(stream[3], batches(subjects)[3])
    assert equal(stream[3], later[1])
    assert not equal(stream[3], stream[2])
    assert not equal(stream[3], batches(subjects, seed=1)[3])
    assert len(list(iter(later))) == 2


def sample_at(position: npt.NDArray[np.float32], scale: int) -> Sample:
    """A sample whose grey values are all the high-resolution position they stand for."""
    return Sample(position[::scale, ::scale], position, position)


@pytest.mark.parametrize("scale", SCALES)
def test_patches_lie_on_the_low_resolution_grid(
    subjects: list[Subject], scale: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Low-resolution sample i of a patch stands for high-resolution pixel scale * i of the same patch."""
    grid = np.arange(48 * 48, dtype=np.float32).reshape(48, 48)

    def positions(pair: Pair, scale: int, normalisation: Normalisation) -> Sample:
        return sample_at(grid, scale)

    monkeypatch.setattr("minet_sdk.training.synthetic.sample_from_pair", positions)
    seen: set[float] = set()
    for batch in batches(subjects, scale=scale, patch=16, batch_size=4):
        assert torch.equal(batch.target, batch.truth[..., ::scale, ::scale])
        assert torch.equal(batch.truth, batch.reference)
        assert not torch.equal(batch.target, batch.truth[..., 1::scale, 1::scale])
        seen |= {float(patch[0, 0, 0]) for patch in batch.truth}
    assert len(seen) > 8


def grid_error(batch: Batch, scale: int, shift: int) -> float:
    """Squared distance of the target to the truth's samples, which all but agree where the truth is smooth."""
    truth = batch.truth.roll((-shift, -shift), (-2, -1))[..., ::scale, ::scale]
    return float((truth - batch.target)[..., 1:-1, 1:-1].square().mean())


def test_real_patches_are_aligned_and_a_shifted_truth_is_noticed(subjects: list[Subject]) -> None:
    stream = TrainingBatches(subjects, CLEAN, scale=2, patch=24, batch_size=6, seed=0, first=0, length=4)
    aligned, shifted = (sum(grid_error(batch, 2, shift) for batch in stream) for shift in (0, 1))
    assert shifted > 2 * aligned


def test_patches_show_something(subjects: list[Subject]) -> None:
    for batch in batches(subjects, patch=16, batch_size=6):
        assert (batch.truth.std(dim=(-2, -1)) > 0.01).all()
