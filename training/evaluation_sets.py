"""What methods are judged on: volumes of a split, degraded once, each with its subject.

Synthetic sources make another slice at every call, so that their test sets are fixed by a seed, slice by slice.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minet_sdk.kspace import degrade_complex, interpolate
from minet_sdk.training.pairs import Image, Pair, PairSource, magnitude

TEST_SEED = 2


@dataclass(frozen=True)
class TestVolume:
    """One volume to restore."""

    __test__ = False  # the name is the field's; pytest would collect it

    name: str
    subject: str
    truth: Image
    """(slices, scale * H, scale * W) float32 magnitude."""

    low: npt.NDArray[Any]
    """(slices, H, W) float32 or complex64, the truth without its outer k-space; complex where the truth was."""

    reference: Image
    """(slices, scale * H, scale * W) float32."""

    zero_filled: Image | None = None
    """(slices, scale * H, scale * W) float32 of several coils, each filled with zeros and then combined; None where
    ``low`` tells it."""


def volumes_of(source: PairSource, scale: int, slices: int) -> Iterator[TestVolume]:
    """The volumes of a source, in order.

    Args:
        source: of the test split.
        scale: magnification; rows and columns are cropped to multiples of it.
        slices: for endless sources, how many slices to make of each subject, each a volume of its own since each has
            a contrast of its own; other sources are taken whole.
    """
    if source.endless:
        for index in range(len(source)):
            for number in range(slices):
                rng = np.random.default_rng((TEST_SEED, index, number))
                name = f"{source.subject(index)} #{number}"
                yield _volume(name, source.subject(index), [source.pair(index, rng)], scale)
        return
    rng = np.random.default_rng(TEST_SEED)
    for name, indices in source.volumes().items():
        pairs = [source.pair(index, rng) for index in indices]
        yield _volume(name, source.subject(indices[0]), pairs, scale)


def _volume(name: str, subject: str, pairs: list[Pair], scale: int) -> TestVolume:
    cropped = [Pair(_crop(pair.reference, scale), _crop(pair.target, scale)) for pair in pairs]
    return TestVolume(
        name,
        subject,
        np.stack([pair.truth for pair in cropped]),
        np.stack([_low(pair, scale) for pair in cropped]),
        np.stack([pair.reference for pair in cropped]),
        np.stack([_zero_filled(pair, scale) for pair in cropped]) if cropped[0].target.ndim == 3 else None,
    )


def _low(pair: Pair, scale: int) -> npt.NDArray[Any]:
    """Complex where the target is one complex image; several coils are combined to the one that is restored."""
    if np.iscomplexobj(pair.target) and pair.target.ndim == 2:
        return degrade_complex(pair.target, scale).astype(np.complex64)
    return pair.low_resolution(scale)


def _zero_filled(pair: Pair, scale: int) -> Image:
    """Root sum of squares of the coils' interpolated images; that of the coils' small images has lost their phases."""
    return magnitude(interpolate(degrade_complex(pair.target, scale), scale).astype(np.complex64))


def _crop(image: npt.NDArray[Any], scale: int) -> npt.NDArray[Any]:
    rows, columns = (size - size % scale for size in image.shape[-2:])
    return image[..., :rows, :columns]
