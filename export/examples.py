"""Seeded network inputs that look like a normalised pair of brain slices: what golden vectors and validation run on."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from minet_sdk.kspace import degrade
from minet_sdk.normalisation import Normalisation

Array = npt.NDArray[np.float32]

_TISSUES = 9
_NOISE = 0.01


class Example(NamedTuple):
    """A batch of normalised inputs."""

    target: Array
    """(N, 1, H, W)."""

    reference: Array
    """(N, 1, scale * H, scale * W)."""


def example(batch: int, height: int, width: int, scale: int, normalisation: Normalisation, seed: int = 0) -> Example:
    """Ellipses of tissue in a head, in two contrasts, with a little noise.

    Args:
        batch: N, all slices different.
        height: rows of the low-resolution target.
        width: columns of it.
        scale: magnification.
        normalisation: of the bundle.
        seed: same seed, same slices.
    """
    rng = np.random.default_rng(seed)
    pairs = [_pair(rng, scale * height, scale * width) for _ in range(batch)]
    target = np.stack([degrade(truth, scale) for truth, _ in pairs])
    reference = np.stack([guide for _, guide in pairs])
    return Example(normalisation.apply(target)[:, None], normalisation.apply(reference)[:, None])


def _pair(rng: np.random.Generator, height: int, width: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The same anatomy in two contrasts, (height, width) each."""
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    images = np.zeros((2, height, width))
    for tissue in range(_TISSUES):
        centre, radii = (
            ((0.0, 0.0), (0.85, 0.7)) if tissue == 0 else (rng.uniform(-0.4, 0.4, 2), rng.uniform(0.1, 0.4, 2))
        )
        inside = ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 < 1
        images[:, inside] = rng.uniform(0.2, 1.0, (2, 1))
    images += rng.normal(0, _NOISE, images.shape)
    return images[0], images[1]
