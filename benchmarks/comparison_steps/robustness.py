"""What a reference does that is wrong, moved or missing, with the runtime's trust gate and without it."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from comparison_steps.sets import CLINICAL as DONORS
from comparison_steps.sets import SHOWN, MakeVolumes
from comparison_steps.testing import Network, bundle_of, write_json
from minet_sdk import Runtime
from minet_sdk.bundle import sha256
from minet_sdk.training.evaluation import Restore, as_json, evaluate, gain
from minet_sdk.training.evaluation_sets import TestVolume

EVERY = 2
"""Of the slices that the tables rest on."""

SHIFTS = (1, 2, 4, 8)
"""Pixels of the restored image, along both axes."""

RIGHT, MISSING, WRONG = "right", "missing", "another subject's"
References = dict[str, Any]
"""By what is done to them: (slices, rows, columns) for one volume."""


def test_robustness(network: Network, sets: Mapping[str, MakeVolumes], output: Path) -> None:
    """Restore with references spoilt in every way; one JSON a network."""
    report: dict[str, Any] = {
        "row": network.row,
        "scale": network.scale,
        "sha256": sha256(network.checkpoint),
        "what": "paired by slice, dB, no k-space consistency: over the same slice with its right reference, and over "
        "the same slice with none",
        "sets": {},
    }
    with bundle_of(network) as bundle:
        donors = list(sets[DONORS](network.scale))
        for set_name in (DONORS, SHOWN):
            volumes = list(_spoilt(sets[set_name](network.scale), donors))
            report["sets"][set_name] = {
                gate: _on_set(bundle, volumes, network.scale, trust=gate == "gate") for gate in ("gate", "no gate")
            }
    write_json(output / f"robustness-{network.name}.json", report)


def _on_set(bundle: Path, volumes: list[tuple[TestVolume, References]], scale: int, trust: bool) -> dict[str, Any]:
    refused: dict[str, int] = {}
    slices = sum(len(volume.truth) for volume, _ in volumes)
    with Runtime(bundle, consistency="off", trust=trust) as runtime:
        by_name = {volume.name: references for volume, references in volumes}

        def method(kind: str) -> Restore:
            def restore(volume: TestVolume) -> Any:
                before = runtime.stats().unguided
                restored = runtime(volume.low, by_name[volume.name][kind])
                refused[kind] = refused.get(kind, 0) + runtime.stats().unguided - before
                return restored

            return restore

        kinds = list(volumes[0][1])
        rows = evaluate({kind: method(kind) for kind in kinds}, (volume for volume, _ in volumes), scale)
    return {
        kind: {
            "over_right": as_json(gain(rows, kind, RIGHT)),
            "over_missing": as_json(gain(rows, kind, MISSING)),
            "refused": round(refused[kind] / slices, 4),
        }
        for kind in kinds
    }


def _spoilt(volumes: Iterator[TestVolume], donors: list[TestVolume]) -> Iterator[tuple[TestVolume, References]]:
    """Every other slice of a set with its references; another subject's come from the donors."""
    whole = list(volumes)
    for number, volume in enumerate(whole[::EVERY] if len(whole) > 1 else [_every_other(whole[0])]):
        strangers = [donor for donor in donors if donor.subject != volume.subject]
        others = [strangers[(number + n) % len(strangers)].reference[0] for n in range(len(volume.reference))]
        yield (
            volume,
            {
                RIGHT: volume.reference,
                MISSING: np.zeros_like(volume.reference),
                WRONG: np.stack([_fitted(other, volume.reference.shape[1:]) for other in others]),
                **{f"moved by {n}": np.roll(volume.reference, (n, n), (-2, -1)) for n in SHIFTS},
            },
        )


def _every_other(volume: TestVolume) -> TestVolume:
    kept = slice(None, None, EVERY)
    return replace(volume, truth=volume.truth[kept], low=volume.low[kept], reference=volume.reference[kept])


def _fitted(image: Any, shape: tuple[int, ...]) -> Any:
    """The middle of an image, with air around it where it is too small."""
    for axis, size in enumerate(shape):
        missing = max(size - image.shape[axis], 0)
        before = [(0, 0), (0, 0)]
        before[axis] = (missing // 2, missing - missing // 2)
        image = np.pad(image, before)
        start = (image.shape[axis] - size) // 2
        image = np.take(image, range(start, start + size), axis)
    return image
