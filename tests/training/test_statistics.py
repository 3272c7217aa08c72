"""Intervals against SciPy's bootstrap, and against a naive one that takes slices for subjects."""

import numpy as np
import pytest
from scipy import stats

from minet_sdk.training.statistics import FEWEST_SLICES, paired_difference


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
    assert not few.excludes_zero


def test_same_seed_same_interval() -> None:
    values = np.random.default_rng(3).normal(size=20)
    subjects = ["a", "b"] * 10
    assert paired_difference(values, subjects) == paired_difference(values, subjects)
    assert paired_difference(values, subjects) != paired_difference(values, subjects, seed=1)
