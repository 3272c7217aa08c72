"""What is said of measured times: percentiles of one engine, and ratios of two from rounds that both were in.

A clock that drifts, or a neighbour that wakes up, meets both sides of a round, so ratios are taken round by round.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from minet_sdk.errors import InputError

LEVEL = 0.95
"""Coverage that an interval shall have, where there are rounds enough."""


@dataclass(frozen=True)
class Distribution:
    """Times of one kind of call, in milliseconds."""

    calls: int
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    round_medians_ms: tuple[float, ...]

    @classmethod
    def of(cls, rounds: Sequence[Sequence[float]]) -> "Distribution":
        """From seconds, round by round; percentiles are linear between samples, over all calls of all rounds.

        Raises:
            InputError: no times, or a round without any.
        """
        if not rounds or not all(rounds):
            raise InputError("a round without times cannot be summarised; expected at least one call in each")
        every = 1e3 * np.concatenate([np.asarray(one, np.float64) for one in rounds])
        p50, p95, p99 = (float(value) for value in np.percentile(every, (50, 95, 99)))
        medians = tuple(1e3 * float(np.median(one)) for one in rounds)
        return cls(len(every), float(every.mean()), p50, p95, p99, medians)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, to a tenth of a microsecond."""
        fields = {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(self).items()}
        return {**fields, "round_medians_ms": [round(value, 4) for value in self.round_medians_ms]}


@dataclass(frozen=True)
class Ratio:
    """How many times longer one takes than another."""

    median: float
    low: float
    high: float
    coverage: float
    """Probability that the interval holds the true median, if rounds are independent."""

    rounds: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(self).items()}


def order_interval(count: int, level: float = LEVEL) -> tuple[int, float]:
    """Which order statistics bound the median of any continuous distribution.

    Args:
        count: independent samples.
        level: wanted coverage.

    Returns:
        k, 0-based, and the coverage of [x_(k), x_(count - 1 - k)]: the narrowest with at least ``level``, or the whole
        range, which may have less. Sign test; see Conover, Practical Nonparametric Statistics, 3.2.
    """

    def coverage(k: int) -> float:
        return 1 - 2 * sum(math.comb(count, i) for i in range(k + 1)) / 2**count

    k = 0
    while k + 1 < (count + 1) // 2 and coverage(k + 1) >= level:
        k += 1
    return k, max(0.0, coverage(k))


def paired_ratio(slower: Sequence[float], faster: Sequence[float]) -> Ratio:
    """Median over rounds of the ratio within each round, with its interval.

    Args:
        slower: one time a round.
        faster: of the same rounds.

    Raises:
        InputError: the rounds are not the same number, or none.
    """
    if len(slower) != len(faster) or not slower:
        raise InputError(f"{len(slower)} and {len(faster)} rounds cannot be paired; expected the same number, not 0")
    ratios = np.sort(np.asarray(slower, np.float64) / np.asarray(faster, np.float64))
    k, coverage = order_interval(len(ratios))
    return Ratio(float(np.median(ratios)), float(ratios[k]), float(ratios[-1 - k]), coverage, len(ratios))
