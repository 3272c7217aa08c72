"""What a reference is worth on real pairs to something that may learn on these very slices.

    python benchmarks/reference_worth.py --labels FOLDER [--pair NAME REF TARGET ...] [--atlas FOLDER]

The twin of the bundled model, which has no reference, restores each slice; then a regression is fitted to what it got
wrong, once from its own detail around each pixel, once from the reference's detail as well. Pixels fall into classes by
brightness, so that either fit knows contrasts. A block of pixels is always predicted by a fit to other blocks of the
slice. What the second fit gains over the first is what this reference tells about this slice; beside it stands what the
bundled model, which has never seen the slice, gains over its twin.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from comparison_steps.plan import SCALES
from comparison_steps.sets import CLINICAL, RANDOM, MakeVolumes, test_sets
from comparison_steps.testing import Network, bundled, opened

from minet_sdk import Runtime, __version__
from minet_sdk.benchmark.machine import environment
from minet_sdk.benchmark.suite import write_json
from minet_sdk.bundle import sha256
from minet_sdk.kspace import degrade, zero_filled
from minet_sdk.training.evaluation import as_json
from minet_sdk.training.statistics import BLOCK, BlockErrors, in_blocks, paired_difference

Image = npt.NDArray[np.float32]
Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

MOST_SLICES = 6
"""Of a volume, evenly spread: neighbours tell the same."""

FOLDS = 5
REACH = 2
"""Pixels to each side of the one that is predicted."""

BRIGHTNESSES = 9
"""Classes of brightness: of the image, or three of the image times three of the reference; or all pixels are one."""

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Of the regression, a pixel. Each fit has the best one, and the best classes."""


def neighbours(image: Array) -> Array:
    """Every pixel's surroundings: (H, W) -> (H * W, pixels)."""
    rows, columns = image.shape
    padded = np.pad(image, REACH, mode="reflect")
    shifts = range(2 * REACH + 1)
    return np.stack([padded[i : i + rows, j : j + columns].ravel() for i in shifts for j in shifts], axis=1)


def detail(image: Image, scale: int) -> Array:
    """What k-space of the target's size does not hold of an image, with variance 1."""
    found = image.astype(np.float64) - zero_filled(degrade(image, scale), scale)
    return found / found.std()


def brightness(image: Image, classes: int) -> Labels:
    """The class of every pixel: equally many in each, by the mean of its surroundings."""
    smooth = neighbours(image.astype(np.float64)).mean(axis=1)
    return np.searchsorted(np.quantile(smooth, np.linspace(0, 1, classes + 1)[1:-1]), smooth)


def folds_of(shape: tuple[int, int]) -> Labels:
    """The fold of every pixel; pixels of one block are of one fold."""
    rows, columns = (np.arange(size) // BLOCK for size in shape)
    block = rows[:, None] * (columns.max() + 1) + columns
    order = np.random.default_rng(0).permutation(block.max() + 1)
    return order[block.ravel()] % FOLDS


def cross_fitted(features: Array, wanted: Array, classes: Labels, folds: Labels, penalty: float) -> Array:
    """Ridge regression in each class; every pixel predicted by a fit to the other folds."""
    predicted = np.zeros_like(wanted)
    for one in np.unique(classes):
        for fold in range(FOLDS):
            known, asked = (classes == one) & (folds != fold), (classes == one) & (folds == fold)
            given = features[known]
            if not len(given):
                continue  # a class within one fold: nothing is known of it
            normal = given.T @ given + penalty * len(given) * np.eye(features.shape[1])
            predicted[asked] = features[asked] @ np.linalg.solve(normal, given.T @ wanted[known])
    return predicted


def best_left(features: Array, wanted: Array, divisions: Sequence[Labels], folds: Labels) -> Array:
    """What the best of the fits leaves of what was wanted."""
    settings = product(divisions, PENALTIES)
    left = (wanted - cross_fitted(features, wanted, classes, folds, penalty) for classes, penalty in settings)
    return min(left, key=lambda one: float(np.mean(one**2)))


def fits(twin: Image, reference: Image, truth: Image, scale: int) -> tuple[Array, Array]:
    """What remains wrong of one slice after the fit without the reference, and after that with it."""
    wrong = (truth.astype(np.float64) - twin).ravel()
    folds = folds_of((truth.shape[0], truth.shape[1]))
    own, other = neighbours(detail(twin, scale)), neighbours(detail(reference, scale))
    alone = [brightness(twin, 1), brightness(twin, BRIGHTNESSES)]
    few = round(BRIGHTNESSES**0.5)
    together = brightness(twin, few) * few + brightness(reference, few)
    without = best_left(own, wrong, alone, folds)
    using = best_left(np.concatenate([own, other], axis=1), wrong, [*alone, together], folds)
    return without.reshape(truth.shape), using.reshape(truth.shape)


def gain(ours: Iterable[Array], theirs: Iterable[Array]) -> dict[str, Any]:
    """How much smaller our errors are than theirs, slices of one subject: mean in dB and interval."""
    blocks = [
        BlockErrors(in_blocks(one**2)[None], in_blocks(other**2)[None]) for one, other in zip(ours, theirs, strict=True)
    ]
    values = np.array([10 * np.log10(one.theirs.sum() / one.ours.sum()) for one in blocks])
    return as_json(paired_difference(values, ["all"] * len(values), blocks))


def measure(sets: Mapping[str, MakeVolumes], scale: int, twin: Runtime, model: Runtime) -> list[dict[str, Any]]:
    """All sets at one scale."""
    rows: list[dict[str, Any]] = []
    for name, make in sets.items():
        errors: dict[str, list[Array]] = {"twin": [], "model": [], "without": [], "using": []}
        for volume in make(scale):
            for index in np.unique(np.linspace(0, len(volume.truth) - 1, MOST_SLICES).round().astype(int)):
                truth, low, reference = volume.truth[index], volume.low[index], volume.reference[index]
                alone = twin(low)
                without, using = fits(alone, reference, truth, scale)
                errors["twin"].append(truth.astype(np.float64) - alone)
                errors["model"].append(truth.astype(np.float64) - model(low, reference))
                errors["without"].append(without)
                errors["using"].append(using)
        rows.append(
            {
                "set": name,
                "scale": scale,
                "slices": len(errors["twin"]),
                "fit_over_twin": gain(errors["without"], errors["twin"]),
                "reference_in_fit": gain(errors["using"], errors["without"]),
                "model_over_twin": gain(errors["model"], errors["twin"]),
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, help="as benchmarks/comparison.py")
    parser.add_argument("--pair", nargs=3, action="append", default=[], metavar=("NAME", "REFERENCE", "TARGET"))
    parser.add_argument("--atlas", type=Path)
    default = Path(__file__).parent / "results" / "reference_worth.json"
    parser.add_argument("--output", type=Path, default=default)
    chosen = parser.parse_args()
    pairs = [(name, reference, target) for name, reference, target in chosen.pair]
    sets = test_sets(chosen.labels, pairs, chosen.atlas)
    real = {name: make for name, make in sets.items() if name not in (CLINICAL, RANDOM)}
    networks: dict[tuple[str, int], Network] = {(one.row, one.scale): one for one in bundled()}
    rows: list[dict[str, Any]] = []
    for scale in SCALES:
        with opened(networks["twin", scale]) as twin, opened(networks["bundled-minet", scale]) as model:
            rows += measure(real, scale, twin, model)
    used = {one.name: sha256(one.checkpoint) for one in networks.values() if one.row in ("twin", "bundled-minet")}
    report = {
        "what": "what a reference tells of real slices to a regression that is fitted to other blocks of each",
        "minet-sdk": __version__,
        "environment": environment(),
        "models": used,
        "rows": rows,
    }
    write_json(report, chosen.output)


if __name__ == "__main__":
    main()
