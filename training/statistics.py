"""How sure a comparison is: paired differences, resampled by subject first, because slices of one head are alike.

Where there are too few slices to resample, blocks of the image take their place: that tells whether a method is better
all over these slices or at one spot, and nothing about other slices.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
AT_ONCE = 1_000
"""Resamples in one array."""

FEWEST_SLICES = 10
"""Fewer differences of one subject than this are not resampled."""

BLOCK = 24
"""About how many pixels an edge of a block has: longer than errors are alike, short enough for dozens in a slice."""

FEWEST_BLOCKS = 10
"""A slice of fewer blocks than this gives no interval."""

Floats = npt.NDArray[np.float64]
Resampled = Literal["subjects", "slices", "blocks", "nothing"]


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences."""

    mean: float
    interval: tuple[float, float] | None
    """95 %; None for too few to say anything."""

    subjects: int
    count: int
    by_subject: dict[str, float]

    resampled: Resampled = "nothing"
    """What the interval is over: subjects and their slices, the slices of one, or blocks of few slices."""

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.interval is not None and self.interval[0] * self.interval[1] > 0


@dataclass(frozen=True, eq=False)
class BlockErrors:
    """Of one slice, by two methods: (seeds, blocks) summed squared errors in the blocks of `in_blocks`."""

    ours: Floats
    theirs: Floats


def in_blocks(squared_errors: Floats) -> Floats:
    """Sums over the blocks of an image: (rows, columns) -> (blocks,), every pixel in one of them."""
    first, second = (np.linspace(0, size, max(size // BLOCK, 1) + 1).astype(int)[:-1] for size in squared_errors.shape)
    return np.add.reduceat(np.add.reduceat(squared_errors, first, axis=0), second, axis=1).ravel()


def is_too_few(slices: int, subjects: int) -> bool:
    """Whether neither subjects nor slices can be resampled."""
    return subjects == 1 and slices < FEWEST_SLICES


def paired_difference(
    values: Floats, subjects: Sequence[str], blocks: Sequence[BlockErrors] = (), seed: int = 0
) -> Difference:
    """Mean and 95 % bootstrap interval of paired differences.

    With several subjects each resample draws subjects with replacement, then each one's differences with replacement;
    with one subject only its differences, so that the interval says nothing about other subjects. Where these are fewer
    than `FEWEST_SLICES`, each resample draws blocks of every slice instead.

    Args:
        values: (count,) differences, dB: how much larger their mean squared error is than ours, mean over seeds.
        subjects: whom each is of.
        blocks: the errors behind each value, for few slices; none leaves them without an interval.
        seed: of the resampling.
    """
    names = np.array(subjects)
    groups = [values[names == name] for name in sorted(set(subjects))]
    by_subject = {name: float(group.mean()) for name, group in zip(sorted(set(subjects)), groups, strict=True)}
    rng = np.random.default_rng(seed)
    interval, resampled = None, "nothing"
    if not is_too_few(len(values), len(groups)):
        means = np.concatenate([_resampled_means(groups, rng) for _ in range(RESAMPLES // AT_ONCE)])
        interval, resampled = _middle(means), "subjects" if len(groups) > 1 else "slices"
    elif len(blocks) == len(values) and all(one.ours.shape[-1] >= FEWEST_BLOCKS for one in blocks):
        means = np.mean([_resampled_slice(one, rng) for one in blocks], axis=0)
        interval, resampled = _middle(means), "blocks"
    return Difference(float(values.mean()), interval, len(groups), len(values), by_subject, resampled)


def _middle(means: Floats) -> tuple[float, float]:
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def _resampled_slice(errors: BlockErrors, rng: np.random.Generator) -> Floats:
    """(RESAMPLES,) differences of one slice, dB, from blocks drawn with replacement, the same for both methods."""
    count = errors.ours.shape[-1]
    drawn = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES).T
    ours, theirs = (10 * np.log10(one @ drawn).mean(axis=0) for one in (errors.ours, errors.theirs))
    return theirs - ours


def _resampled_means(groups: list[Floats], rng: np.random.Generator) -> Floats:
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
