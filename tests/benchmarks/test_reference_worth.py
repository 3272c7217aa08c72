"""The fits of the worth of a reference find what a reference tells, and nothing where it tells nothing."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
SIZE = (120, 96)


@pytest.fixture(name="worth")
def make_worth(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmarks are scripts, not a package."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("reference_worth")


def _image(rng: np.random.Generator, smooth: int = 1) -> Any:
    return np.kron(rng.normal(size=[side // smooth for side in SIZE]), np.ones((smooth, smooth))).astype(np.float32)


def test_a_reference_is_worth_what_it_tells(worth: ModuleType) -> None:
    rng = np.random.default_rng(0)
    truth = _image(rng, 12) + 0.3 * _image(rng)
    twin = truth - (0.3 * worth.detail(truth, 2)).astype(np.float32) + 0.02 * _image(rng)

    def gain(reference: Any) -> float:
        without, using = worth.fits(twin + 0.2 * _image(rng), reference, truth, 2)
        found = worth.gain([using], [without])
        assert found["resampled"] == "blocks"
        return found["mean"]

    assert gain(5 - 2 * truth) > 3
    assert abs(gain(_image(rng))) < 0.3


def test_no_pixel_is_predicted_by_a_fit_to_itself(worth: ModuleType) -> None:
    rng = np.random.default_rng(0)
    features, noise = rng.normal(size=(SIZE[0] * SIZE[1], 50)), rng.normal(size=SIZE[0] * SIZE[1])
    folds, classes = worth.folds_of(SIZE), worth.brightness(_image(rng), 9)
    assert np.bincount(folds).min() > 1000
    for penalty in worth.PENALTIES:
        assert np.mean((noise - worth.cross_fitted(features, noise, classes, folds, penalty)) ** 2) > np.mean(noise**2)
    # one fold for all leaves nothing to fit to
    assert not worth.cross_fitted(features, noise, classes, classes * 0, worth.PENALTIES[0]).any()
    blocks = folds.reshape(SIZE)[:24, :24]
    assert (blocks == blocks[0, 0]).all()
