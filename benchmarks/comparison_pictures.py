"""The pictures of the comparison, from its JSON and the slices beside it alone."""

from pathlib import Path
from typing import Any

import numpy as np
from comparison_steps.report import BUNDLED
from comparison_steps.testing import PICTURES
from comparison_table import TABLE_1, TABLE_2, sets_of, title

from minet_sdk.atomic import replacing
from minet_sdk.benchmark.plot import CRITICAL, OTHERS, OURS
from minet_sdk.demo import study_folder
from minet_sdk.figure import Panel, draw_comparison
from minet_sdk.measures import psnr
from minet_sdk.requirements import require
from minet_sdk.training.evaluation_sets import volumes_of
from minet_sdk.training.pairs import open_source

RESTORED_ROWS = ("bicubic", "zero-filled", "edsr", "smore-2d", "zeng", "lyu-mse", "minet", "bundled-minet")
GAIN_ROWS = tuple(row for row in (*TABLE_1, *TABLE_2[:-1], "twin", *BUNDLED) if row != "zero-filled")
LEAST_GAIN = -3.0
"""Dots further left stand at the edge."""


def draw_gains(report: dict[str, Any], path: Path) -> None:
    """Gains over zero-filled k-space with their intervals: one panel a scale and test set.

    Args:
        report: the comparison.
        path: ends in .png.
    """
    results = report["results"]
    columns = max(len(sets_of(report, scale)) for scale in results)
    figure = require("matplotlib.figure", "the picture of the comparison").Figure(
        figsize=(2.1 * columns + 2.4, 3.6 * len(results)), layout="constrained"
    )
    axes = figure.subplots(len(results), columns, squeeze=False, sharey=True, sharex="row")
    for panels, scale in zip(axes, results, strict=True):
        for axis, (name, found) in zip(panels, sets_of(report, scale).items(), strict=False):
            _draw_gains(axis, found["rows"])
            axis.set_title(f"{scale}: {name.replace(', ', chr(10), 1)}", fontsize=8)
    axes[0][0].set_yticks(range(len(GAIN_ROWS)), [title(row).strip("`").replace("-`", "") for row in GAIN_ROWS])
    axes[0][0].invert_yaxis()
    for axis in axes.ravel():
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("gain over zero-filled k-space, dB, with 95 % interval; no k-space consistency", fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _draw_gains(axis: Any, rows: dict[str, Any]) -> None:
    axis.axvline(0, color="#cccccc", linewidth=0.8)
    for place, row in enumerate(GAIN_ROWS):
        if row not in rows:
            continue
        gain = rows[row]["off"]["gain_db"]
        colour = OURS if row in BUNDLED or row == "minet" else CRITICAL if row.startswith("minet") else OTHERS
        if gain["mean"] < LEAST_GAIN:
            axis.plot(LEAST_GAIN, place, "<", color=colour, markersize=4)
            continue
        if gain["interval"]:
            axis.plot(np.maximum(gain["interval"], LEAST_GAIN), (place, place), color=colour, linewidth=1.6)
        axis.plot(gain["mean"], place, "o", color=colour, markersize=4)


def draw_restorations(results: Path, pictures: Path) -> None:
    """The middle slice of the real pair by every method, with its error: comparison_x2.png and comparison_x4.png.

    Args:
        results: folder of the networks' results.
        pictures: folder to write to.
    """
    for scale in (2, 4):
        volume = next(volumes_of(open_source("dicom", study_folder(), "all"), scale, 1))
        middle = len(volume.truth) // 2
        truth, reference, low = volume.truth[middle], volume.reference[middle], abs(volume.low[middle])
        images: dict[str, Any] = {}
        for row in RESTORED_ROWS:
            path = results / PICTURES / f"{row}-x{scale}-seed0.npz"
            if path.is_file():
                images[row] = np.load(path)["restored"].astype(np.float32)
        if "zero-filled" not in images:
            continue
        blocks = np.repeat(np.repeat(low, scale, 0), scale, 1).astype(np.float32)
        panels = [
            Panel("Reference (T1)", reference / reference.max() * np.percentile(truth, 99.7), compared=False),
            Panel(f"Low resolution x{scale}", blocks),
            *(
                Panel(f"{title(row, f'x{scale}').replace('`', '')}\n{psnr(truth[None], image[None]):.2f} dB", image)
                for row, image in images.items()
            ),
        ]
        caption = f"ICBM152 average T2 guided by T1, x{scale}, no k-space consistency. Research use only."
        draw_comparison(pictures / f"comparison_x{scale}.png", panels, truth, images["zero-filled"], caption)
