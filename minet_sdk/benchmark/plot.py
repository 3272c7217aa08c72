"""Latency in one picture: bars by engine at one size, and lines against the number of pixels."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from minet_sdk.atomic import replacing
from minet_sdk.errors import InputError
from minet_sdk.requirements import require

OURS, OTHERS, CRITICAL = "#0b6e4f", "#8d99ae", "#52b788"

_LINES = ("-", "--", ":", "-.")
_PEERS = ("C1", "C4", "C0", "C3", "C5", "C6", "C7", "C8", "C9")
"""Colours of others' lines: matplotlib's own, but for the green."""


def draw_latency(comparisons: list[dict[str, Any]], path: Path, bars: list[dict[str, Any]] | None = None) -> None:
    """Write the picture as PNG (temporary name, then rename).

    Args:
        comparisons: of `minet-sdk bench` or ``make bench``.
        path: ends in .png.
        bars: comparisons that get bars, one panel each; the first comparison of every model if left out.

    Raises:
        InputError: nothing to draw.
        MissingPackageError: matplotlib is not installed.
    """
    if bars is None:
        bars = list({one["model"]: one for one in reversed(comparisons)}.values())[::-1]
    if not bars:
        raise InputError("there are no comparisons to draw")
    figure_module = require("matplotlib.figure", "the latency picture")
    curves = _curves(comparisons)
    panels = len(bars) + bool(curves)
    columns = min(panels, 2)
    rows = -(-panels // columns)
    figure = figure_module.Figure(figsize=(5.2 * columns, 3.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[panels:]:
        axis.set_axis_off()
    for axis, comparison in zip(axes, bars, strict=False):
        _draw_bars(axis, comparison)
    if curves:
        _draw_curves(axes[panels - 1], curves)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _draw_bars(axis: Any, comparison: dict[str, Any]) -> None:
    """Median of every peer; ours with the critical path in front of the whole."""
    peers = sorted(comparison["peers"].values(), key=lambda peer: -peer["parts"]["whole"]["p50_ms"])
    whole = [peer["parts"]["whole"]["p50_ms"] / 1e3 for peer in peers]
    places = range(len(peers))
    axis.barh(places, whole, color=[OURS if peer["ours"] else OTHERS for peer in peers])
    for place, peer, seconds in zip(places, peers, whole, strict=True):
        label = f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.0f} ms"
        if "critical" in peer["parts"]:
            critical = peer["parts"]["critical"]["p50_ms"] / 1e3
            axis.barh(place, critical, color=CRITICAL, height=0.45)
            label += f"  ({critical:.2f})" if seconds >= 1 else f"  ({1e3 * critical:.0f})"
        axis.text(seconds, place, f" {label}", va="center", fontsize=8)
    axis.set_yticks(places, [peer["title"] for peer in peers], fontsize=8)
    axis.set_xlim(0, 1.3 * max(whole))
    axis.set_xlabel("s a slice; light green and (): reference prepared", fontsize=8)
    axis.tick_params(axis="x", labelsize=8)
    height, width = comparison["size"]
    axis.set_title(f"{comparison['model']}, {height} x {width}, {comparison['threads']} threads", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)


def _curves(comparisons: list[dict[str, Any]]) -> dict[tuple[str, str], dict[int, float]]:
    """Seconds by pixels, by model and peer, with the largest number of threads; only where there are two sizes."""
    threads = max((one["threads"] for one in comparisons), default=0)
    found: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for one in comparisons:
        if one["threads"] == threads:
            pixels = one["size"][0] * one["size"][1]
            for name, peer in one["peers"].items():
                found[one["model"], name][pixels] = peer["parts"]["whole"]["p50_ms"] / 1e3
    return {key: points for key, points in found.items() if len(points) > 1}


def _draw_curves(axis: Any, curves: dict[tuple[str, str], dict[int, float]]) -> None:
    models, names = (list(dict.fromkeys(key[index] for key in curves)) for index in (0, 1))
    others = [name for name in names if name != "native"]
    named: set[str] = set()
    marked: set[str] = set()
    for (model, name), points in curves.items():
        pixels = sorted(points)
        style = _LINES[models.index(model) % len(_LINES)]
        colour = OURS if name == "native" else _PEERS[others.index(name) % len(_PEERS)]
        label = "_" if name in named else name
        axis.plot(pixels, [points[count] for count in pixels], style, marker=".", color=colour, label=label, lw=1.2)
        if model not in marked:
            axis.text(pixels[-1], points[pixels[-1]], f" {model}", va="center", fontsize=7)
        named.add(name)
        marked.add(model)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.margins(x=0.18)
    counts = sorted({count for points in curves.values() for count in points})
    axis.set_xticks(counts, [f"{count**0.5:.0f}²" for count in counts])
    axis.set_xticks([], minor=True)
    axis.set_xlabel("pixels of the restored image", fontsize=8)
    axis.set_ylabel("s a slice", fontsize=8)
    axis.tick_params(which="both", labelsize=8)
    axis.legend(fontsize=7, frameon=False)
    axis.set_title("whole slice against pixels", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
