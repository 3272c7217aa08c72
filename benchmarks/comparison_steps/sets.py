"""The test sets of the comparison, by the names that the tables show."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from minet_sdk.demo import study_folder
from minet_sdk.kspace import degrade, degrade_complex
from minet_sdk.requirements import require
from minet_sdk.training.evaluation_sets import TestVolume, volumes_of
from minet_sdk.training.pairs import open_source

SLICES = 16
"""Of each synthetic test subject."""

CLINICAL = "synthetic, clinical protocols"
RANDOM = "synthetic, random contrast"
SHOWN = "real, ICBM152 T1 to T2"
"""What the picture shows the middle slice of."""

ATLAS = "real, CIT168 T1 to T2, hippocampus"
ATLAS_FIRST, ATLAS_EVERY = 2, 4
"""Of the 64 sagittal slices."""

COMPLEX = "synthetic, clinical protocols, complex"

MakeVolumes = Callable[[int], Iterator[TestVolume]]
"""The volumes for a scale."""


def test_sets(labels: Path, images: list[tuple[str, str, str]], atlas: Path | None) -> dict[str, MakeVolumes]:
    """Synthetic and real ones.

    Args:
        labels: folder of label maps.
        images: (name, reference, target) of aligned image files; those of one name are slices of one volume.
        atlas: see `atlas_set`; None leaves it out.
    """
    clinical = open_source("synthetic", labels, "test", {"preset": "clinical"})
    random = open_source("synthetic", labels, "test")
    average = open_source("dicom", study_folder(), "all")
    sets: dict[str, MakeVolumes] = {
        CLINICAL: lambda scale: volumes_of(clinical, scale, SLICES),
        RANDOM: lambda scale: volumes_of(random, scale, SLICES),
        SHOWN: lambda scale: volumes_of(average, scale, SLICES),
    }
    if atlas is not None:
        sets |= atlas_set(atlas)
    named: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, reference, target in images:
        named[name].append((reference, target))
    for name, files in named.items():
        sets[name] = lambda scale, files=files, name=name: _volume_of_images(name, files, scale)
    return sets


def atlas_set(folder: Path) -> dict[str, MakeVolumes]:
    """The CIT168 average around one hippocampus, T1 and T2, from 0.3 mm to 0.6 mm: sagittal slices of 128 x 64.

    Args:
        folder: of the four volumes, as the package `hippunfold` has them (resources/CITI168).
    """
    nibabel = require("nibabel", "reading the atlas")

    def read(contrast: str) -> npt.NDArray[np.float32]:
        image = nibabel.load(folder / f"{contrast}_300umCoronalOblique_hemi-L.nii.gz").get_fdata(dtype=np.float32)
        halves = image.reshape(*(part for size in image.shape for part in (size // 2, 2))).mean(axis=(1, 3, 5))
        return np.ascontiguousarray(np.clip(halves, 0, None)[ATLAS_FIRST::ATLAS_EVERY])

    references, truths = read("T1w"), read("T2w")

    def volume(scale: int) -> Iterator[TestVolume]:
        low = np.stack([degrade(truth, scale) for truth in truths])
        yield TestVolume(ATLAS, ATLAS, truths, low, references)

    return {ATLAS: volume}


def complex_set(labels: Path) -> dict[str, MakeVolumes]:
    """The clinical set as a scanner has it before taking the magnitude: with a phase that varies over the slice."""
    clinical = open_source("synthetic", labels, "test", {"preset": "clinical"})
    return {COMPLEX: lambda scale: map(partial(_with_phase, scale), volumes_of(clinical, scale, SLICES))}


def _with_phase(scale: int, volume: TestVolume) -> TestVolume:
    """A smooth phase of up to one turn, from the slice's name alone."""
    rng = np.random.default_rng(list(volume.name.encode()))
    rows, columns = volume.truth.shape[1:]
    y, x = np.linspace(-1, 1, rows)[:, None], np.linspace(-1, 1, columns)
    a, b, c, d = rng.uniform(-np.pi / 4, np.pi / 4, 4)
    phase = np.exp(1j * (a * x + b * y + c * x * y + d * (x**2 + y**2)))
    low = np.stack([degrade_complex((truth * phase).astype(np.complex64), scale) for truth in volume.truth])
    return replace(volume, low=low.astype(np.complex64))


def _volume_of_images(name: str, files: list[tuple[str, str]], scale: int) -> Iterator[TestVolume]:
    """Slices of one size from image files, cropped to multiples of 4."""
    imread = require("matplotlib.image", "reading image files").imread

    def read(path: str) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        image = np.asarray(imread(path), np.float32)
        grey = image if image.ndim == 2 else image[..., 0]
        return grey[: grey.shape[0] // 4 * 4, : grey.shape[1] // 4 * 4]

    references, truths = (np.stack([read(pair[i]) for pair in files]) for i in (0, 1))
    yield TestVolume(name, name, truths, np.stack([degrade(truth, scale) for truth in truths]), references)
