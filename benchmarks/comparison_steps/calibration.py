"""Whether a network is too sure of the detail that it adds: the factor on it that would suit a test set best.

Detail is what a network adds to zero-filled k-space. What is right in the mean has a factor of one; below it a part of
the detail is wrong. The factor is known only where the truth is, so that no method can use it; what is left of a
difference between two networks with their own best factors is not one of strength.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from comparison_steps.sets import MakeVolumes
from comparison_steps.testing import Network, opened, write_json
from minet_sdk.bundle import sha256
from minet_sdk.training.evaluation import BASELINE, Restore, interpolations, with_runtime
from minet_sdk.training.evaluation_sets import TestVolume

Floats = npt.NDArray[np.float64]


def test_calibration(network: Network, sets: Mapping[str, MakeVolumes], output: Path) -> None:
    """The best factor of one network on every set; one JSON."""
    with opened(network) as runtime:
        restore = with_runtime(runtime)
        found = {name: calibration(restore, make(network.scale), network.scale) for name, make in sets.items()}
    report = {
        "row": network.row,
        "scale": network.scale,
        "sha256": sha256(network.checkpoint),
        "what": "gain over zero-filled k-space, dB, mean over slices, as the network is and with its detail scaled by "
        "the one factor that suits the set best",
        "sets": found,
    }
    write_json(output / f"calibration-{network.name}.json", report)


def calibration(restore: Restore, volumes: Iterable[TestVolume], scale: int) -> dict[str, float]:
    """The factor for which the sum over slices of squared error over that of zero-filled k-space is least."""
    zero_filled = interpolations(scale)[BASELINE]
    products: list[Floats] = []
    for volume in volumes:
        filled = zero_filled(volume).astype(np.float64)
        added, wanted = restore(volume) - filled, volume.truth - filled
        products.append(
            np.stack([(a * b).sum(axis=(1, 2)) for a, b in ((added, added), (added, wanted), (wanted, wanted))])
        )
    square, match, all_of_it = np.concatenate(products, axis=1)
    factor = float((match / all_of_it).sum() / (square / all_of_it).sum())

    def gain(at: float) -> float:
        return float(np.mean(10 * np.log10(all_of_it / (all_of_it - 2 * at * match + at**2 * square))))

    return {"factor": factor, "gain_db": gain(1), "gain_at_factor_db": gain(factor)}
