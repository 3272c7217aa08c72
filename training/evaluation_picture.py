"""The picture beside an evaluation: the middle slice of a test volume by every method, with its error map."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from minet_sdk.figure import Panel, draw_comparison
from minet_sdk.measures import psnr
from minet_sdk.training.evaluation import BASELINE, Restore
from minet_sdk.training.evaluation_sets import TestVolume

Array = npt.NDArray[np.float32]


def draw_evaluation(path: Path, methods: Mapping[str, Restore], volume: TestVolume, scale: int) -> None:
    """Restore one slice and write the picture.

    Args:
        path: ends in .png.
        methods: columns from left to right, with `BASELINE` among them.
        volume: where the slice is from.
        scale: magnification.
    """
    middle = slice(len(volume.truth) // 2, len(volume.truth) // 2 + 1)
    one = replace(
        volume,
        truth=volume.truth[middle],
        low=volume.low[middle],
        reference=volume.reference[middle],
        zero_filled=None if volume.zero_filled is None else volume.zero_filled[middle],
    )
    truth = one.truth[0]
    images = {name: restore(one)[0] for name, restore in methods.items()}
    blocks = np.repeat(np.repeat(np.abs(one.low[0]), scale, 0), scale, 1).astype(np.float32)
    guide = _shown(one.reference[0], float(np.percentile(truth, 99.7)))
    panels = [
        *([] if guide is None else [Panel("Reference", guide, compared=False)]),
        Panel(f"Low resolution x{scale}", blocks),
        *(Panel(f"{name}\n{psnr(truth[None], image[None]):.2f} dB", image) for name, image in images.items()),
    ]
    caption = f"{volume.name}, x{scale}, no k-space consistency. Research use only, not a medical device."
    draw_comparison(path, panels, truth, images[BASELINE], caption)


def _shown(reference: Array, white: float) -> Array | None:
    """A reference of any intensities in a window from 0 to ``white``; None for one that is constant, or missing."""
    black = min(float(reference.min()), 0.0)
    width = float(reference.max()) - black
    varies = reference.min() < reference.max()
    return ((reference - black) / width * white).astype(np.float32) if varies else None
