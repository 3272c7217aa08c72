"""A stack of parallel slices and where it lies in the patient.

Positions are DICOM patient coordinates in mm (LPS: x to the left, y to posterior, z to the head) of voxel centres.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from minet_sdk.errors import InputError

Vectors = npt.NDArray[np.float64]

GRID_TOLERANCE_MM = 0.01
"""Two grids whose voxels lie closer together than this are the same grid: headers round their decimals."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxel centres of parallel slices lie."""

    shape: tuple[int, int, int]
    """Number of slices, rows, columns."""

    origin: Vectors
    """(3,) centre of voxel [0, 0, 0], mm."""

    steps: Vectors
    """(3, 3): ``steps[a]`` is the displacement in mm for one index along array axis ``a`` (slice, row, column)."""

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxel centres along slices, rows, columns, mm."""
        slices, rows, columns = np.linalg.norm(self.steps, axis=1).tolist()
        return slices, rows, columns

    def positions(self, index: npt.ArrayLike) -> Vectors:
        """Patient coordinates (..., 3) in mm of array indices (..., 3), which may be fractional."""
        return self.origin + np.asarray(index, dtype=np.float64) @ self.steps

    def indices(self, position: npt.ArrayLike) -> Vectors:
        """Array indices (..., 3), fractional, of patient coordinates (..., 3) in mm."""
        return (np.asarray(position, dtype=np.float64) - self.origin) @ np.linalg.inv(self.steps)

    def refined(self, scale: int) -> "Grid":
        """The grid with ``scale`` times the rows and columns over the same field of view.

        The field of view ends at pixel edges, so the first pixel's centre moves outwards by half the difference of
        the two pixel sizes.
        """
        return self._rescaled(1 / scale, (self.shape[0], self.shape[1] * scale, self.shape[2] * scale))

    def coarsened(self, scale: int) -> "Grid":
        """Inverse of `refined`.

        Raises:
            InputError: rows or columns are no multiple of ``scale``.
        """
        slices, rows, columns = self.shape
        if rows % scale or columns % scale:
            raise InputError(f"slices are {rows} x {columns}: both must be multiples of the scale {scale}; crop or pad")
        return self._rescaled(float(scale), (slices, rows // scale, columns // scale))

    def _rescaled(self, factor: float, shape: tuple[int, int, int]) -> "Grid":
        """The same field of view in pixels ``factor`` times as large."""
        shift = (self.steps[1] + self.steps[2]) * (factor - 1) / 2
        return Grid(shape, self.origin + shift, self.steps * np.array([[1.0], [factor], [factor]]))

    def matches(self, other: "Grid", tolerance_mm: float = GRID_TOLERANCE_MM) -> bool:
        """Whether every voxel of ``other`` lies within ``tolerance_mm`` of this grid's voxel of the same index."""
        if self.shape != other.shape:
            return False
        corners = np.stack(np.meshgrid(*[(0, size - 1) for size in self.shape], indexing="ij"), axis=-1)
        distance = np.linalg.norm(self.positions(corners) - other.positions(corners), axis=-1)
        return bool(distance.max() <= tolerance_mm)


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxel values with their place in the patient."""

    values: npt.NDArray[np.float32]
    """(slices, rows, columns)."""

    grid: Grid | None = None
    """None for plain arrays, which have no place."""

    def __post_init__(self) -> None:
        if self.values.ndim != 3:
            raise InputError(f"a volume is (slices, rows, columns), got an array of shape {self.values.shape}")
        if self.grid is not None and self.grid.shape != self.values.shape:
            raise InputError(f"values have shape {self.values.shape} but their grid {self.grid.shape}")
