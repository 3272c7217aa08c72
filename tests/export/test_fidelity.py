"""PSNR in the intensity scale of the truth, against formulas written out here."""

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from minet_sdk.export.fidelity import fidelity, restore
from minet_sdk.export.slices import Slices
from minet_sdk.kspace import degrade, zero_filled
from minet_sdk.normalisation import Normalisation


def test_restoration_is_in_the_scale_of_the_truth(slices: Slices) -> None:
    """Interpolation is linear, so that normalising before and undoing it after change nothing."""

    def interpolate(feed: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        offset = 100  # zero-filling returns a magnitude
        return (zero_filled(feed["target"][0, 0] + offset, 2) - offset)[None, None]

    restored = restore(interpolate, slices, 2, Normalisation())
    expected = np.stack([zero_filled(degrade(truth, 2) + 1e6, 2) - 1e6 for truth in slices.targets])
    np.testing.assert_allclose(restored, expected, atol=2e-3 * slices.targets.max())


def test_decibels() -> None:
    truth = np.zeros((2, 4, 4), np.float32)
    truth[0, 0, 0] = 10
    network, restored = truth + np.float32(0.1), truth + np.float32(0.2)
    found = fidelity(truth, network, restored)
    assert found.network_psnr == pytest.approx(40, abs=1e-4)
    assert found.psnr == pytest.approx(20 * np.log10(10 / 0.2), abs=1e-4)
    assert found.change == pytest.approx(-6.0206, abs=1e-3)
    assert found.difference_psnr == pytest.approx(40, abs=1e-3)
    assert fidelity(truth, network, network).difference_psnr == float("inf")
