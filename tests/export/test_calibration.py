"""Ranges of layers' inputs against ranges computed here from the slices."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from minet_sdk.export.calibration import HEADROOM, calibrate, collect
from minet_sdk.export.quantise import quantised_layers
from minet_sdk.export.slices import Slices
from minet_sdk.kspace import degrade
from minet_sdk.training.model import MINet

FIRST = "reference_groups.0.blocks.0.first"
FUSION = "fusions.0"


def normalised(image: NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy((image - image.mean()) / image.std())[None, None]


@pytest.fixture(scope="module")
def magnitudes(network: MINet, slices: Slices) -> dict[str, NDArray[np.float64]]:
    """What enters two of the layers, from both directions of contrast, without the code under test."""
    seen: dict[str, list[NDArray[np.float64]]] = {FIRST: [], FUSION: []}
    pairs = [*zip(slices.targets, slices.references, strict=True), *zip(slices.references, slices.targets, strict=True)]
    with torch.no_grad():
        for truth, guide in pairs:
            features = network.reference_head(normalised(guide))
            first = network.target_head(normalised(degrade(truth, 2)))
            seen[FIRST].append(features.abs().double().numpy().ravel())
            seen[FUSION].append(torch.cat([features, first], 1).abs().double().numpy().ravel())
    return {name: np.concatenate(values) for name, values in seen.items()}


def test_maximum_is_the_largest_input(
    network: MINet, slices: Slices, magnitudes: dict[str, NDArray[np.float64]]
) -> None:
    ranges = collect(network, slices, "int8")
    assert set(ranges) == set(quantised_layers(network))
    for name, values in magnitudes.items():
        assert ranges[name] == pytest.approx(values.max(), rel=1e-5)


def test_percentile_is_numpys(network: MINet, slices: Slices, magnitudes: dict[str, NDArray[np.float64]]) -> None:
    ranges = collect(network, slices, "int8", "percentile")
    for name, values in magnitudes.items():
        assert ranges[name] == pytest.approx(np.quantile(values, 0.9999), abs=2 * values.max() / 2048)


def test_least_squares_limit_is_the_best_of_its_grid(
    network: MINet, slices: Slices, magnitudes: dict[str, NDArray[np.float64]]
) -> None:
    ranges = collect(network, slices, "int8", "mse")

    def error(values: NDArray[np.float64], limit: float) -> float:
        return float(np.mean((np.minimum(np.rint(values * 127 / limit), 127) * limit / 127 - values) ** 2))

    for name, values in magnitudes.items():
        best = min(error(values, values.max() * step / 40) for step in range(6, 41))
        assert error(values, ranges[name]) <= 1.02 * best


def test_record_is_reproducible_and_says_where_it_is_from(network: MINet, slices: Slices) -> None:
    record = calibrate(network, slices, "int8")
    assert record == calibrate(network, slices, "int8")
    assert record["data_sha256"] == slices.sha256()
    assert record["headroom"] == HEADROOM["int8"]
    assert (record["slices"], record["directions"], record["source"]) == (5, 2, "middle of the study")
    ranges = collect(network, slices, "int8")
    for name, scale in record["scales"].items():
        assert scale == float(np.float16(scale)) == pytest.approx(1.5 * ranges[name] / 127, rel=1e-3)
    tight = calibrate(network, slices, "int8", headroom=1.0)["scales"]
    assert all(tight[name] == pytest.approx(scale / 1.5, rel=2e-3) for name, scale in record["scales"].items())


def test_other_slices_give_other_scales(network: MINet, slices: Slices) -> None:
    brighter = slices.targets.copy()
    brighter[0, 20, 20] *= 10
    other = calibrate(network, Slices(brighter, slices.references, "other"), "int8")
    assert other["scales"] != calibrate(network, slices, "int8")["scales"]
    assert other["data_sha256"] != slices.sha256()
    assert not any(module._forward_pre_hooks for module in network.modules())  # pyright: ignore[reportPrivateUsage] # nothing stays behind
