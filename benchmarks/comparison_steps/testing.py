"""Test networks: every slice's error goes into one JSON a network, from which any two rows can be paired later."""

import json
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from comparison_steps.plan import Run, runs
from comparison_steps.sets import SHOWN, MakeVolumes
from minet_sdk import Runtime, __version__
from minet_sdk.atomic import replacing
from minet_sdk.bundle import models_folder, sha256
from minet_sdk.errors import InputError
from minet_sdk.export.bundle import export_bundle
from minet_sdk.measures import Measures
from minet_sdk.training.checkpoint import load_checkpoint
from minet_sdk.training.cost import cost
from minet_sdk.training.evaluation import Restore, Row, Rows, evaluate, interpolations, with_runtime
from minet_sdk.training.folder import FINISHED
from minet_sdk.training.methods import METHODS
from minet_sdk.training.smore import SmoreSettings, restore_by_self_training

SMORE_STEPS = 150
SMORE_EVERY = 16
"""SMORE learns anew for every volume, so that it takes one slice a synthetic subject."""

PICTURES = "slices"
"""Folder of the restored slices that the picture shows."""


@dataclass(frozen=True)
class Network:
    """A trained network that is a row of its own."""

    row: str
    """Name of the row: of the method, or of the bundled model."""

    scale: int
    seed: int
    checkpoint: Path
    bundle: Path | None = None
    """As it ships; None to export the checkpoint."""

    @property
    def name(self) -> str:
        """Of its result."""
        return f"{self.row}-x{self.scale}-seed{self.seed}"


def trained(run: Run, work: Path) -> Network:
    """The network of a finished run."""
    return Network(run.row, run.scale, run.seed, work / run.name / "best.safetensors")


def bundled() -> list[Network]:
    """The models that ship, and those of `benchmarks/checkpoints` that tell what their parts are worth.

    These are `small`, which shipped before `deep`, and the twin of `deep` without reference: begun with its weights and
    trained on alone, so that it has seen as much.
    """
    found: list[Network] = []
    for folder in sorted(models_folder().iterdir()):
        checkpoint = folder / "checkpoint.safetensors"
        if checkpoint.is_file():
            record = load_checkpoint(checkpoint)
            row = folder.name.removesuffix(f"-x{record.model.config.scale}")
            found.append(Network(f"bundled-{row}", record.model.config.scale, 0, checkpoint, folder))
    kept = Path(__file__).parent.parent / "checkpoints"
    for scale in (2, 4):
        found.append(Network("twin", scale, 0, kept / f"minet-x{scale}-single.safetensors"))
        found.append(Network("small", scale, 0, kept / f"minet-x{scale}-small.safetensors"))
    return found


@contextmanager
def bundle_of(network: Network) -> Generator[Path]:
    """The bundle that ships, or the checkpoint's export, which is gone after the block."""
    with tempfile.TemporaryDirectory() as folder:
        yield network.bundle or export_bundle(network.checkpoint, Path(folder) / network.row).location


@contextmanager
def opened(network: Network) -> Generator[Runtime]:
    """Through which a network is tested: without k-space consistency; references are judged if it ships."""
    with bundle_of(network) as bundle, Runtime(bundle, consistency="off", trust=network.bundle is not None) as runtime:
        yield runtime


def test_network(network: Network, sets: Mapping[str, MakeVolumes], output: Path) -> None:
    """Restore all test sets, through a bundle and the runtime.

    A bundled model judges its references as it does for its users; the compared ones take all, none of them wrong.
    """
    loaded = load_checkpoint(network.checkpoint)
    with opened(network) as runtime:
        results = _on_all(sets, network, with_runtime(runtime), output)
        backend = runtime.info.backend
    spent = cost(loaded.model.config)
    record = loaded.record
    about = {
        "parameters": spent.parameters,
        "gmac_320": round(spent.giga, 2),
        "steps": record["settings"].get("steps", record["selected_step"]),
        "selected_step": record["selected_step"],
        **_training_seconds(network.checkpoint, record),
        "sha256": sha256(network.checkpoint),
        "commit": record["commit"],
        "backend": backend,
    }
    _write(network, about, results, output)


def _training_seconds(checkpoint: Path, record: Mapping[str, Any]) -> dict[str, float]:
    """Of the whole run, as are its steps; a record alone tells them if the last validation is the selected one."""
    finished = checkpoint.with_name(FINISHED)
    if finished.is_file():
        return {"training_seconds": json.loads(finished.read_text())["seconds"]}
    last = record["curve"][-1]
    whole = record["settings"].get("steps", record["selected_step"]) == record["selected_step"]
    return {"training_seconds": last["seconds"]} if whole else {}


def update_training_seconds(work: Path, output: Path) -> dict[str, tuple[float, float]]:
    """Bring the seconds of results that were written before up to those of the whole runs.

    Args:
        work: folder of the runs' folders; a result whose run is not there, or is another, is left as it is.
        output: folder of the results, one JSON a network.

    Returns:
        By name of the result: the seconds that it told, and those that it tells now.
    """
    changed: dict[str, tuple[float, float]] = {}
    for run in runs():
        network, path = trained(run, work), output / f"{run.name}.json"
        finished = network.checkpoint.with_name(FINISHED)
        if not (path.is_file() and finished.is_file() and network.checkpoint.is_file()):
            continue
        report = json.loads(path.read_text())
        before, now = report["about"]["training_seconds"], json.loads(finished.read_text())["seconds"]
        if before != now and report["about"]["sha256"] == sha256(network.checkpoint):
            report["about"]["training_seconds"] = now
            write_json(path, report)
            changed[run.name] = before, now
    return changed


def test_untrained(scale: int, sets: Mapping[str, MakeVolumes], output: Path) -> None:
    """Interpolations."""
    for name, restore in interpolations(scale).items():
        network = Network(name, scale, 0, Path())
        _write(network, {}, _on_all(sets, network, restore, output), output)


def test_smore(scale: int, sets: Mapping[str, MakeVolumes], output: Path) -> None:
    """The method that learns from the volume that it restores."""
    config: Any = METHODS["smore-2d"].config(scale)

    def restore(volume: Any) -> Any:
        return restore_by_self_training(abs(volume.low), config, SmoreSettings(steps=SMORE_STEPS))

    network = Network("smore-2d", scale, 0, Path())
    results: dict[str, Any] = {}
    absent: dict[str, str] = {}
    for name, make in sets.items():
        try:
            results |= _on_all({name: make}, network, restore, output, every=SMORE_EVERY)
        except InputError as error:
            absent[name] = str(error)
    spent = cost(config)
    about = {"parameters": spent.parameters, "gmac_320": round(spent.giga, 2), "steps": SMORE_STEPS, "per": "volume"}
    _write(network, {**about, "absent": absent}, results, output)


def rows_from_json(data: Mapping[str, Any]) -> Rows:
    """Of one test set of a result."""
    return {
        label: [
            Row(
                one["volume"],
                one["subject"],
                Measures(one["psnr"], one["ssim"], one["nmse"]),
                np.array(one["errors"], np.float64),
                tuple(np.array(blocks, np.float64) for blocks in one.get("blocks", ())),
            )
            for one in measured
        ]
        for label, measured in data.items()
    }


def _rows_as_json(rows: Rows) -> dict[str, Any]:
    return {
        label: [
            {
                "volume": row.volume,
                "subject": row.subject,
                **asdict(row.measures),
                "errors": row.squared_errors.tolist(),
                **({"blocks": [blocks.tolist() for blocks in row.blocks]} if row.blocks else {}),
            }
            for row in measured
        ]
        for label, measured in rows.items()
    }


def _on_all(
    sets: Mapping[str, MakeVolumes], network: Network, restore: Restore, output: Path, every: int = 1
) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for set_name, make in sets.items():
        volumes = list(make(network.scale))
        thinned = volumes[::every] if len(volumes) > every else volumes
        shown: list[Any] = []

        def keeping(volume: Any, shown: list[Any] = shown) -> Any:
            restored = restore(volume)
            shown.append(restored[len(restored) // 2])
            return restored

        results[set_name] = _rows_as_json(evaluate({network.row: keeping}, thinned, network.scale))
        if set_name == SHOWN and network.seed == 0:
            path = output / PICTURES / f"{network.name}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, restored=shown[0].astype(np.float16))
    return results


def _write(network: Network, about: Mapping[str, Any], results: Mapping[str, Any], output: Path) -> None:
    report = {
        "row": network.row,
        "scale": network.scale,
        "seed": network.seed,
        "about": dict(about),
        "minet-sdk": __version__,
        "results": dict(results),
    }
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / f"{network.name}.json", report)


def write_json(path: Path, report: Mapping[str, Any]) -> None:
    """One result, in as many digits as it deserves."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(_rounded(dict(report))) + "\n", encoding="utf-8")


def _rounded(data: Any) -> Any:
    """Six digits are enough of any figure here."""
    if isinstance(data, float):
        return float(f"{data:.6g}")
    if isinstance(data, dict):
        return {key: _rounded(value) for key, value in data.items()}
    return [_rounded(value) for value in data] if isinstance(data, list) else data
