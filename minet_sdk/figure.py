"""One picture that shows a reader of MR images what was gained: whole slice, detail and error, all in one window."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from minet_sdk.atomic import replacing
from minet_sdk.requirements import require

Array = npt.NDArray[np.float32]

DETAIL = 56
"""Edge of the enlarged detail, pixels."""

ERROR_WINDOW = 0.15
"""Upper end of the error maps, part of the display window's width."""


@dataclass(frozen=True)
class Panel:
    """One column of the picture."""

    title: str
    image: Array
    """(H, W), all panels alike."""

    compared: bool = True
    """Whether an error map against the truth makes sense."""


def _busiest(error: Array) -> tuple[slice, slice]:
    """Where the detail is worth enlarging: the square with the largest summed error."""
    total = np.pad(error.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    side = min(DETAIL, *error.shape)
    sums = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    row, column = np.unravel_index(int(np.argmax(sums)), sums.shape)
    return slice(int(row), int(row) + side), slice(int(column), int(column) + side)


def draw_comparison(path: Path, panels: list[Panel], truth: Array, baseline: Array, caption: str) -> None:
    """Write the picture as PNG (temporary name, then rename).

    Args:
        path: ends in .png.
        panels: columns from left to right; the truth is added as the last.
        truth: (H, W).
        baseline: (H, W) image whose error decides which detail is enlarged.
        caption: one line below.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    figure_module = require("matplotlib.figure", "the comparison picture")
    patches = require("matplotlib.patches", "the comparison picture")
    low, high = 0.0, float(np.percentile(truth, 99.7))
    detail = _busiest(np.abs(baseline - truth))
    columns = [*panels, Panel("Truth", truth, compared=False)]
    height, width = truth.shape
    size = 2.3
    figure = figure_module.Figure(
        figsize=(size * len(columns), size * (2 * height / width + 1) + 0.7), layout="compressed", facecolor="black"
    )
    axes = figure.subplots(3, len(columns), height_ratios=[height / width, 1, height / width])
    error_map = None
    for column, panel in enumerate(columns):
        whole, zoom, error = axes[:, column]
        for axis in (whole, zoom, error):
            axis.set_axis_off()
        whole.imshow(panel.image, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        whole.set_title(panel.title, color="white", fontsize=10)
        corner = (detail[1].start - 0.5, detail[0].start - 0.5)
        side = detail[0].stop - detail[0].start
        whole.add_patch(patches.Rectangle(corner, side, side, fill=False, edgecolor="#ffb000", linewidth=1.2))
        zoom.imshow(panel.image[detail], cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        if panel.compared:
            difference = np.abs(panel.image - truth)
            error_map = error.imshow(
                100 * difference / high, cmap="inferno", vmin=0, vmax=100 * ERROR_WINDOW, interpolation="nearest"
            )
    if error_map is not None:
        bar = figure.colorbar(error_map, cax=axes[2, -1].inset_axes((0.1, 0.1, 0.08, 0.8)))
        bar.set_label("absolute error, % of window", color="white", fontsize=8)
        bar.ax.tick_params(colors="white", labelsize=8)
    figure.supxlabel(caption, color="white", fontsize=9)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
