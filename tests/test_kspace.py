"""Degradation and the ways back up, against closed-form images and direct sums; the two classic faults are planted."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from minet_sdk.errors import InputError
from minet_sdk.kspace import (
    Consistency,
    Kspace,
    bicubic,
    degrade,
    enforce_consistency,
    fourier_shift,
    from_kspace,
    interpolate,
    soft_consistency_matrices,
    to_kspace,
    zero_filled,
)

Array = npt.NDArray[np.float64]
Magnify = Callable[[Array, int], npt.NDArray[np.float32]]

SCALES = (2, 4)
SIZES = [(24, 16), (20, 28), (12, 36)]
"""High-resolution sizes; divided by 2 or 4 they give even and odd low-resolution sizes."""

WAVES = ((0, 1, 0.8, 0.3), (1, 0, 0.5, 1.1), (1, 1, 0.3, 2.0), (-1, 1, 0.4, 0.7))
"""Cycles along rows and columns, amplitude, phase: band-limited even on a 3 x 4 grid."""


def scene(rows: Array, columns: Array) -> Array:
    """A positive, band-limited, periodic image at any positions, in parts of the field of view."""
    y, x = rows[:, None], columns[None, :]
    waves = [a * np.cos(2 * np.pi * (v * y + u * x) + phase) for v, u, a, phase in WAVES]
    return 5 + np.sum(waves, axis=0)


def sampled(size: tuple[int, int], offset: float = 0.0) -> Array:
    """The scene on a grid; ``offset`` in pixels of that grid."""
    return scene(*((np.arange(n) + offset) / n for n in size))


def noisy(size: tuple[int, int], seed: int = 0) -> Array:
    """An image with power at every frequency, Nyquist included."""
    return 3 + np.random.default_rng(seed).random(size)


def phantom(size: int) -> Array:
    """A disc in a square with edges as soft as a scanner's slice shows them."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    image = np.select([np.hypot(y, x) < 0.4, np.abs(y) + np.abs(x) < 0.8], [1.0, 0.5], 0.05)
    smooth = np.exp(-0.5 * (2 * np.pi * np.fft.fftfreq(size) * 1.2) ** 2)
    return np.fft.ifft2(np.fft.fft2(image) * np.outer(smooth, smooth)).real


def psnr(truth: Array, image: npt.NDArray[np.floating[Any]]) -> float:
    return float(10 * np.log10(np.max(truth) ** 2 / np.mean((truth - image) ** 2)))


def direct_crop(image: npt.NDArray[np.inexact[Any]], scale: int) -> npt.NDArray[np.complex128]:
    """Low-resolution image as a sum over the kept frequencies, mean preserved by construction."""
    lines: list[npt.NDArray[np.complex128]] = []
    for size in image.shape:
        kept = np.arange(size // scale) - (size // scale) // 2
        analysis = np.exp(-2j * np.pi * np.outer(kept, np.arange(size)) / size) / size
        lines.append(np.exp(2j * np.pi * np.outer(np.arange(0, size, scale), kept) / size) @ analysis)
    return lines[0] @ image @ lines[1].T


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (6, 5)])
def test_kspace_is_centred_orthonormal_and_invertible(size: tuple[int, int]) -> None:
    image = noisy(size) * np.exp(1j * noisy(size, 1))
    spectrum = to_kspace(image)
    assert spectrum[size[0] // 2, size[1] // 2] == pytest.approx(image.sum() / np.sqrt(image.size))
    assert np.linalg.norm(spectrum) == pytest.approx(np.linalg.norm(image))
    np.testing.assert_allclose(from_kspace(spectrum), image, atol=1e-12)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("size", SIZES)
def test_degrade_is_the_direct_sum_over_the_centre(size: tuple[int, int], scale: int) -> None:
    image = noisy(size)
    np.testing.assert_allclose(degrade(image, scale), np.abs(direct_crop(image, scale)), atol=1e-6)
    phase = np.exp(1j * noisy(size, 1))
    np.testing.assert_allclose(degrade(image * phase, scale), np.abs(direct_crop(image * phase, scale)), atol=1e-6)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("size", SIZES)
def test_degrade_samples_the_scene_on_the_fft_grid(size: tuple[int, int], scale: int) -> None:
    """Low-resolution sample i lies on high-resolution sample scale * i; brightness and grid in one closed form."""
    low = (size[0] // scale, size[1] // scale)
    np.testing.assert_allclose(degrade(sampled(size), scale), sampled(low), rtol=1e-6)


@pytest.mark.parametrize("scale", SCALES)
def test_degrade_keeps_the_mean_intensity(scale: int) -> None:
    """Planted fault: the same crop without the factor 1 / scale is ``scale`` times too bright."""
    image = noisy((40, 40))
    assert degrade(image, scale).mean() == pytest.approx(image.mean(), rel=1e-3)
    small = 40 // scale
    start = 20 - small // 2
    bright = np.abs(from_kspace(to_kspace(image)[start : start + small, start : start + small]))
    assert bright.mean() == pytest.approx(scale * image.mean(), rel=1e-3)


@pytest.mark.parametrize("scale", SCALES)
def test_forgetting_the_brightness_costs_many_decibels(scale: int) -> None:
    image = sampled((24, 24)) + 0.1 * noisy((24, 24))
    low = degrade(image, scale)
    assert psnr(image, zero_filled(scale * low, scale)) < psnr(image, zero_filled(low, scale)) - 16


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("size", SIZES)
def test_degrade_with_an_offset_samples_between_the_pixels(size: tuple[int, int], scale: int) -> None:
    """``(scale - 1) / 2`` is the middle of the small pixels that a large one covers."""
    low = (size[0] // scale, size[1] // scale)
    offset = (scale - 1) / 2
    expected = sampled(low, offset / scale)
    np.testing.assert_allclose(degrade(sampled(size), scale, offset), expected, rtol=1e-6)
    assert np.abs(degrade(sampled(size), scale, -offset) - expected).max() > 0.1
    shifted = fourier_shift(sampled(size), -offset)
    np.testing.assert_allclose(degrade(shifted, scale), expected, rtol=1e-6)


@pytest.mark.parametrize("scale", SCALES)
def test_degrade_refuses_sizes_that_are_no_multiple(scale: int) -> None:
    with pytest.raises(InputError, match=f"24 x 22: both must be multiples of the scale {4 * scale}"):
        degrade(np.zeros((24, 22)), 4 * scale)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("low", [(6, 6), (5, 7), (6, 5)])
@pytest.mark.parametrize("method", [zero_filled, bicubic])
def test_measured_samples_stay_where_they_are(method: Magnify, low: tuple[int, int], scale: int) -> None:
    target = noisy(low)
    large = method(target, scale)
    assert large.shape == (scale * low[0], scale * low[1])
    assert large.dtype == np.float32
    np.testing.assert_allclose(large[::scale, ::scale], target, rtol=1e-6)
    assert np.abs(large[1::scale, 1::scale] - target).max() > 0.1


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("size", SIZES)
def test_zero_filling_restores_a_band_limited_image(size: tuple[int, int], scale: int) -> None:
    image = sampled(size)
    np.testing.assert_allclose(zero_filled(degrade(image, scale), scale), image, rtol=1e-6)
    low = sampled((size[0] // scale, size[1] // scale)) * np.exp(0.7j)
    np.testing.assert_allclose(interpolate(low, scale), image * np.exp(0.7j), rtol=1e-6)


@pytest.mark.parametrize("method", [bicubic, zero_filled])
@pytest.mark.parametrize("scale", SCALES)
def test_a_half_pixel_shift_costs_decibels(method: Magnify, scale: int) -> None:
    """Planted fault: the grid on which image libraries interpolate, as `align_corners=False` lays it."""
    image = phantom(96)
    right = method(degrade(image, scale).astype(np.float64), scale)
    shifted = fourier_shift(right, (scale - 1) / 2).real
    assert psnr(image, shifted) < psnr(image, right) - 3.5


def keys(distance: float) -> float:
    """Cubic convolution with a = -1/2 (Keys 1981, eq. 15)."""
    s = abs(distance)
    if s < 1:
        return 1.5 * s**3 - 2.5 * s**2 + 1
    return -0.5 * s**3 + 2.5 * s**2 - 4 * s + 2 if s < 2 else 0.0


@pytest.mark.parametrize("scale", SCALES)
def test_bicubic_is_cubic_convolution(scale: int) -> None:
    target = noisy((6, 5))
    padded = np.pad(target, 2, mode="edge")
    expected = np.zeros((6 * scale, 5 * scale))
    for row in range(6 * scale):
        for column in range(5 * scale):
            y, x = row / scale, column / scale
            for i in range(int(y) - 1, int(y) + 3):
                for j in range(int(x) - 1, int(x) + 3):
                    expected[row, column] += keys(y - i) * keys(x - j) * padded[i + 2, j + 2]
    np.testing.assert_allclose(bicubic(target, scale), expected, rtol=1e-6)


def test_bicubic_reproduces_a_parabola_inside() -> None:
    position = np.arange(8.0)
    low = 1 + position[:, None] ** 2 + 2 * position[None] + np.zeros((8, 8))
    large = bicubic(low, 4)
    fine = np.arange(32) / 4
    expected = 1 + fine[:, None] ** 2 + 2 * fine[None]
    np.testing.assert_allclose(large[4:24, 4:24], expected[4:24, 4:24], rtol=1e-6)


@pytest.mark.parametrize("method", [degrade, zero_filled, bicubic])
def test_slices_are_treated_alike(method: Magnify) -> None:
    volume = np.stack([noisy((8, 6), seed) for seed in range(3)])
    np.testing.assert_allclose(method(volume, 2), np.stack([method(piece, 2) for piece in volume]), rtol=1e-6)


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (6, 5)])
@pytest.mark.parametrize("pixels", [0.5, -1.25, 3.0])
def test_fourier_shift_moves_towards_higher_indices_and_back(size: tuple[int, int], pixels: float) -> None:
    moved = fourier_shift(sampled(size), pixels)
    np.testing.assert_allclose(moved, sampled(size, -pixels), atol=1e-12)
    np.testing.assert_allclose(fourier_shift(moved, -pixels), sampled(size), atol=1e-12)


def test_fourier_shift_of_whole_pixels_is_a_roll() -> None:
    image = noisy((8, 7))
    np.testing.assert_allclose(fourier_shift(image, 2), np.roll(image, (2, 2), (0, 1)), atol=1e-12)


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (6, 5), (5, 6)])
def test_fourier_shift_of_a_real_image_is_real(size: tuple[int, int]) -> None:
    image = noisy(size)
    moved, through_complex = (fourier_shift(one, 0.375) for one in (image, image + 0j))
    assert not np.iscomplexobj(moved)
    np.testing.assert_allclose(through_complex, moved, atol=1e-12)


def centre_of(image: npt.NDArray[np.generic], low: tuple[int, int]) -> Kspace:
    rows, columns = (slice(n // 2 - k // 2, n // 2 - k // 2 + k) for n, k in zip(image.shape, low, strict=True))
    return to_kspace(image)[rows, columns]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("low", [(6, 6), (5, 7), (6, 5)])
def test_hard_consistency_puts_every_measured_sample_back(low: tuple[int, int], scale: int) -> None:
    """Even sizes too, whose Nyquist lines have no mirror image inside the measured square."""
    target = noisy(low)
    restored = noisy((scale * low[0], scale * low[1]), 1).astype(np.float32)
    result = enforce_consistency(restored, target, scale, "hard")
    assert result.dtype == np.float32
    np.testing.assert_allclose(centre_of(result, low), to_kspace(target) * scale, atol=1e-5)
    outside = to_kspace(result) - to_kspace(restored)
    rows, columns = (slice(n // 2 - k // 2, n // 2 + k // 2 + 1) for n, k in zip(result.shape, low, strict=True))
    outside[rows, columns] = 0
    assert np.abs(outside).max() < 1e-5
    np.testing.assert_allclose(enforce_consistency(result, target, scale, "hard"), result, atol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_hard_consistency_of_a_complex_target_uses_its_phase(scale: int) -> None:
    """The truth is its own projection; planted fault: a target without its phase does not fit it."""
    size = (24, 24)
    truth = sampled(size)
    phase = np.exp(0.4j)
    target = direct_crop(truth * phase, scale)
    result = enforce_consistency(truth.astype(np.float32), target, scale, "hard")
    np.testing.assert_allclose(result, truth, rtol=1e-5)
    disturbed = truth + 0.5 * np.cos(2 * np.pi * np.arange(24) / 24)
    repaired = enforce_consistency(disturbed.astype(np.float32), target, scale, "hard")
    np.testing.assert_allclose(repaired, truth, rtol=1e-5)


@pytest.mark.parametrize("low", [(24, 24), (25, 23)])
def test_soft_consistency_fades_towards_the_edge(low: tuple[int, int]) -> None:
    target, restored = noisy(low), noisy((2 * low[0], 2 * low[1]), 1).astype(np.float32)
    before, after = centre_of(restored, low), centre_of(enforce_consistency(restored, target, 2, "soft"), low)
    wanted = 2 * to_kspace(target) - before
    weight = ((after - before) / wanted).real
    row, column = low[0] // 2, low[1] // 2
    assert weight[row, column] == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(weight[row - 1 : row + 2, column - 1 : column + 2], 1, atol=1e-4)
    along = weight[row, column:]
    assert (np.diff(along) < 1e-4).all()
    assert 0 <= along[-1] + 1e-4 < 0.9
    if low[0] % 2 == 0:
        np.testing.assert_allclose(weight[0], 0, atol=1e-4)


def test_consistency_that_is_off_changes_nothing() -> None:
    restored = noisy((8, 8)).astype(np.float32)
    mode: Consistency = "off"
    assert enforce_consistency(restored, noisy((4, 4)), 2, mode) is restored


def test_consistency_brings_a_wrong_restoration_closer() -> None:
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    truth = phantom(64)
    low = degrade(truth, 2)
    wrong = (truth + 0.05 * np.cos(12 * x) * np.sin(9 * y)).astype(np.float32)
    for mode in ("soft", "hard"):
        assert psnr(truth, enforce_consistency(wrong, low, 2, mode)) > psnr(truth, wrong) + 3


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("low", [(16, 16), (17, 20), (21, 19), (20, 23)])
def test_soft_consistency_as_matrix_products(low: tuple[int, int], scale: int) -> None:
    """Along odd and even axes, against the projection in k-space."""
    restored, target = 100 * noisy((scale * low[0], scale * low[1])), 100 * noisy(low, 1)
    (down_rows, up_rows), (down_columns, up_columns) = (soft_consistency_matrices(size, scale) for size in low)
    projected = restored + up_rows @ (target - down_rows @ restored @ down_columns.T) @ up_columns.T
    expected = enforce_consistency(restored, target, scale, "soft")  # type: ignore[arg-type] # float64 on purpose
    np.testing.assert_allclose(projected, expected, atol=1e-6 * expected.max())
    # Planted fault: the wrong way up misses by far more than rounding.
    wrong = restored + up_rows @ (target - down_rows @ restored @ down_columns.T) @ up_columns.T * scale
    assert np.abs(wrong - expected).max() > 1e-2 * expected.max()


@pytest.mark.parametrize("size", [16, 17])
def test_down_matrix_keeps_the_mean_and_has_no_nyquist_line(size: int) -> None:
    down, up = soft_consistency_matrices(size, 2)
    assert down.shape == (size, 2 * size)
    assert up.shape == (2 * size, size)
    np.testing.assert_allclose(down.sum(axis=1), 1)
    np.testing.assert_allclose(up.sum(axis=1), 1)
    alternating = np.cos(np.pi * np.arange(2 * size) / 2)
    if size % 2 == 0:
        np.testing.assert_allclose(down @ alternating, 0, atol=1e-12)
