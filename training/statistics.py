"""How sure a comparison is: paired differences, resampled by subject first, because slices of one head are alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
AT_ONCE = 1_000
"""Resamples in one array."""

FEWEST_SLICES = 10
"""Fewer differences of one subject than this give no interval."""


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences."""

    mean: float
    interval: tuple[float, float] | None
    """95 %; None for too few to say anything."""

    subjects: int
    count: int
    by_subject: dict[str, float]

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.interval is not None and self.interval[0] * self.interval[1] > 0


def paired_difference(values: npt.NDArray[np.float64], subjects: Sequence[str], seed: int = 0) -> Difference:
    """Mean and 95 % bootstrap interval of paired differences.

    With several subjects each resample draws subjects with replacement, then each one's differences with replacement;
    with one subject only its differences, so that the interval says nothing about other subjects.

    Args:
        values: (count,) differences.
        subjects: whom each is of.
        seed: of the resampling.
    """
    names = np.array(subjects)
    groups = [values[names == name] for name in sorted(set(subjects))]
    by_subject = {name: float(group.mean()) for name, group in zip(sorted(set(subjects)), groups, strict=True)}
    interval = None
    if len(groups) > 1 or len(values) >= FEWEST_SLICES:
        rng = np.random.default_rng(seed)
        means = np.concatenate([_resampled_means(groups, rng) for _ in range(RESAMPLES // AT_ONCE)])
        low, high = np.percentile(means, (2.5, 97.5))
        interval = (float(low), float(high))
    return Difference(float(values.mean()), interval, len(groups), len(values), by_subject)


def _resampled_means(groups: list[npt.NDArray[np.float64]], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """`AT_ONCE` means of resampled groups."""
    sizes = np.array([len(group) for group in groups])
    table = np.zeros((len(groups), sizes.max()))
    for row, group in zip(table, groups, strict=True):
        row[: len(group)] = group
    drawn = rng.integers(len(groups), size=(AT_ONCE, len(groups)))
    picked = rng.integers(sizes[drawn][..., None], size=(*drawn.shape, sizes.max()))
    used = np.arange(sizes.max()) < sizes[drawn][..., None]
    values = np.where(used, table[drawn[..., None], picked], 0)
    return values.sum(axis=(1, 2)) / used.sum(axis=(1, 2))
