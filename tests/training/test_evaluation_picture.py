"""The picture beside an evaluation, for references and coils of every kind."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib import image as images

from minet_sdk.kspace import bicubic, degrade
from minet_sdk.training.evaluation import BASELINE
from minet_sdk.training.evaluation_picture import draw_evaluation
from minet_sdk.training.evaluation_sets import TestVolume

Array = npt.NDArray[np.float32]
SCALE = 2


def drawn(path: Path, reference: Array, zero_filled: Array | None = None) -> tuple[Array, list[Array | None]]:
    """The picture (rows, columns, 3) and the images of several coils that the methods were given."""
    truth = np.random.default_rng(0).gamma(2, 100, (3, 64, 48)).astype(np.float32)
    low = degrade(truth, SCALE)
    volume = TestVolume("volume", "subject", truth, low, reference, zero_filled)
    given: list[Array | None] = []

    def restore(one: TestVolume) -> Array:
        given.append(one.zero_filled)
        return bicubic(one.low, SCALE)

    draw_evaluation(path, {BASELINE: restore, "other": restore}, volume, SCALE)
    return images.imread(path)[..., :3], given


@pytest.mark.parametrize(("level", "factor"), [(0.0, 1.0), (-500.0, 1.0), (0.0, -3.0)])
def test_any_intensities_of_a_reference_are_shown(tmp_path: Path, level: float, factor: float) -> None:
    reference = np.random.default_rng(1).gamma(2, 100, (3, 64, 48))
    picture, given = drawn(tmp_path / "shown.png", (level + factor * reference).astype(np.float32))
    black, white = (drawn(tmp_path / "other.png", np.full((3, 64, 48), value, np.float32))[0] for value in (0, 7))
    assert given == [None, None]
    assert black.shape == white.shape
    assert picture.shape[1] > 1.1 * black.shape[1]
    first = picture[: picture.shape[0] // 2, : picture.shape[1] // 5]
    assert first.std() > 0.1


def test_methods_are_given_the_coils_of_the_slice(tmp_path: Path) -> None:
    coils = np.random.default_rng(2).random((3, 64, 48)).astype(np.float32)
    _, given = drawn(tmp_path / "coils.png", coils, coils)
    assert len(given) == 2
    for one in given:
        np.testing.assert_array_equal(np.asarray(one), coils[1:2])
