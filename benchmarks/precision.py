"""What each precision of the bundled models costs in dB in each engine, and how the ranges of int8 and fp8 were chosen.

    python benchmarks/precision.py --output benchmarks/results/precision.json [--labels FOLDER]

Every other slice of the bundled study calibrates; those between them are restored here (ICBM152, T1 guides T2). With
label maps, synthetic slices of the test subjects show what happens where the calibration has not been.
"""

import argparse
import json
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch

from minet_sdk import __version__
from minet_sdk.backends import Need, choose, make_runner
from minet_sdk.backends.base import Runner, RunnerOptions
from minet_sdk.bundle import Bundle, Precision, models_folder, sha256
from minet_sdk.errors import BackendError
from minet_sdk.export.bundle import export_bundle
from minet_sdk.export.calibration import HEADROOM, Collector, collect
from minet_sdk.export.execution import EXECUTION, Run, run_network, run_onnx, run_torch
from minet_sdk.export.fidelity import DECIBELS, Fidelity, fidelity, restore
from minet_sdk.export.quantise import Format, Quantisation, scale_of
from minet_sdk.export.slices import Slices, bundled_slices
from minet_sdk.normalisation import Normalisation
from minet_sdk.requirements import require
from minet_sdk.training.checkpoint import load_checkpoint
from minet_sdk.training.contrast import CLINICAL, ContrastSettings, random_pair
from minet_sdk.training.labels import read_split
from minet_sdk.training.network import Network

Array = npt.NDArray[np.float32]
SCALES = (2, 4)
RESAMPLES = 10_000
TEST_SEED = 2
TRUE_FORMATS = "PyTorch, every operator rounded to the graph's formats, sums in float32"
IN_OPENVINO: dict[Precision, str] = {
    "fp32": "OpenVINO, as it is",
    "fp16": "OpenVINO, in float32",
    "bf16": "OpenVINO, convolutions and the product A F in bfloat16",
    "int8": "OpenVINO, 3x3 convolutions in int8, the rest in float32",
}
CHOICES: dict[Format, list[tuple[Collector, float]]] = {
    "int8": [("percentile", 1.0), ("mse", 1.0), ("max", 1.0), ("max", 1.5), ("max", 2.0)],
    "fp8": [("max", 1.0), ("max", 2.0), ("max", 4.0)],
}
"""Collectors and headroom that are compared."""

SLICES_PER_CHOICE = 4


def synthetic_slices(labels: Path, settings: ContrastSettings, name: str) -> Slices:
    """Slices of the test subjects in synthetic contrast."""
    subjects = read_split(labels, "test")
    pairs = [
        random_pair(subjects[index % len(subjects)], np.random.default_rng((TEST_SEED, index)), settings)
        for index in range(SLICES_PER_CHOICE)
    ]
    return Slices(np.stack([pair.target for pair in pairs]), np.stack([pair.reference for pair in pairs]), name)


def interval(values: npt.NDArray[np.float64]) -> list[float]:
    """95 % bootstrap interval of the mean over slices."""
    picks = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    return [round(float(value), 4) for value in np.percentile(values[picks].mean(axis=1), (2.5, 97.5))]


def compare(slices: Slices, network: Array, restored: Array) -> dict[str, Any]:
    """Slice by slice, and over the volume as fastMRI counts."""
    rows = [
        fidelity(truth[None], exact[None], image[None])
        for truth, exact, image in zip(slices.targets, network, restored, strict=True)
    ]
    change = np.array([row.change for row in rows])
    volume = fidelity(slices.targets, network, restored)
    return {
        "volume": _rounded(volume),
        "change_db_mean": round(float(change.mean()), 4),
        "change_db_interval": interval(change),
        "change_db_worst": round(float(change[np.abs(change).argmax()]), 4),
        "slices": [_rounded(row) for row in rows],
    }


def _rounded(row: Fidelity) -> dict[str, float | None]:
    """Numbers of one comparison; None for a difference that is zero."""
    apart = round(row.difference_psnr, 2) if np.isfinite(row.difference_psnr) else None
    return {"psnr_db": round(row.psnr, 4), "change_db": round(row.change, 4), "difference_psnr_db": apart}


def open_in_openvino(bundle: Bundle) -> Runner:
    """The backend itself, on one thread.

    Raises:
        BackendError: OpenVINO is not installed, or this processor lacks the precision's instructions.
    """
    options = RunnerOptions(threads=1)
    runner = make_runner(choose("openvino", Need(bundle.manifest.precision), options).spec, options)
    runner.activate(bundle)
    return runner


def run_backend(runner: Runner) -> Run:
    """A backend as validation runs graphs."""
    return lambda feed: runner.restore(feed["target"], runner.encode(feed["reference"]))


def measure_precisions(network: Network, checkpoint: Path, slices: Slices) -> dict[str, Any]:
    """Export in every precision and restore the slices with the bundle."""
    scale, normalisation = network.config.scale, Normalisation()
    exact = restore(run_network(network), slices, scale, normalisation)
    results: dict[str, Any] = {}
    for precision in get_args(Precision):
        with tempfile.TemporaryDirectory() as folder:
            bundle = export_bundle(checkpoint, Path(folder) / "bundle", precision)
            trials: dict[str, Run] = {
                f"ONNX Runtime, {EXECUTION[precision] or 'as it is'}": run_onnx(bundle.graph("model"), precision)
            }
            quantisation = Quantisation.of(bundle.manifest)
            openvino, absent = None, ""
            try:
                openvino = open_in_openvino(bundle) if precision in IN_OPENVINO else None
            except BackendError as error:
                absent = str(error)
                print(f"x{scale} {precision:5s} not in OpenVINO: {absent}", flush=True)
            if openvino is not None:
                trials[IN_OPENVINO[precision]] = run_backend(openvino)
            if precision != "fp32":
                trials[TRUE_FORMATS] = run_torch(network, "model", precision, quantisation)
            names = [*bundle.manifest.files, "manifest.json"]
            results[precision] = {
                "limit_db": DECIBELS[precision],
                "bytes": {name: (bundle.location / name).stat().st_size for name in names},
                "quantisation": {k: v for k, v in bundle.manifest.quantisation.items() if k != "scales"},
                "executed_by": {
                    name: compare(slices, exact, restore(run, slices, scale, normalisation))
                    for name, run in trials.items()
                },
                "openvino_absent": absent,
                "openvino_computed_in": openvino.details()["computed_in"] if openvino is not None else {},
            }
        for name, found in results[precision]["executed_by"].items():
            print(
                f"x{scale} {precision:5s} {found['change_db_mean']:+.4f} dB {found['change_db_interval']} "
                f"difference {found['volume']['difference_psnr_db']} dB  ({name})",
                flush=True,
            )
    return results


def measure_calibrations(network: Network, seen: Slices, sets: dict[str, Slices]) -> Iterator[dict[str, Any]]:
    """Collectors and headroom, by what they do to slices that were seen and to others; in PyTorch."""
    scale, normalisation = network.config.scale, Normalisation()
    exact = {name: restore(run_network(network), slices, scale, normalisation) for name, slices in sets.items()}
    for kind, choices in CHOICES.items():
        ranges: dict[Collector, dict[str, float]] = {}
        for collector, factor in choices:
            if collector not in ranges:
                ranges[collector] = collect(network, seen, kind, collector)
            scales = {name: scale_of(factor * value, kind) for name, value in ranges[collector].items()}
            run = run_torch(network, "model", kind, Quantisation(kind, scales))
            row: dict[str, Any] = {"precision": kind, "collector": collector, "headroom": factor}
            for name, slices in sets.items():
                found = compare(slices, exact[name], restore(run, slices, scale, normalisation))
                apart = [one["difference_psnr_db"] for one in found["slices"]]
                row[name] = {key: found[key] for key in ("change_db_mean", "change_db_interval", "change_db_worst")} | {
                    "difference_psnr_db_mean": round(float(np.mean(apart)), 2),
                    "difference_psnr_db_least": min(apart),
                }
            text = "; ".join(f"{name}: {row[name]['change_db_mean']:+.3f} dB" for name in sets)
            print(f"x{scale} {kind} {collector} x {factor:g}  {text}", flush=True)
            yield row


def main() -> None:
    """Measure everything and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--labels", type=Path, help="folder with the label maps")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seen, unseen = bundled_slices().halves()
    few = unseen.spread(SLICES_PER_CHOICE)
    sets = {"ICBM152, T1 to T2": few, "ICBM152, T2 to T1": few.swapped()}
    if arguments.labels is not None:
        sets["synthetic, clinical protocols"] = synthetic_slices(arguments.labels, CLINICAL, "clinical protocols")
        sets["synthetic, random contrast"] = synthetic_slices(arguments.labels, ContrastSettings(), "random contrast")
    report: dict[str, Any] = {
        "what": "PSNR against the truth, no k-space consistency; change is that of the precision against the float32 "
        "network in PyTorch, with its 95 % bootstrap interval over slices; difference_psnr is that of the two restored "
        "images from each other",
        "note": "a CPU: ONNX Runtime has no 16-bit convolution there and says so in the name of each result; no number "
        "is from a GPU. OpenVINO computes bfloat16 and int8 natively; openvino_computed_in counts convolutions and "
        "matrix products by the format that it says it ran them in",
        "data": {"source": unseen.source, "slices": len(unseen.targets), "sha256": unseen.sha256()},
        "environment": {
            "minet-sdk": __version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "numpy": np.__version__,
            "torch": torch.__version__,
            "onnxruntime": require("onnxruntime", "the precision benchmark").__version__,
            "openvino": require("openvino", "the precision benchmark").__version__,
        },
        "headroom": HEADROOM,
        "models": {},
        "results": {},
        "calibration": {},
    }
    for scale in SCALES:
        name = f"minet-x{scale}"
        checkpoint = models_folder() / name / "checkpoint.safetensors"
        network = load_checkpoint(checkpoint).minet
        report["models"][name] = sha256(checkpoint)
        report["results"][name] = measure_precisions(network, checkpoint, unseen)
        report["calibration"][name] = list(measure_calibrations(network, seen, sets))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
