"""Large slices in tiles: each is restored with a margin as wide as the network looks, and its inside is kept.

A pixel inside sees all that it depends on, so tiles give what the whole image gives, to rounding; zero padding meets
only the true edges. Statistics of the normalisation are the whole slice's, and no part of the network may be global.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np
import numpy.typing as npt

from minet_sdk.shapes import LEAST_SIZE

Array = npt.NDArray[np.float32]
Span = tuple[int, int]
"""First sample, and the one after the last, of the low-resolution image."""


@dataclass(frozen=True)
class Tile:
    """A part of a slice, in low-resolution samples."""

    rows: Span
    columns: Span
    """What is restored."""

    kept_rows: Span
    kept_columns: Span
    """What of it goes into the result."""

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns that are restored."""
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]

    def cut(self, image: Array, factor: int = 1) -> Array:
        """The tile's part of an image (..., H, W) whose samples are ``factor`` times finer than the target's."""
        return image[..., _span(self.rows, factor), _span(self.columns, factor)]

    def paste(self, restored: Array, result: Array, scale: int) -> None:
        """Put what is kept of the restored tile (..., scale * h, scale * w) into its place in the whole image."""
        inside = [
            _span((kept[0] - given[0], kept[1] - given[0]), scale)
            for kept, given in ((self.kept_rows, self.rows), (self.kept_columns, self.columns))
        ]
        result[..., _span(self.kept_rows, scale), _span(self.kept_columns, scale)] = restored[..., inside[0], inside[1]]


@dataclass(frozen=True)
class Tiling:
    """How a slice is cut; one tile is the whole slice."""

    tiles: tuple[Tile, ...]
    rows: int
    columns: int
    exact: bool = True
    """Whether the result is what the whole slice would give, to rounding."""

    @property
    def whole(self) -> bool:
        """Whether nothing is cut."""
        return len(self.tiles) == 1

    def __str__(self) -> str:
        return "" if self.whole else f"{'exact' if self.exact else 'approximate'}, {self.rows} x {self.columns} tiles"


def margin_of(reach: int, scale: int) -> int:
    """Low-resolution samples around a tile for a network that looks ``reach`` restored pixels to each side."""
    return math.ceil(reach / scale)


def tiled(height: int, width: int, rows: int, columns: int, margin: int, *, exact: bool = True) -> Tiling:
    """Tiles of nearly equal size.

    Args:
        height: rows of the low-resolution slice.
        width: columns of it.
        rows: tiles from top to bottom.
        columns: tiles from left to right.
        margin: samples around what is kept of each tile, where the image has any.
        exact: whether the margin covers all that the network looks at.
    """
    down, across = _spans(height, rows, margin), _spans(width, columns, margin)
    tiles = tuple(Tile(y[0], x[0], y[1], x[1]) for y, x in product(down, across))
    return Tiling(tiles, rows, columns, exact)


def fitting(
    height: int, width: int, margin: int, fits: Callable[[int, int], bool], *, exact: bool = True
) -> Tiling | None:
    """The tiling with the least work whose tiles all fit; None if there is none.

    Args:
        height: rows of the low-resolution slice.
        width: columns of it.
        margin: see `tiled`.
        fits: whether a low-resolution image of these rows and columns can be restored at once.
        exact: see `tiled`.
    """
    heights, widths = (
        {count: [end - start for (start, end), _ in _spans(size, count, margin)] for count in _counts(size)}
        for size in (height, width)
    )
    work = sorted((sum(heights[r]) * sum(widths[c]), r, c) for r, c in product(heights, widths))
    for _, rows, columns in work:
        if fits(max(heights[rows]), max(widths[columns])):
            return tiled(height, width, rows, columns, margin, exact=exact)
    return None


def _counts(size: int) -> range:
    """How often an axis can be cut so that every tile keeps the least size that a target may have."""
    return range(1, max(1, size // LEAST_SIZE) + 1)


def _spans(size: int, count: int, margin: int) -> list[tuple[Span, Span]]:
    """What is restored and what is kept of each tile along one axis."""
    ends = [round(size * index / count) for index in range(count + 1)]
    return [((max(start - margin, 0), min(end + margin, size)), (start, end)) for start, end in pairwise(ends)]


def _span(span: Span, factor: int) -> slice:
    return slice(span[0] * factor, span[1] * factor)
