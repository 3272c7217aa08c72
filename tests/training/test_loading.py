"""Samples and batches: what truth, target and reference have to do with each other, on which grid, by which seed."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from minet_sdk.errors import TrainingError
from minet_sdk.normalisation import Normalisation
from minet_sdk.training.contrast import ContrastSettings, random_pair
from minet_sdk.training.labels import Subject
from minet_sdk.training.loading import (
    MEASURED,
    Augmentation,
    Batch,
    Sample,
    SliceBatches,
    WholeSlices,
    default_augmentation,
    make_loader,
    sample_from_pair,
)
from minet_sdk.training.pairs import Pair, PairSource, open_source
from minet_sdk.training.stream import StepBatches, StepLoader
from minet_sdk.training.volume_pairs import VolumePair, VolumePairs

SETTINGS = ContrastSettings(size=48, missing_reference=0)
CLEAN = replace(SETTINGS, noise=(1e-6, 1.0000001e-6), blurred=1)
SCALES = (2, 4)


@pytest.fixture(scope="module")
def heads(labels: Path) -> PairSource:
    return open_source("synthetic", labels, "train", {"contrast": SETTINGS})


class Numbered:
    """Slices whose grey values tell volume, slice and position; complex, of the given coils."""

    def __init__(self, coils: int = 0, edges: tuple[int, ...] = (48, 40)) -> None:
        self.coils, self.edges = coils, edges

    def read(self, volume: VolumePair, index: int) -> Pair:
        edge = self.edges[int(volume.key)]
        image = np.random.default_rng((int(volume.key), index)).random((edge, 48)).astype(np.float32)
        if not self.coils:
            return Pair(image, image)
        phase = np.exp(1j * np.arange(self.coils))[:, None, None]
        return Pair(image, (image / np.sqrt(self.coils) * phase).astype(np.complex64))


def measured(coils: int = 0, edges: tuple[int, ...] = (48, 40), slices: int = 5) -> PairSource:
    volumes = [VolumePair(f"v{i}", f"s{i}", tuple(range(2, 2 + slices)), str(i)) for i in range(len(edges))]
    splits = {f"s{i}": ("train", "test")[i % 2] for i in range(len(edges))}
    return VolumePairs("nifti", volumes, splits, Numbered(coils, edges), record={"folder": "numbers"})  # type: ignore[arg-type]


def batches(source: PairSource, **changes: Any) -> SliceBatches:
    arguments: dict[str, Any] = {"scale": 2, "patch": 24, "batch_size": 3, "seed": 0, "first": 0, "length": 4}
    return SliceBatches(source, **{**arguments, **changes})


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
def test_whole_slices_of_synthetic_data_follow_from_their_index(labels: Path, scale: int) -> None:
    source = open_source("synthetic", labels, "validation", {"contrast": SETTINGS})
    slices = WholeSlices(source, "validation", scale, 4)
    assert len(slices) == 4
    for index in range(4):
        pair = source.pair(index % 3, np.random.default_rng((0, 1, index)))
        expected = sample_from_pair(pair, scale, Normalisation())
        assert slices.subject(index) == source.subjects[index % 3]
        for tensor, image in zip(slices[index], (expected.target, expected.reference, expected.truth), strict=True):
            np.testing.assert_array_equal(tensor.numpy(), image[None, None])
    test = WholeSlices(source, "test", scale, 4)
    assert not any(equal(slices[i], test[j]) for i in range(3) for j in range(3))


@pytest.mark.parametrize(("count", "indices"), [(None, list(range(10))), (99, list(range(10))), (4, [1, 3, 6, 8])])
def test_whole_slices_of_measured_data_are_each_shown_once(count: int | None, indices: list[int]) -> None:
    source = measured()
    slices = WholeSlices(source, "test", 2, count)
    assert slices.indices == indices
    for shown, index in zip(make_loader(slices), indices, strict=True):
        pair = source.pair(index, np.random.default_rng(0))
        np.testing.assert_array_equal(shown.truth[0, 0], sample_from_pair(pair, 2, Normalisation()).truth)


@pytest.mark.parametrize(("scale", "patch", "count"), [(2, 24, 3), (4, 32, 4), (4, 48, 1)])
def test_batches_have_the_promised_form(heads: PairSource, scale: int, patch: int, count: int) -> None:
    batch = batches(heads, scale=scale, patch=patch, batch_size=count)[0]
    assert batch.target.shape == (count, 1, patch // scale, patch // scale)
    assert batch.reference.shape == batch.truth.shape == (count, 1, patch, patch)
    assert all(tensor.dtype == torch.float32 and torch.isfinite(tensor).all() for tensor in batch)


def test_batches_follow_from_seed_and_number_alone(heads: PairSource) -> None:
    stream = batches(heads)
    later = batches(heads, first=2, length=2)
    assert equal(stream[3], batches(heads)[3])
    assert equal(stream[3], later[1])
    assert not equal(stream[3], stream[2])
    assert not equal(stream[3], batches(heads, seed=1)[3])
    assert len(list(iter(later))) == 2


def test_the_synthetic_stream_is_written_down(heads: PairSource) -> None:
    """What recorded runs resume from: the order in which a batch draws subject, pair and patches."""
    rng = np.random.default_rng((5, 0, 7))
    expected: list[Sample] = []
    for _ in range(2):
        pair = heads.pair(int(rng.integers(10)), rng)
        sample = sample_from_pair(pair, 2, Normalisation())
        for _ in range(2):
            row = column = 0
            for _ in range(20):
                row, column = (2 * int(rng.integers((48 - 24) // 2 + 1)) for _ in range(2))
                if pair.target[row : row + 24, column : column + 24].mean() > 0.02:
                    break
            window = slice(row, row + 24), slice(column, column + 24)
            low = slice(row // 2, row // 2 + 12), slice(column // 2, column // 2 + 12)
            expected.append(Sample(sample.target[low], sample.reference[window], sample.truth[window]))
    batch = batches(heads, seed=5, first=7, batch_size=3)[0]
    for name in ("target", "reference", "truth"):
        np.testing.assert_array_equal(
            getattr(batch, name)[:, 0], np.stack([getattr(one, name) for one in expected[:3]])
        )


def test_batches_do_not_depend_on_the_number_of_workers(heads: PairSource) -> None:
    """Both kinds of data; with all augmentation, which draws the most."""
    for source in (heads, measured()):
        stream = batches(source, augmentation=MEASURED)
        alone = list(make_loader(stream))
        for workers in (1, 2):
            for first, second in zip(alone, make_loader(stream, workers), strict=True):
                assert equal(first, second)


class Positions:
    """Slices whose grey values are the position they stand for."""

    def read(self, volume: VolumePair, index: int) -> Pair:
        grid = np.arange(1.0, 48 * 48 + 1, dtype=np.float32).reshape(48, 48)
        return Pair(grid, grid)


@pytest.mark.parametrize("scale", SCALES)
def test_patches_lie_on_the_low_resolution_grid(scale: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Low-resolution sample i of a patch stands for high-resolution pixel scale * i of the same patch."""

    def sampled(pair: Pair, scale: int, normalisation: Normalisation) -> Sample:
        return Sample(pair.truth[::scale, ::scale], pair.reference, pair.truth)

    monkeypatch.setattr("minet_sdk.training.loading.sample_from_pair", sampled)
    volumes = [VolumePair("v", "s", (0,), "0")]
    source = VolumePairs("nifti", volumes, {"s": "train"}, Positions(), record={})
    seen: set[float] = set()
    for batch in batches(source, scale=scale, patch=16, batch_size=4):
        assert torch.equal(batch.target, batch.truth[..., ::scale, ::scale])
        assert torch.equal(batch.truth, batch.reference)
        assert not torch.equal(batch.target, batch.truth[..., 1::scale, 1::scale])
        seen |= {float(patch[0, 0, 0]) for patch in batch.truth}
    assert len(seen) > 8


def grid_error(batch: Batch, scale: int, shift: int) -> float:
    """Squared distance of the target to the truth's samples, which all but agree where the truth is smooth."""
    truth = batch.truth.roll((-shift, -shift), (-2, -1))[..., ::scale, ::scale]
    return float((truth - batch.target)[..., 1:-1, 1:-1].square().mean())


def test_real_patches_are_aligned_and_a_shifted_truth_is_noticed(labels: Path) -> None:
    stream = batches(open_source("synthetic", labels, "train", {"contrast": CLEAN}), batch_size=6)
    aligned, shifted = (sum(grid_error(batch, 2, shift) for batch in stream) for shift in (0, 1))
    assert shifted > 2 * aligned


def test_patches_show_something(heads: PairSource) -> None:
    for batch in batches(heads, patch=16, batch_size=6):
        assert (batch.truth.std(dim=(-2, -1)) > 0.01).all()


def test_coils_are_combined_after_degrading() -> None:
    """Four equal coils of random phase make the image that one real coil makes."""
    one, four = measured(), measured(coils=4)
    for first, second in zip(make_loader(batches(one)), make_loader(batches(four)), strict=True):
        for a, b in zip(first, second, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)


def test_whole_slices_can_be_trained_on_where_they_have_one_size() -> None:
    assert batches(measured().split("train"), patch=0)[0].truth.shape == (3, 1, 48, 48)
    with pytest.raises(TrainingError, match=r"slices of \(40, 48\) and \(48, 48\) cannot share a batch"):
        list(make_loader(batches(measured(), patch=0, length=8)))


def test_patches_that_do_not_fit_are_refused() -> None:
    with pytest.raises(TrainingError, match="v1 has slices of 40 x 48, smaller than patches of 44"):
        list(make_loader(batches(measured(), patch=44, length=8)))
    with pytest.raises(TrainingError, match="patch is 26; it must be a multiple of the scale 4"):
        batches(measured(), patch=26, scale=4)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_is_the_same_line_with_workers(workers: int) -> None:
    """PyTorch would raise it with the worker's whole traceback as its message."""
    stream = batches(measured(), patch=44, length=8)
    for loader in (make_loader(stream, workers), StepLoader(StepBatches(stream, 1), 8, num_workers=workers)):
        with pytest.raises(TrainingError) as caught:
            list(loader)
        assert str(caught.value) == "v1 has slices of 40 x 48, smaller than patches of 44; make them smaller"


def test_what_is_off_draws_nothing(subject: Subject) -> None:
    pair = random_pair(subject, np.random.default_rng(0), SETTINGS)
    rng = np.random.default_rng(1)
    same = Augmentation().apply(pair, rng)
    assert rng.random() == np.random.default_rng(1).random()
    assert same.target is pair.target
    assert same.reference is pair.reference


def test_default_augmentation_is_for_measured_data_alone(heads: PairSource) -> None:
    assert default_augmentation(heads) == Augmentation()
    assert default_augmentation(measured()) == MEASURED
    assert Augmentation.from_dict({"misaligned": 0.5, "noise": [0.1, 0.2]}) == Augmentation(0, 0.5, noise=(0.1, 0.2))
    with pytest.raises(TrainingError, match="augmentation has no blur; expected some of mirrored"):
        Augmentation.from_dict({"blur": 1})


def test_missing_reference_is_zeros_after_normalisation() -> None:
    parts = [
        batch.reference.flatten(1).any(dim=1).float().mean()
        for batch in batches(measured(), augmentation=Augmentation(missing_reference=0.5), length=40)
    ]
    assert 0.3 < float(torch.stack(parts).mean()) < 0.7
    always = batches(measured(), augmentation=Augmentation(missing_reference=1))[0]
    assert not always.reference.any()


def test_mirrored_pairs_stay_aligned() -> None:
    source = measured()
    pair = source.pair(0, np.random.default_rng(0))
    flipped = [Augmentation(mirrored=0.5).apply(pair, np.random.default_rng(seed)) for seed in range(24)]
    assert all(np.array_equal(one.reference, one.target) for one in flipped)
    assert len({one.reference[0, 0] for one in flipped}) == 4


def test_misalignment_moves_the_reference_alone_and_little(subject: Subject) -> None:
    pair = random_pair(subject, np.random.default_rng(0), CLEAN)
    for rng in map(np.random.default_rng, range(8)):
        moved = Augmentation(misaligned=1).apply(pair, rng)
        assert moved.target is pair.target
        assert 0.9 < np.corrcoef(moved.reference.ravel(), pair.reference.ravel())[0, 1] < 1
        wrong = Augmentation(wrong_reference=1).apply(pair, rng)
        assert np.corrcoef(wrong.reference.ravel(), pair.reference.ravel())[0, 1] < 0.9


@pytest.mark.parametrize("coils", [0, 2])
def test_noise_has_the_level_it_says(coils: int) -> None:
    """Complex noise on complex images, Rician on magnitudes: of nothing a mean of sigma sqrt(pi / 2)."""
    image = np.zeros((64, 64), dtype=np.float32)
    image[0, 0] = 10
    target = image if not coils else np.stack([image] * coils).astype(np.complex64)
    noisy = Augmentation(noise=(0.02, 0.0200001)).apply(Pair(image, target), np.random.default_rng(0))
    assert noisy.reference[1:].mean() == pytest.approx(0.2 * np.sqrt(np.pi / 2), rel=0.03)
    assert noisy.target.dtype == target.dtype
    if coils:
        for part, coil in itertools.product((np.real, np.imag), noisy.target):
            assert part(coil[1:]).std() == pytest.approx(0.2, rel=0.05)
    else:
        assert noisy.target[1:].mean() == pytest.approx(0.2 * np.sqrt(np.pi / 2), rel=0.03)
