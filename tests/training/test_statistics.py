"""Intervals against SciPy's bootstrap, and against a naive one that takes slices for subjects."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from minet_sdk.training.statistics import (
    FEWEST_BLOCKS,
    FEWEST_SLICES,
    BlockErrors,
    Floats,
    in_blocks,
    paired_difference,
)


def test_one_subject_equals_scipy() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, 40)
    ours = paired_difference(values, ["a"] * 40)
    assert ours.interval is not None
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=10_000, rng=1).confidence_interval
    assert ours.interval == pytest.approx((theirs.low, theirs.high), abs=0.02)
    assert ours.mean == pytest.approx(values.mean())
    assert (ours.subjects, ours.count) == (1, 40)


def test_subjects_that_differ_widen_the_interval() -> None:
    """The planted fault: resampling slices alone takes 150 slices of 3 heads for 150 heads."""
    rng = np.random.default_rng(2)
    subjects = [name for name in "abc" for _ in range(50)]
    values = np.repeat([-1.0, 0.5, 2.0], 50) + 0.1 * rng.standard_normal(150)
    by_subject, naive = paired_difference(values, subjects), paired_difference(values, ["all"] * 150)
    assert by_subject.interval is not None
    assert naive.interval is not None
    assert by_subject.interval[1] - by_subject.interval[0] > 3 * (naive.interval[1] - naive.interval[0])
    assert naive.excludes_zero
    assert not by_subject.excludes_zero
    assert by_subject.by_subject == pytest.approx({"a": -1, "b": 0.5, "c": 2}, abs=0.05)


def test_too_few_slices_give_no_interval() -> None:
    few = paired_difference(np.ones(FEWEST_SLICES - 1), ["a"] * (FEWEST_SLICES - 1))
    assert few.interval is None
    assert few.resampled == "nothing"
    assert not few.excludes_zero


def _errors(rng: np.random.Generator, seeds: int, blocks: int, scale: float = 1.0) -> Floats:
    return scale * rng.gamma(2.0, 1.0, (seeds, blocks))


def _of_slices(slices: Sequence[BlockErrors]) -> Floats:
    """Differences as the caller has them, dB."""
    return np.array([float(_db(one.theirs).mean() - _db(one.ours).mean()) for one in slices])


def _db(errors: Floats) -> Floats:
    return np.asarray(10 * np.log10(errors.sum(axis=-1)), np.float64)


def test_blocks_of_few_slices_equal_scipy() -> None:
    """Two slices of different size, two seeds of one method and one of the other."""
    rng = np.random.default_rng(4)
    slices = [BlockErrors(_errors(rng, 2, count, 0.8), _errors(rng, 1, count)) for count in (60, 40)]
    values = _of_slices(slices)
    found = paired_difference(values, ["a", "a"], slices)

    def of_drawn(first: npt.NDArray[np.intp], second: npt.NDArray[np.intp]) -> float:
        drawn = [
            BlockErrors(one.ours[:, at], one.theirs[:, at]) for one, at in zip(slices, (first, second), strict=True)
        ]
        return float(_of_slices(drawn).mean())

    theirs = stats.bootstrap(
        (np.arange(60), np.arange(40)), of_drawn, vectorized=False, method="percentile", n_resamples=10_000, rng=1
    ).confidence_interval
    assert found.resampled == "blocks"
    assert found.mean == pytest.approx(values.mean())
    assert found.interval == pytest.approx((theirs.low, theirs.high), abs=0.03)


def test_better_at_one_spot_is_not_better_all_over() -> None:
    """The planted fault: the same gain in dB, once everywhere and once in two of eighty blocks."""
    even = np.random.default_rng(5).uniform(0.9, 1.1, (1, 80))
    spot = even.copy()
    spot[0, :2] += 0.2 * 80 / 2
    overall = [BlockErrors(even, 1.2 * even)]
    at_a_spot = [BlockErrors(even, spot)]
    assert _of_slices(overall) == pytest.approx(_of_slices(at_a_spot), rel=0.01)
    assert paired_difference(_of_slices(overall), ["a"], overall).excludes_zero
    low, high = paired_difference(_of_slices(at_a_spot), ["a"], at_a_spot).interval or (1, 1)
    assert low == pytest.approx(0, abs=1e-9)
    assert high > 1


def test_blocks_are_for_few_slices_alone() -> None:
    rng = np.random.default_rng(6)
    many = [BlockErrors(_errors(rng, 1, 50), _errors(rng, 1, 50)) for _ in range(FEWEST_SLICES)]
    values, names = _of_slices(many), ["a"] * FEWEST_SLICES
    assert paired_difference(values, names, many) == paired_difference(values, names)
    small = [BlockErrors(_errors(rng, 1, FEWEST_BLOCKS - 1), _errors(rng, 1, FEWEST_BLOCKS - 1))]
    assert paired_difference(_of_slices(small), ["a"], small).interval is None


@pytest.mark.parametrize("shape", [(216, 180), (24, 25), (7, 300), (48, 47)])
def test_every_pixel_is_in_one_block(shape: tuple[int, int]) -> None:
    errors = np.random.default_rng(7).random(shape)
    rows, columns = (np.linspace(0, size, max(size // 24, 1) + 1).astype(int) for size in shape)
    expected = [
        errors[top:bottom, left:right].sum() for top, bottom in pairwise(rows) for left, right in pairwise(columns)
    ]
    np.testing.assert_allclose(in_blocks(errors), expected)
    assert in_blocks(errors).sum() == pytest.approx(errors.sum())


def test_same_seed_same_interval() -> None:
    values = np.random.default_rng(3).normal(size=20)
    subjects = ["a", "b"] * 10
    assert paired_difference(values, subjects) == paired_difference(values, subjects)
    assert paired_difference(values, subjects) != paired_difference(values, subjects, seed=1)
