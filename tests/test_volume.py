"""Grids: where voxels lie, and where they lie after refining."""

import numpy as np
import pytest

from minet_sdk.errors import InputError
from minet_sdk.volume import Grid, Volume


def _oblique() -> Grid:
    axes = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    return Grid((5, 24, 32), np.array([12.0, -30.0, 7.0]), axes * np.array([[4.0], [1.5], [1.25]]))


def _outer_corners(grid: Grid) -> list[list[float]]:
    """Corners of the field of view in the first slice: pixel edges, half a pixel outside the outer pixels' centres."""
    _, rows, columns = grid.shape
    corners: list[list[float]] = []
    for row in (-0.5, rows - 0.5):
        for column in (-0.5, columns - 0.5):
            position = grid.origin + row * grid.steps[1] + column * grid.steps[2]
            corners.append([float(value) for value in position])
    return corners


@pytest.mark.parametrize("scale", [2, 4])
def test_refining_keeps_the_field_of_view(scale: int) -> None:
    grid = _oblique()
    fine = grid.refined(scale)
    assert fine.shape == (5, 24 * scale, 32 * scale)
    np.testing.assert_allclose(fine.spacing, (4.0, 1.5 / scale, 1.25 / scale))
    np.testing.assert_allclose(_outer_corners(fine), _outer_corners(grid), atol=1e-9)
    # the fault this guards against: the first pixel's centre left where it was
    unshifted = Grid(fine.shape, grid.origin, fine.steps)
    assert np.abs(np.subtract(_outer_corners(unshifted), _outer_corners(grid))).max() > 0.1


def test_coarsening_undoes_refining() -> None:
    grid = _oblique()
    assert grid.refined(4).coarsened(4).matches(grid, tolerance_mm=1e-9)


def test_coarsening_needs_multiples() -> None:
    with pytest.raises(InputError, match="24 x 32: both must be multiples of the scale 5"):
        _oblique().coarsened(5)


def test_positions_and_indices_are_inverse() -> None:
    grid = _oblique()
    index = np.array([[1.5, 2.0, 3.0], [-1.0, 0.25, 40.0]])
    np.testing.assert_allclose(grid.positions([1, 0, 0]) - grid.origin, grid.steps[0])
    np.testing.assert_allclose(grid.indices(grid.positions(index)), index, atol=1e-9)


def test_grids_match_within_the_rounding_of_headers_only() -> None:
    grid = _oblique()
    rounded = Grid(grid.shape, grid.origin.round(3), grid.steps.round(5))
    assert grid.matches(rounded)
    assert not grid.matches(Grid(grid.shape, grid.origin + 0.02, grid.steps))
    # a tiny error of one step adds up over the whole volume
    assert not grid.matches(Grid(grid.shape, grid.origin, grid.steps * 1.001))
    assert not grid.matches(Grid((5, 24, 31), grid.origin, grid.steps))


def test_a_volume_has_three_axes_and_the_shape_of_its_grid() -> None:
    with pytest.raises(InputError, match=r"\(slices, rows, columns\)"):
        Volume(np.zeros((4, 4), np.float32))
    with pytest.raises(InputError, match="their grid"):
        Volume(np.zeros((5, 24, 31), np.float32), _oblique())
