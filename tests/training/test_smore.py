"""SMORE-2D learns from the volume that it is given, and from nothing else."""

import numpy as np
import numpy.typing as npt
import pytest

from minet_sdk.errors import InputError, TrainingError
from minet_sdk.kspace import degrade
from minet_sdk.training.edsr import EdsrConfig
from minet_sdk.training.network import build
from minet_sdk.training.smore import SmoreSettings, restore_by_self_training, restore_volume, train_on

CONFIG = EdsrConfig(2, 2, 16, skip="sinc")
QUICK = SmoreSettings(steps=160, batch_size=4, patch=24, learning_rate=5e-3)


def discs(size: int, seed: int) -> npt.NDArray[np.float64]:
    """Three slices of overlapping discs: sharp edges at every scale."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    slices = np.zeros((3, size, size))
    for piece in slices:
        for _ in range(25):
            row, column, radius = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.03, 0.25)
            piece[(y - row) ** 2 + (x - column) ** 2 < radius**2] = rng.uniform(50, 200)
    return slices


@pytest.fixture(scope="module")
def truth() -> npt.NDArray[np.float64]:
    return discs(96, 1)


def error(image: npt.NDArray[np.float32], truth: npt.NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean((image - truth) ** 2)))


def test_volume_teaches_its_own_network(truth: npt.NDArray[np.float64]) -> None:
    """Better than the interpolation that the network starts from, though it never saw the truth."""
    low = degrade(truth, 2)
    restored = restore_by_self_training(low, CONFIG, QUICK)
    assert restored.shape == truth.shape
    assert restored.dtype == np.float32
    interpolated = restore_volume(build(CONFIG), low)  # type: ignore[arg-type] # an EDSR, by its config
    assert error(restored, truth) < 0.97 * error(interpolated, truth)


def test_same_seed_same_network_and_sizes_that_do_not_divide(truth: npt.NDArray[np.float64]) -> None:
    low = degrade(truth, 2)[:, :35, :41]
    few = SmoreSettings(steps=3)
    first, second, other = (restore_volume(train_on(low, CONFIG, few, seed), low) for seed in (1, 1, 2))
    assert first.shape == (3, 70, 82)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    # In another unit of intensity it is the same work.
    np.testing.assert_allclose(restore_by_self_training(1024 * low, CONFIG, few, 1), 1024 * first, rtol=1e-4, atol=1)


def test_too_little_to_learn_from_is_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(2, 23, 40\); expected .* at least 24"):
        restore_by_self_training(np.zeros((2, 23, 40)), CONFIG)
    with pytest.raises(InputError, match="expected \\(slices, H, W\\)"):
        restore_by_self_training(np.zeros((64, 64)), CONFIG)
    with pytest.raises(TrainingError, match="steps is 0"):
        SmoreSettings(steps=0)
