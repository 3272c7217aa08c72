"""Test finished runs: every slice's error goes into one JSON a run, from which any two methods can be paired later."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from comparison_steps.plan import Run
from comparison_steps.sets import MakeVolumes
from minet_sdk import Runtime, __version__
from minet_sdk.atomic import replacing
from minet_sdk.export.bundle import export_bundle
from minet_sdk.measures import Measures
from minet_sdk.training.checkpoint import load_checkpoint
from minet_sdk.training.cost import cost
from minet_sdk.training.evaluation import Restore, Row, Rows, evaluate, interpolations, with_runtime
from minet_sdk.training.methods import METHODS
from minet_sdk.training.smore import SmoreSettings, restore_by_self_training

SMORE_EVERY = 4
"""SMORE learns anew for every volume, so that it takes only each fourth synthetic one."""


def rows_as_json(rows: Rows) -> dict[str, Any]:
    """Every volume's measures and every slice's squared error."""
    return {
        label: [
            {
                "volume": row.volume,
                "subject": row.subject,
                **asdict(row.measures),
                "errors": row.squared_errors.tolist(),
            }
            for row in measured
        ]
        for label, measured in rows.items()
    }


def rows_from_json(data: Mapping[str, Any]) -> Rows:
    """Inverse of `rows_as_json`."""
    import numpy as np

    return {
        label: [
            Row(
                one["volume"],
                one["subject"],
                Measures(one["psnr"], one["ssim"], one["nmse"]),
                np.array(one["errors"], np.float64),
            )
            for one in measured
        ]
        for label, measured in data.items()
    }


def test_run(run: Run, checkpoint: Path, sets: Mapping[str, MakeVolumes], output: Path) -> None:
    """Restore all test sets with a trained network, through an exported bundle and the runtime."""
    loaded = load_checkpoint(checkpoint)
    settings = loaded.record["settings"]
    with tempfile.TemporaryDirectory() as folder:
        bundle = export_bundle(checkpoint, Path(folder) / run.name)
        with Runtime(bundle.location, consistency="off") as runtime:
            results = _on_all(sets, run.method, with_runtime(runtime), run.scale)
            backend = runtime.info.backend
    spent = cost(loaded.model.config)
    about = {
        "parameters": spent.parameters,
        "gmac_320": round(spent.giga, 2),
        "steps": settings["steps"],
        "selected_step": loaded.record["selected_step"],
        "commit": loaded.record["commit"],
        "backend": backend,
    }
    _write(output / f"{run.name}.json", run, about, results)


def test_untrained(scale: int, sets: Mapping[str, MakeVolumes], output: Path) -> None:
    """Interpolations."""
    for name, restore in interpolations(scale).items():
        results = _on_all(sets, name, restore, scale)
        _write(output / f"{name}-x{scale}-seed0.json", Run(name, scale, 0), {}, results)


def test_smore(scale: int, sets: Mapping[str, MakeVolumes], output: Path, steps: int) -> None:
    """The method that learns from the volume that it restores."""
    config: Any = METHODS["smore-2d"].config(scale)

    def restore(volume: Any) -> Any:
        return restore_by_self_training(abs(volume.low), config, SmoreSettings(steps=steps))

    results = _on_all(sets, "smore-2d", restore, scale, every=SMORE_EVERY)
    spent = cost(config)
    about = {"parameters": spent.parameters, "gmac_320": round(spent.giga, 2), "steps": steps, "per": "volume"}
    _write(output / f"smore-2d-x{scale}-seed0.json", Run("smore-2d", scale, 0), about, results)


def _on_all(sets: Mapping[str, MakeVolumes], name: str, restore: Restore, scale: int, every: int = 1) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for set_name, make in sets.items():
        volumes = list(make(scale))
        thinned = volumes[::every] if len(volumes) > every else volumes
        results[set_name] = rows_as_json(evaluate({name: restore}, thinned, scale))
    return results


def _write(path: Path, run: Run, about: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    report = {**asdict(run), "about": dict(about), "minet-sdk": __version__, "results": dict(results)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(_rounded(report)) + "\n", encoding="utf-8")


def _rounded(data: Any) -> Any:
    """Six digits are enough of any figure here."""
    if isinstance(data, float):
        return float(f"{data:.6g}")
    if isinstance(data, dict):
        return {key: _rounded(value) for key, value in data.items()}
    return [_rounded(value) for value in data] if isinstance(data, list) else data
