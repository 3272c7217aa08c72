"""Results of all runs that there are -> one summary: means over seeds, paired gains with intervals, who beats whom."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from comparison_steps.plan import SCALES
from comparison_steps.test import rows_from_json
from minet_sdk.kspace import Consistency
from minet_sdk.training.evaluation import BASELINE, MODES, Row, Rows, as_json, label
from minet_sdk.training.methods import METHODS
from minet_sdk.training.statistics import Difference, paired_difference

Results = dict[str, list[Rows]]
"""Of one scale and test set: by method, one `Rows` a seed."""


def summarise(folder: Path) -> dict[str, Any]:
    """Everything that the tables show.

    Args:
        folder: the runs' results, one JSON each.
    """
    report: dict[str, Any] = {}
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("*-seed*.json"))]
    for scale in SCALES:
        of_scale = sorted((run for run in runs if run["scale"] == scale), key=lambda run: run["seed"])
        by_set: dict[str, Results] = defaultdict(lambda: defaultdict(list))
        for run in of_scale:
            for set_name, data in run["results"].items():
                by_set[set_name][run["method"]].append(rows_from_json(data))
        about = {run["method"]: run["about"] for run in of_scale}
        report[f"x{scale}"] = {
            "about": {name: about[name] for name in METHODS if name in about},
            "sets": {name: _of_set(results) for name, results in by_set.items()},
        }
    return report


def _of_set(results: Results) -> dict[str, Any]:
    present = [name for name in METHODS if name in results]
    summary: dict[str, Any] = {
        "methods": {name: _of_method(name, results) for name in present},
        "over": {},
    }
    alone = [name for name in present if not METHODS[name].guided]
    guided = [name for name in present if METHODS[name].guided and not name.startswith("minet")]
    if "minet" in present:
        for what, rivals in (("best single-contrast method", alone), ("best other guided method", guided)):
            if rivals:
                best = max(rivals, key=lambda name: _mean_psnr(results, name))
                summary["over"][what] = {"rival": best, "minet_gain_db": as_json(_difference(results, "minet", best))}
        summary["over"]["ablations"] = {
            name: as_json(_difference(results, "minet", name))
            for name in present
            if name.startswith("minet-") and name != "minet-fast"
        }
    return summary


def _of_method(name: str, results: Results) -> dict[str, Any]:
    modes: list[Consistency] = [mode for mode in MODES if label(name, mode) in results[name][0]]
    return {
        "seeds": len(results[name]),
        "volumes": len(results[name][0][name]),
        "psnr_by_seed": [round(_mean(rows[name], "psnr"), 3) for rows in results[name]],
        **{
            mode: {
                **{
                    measure: round(
                        float(np.mean([_mean(rows[label(name, mode)], measure) for rows in results[name]])), 5
                    )
                    for measure in ("psnr", "ssim", "nmse")
                },
                "gain_db": as_json(_difference(results, name, BASELINE, label(name, mode))),
            }
            for mode in modes
        },
    }


def _mean(rows: list[Row], measure: str) -> float:
    return float(np.mean([getattr(row.measures, measure) for row in rows]))


def _mean_psnr(results: Results, name: str) -> float:
    return float(np.mean([_mean(rows[name], "psnr") for rows in results[name]]))


def _difference(results: Results, ours: str, theirs: str, shown: str = "") -> Difference:
    """Paired by slice, each method's error in dB averaged over its seeds first; on the volumes that both have."""
    first, second = _decibels(results[ours], shown or ours), _decibels(results[theirs], theirs)
    shared = [key for key in first if key in second]
    values = np.array([second[key] - first[key] for key in shared])
    return paired_difference(values, [subject for subject, _, _ in shared])


def _decibels(seeds: list[Rows], shown: str) -> dict[tuple[str, str, int], float]:
    """Mean squared error of every slice in dB, by subject, volume and slice, averaged over seeds."""
    found: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for rows in seeds:
        for row in rows[shown]:
            for number, error in enumerate(row.squared_errors):
                found[row.subject, row.volume, number].append(10 * float(np.log10(error)))
    return {key: float(np.mean(values)) for key, values in found.items()}
