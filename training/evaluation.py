"""Every method on the same test volumes: fastMRI's measures, and gains that are paired and have intervals.

Measures are of whole volumes. A gain is the mean over slices of the ratio of two mean squared errors in dB, for which
the data range cancels; a set of one subject has many slices but one volume, and a set of few slices many blocks.
Zero-filled k-space is that of the complex image where the target has a phase, and of every coil where it has several.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from minet_sdk.errors import TrainingError
from minet_sdk.kspace import Consistency, bicubic, enforce_consistency, zero_filled
from minet_sdk.measures import Measures, measure
from minet_sdk.runtime import Runtime
from minet_sdk.training.evaluation_sets import TestVolume
from minet_sdk.training.statistics import (
    BLOCK,
    BlockErrors,
    Difference,
    Resampled,
    in_blocks,
    is_too_few,
    paired_difference,
)

Volume = npt.NDArray[np.float32]
Restore = Callable[[TestVolume], Volume]
"""From a test volume to (slices, scale * H, scale * W), without k-space consistency."""

BASELINE = "zero-filled"

MODES: tuple[Consistency, ...] = get_args(Consistency)


@dataclass(frozen=True)
class Row:
    """One method with one kind of k-space consistency on one volume."""

    volume: str
    subject: str
    measures: Measures
    squared_errors: npt.NDArray[np.float64]
    """(slices,), mean over each slice's pixels."""

    blocks: tuple[npt.NDArray[np.float64], ...] = ()
    """For each slice the sums of `statistics.in_blocks`, of test sets that have too few slices to resample."""


Rows = dict[str, list[Row]]
"""By label, see `label`."""


def _bicubic(volume: TestVolume, scale: int) -> Volume:
    """Of the magnitude, slice by slice."""
    return np.stack([bicubic(np.abs(low), scale) for low in volume.low])


def _zero_filled(volume: TestVolume, scale: int) -> Volume:
    """Of what was measured, slice by slice."""
    if volume.zero_filled is not None:
        return volume.zero_filled
    return np.stack([zero_filled(low, scale) for low in volume.low])


INTERPOLATIONS: dict[str, Callable[[TestVolume, int], Volume]] = {"bicubic": _bicubic, BASELINE: _zero_filled}
"""The methods that have no network."""


def interpolations(scale: int) -> dict[str, Restore]:
    """The two methods that have no network."""
    return {name: lambda volume, of=function: of(volume, scale) for name, function in INTERPOLATIONS.items()}


def with_runtime(runtime: Runtime) -> Restore:
    """A bundle as a method; give a runtime with ``consistency="off"``."""
    guided = runtime.bundle.manifest.needs_reference

    def restore(volume: TestVolume) -> Volume:
        return runtime(volume.low, volume.reference if guided else None)

    return restore


def label(method: str, mode: Consistency) -> str:
    """Name of a method with a kind of consistency; ``off`` is the method itself."""
    return method if mode == "off" else f"{method}, {mode}"


def evaluate(
    methods: Mapping[str, Restore],
    volumes: Iterable[TestVolume],
    scale: int,
    progress: Callable[[str], None] = lambda volume: None,
) -> Rows:
    """Restore every volume by every method.

    Args:
        methods: by name; interpolations are left without consistency, which would not change zero-filled ones.
        volumes: of one scale, for example from `evaluation_sets.volumes_of`.
        scale: magnification.
        progress: told the name of each volume that is done.

    Raises:
        TrainingError: there are no volumes.
    """
    rows: Rows = {}
    for volume in volumes:
        for name, restore in methods.items():
            restored = restore(volume)
            for mode in MODES if name not in INTERPOLATIONS else MODES[:1]:
                pairs = zip(restored, volume.low, strict=True)
                images = np.stack([enforce_consistency(image, low, scale, mode) for image, low in pairs])
                squares = np.square(images.astype(np.float64) - volume.truth)
                found, errors = measure(volume.truth, images), squares.mean(axis=(1, 2))
                row = Row(volume.name, volume.subject, found, errors, tuple(map(in_blocks, squares)))
                rows.setdefault(label(name, mode), []).append(row)
        progress(volume.name)
    if not rows:
        raise TrainingError("there is nothing to evaluate: the test set has no volumes")
    return {name: _without_needless_blocks(measured) for name, measured in rows.items()}


def _without_needless_blocks(rows: list[Row]) -> list[Row]:
    """The rows of a method; without blocks where subjects or slices can be resampled."""
    if is_too_few(sum(len(row.squared_errors) for row in rows), len({row.subject for row in rows})):
        return rows
    return [replace(row, blocks=()) for row in rows]


def gain(rows: Rows, method: str, over: str = BASELINE) -> Difference:
    """How much better one method is than another, dB, paired by slice."""
    values: list[float] = []
    subjects: list[str] = []
    blocks: list[BlockErrors] = []
    for ours, theirs in zip(rows[method], rows[over], strict=True):
        values += list(10 * np.log10(theirs.squared_errors / ours.squared_errors))
        subjects += [ours.subject] * len(ours.squared_errors)
        blocks += [BlockErrors(a[None], b[None]) for a, b in zip(ours.blocks, theirs.blocks, strict=True)]
    return paired_difference(np.array(values), subjects, blocks)


def summary(rows: Rows) -> dict[str, Any]:
    """Means over volumes and gains over zero-filled k-space, for JSON."""
    report: dict[str, Any] = {}
    for method, measured in rows.items():
        means = {
            name: round(float(np.mean([getattr(row.measures, name) for row in measured])), 5)
            for name in ("psnr", "ssim", "nmse")
        }
        report[method] = {**means, "gain_db": as_json(gain(rows, method))}
    return report


def as_json(difference: Difference) -> dict[str, Any]:
    """Plain data, rounded to a thousandth of a dB."""
    data = asdict(difference)
    return {
        **data,
        "mean": round(difference.mean, 3),
        "interval": None if difference.interval is None else [round(end, 3) for end in difference.interval],
        "by_subject": {name: round(value, 3) for name, value in difference.by_subject.items()},
    }


def markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A summary as a table."""
    lines = ["| | PSNR dB | SSIM | NMSE | over zero-filled, dB |", "|---|---|---|---|---|"]
    for method, values in results.items():
        lines.append(
            f"| {method} | {values['psnr']:.2f} | {values['ssim']:.4f} | {values['nmse']:.5f} "
            f"| {gain_text(values['gain_db'])} |"
        )
    return "\n".join([*lines, "", *(MEANINGS[what] for what in _resampled(results))])


MEANINGS: dict[Resampled, str] = {
    "subjects": "Intervals are 95 %, over subjects and their slices.",
    "slices": "Intervals are 95 %, over the slices of one subject: they say nothing about other subjects.",
    "blocks": f"Intervals are 95 %, over blocks of about {BLOCK} x {BLOCK} pixels of few slices: they say nothing "
    "about other slices.",
    "nothing": "There are no intervals: the slices are too few and too small.",
}
"""What a reader of intervals must know, by what they are over."""


def _resampled(results: Mapping[str, Mapping[str, Any]]) -> list[Resampled]:
    """What the intervals of a summary are over."""
    return sorted({values["gain_db"]["resampled"] for values in results.values()})


def gain_text(difference: Mapping[str, Any]) -> str:
    """A difference of `as_json`, with its interval."""
    text = f"{difference['mean']:+.2f}"
    if difference["interval"] is None:
        return text
    low, high = difference["interval"]
    return f"{text} ({low:+.2f} to {high:+.2f})"
