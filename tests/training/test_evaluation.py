"""Evaluation against the fastmri package's own measures and against figures computed slice by slice."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from minet_sdk.errors import TrainingError
from minet_sdk.kspace import bicubic, degrade_complex, interpolate, zero_filled
from minet_sdk.training.evaluation import BASELINE, Restore, as_json, evaluate, gain, interpolations, markdown, summary
from minet_sdk.training.evaluation_sets import TestVolume, volumes_of
from minet_sdk.training.pairs import Pair, PairSource
from minet_sdk.training.splits import Split

SCALE = 2


class Measured(PairSource):
    """Three volumes of two subjects, of different sizes."""

    endless = False
    names = ("a/1", "a/2", "b/1")
    slices = 2

    @property
    def subjects(self) -> tuple[str, ...]:
        return ("a", "b")

    def __len__(self) -> int:
        return len(self.names) * self.slices

    def pair(self, index: int, rng: np.random.Generator) -> Pair:
        own = np.random.default_rng(index)
        size = 17 + 4 * (index // self.slices)
        smooth = np.cumsum(np.cumsum(own.standard_normal((size, size)), 0), 1)
        image = np.abs(smooth).astype(np.float32) + 1
        return Pair(image[::-1].copy(), image.astype(np.complex64) * np.complex64(1j) if index % 2 else image)

    def subject(self, index: int) -> str:
        return self.volume(index)[0]

    def volume(self, index: int) -> str:
        return self.names[index // self.slices]

    def split(self, name: Split) -> "Measured":
        return self

    def describe(self) -> dict[str, Any]:
        return {}


class Endless(Measured):
    """Another slice of two subjects at every call."""

    endless = True

    def __len__(self) -> int:
        return 2

    def subject(self, index: int) -> str:
        return "ab"[index]

    def pair(self, index: int, rng: np.random.Generator) -> Pair:
        image = np.abs(rng.standard_normal((16, 16))).astype(np.float32)
        return Pair(image, image)


def halfway(volume: TestVolume) -> npt.NDArray[np.float32]:
    """A method whose error is half of that of zero-filled k-space."""
    filled = np.stack([zero_filled(low, SCALE) for low in volume.low])
    return (0.5 * (filled + volume.truth)).astype(np.float32)


METHODS: dict[str, Restore] = {**interpolations(SCALE), "halfway": halfway}


def test_measures_are_of_whole_volumes() -> None:
    volumes = list(volumes_of(Measured(), SCALE, 1))
    for row, volume in zip(evaluate(METHODS, volumes, SCALE)["halfway"], volumes, strict=True):
        error = np.mean((halfway(volume) - volume.truth.astype(np.float64)) ** 2)
        assert row.measures.psnr == pytest.approx(10 * np.log10(volume.truth.max() ** 2 / error), rel=1e-6)
        assert row.squared_errors.mean() == pytest.approx(error, rel=1e-6)


def test_half_the_error_gains_six_decibels_on_every_slice() -> None:
    rows = evaluate(METHODS, volumes_of(Measured(), SCALE, 1), SCALE)
    difference = gain(rows, "halfway")
    assert difference.mean == pytest.approx(20 * np.log10(2), abs=1e-3)
    assert difference.interval == pytest.approx([difference.mean] * 2, abs=1e-3)
    assert (difference.subjects, difference.count) == (2, 6)
    assert gain(rows, BASELINE).mean == 0
    worse = gain(rows, BASELINE, over="halfway")
    assert worse.excludes_zero
    assert worse.mean < 0


def test_volumes_are_whole_cropped_and_degraded_as_they_are() -> None:
    volumes = list(volumes_of(Measured(), SCALE, 99))
    assert [volume.name for volume in volumes] == ["a/1", "a/2", "b/1"]
    assert [volume.subject for volume in volumes] == ["a", "a", "b"]
    assert volumes[0].truth.shape == (2, 16, 16)
    assert volumes[0].low.dtype == np.complex64
    pair = Measured().pair(1, np.random.default_rng())
    np.testing.assert_allclose(volumes[0].low[1], degrade_complex(pair.target[:16, :16], SCALE), rtol=1e-6)


class Phased(Endless):
    """Slices with a phase that varies, of one coil or of two."""

    def __init__(self, coils: int) -> None:
        self.coils = coils

    def pair(self, index: int, rng: np.random.Generator) -> Pair:
        rows, columns = np.mgrid[-1:1:16j, -1:1:16j]
        image = 1 + rng.random((16, 16))
        coils = np.stack([np.exp(2j * (1 + coil) * (rows + columns**2)) for coil in range(2)]) * image
        return Pair(image.astype(np.float32), (coils if self.coils == 2 else coils[0]).astype(np.complex64))


def test_zero_filled_is_the_complex_image_and_bicubic_its_magnitude() -> None:
    volume = next(volumes_of(Phased(1), SCALE, 1))
    restored = {name: restore(volume) for name, restore in interpolations(SCALE).items()}
    assert np.iscomplexobj(volume.low)
    np.testing.assert_array_equal(restored[BASELINE][0], zero_filled(volume.low[0], SCALE))
    np.testing.assert_array_equal(restored["bicubic"][0], bicubic(np.abs(volume.low[0]), SCALE))
    of_magnitude = zero_filled(np.abs(volume.low[0]), SCALE)
    errors = [float(np.square(image - volume.truth[0]).mean()) for image in (restored[BASELINE][0], of_magnitude)]
    assert errors[0] < errors[1]


def test_zero_filled_coils_are_combined_last() -> None:
    volume = next(volumes_of(Phased(2), SCALE, 1))
    coils = Phased(2).pair(0, np.random.default_rng((2, 0, 0))).target
    filled = [np.abs(interpolate(degrade_complex(coil, SCALE), SCALE)) for coil in coils]
    assert not np.iscomplexobj(volume.low)
    restored = interpolations(SCALE)[BASELINE](volume)[0]
    np.testing.assert_allclose(restored, np.hypot(*filled), rtol=1e-5)
    assert not np.allclose(restored, zero_filled(volume.low[0], SCALE), rtol=1e-2)


def test_synthetic_slices_are_volumes_of_their_own_and_always_the_same() -> None:
    first, again = (list(volumes_of(Endless(), SCALE, 3)) for _ in range(2))
    assert len(first) == 3 * len(Endless())
    assert {volume.name for volume in first} == {f"{who} #{number}" for who in "ab" for number in range(3)}
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.truth, b.truth)
    assert not np.array_equal(first[0].truth, first[1].truth)


def test_consistency_is_applied_to_networks_only() -> None:
    rows = evaluate(METHODS, volumes_of(Measured(), SCALE, 1), SCALE)
    assert set(rows) == {"bicubic", BASELINE, "halfway", "halfway, soft", "halfway, hard"}


def test_summary_and_table_say_the_same() -> None:
    results = summary(evaluate(METHODS, volumes_of(Measured(), SCALE, 1), SCALE))
    line = next(line for line in markdown(results).splitlines() if line.startswith("| halfway |"))
    assert f"{results['halfway']['psnr']:.2f}" in line
    assert "+6.02 (+6.02 to +6.02)" in line


def test_a_single_small_slice_has_a_gain_without_interval() -> None:
    volume = next(volumes_of(Endless(), SCALE, 1))
    rows = evaluate(METHODS, [volume], SCALE)
    assert as_json(gain(rows, "halfway"))["interval"] is None
    assert "no intervals" in markdown(summary(rows))


class Large(Endless):
    """Slices that make many blocks."""

    def pair(self, index: int, rng: np.random.Generator) -> Pair:
        image = np.abs(rng.standard_normal((96, 120))).astype(np.float32)
        return Pair(image, image)


def test_a_few_large_slices_have_an_interval_over_their_blocks() -> None:
    volumes = [volume for volume in volumes_of(Large(), SCALE, 2) if volume.subject == "a"]
    rows = evaluate(METHODS, volumes, SCALE)
    assert [len(blocks) for row in rows["halfway"] for blocks in row.blocks] == [20, 20]
    for row in rows["halfway"]:
        np.testing.assert_allclose([blocks.sum() / (96 * 120) for blocks in row.blocks], row.squared_errors)
    found = gain(rows, "halfway", over="bicubic")
    assert found.resampled == "blocks"
    assert found.interval is not None
    assert found.interval[0] < found.mean < found.interval[1]
    assert "blocks of about 24 x 24 pixels" in markdown(summary(rows))


def test_many_slices_or_subjects_keep_no_blocks() -> None:
    rows = evaluate(METHODS, volumes_of(Large(), SCALE, 2), SCALE)
    assert all(row.blocks == () for row in rows["halfway"])
    assert gain(rows, "halfway").resampled == "subjects"
    assert "over subjects" in markdown(summary(rows))


def test_nothing_to_evaluate_is_an_error() -> None:
    with pytest.raises(TrainingError, match="no volumes"):
        evaluate(METHODS, [], SCALE)
