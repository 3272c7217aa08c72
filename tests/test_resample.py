"""Resampling against a phantom that is known at every point of space."""

import sys

import numpy as np
import numpy.typing as npt
import pytest

import minet_sdk.resample
from minet_sdk.errors import InputError, MissingPackageError
from minet_sdk.resample import resample
from minet_sdk.volume import Grid, Volume

Floats = npt.NDArray[np.float64]


def _grid(shape: tuple[int, int, int], spacing: tuple[float, float, float], angle: float = 0.0) -> Grid:
    """A grid around the origin of space, turned about two axes."""
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    steps = (np.diag(spacing)[:, ::-1] @ turn.T).astype(np.float64)
    centre = (np.array(shape) - 1) / 2
    return Grid(shape, -centre @ steps, steps)


def _every_index(grid: Grid) -> Floats:
    return np.stack(np.meshgrid(*[np.arange(size) for size in grid.shape], indexing="ij"), axis=-1).astype(np.float64)


def _phantom(position: Floats) -> Floats:
    """Smooth blobs, different in every direction."""
    blobs = [((6.0, -4.0, 3.0), 9.0, 900.0), ((-9.0, 5.0, -6.0), 7.0, 600.0), ((2.0, 11.0, 8.0), 6.0, -300.0)]
    value = np.full(position.shape[:-1], 400.0)
    for centre, size, height in blobs:
        value += height * np.exp(-np.sum((position - np.array(centre)) ** 2, axis=-1) / (2 * size**2))
    return value


def _volume(grid: Grid) -> Volume:
    return Volume(_phantom(grid.positions(_every_index(grid))).astype(np.float32), grid)


def _thick(grid: Grid) -> Floats:
    """The phantom's mean over the thickness of every slice."""
    depths = (np.arange(64) + 0.5) / 64 - 0.5
    return np.mean([_phantom(grid.positions(_every_index(grid) + np.array([depth, 0, 0]))) for depth in depths], axis=0)


def _worst(values: npt.NDArray[np.float32], truth: Floats, margin: int = 2) -> float:
    inner = (slice(None), slice(margin, -margin), slice(margin, -margin))
    return float(np.abs(values[inner] - truth[inner]).max())


def test_the_same_grid_is_left_alone_and_needs_no_simpleitk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    volume = _volume(_grid((3, 8, 9), (4, 1, 1), angle=0.2))
    assert volume.grid is not None
    nudged = Grid(volume.grid.shape, volume.grid.origin + 1e-4, volume.grid.steps)
    result = resample(volume, nudged)
    assert result.values is volume.values
    assert not result.changed
    assert result.coverage.tolist() == [1, 1, 1]
    with pytest.raises(MissingPackageError, match=r"resampling .*minet-sdk\[dicom\]"):
        resample(volume, volume.grid.refined(2))


def test_a_turned_source_arrives_in_place() -> None:
    source = _volume(_grid((30, 40, 44), (2, 1.8, 1.6), angle=0.3))
    grid = _grid((7, 24, 20), (2.5, 1.5, 1.7))
    truth = _phantom(grid.positions(_every_index(grid)))
    result = resample(source, grid)
    assert result.changed
    assert result.values.dtype == np.float32
    np.testing.assert_allclose(result.coverage, 1)
    assert _worst(result.values, truth) < 1
    # half a voxel off, or two axes swapped, would not pass
    shifted = _phantom(grid.positions(_every_index(grid) + 0.5))
    assert _worst(result.values, shifted) > 30
    assert _worst(result.values, _phantom(grid.positions(_every_index(grid))[..., [1, 0, 2]])) > 30


def test_a_thick_slice_is_the_mean_over_its_thickness(monkeypatch: pytest.MonkeyPatch) -> None:
    source = _volume(_grid((48, 24, 24), (1, 1.5, 1.5)))
    grid = _grid((5, 24, 24), (8, 1.5, 1.5))
    assert _worst(resample(source, grid).values, _thick(grid)) < 1
    monkeypatch.setattr(minet_sdk.resample, "MOST_SAMPLES", 1)
    assert _worst(resample(source, grid).values, _thick(grid)) > 20


def test_a_finer_source_does_not_alias() -> None:
    fine = _grid((4, 64, 64), (3, 0.5, 0.5))
    stripes = np.zeros(fine.shape, np.float32)
    stripes[:, :, ::2] = 100
    values = resample(Volume(stripes, fine), _grid((4, 32, 32), (3, 1, 1))).values
    np.testing.assert_allclose(values[:, 4:-4, 4:-4], 50, atol=1)


def test_coverage_counts_what_the_source_reaches() -> None:
    grid = _grid((6, 16, 20), (5, 2, 2))
    # three slices fully, the next one by half its thickness; in plane 12 of 20 columns
    source_grid = Grid((35, 16, 12), grid.positions([-0.4, 0, 0]), grid.steps * [[0.1], [1], [1]])
    source = _volume(source_grid)
    result = resample(source, grid)
    np.testing.assert_allclose(result.coverage, [0.6, 0.6, 0.6, 0.3, 0, 0], atol=0.08)
    np.testing.assert_array_equal(result.values[4:], source.values.min())
    np.testing.assert_array_equal(result.values[:, :, 12:], source.values.min())
    assert _worst(result.values[:3, :, :12], _thick(grid)[:3, :, :12]) < 2


@pytest.mark.parametrize("slices", [1, 2, 3])
def test_thin_stacks_are_resampled_in_plane(slices: int) -> None:
    grid = _grid((slices, 24, 24), (5, 2, 2))
    result = resample(_volume(grid), grid.refined(2))
    truth = _phantom(grid.refined(2).positions(_every_index(grid.refined(2))))
    np.testing.assert_allclose(result.coverage, 1)
    assert _worst(result.values, truth, margin=6) < 1


def test_a_single_slice_reaches_half_its_thickness() -> None:
    grid = _grid((1, 16, 16), (5, 2, 2))
    above = [
        Grid(grid.shape, grid.positions([distance, 0, 0]), grid.steps * [[0.1], [1], [1]]) for distance in (0.4, 0.6)
    ]
    assert [resample(_volume(grid), one).coverage[0] for one in above] == [1, 0]


def test_what_has_no_place_is_refused() -> None:
    grid = _grid((3, 8, 8), (4, 1, 1))
    with pytest.raises(InputError, match="plain array"):
        resample(Volume(np.zeros((3, 8, 8), np.float32)), grid)
    sheared = Grid(grid.shape, grid.origin, grid.steps + np.array([[0, 1, 0], [0, 0, 0], [0, 0, 0]]))
    with pytest.raises(InputError, match="sheared"):
        resample(_volume(grid), sheared)
