"""Timing that can be compared: candidates take turns in rounds, so that a clock that drifts drifts for all of them.

Latency is what a caller waits, device work finished; percentiles are over all calls, comparisons over rounds.
"""

import math
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

Clock = Callable[[], float]


@dataclass(frozen=True)
class Latency:
    """Of one candidate."""

    calls: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    round_medians_ms: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Ratio:
    """How many times faster one candidate is than another, from rounds that both were in."""

    median: float
    least: float
    most: float
    rounds: int

    @property
    def settled(self) -> bool:
        """Whether all of several rounds say the same, by more than the noise that counts as equal."""
        return self.rounds >= FEWEST_ROUNDS and (self.least > 1 + EQUAL or self.most < 1 - EQUAL)


EQUAL = 0.02
"""Differences in time below this share decide nothing."""

FEWEST_ROUNDS = 3
"""That decide anything."""


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least ``share`` of all values do not exceed.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("no values to take a percentile of")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def interleaved(
    candidates: dict[str, Callable[[], object]],
    *,
    rounds: int,
    calls: int,
    seconds: float = math.inf,
    clock: Clock = time.perf_counter,
    seed: int = 0,
) -> tuple[dict[str, Latency], dict[str, str]]:
    """Time candidates against each other.

    Args:
        candidates: each call does the work and waits for its end.
        rounds: in each, every candidate has a turn, in random order.
        calls: of a turn, after one that is not counted.
        seconds: after these no further round starts and turns end early; in the first every candidate has one call.
        clock: in seconds.
        seed: of the order.

    Returns:
        Latency by name, and the reasons why a candidate has none: it raised.
    """
    order, turns = list(candidates), random.Random(seed)
    times: dict[str, list[list[float]]] = {name: [] for name in candidates}
    failed: dict[str, str] = {}
    started = clock()
    for number in range(rounds):
        if number and clock() - started > seconds:
            break
        turns.shuffle(order)
        for name in [name for name in order if name not in failed]:
            try:
                times[name].append(_turn(candidates[name], calls, clock, started + seconds))
            except Exception as error:  # whatever an engine raises costs that engine only
                failed[name] = f"{type(error).__name__}: {error}"
    return {name: _latency(times[name]) for name in candidates if name not in failed}, failed


def ratio(slower: Latency, faster: Latency) -> Ratio:
    """How many times longer the first takes than the second, round by round."""
    pairs = zip(slower.round_medians_ms, faster.round_medians_ms, strict=False)
    ratios = [one / other for one, other in pairs]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios), len(ratios))


def _turn(call: Callable[[], object], calls: int, clock: Clock, until: float) -> list[float]:
    call()
    times: list[float] = []
    for _ in range(calls):
        before = clock()
        call()
        times.append(clock() - before)
        if clock() > until:
            break
    return times


def _latency(rounds: list[list[float]]) -> Latency:
    every = [1e3 * value for one in rounds for value in one]
    medians = tuple(1e3 * statistics.median(one) for one in rounds)
    return Latency(len(every), percentile(every, 0.5), percentile(every, 0.95), percentile(every, 0.99), medians)
