"""The test sets of the comparison, by the names that the tables show."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from minet_sdk.demo import study_folder
from minet_sdk.kspace import degrade
from minet_sdk.requirements import require
from minet_sdk.training.evaluation_sets import TestVolume, volumes_of
from minet_sdk.training.pairs import open_source

SLICES = 16
"""Of each synthetic test subject."""

MakeVolumes = Callable[[int], Iterator[TestVolume]]
"""The volumes for a scale."""


def test_sets(labels: Path, images: list[tuple[str, str, str]]) -> dict[str, MakeVolumes]:
    """Synthetic and real ones.

    Args:
        labels: folder of label maps.
        images: (name, reference, target) of aligned image files; those of one name are slices of one volume.
    """
    clinical = open_source("synthetic", labels, "test", {"preset": "clinical"})
    random = open_source("synthetic", labels, "test")
    average = open_source("dicom", study_folder(), "all")
    sets: dict[str, MakeVolumes] = {
        "synthetic, clinical protocols": lambda scale: volumes_of(clinical, scale, SLICES),
        "synthetic, random contrast": lambda scale: volumes_of(random, scale, SLICES),
        "real, ICBM152 T1 to T2": lambda scale: volumes_of(average, scale, SLICES),
    }
    named: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, reference, target in images:
        named[name].append((reference, target))
    for name, files in named.items():
        sets[name] = lambda scale, files=files, name=name: _volume_of_images(name, files, scale)
    return sets


def _volume_of_images(name: str, files: list[tuple[str, str]], scale: int) -> Iterator[TestVolume]:
    """Slices of one size from image files, cropped to multiples of 4."""
    imread = require("matplotlib.image", "reading image files").imread

    def read(path: str) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        image = np.asarray(imread(path), np.float32)
        grey = image if image.ndim == 2 else image[..., 0]
        return grey[: grey.shape[0] // 4 * 4, : grey.shape[1] // 4 * 4]

    references, truths = (np.stack([read(pair[i]) for pair in files]) for i in (0, 1))
    yield TestVolume(name, name, truths, np.stack([degrade(truth, scale) for truth in truths]), references)
