"""Results of all networks that there are -> one summary: means over seeds, paired gains with intervals."""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from comparison_steps.plan import SCALES
from comparison_steps.testing import rows_from_json
from minet_sdk.kspace import Consistency
from minet_sdk.training.evaluation import BASELINE, MODES, Row, Rows, as_json, label
from minet_sdk.training.methods import METHODS
from minet_sdk.training.statistics import BlockErrors, Difference, paired_difference

BUNDLED = ("bundled-minet", "bundled-minet-fast")
ROWS = (*METHODS, "minet-restored-grid", "minet-plain", "twin", "small", *BUNDLED)
"""In the tables' order."""

ALONE = (*(name for name, method in METHODS.items() if not method.guided), "twin")
"""Methods that take no reference; the twin is for the bundled models, it trained longer than the compared ones."""

RIVALS = tuple(name for name, method in METHODS.items() if method.guided and not name.startswith("minet"))
PARTS = ("minet-no-reference", "minet-reduction-only", "minet-no-h", "minet-no-attention")
AFFINITIES = ("minet-paper-affinity", "minet-released-affinity")

Results = dict[str, list[Rows]]
"""Of one scale and test set: by row, one `Rows` a seed."""


def summarise(folder: Path) -> dict[str, Any]:
    """Everything that the tables show.

    Args:
        folder: the networks' results, one JSON each.
    """
    report: dict[str, Any] = {}
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*-seed*.json")) if _is_result(path)]
    for scale in SCALES:
        of_scale = sorted((one for one in found if one["scale"] == scale), key=lambda one: one["seed"])
        by_set: dict[str, Results] = defaultdict(lambda: defaultdict(list))
        for one in of_scale:
            for set_name, data in one["results"].items():
                by_set[set_name][one["row"]].append(rows_from_json(data))
        about = {one["row"]: one["about"] for one in reversed(of_scale)}
        calibrated = [
            json.loads(path.read_text()) for path in sorted(folder.glob(f"calibration-*-x{scale}-seed0.json"))
        ]
        robust = [json.loads(path.read_text()) for path in sorted(folder.glob(f"robustness-*-x{scale}-seed0.json"))]
        report[f"x{scale}"] = {
            "about": {row: about[row] for row in ROWS if row in about},
            "sets": {name: _of_set(results) for name, results in by_set.items()},
            "robustness": {one["row"]: one["sets"] for one in robust},
            "calibration": {one["row"]: one["sets"] for one in calibrated},
        }
    return report


def _is_result(path: Path) -> bool:
    return not path.name.startswith(("robustness-", "calibration-"))


def _of_set(results: Results) -> dict[str, Any]:
    present = [row for row in ROWS if row in results]
    summary: dict[str, Any] = {"rows": {row: _of_row(row, results) for row in present}, "over": {}}

    def over(ours: str, what: str, rivals: tuple[str, ...]) -> None:
        there = [row for row in rivals if row in results and row != ours]
        if ours in results and there:
            best = _best(results, there)
            summary["over"].setdefault(ours, {})[what] = {
                "rival": best,
                "gain_db": as_json(_difference(results, ours, best)),
            }

    for ours in ("minet", *BUNDLED):
        over(ours, "best single-contrast method", ALONE if ours in BUNDLED else ALONE[:-1])
        over(ours, "best other guided method", RIVALS)
    for part in (*PARTS, *AFFINITIES, "minet-fast", "minet-restored-grid", "minet-plain"):
        over("minet", part, (part,))
    over("bundled-minet", "twin", ("twin",))
    over("bundled-minet-fast", "small", ("small",))
    over("bundled-minet-fast", "bundled-minet", ("bundled-minet",))
    return summary


def _of_row(row: str, results: Results) -> dict[str, Any]:
    modes: list[Consistency] = [mode for mode in MODES if label(row, mode) in results[row][0]]
    return {
        "seeds": len(results[row]),
        "volumes": len(results[row][0][row]),
        "slices": sum(len(one.squared_errors) for one in results[row][0][row]),
        "psnr_by_seed": [round(_mean(rows[row], "psnr"), 3) for rows in results[row]],
        **{
            mode: {
                **{
                    measure: round(float(np.mean([_mean(rows[label(row, mode)], measure) for rows in results[row]])), 5)
                    for measure in ("psnr", "ssim", "nmse")
                },
                "gain_db": as_json(_difference(results, row, BASELINE, label(row, mode)))
                if BASELINE in results
                else None,
            }
            for mode in modes
        },
    }


def _mean(rows: list[Row], measure: str) -> float:
    return float(np.mean([getattr(row.measures, measure) for row in rows]))


def _best(results: Results, rows: list[str]) -> str:
    """The row of the highest PSNR, two at a time on the volumes that both have; rows of many volumes come first."""
    first, *others = sorted(rows, key=lambda row: -len(_volumes(results, row)))
    for other in others:
        shared = _volumes(results, first) & _volumes(results, other)
        if _mean_psnr(results, other, shared) > _mean_psnr(results, first, shared):
            first = other
    return first


def _volumes(results: Results, name: str) -> set[tuple[str, str]]:
    """By subject and name, those that a row was tested on."""
    return {(row.subject, row.volume) for row in results[name][0][name]}


def _mean_psnr(results: Results, name: str, volumes: set[tuple[str, str]]) -> float:
    chosen = [[row for row in rows[name] if (row.subject, row.volume) in volumes] for rows in results[name]]
    return float(np.mean([_mean(rows, "psnr") for rows in chosen]))


def _difference(results: Results, ours: str, theirs: str, shown: str = "") -> Difference:
    """Paired by slice, each row's error in dB averaged over its seeds first; on the volumes that both have."""
    first, second = _slices(results[ours], shown or ours), _slices(results[theirs], theirs)
    shared = [key for key in first if key in second]
    values = np.array([second[key].decibels - first[key].decibels for key in shared])
    blocks = [BlockErrors(np.array(first[key].blocks), np.array(second[key].blocks)) for key in shared]
    has_blocks = all(one.ours.size and one.theirs.size for one in blocks)
    return paired_difference(values, [subject for subject, _, _ in shared], blocks if has_blocks else ())


@dataclass
class _Slice:
    """What the seeds of a row made of one slice."""

    errors: list[float] = field(default_factory=list[float])
    blocks: list[npt.NDArray[np.float64]] = field(default_factory=list[npt.NDArray[np.float64]])

    @property
    def decibels(self) -> float:
        """Mean over seeds of the mean squared error in dB."""
        return float(np.mean(10 * np.log10(self.errors)))


def _slices(seeds: list[Rows], shown: str) -> dict[tuple[str, str, int], _Slice]:
    """By subject, volume and slice."""
    found: dict[tuple[str, str, int], _Slice] = defaultdict(_Slice)
    for rows in seeds:
        for row in rows[shown]:
            for number, error in enumerate(row.squared_errors):
                one = found[row.subject, row.volume, number]
                one.errors.append(float(error))
                one.blocks += row.blocks[number : number + 1]
    return found
