"""Percentiles and intervals against NumPy and SciPy, and what pairing rounds is for."""

import numpy as np
import pytest
from scipy import stats

from minet_sdk.benchmark.distribution import Distribution, order_interval, paired_ratio
from minet_sdk.errors import InputError


def test_percentiles_are_those_of_all_calls() -> None:
    rounds = np.random.default_rng(0).exponential(size=(7, 11))
    found = Distribution.of(rounds.tolist())
    every = 1e3 * rounds.ravel()
    assert (found.calls, len(found.round_medians_ms)) == (77, 7)
    expected = [every.mean(), np.median(every), *(stats.scoreatpercentile(every, q) for q in (95, 99))]
    np.testing.assert_allclose([found.mean_ms, found.p50_ms, found.p95_ms, found.p99_ms], np.array(expected, float))
    np.testing.assert_allclose(found.round_medians_ms, 1e3 * np.median(rounds, axis=1))


@pytest.mark.parametrize("rounds", [[], [[]], [[1.0], []]])
def test_rounds_without_times_are_refused(rounds: list[list[float]]) -> None:
    with pytest.raises(InputError, match="at least one call"):
        Distribution.of(rounds)


@pytest.mark.parametrize("count", range(1, 60))
def test_interval_is_the_narrowest_that_covers(count: int) -> None:
    k, coverage = order_interval(count)
    assert coverage == pytest.approx(max(0.0, 1 - 2 * stats.binom.cdf(k, count, 0.5)), abs=1e-12)
    assert coverage >= 0.95 or k == 0
    if k + 1 < (count + 1) // 2:
        assert 1 - 2 * stats.binom.cdf(k + 1, count, 0.5) < 0.95


def test_interval_holds_the_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    samples = rng.exponential(size=(4000, 9))
    ones = [1.0] * 9
    held = [found.low <= np.log(2) <= found.high for found in (paired_ratio(row, ones) for row in samples.tolist())]
    coverage = order_interval(9)[1]
    assert np.mean(held) == pytest.approx(coverage, abs=4 * np.sqrt(coverage * (1 - coverage) / 4000))


def test_a_clock_that_drifts_leaves_paired_ratios_alone() -> None:
    pace = [1.0, 1.0, 5.0, 1.0, 3.0, 1.0, 1.0]
    found = paired_ratio([2 * value for value in pace], pace)
    assert (found.median, found.low, found.high, found.rounds) == (2, 2, 2, 7)
    assert found.coverage == pytest.approx(1 - 2 / 2**7)
    # Medians of each side by itself would be fooled where the two meet the slow clock in different rounds.
    assert 2 * np.median(pace[:3]) / np.median(pace[2:5]) != 2


@pytest.mark.parametrize(("slower", "faster"), [([], []), ([1.0], [1.0, 2.0])])
def test_rounds_that_do_not_pair_are_refused(slower: list[float], faster: list[float]) -> None:
    with pytest.raises(InputError, match="cannot be paired"):
        paired_ratio(slower, faster)
