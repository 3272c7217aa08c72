"""Normalisation: statistics of each slice by definition, there and back, limits."""

import numpy as np
import pytest

from minet_sdk.normalisation import Normalisation


def volume() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.gamma(2, 100, (3, 9, 7)) * np.array([1, 10, 1000])[:, None, None]


def test_each_slice_gets_mean_0_and_deviation_1() -> None:
    normal = Normalisation().apply(volume())
    assert normal.dtype == np.float32
    np.testing.assert_allclose(normal.mean(axis=(1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(normal.std(axis=(1, 2)), 1, rtol=1e-6)
    np.testing.assert_allclose(
        normal[1], (volume()[1] - volume()[1].mean()) / np.std(volume()[1]), rtol=1e-5, atol=1e-6
    )


def test_intensity_scale_of_the_input_does_not_matter() -> None:
    np.testing.assert_allclose(Normalisation().apply(7 * volume() - 3), Normalisation().apply(volume()), atol=1e-5)


@pytest.mark.parametrize("unit", [1e-9, 1e-20, 1e20])
def test_the_unit_does_not_matter(unit: float) -> None:
    """Diffusivities in m^2/s are as good as in mm^2/s."""
    apply = Normalisation().apply
    np.testing.assert_allclose(apply((unit * volume()).astype(np.float32)), apply(volume()), atol=1e-5)


@pytest.mark.parametrize("kind", [np.int16, np.uint16, np.float32, np.float64])
def test_there_and_back(kind: type[np.int16 | np.uint16 | np.float32 | np.float64]) -> None:
    image = volume()[:2].astype(kind)
    normalisation = Normalisation()
    statistics = normalisation.statistics(image)
    assert statistics[0].shape == statistics[1].shape == (2, 1, 1)
    back = normalisation.undo(normalisation.apply(image, statistics), statistics)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, image, rtol=1e-5, atol=1e-3)


def test_statistics_of_another_image_are_used_as_given() -> None:
    """The truth of a training pair is normalised by its low-resolution target."""
    normalisation = Normalisation()
    low = np.array([[0.0, 2.0], [2.0, 4.0]])
    normal = normalisation.apply(np.array([[2.0, 2 + 2**0.5]]), normalisation.statistics(low))
    np.testing.assert_allclose(normal, [[0, 1]], atol=1e-6)


def test_large_offsets_lose_no_precision() -> None:
    """The statistics are float64: in float32 a deviation of 1 on a mean of a million would be off by percents."""
    rng = np.random.default_rng(0)
    image = (1e6 + rng.normal(0, 1, (64, 64))).astype(np.float32)
    mean, deviation = Normalisation().statistics(image)
    assert mean.item() == pytest.approx(np.mean(image.astype(np.float64)), abs=1e-9)
    assert deviation.item() == pytest.approx(np.std(image.astype(np.float64)), rel=1e-9)


def test_a_constant_slice_becomes_zero_and_comes_back() -> None:
    image = np.full((4, 4), 7.0)
    normalisation = Normalisation()
    normal = normalisation.apply(image)
    np.testing.assert_array_equal(normal, 0)
    np.testing.assert_array_equal(normalisation.undo(normal, normalisation.statistics(image)), 7)


def test_clip_limits_both_sides() -> None:
    image = np.zeros((20, 20))
    image[0, 0], image[1, 1] = 100, -100
    assert np.abs(Normalisation().apply(image)).max() > 6
    clipped = Normalisation(clip=6.0).apply(image)
    assert clipped.max() == 6
    assert clipped.min() == -6
