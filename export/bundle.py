"""Checkpoint in, bundle out: written into a temporary folder, validated there, and only then given its name."""

import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from minet_sdk import __version__
from minet_sdk.bundle import (
    GOLDEN,
    MANIFEST,
    METADATA_KEY,
    NATIVE_PLAN,
    Bundle,
    Golden,
    Manifest,
    Precision,
    models_folder,
    open_bundle,
    sha256,
)
from minet_sdk.engines import FOLDER
from minet_sdk.errors import ExportError
from minet_sdk.export.accuracy import TOLERANCES, detail_level, rms
from minet_sdk.export.calibration import Collector, calibrate
from minet_sdk.export.examples import example
from minet_sdk.export.graphs import GRAPHS
from minet_sdk.export.native_plan import write_native_plan
from minet_sdk.export.onnx_from_torch import onnx_from_torch
from minet_sdk.export.quantise import LARGEST, quantised_layers
from minet_sdk.export.reach import extent_of
from minet_sdk.export.slices import Slices, bundled_slices, read_slices
from minet_sdk.export.validate import Check, check_bundle, raise_failures
from minet_sdk.export.weights import WEIGHTS, SharedWeights
from minet_sdk.normalisation import Normalisation
from minet_sdk.training.checkpoint import Checkpoint, load_checkpoint
from minet_sdk.training.config import MinetConfig
from minet_sdk.training.network import Network

_log = logging.getLogger("minet_sdk")

_GOLDEN_SIZE = (24, 20)
"""H, W of the golden target."""

_OWN_FILES = (MANIFEST, GOLDEN, WEIGHTS, NATIVE_PLAN, *(f"{graph}.onnx" for graph in GRAPHS), FOLDER)
"""What belongs to one export: plans of the bundle that is replaced are of no use to its successor."""


def bundled_checkpoint() -> Path:
    """The x2 checkpoint that ships with the SDK."""
    return models_folder() / "minet-x2" / "checkpoint.safetensors"


def export_bundle(
    checkpoint: Path | None,
    output: Path,
    precision: Precision = "fp32",
    name: str | None = None,
    overwrite: bool = False,
    report: Callable[[list[Check]], None] | None = None,
    calibration: Slices | Path | None = None,
    collector: Collector = "max",
) -> Bundle:
    """Export a checkpoint and prove that the result computes what PyTorch computes.

    Args:
        checkpoint: file that `minet-sdk train` wrote; None for the bundled x2 model.
        output: folder to make; its parent must exist.
        precision: of weights and features inside the graphs; inputs and outputs are float32 always.
        name: of the model, in the manifest; the output folder's unless given.
        overwrite: replace a bundle that is already there; what else lies in its folder, such as a checkpoint or a model
            card, stays.
        report: called with the outcome of every validation check, passed or failed.
        calibration: real slices, or a folder of them for `read_slices`; None for the bundled study. Every other slice
            calibrates int8 and fp8, those between them show what any precision costs in dB.
        collector: how the range of a layer's input follows from the calibration.

    Returns:
        The bundle, opened.

    Raises:
        ExportError: the output exists or cannot be written, the precision cannot hold the weights, or validation
            failed, or the calibration slices cannot be used; nothing is left behind.
        DicomError: a calibration series cannot be read.
        TrainingError: the checkpoint cannot be read.
    """
    _check_output(output, overwrite)
    if checkpoint is None:
        checkpoint = bundled_checkpoint()
        if not checkpoint.is_file():
            raise ExportError(
                f"{checkpoint} is not installed: give the path of a checkpoint that `minet-sdk train` wrote"
            )
    trained = load_checkpoint(checkpoint)
    slices = bundled_slices() if calibration is None else calibration
    seen, unseen = (read_slices(slices) if isinstance(slices, Path) else slices).halves()
    golden = _golden(trained.model)
    manifest = _manifest(trained, golden, precision, name or output.resolve().name)
    if precision in LARGEST:
        if not quantised_layers(trained.model):
            raise ExportError(f"a network of kind {trained.model.config.kind!r} has no {precision} form: choose fp16")
        manifest = replace(manifest, quantisation=calibrate(trained.model, seen, precision, collector))
    place = output.resolve()  # the current folder's name is not in "."
    temporary = place.with_name(f".{place.name}.{os.getpid()}.partial")
    try:
        temporary.mkdir()
        write_bundle(trained.model, manifest, golden, temporary)
        checks = check_bundle(temporary, trained.model, unseen)
        if report is not None:
            report(checks)
        raise_failures(checks, output)
        if place.exists():
            _copy_companions(place, temporary)
            shutil.rmtree(place)
        temporary.rename(place)
    except OSError as error:
        raise ExportError(f"{output} cannot be written ({error}): choose another folder with --output") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return open_bundle(output)


def write_bundle(network: Network, manifest: Manifest, golden: Golden, folder: Path) -> None:
    """Write all files of a bundle into an empty folder, without validating them.

    Args:
        network: trained network, float32.
        manifest: without its list of files.
        golden: what the network makes of an example.
        folder: exists.

    Raises:
        ExportError: PyTorch cannot export the network, or the precision cannot hold its weights.
    """
    weights = SharedWeights()
    graphs = onnx_from_torch(network, manifest)
    manifest = replace(manifest, **asdict(extent_of(graphs["model"], manifest.scale)))
    for graph, model in graphs.items():
        onnx.helper.set_model_props(model, {METADATA_KEY: manifest.to_json()})
        weights.take_from(model)
        (folder / f"{graph}.onnx").write_bytes(model.SerializeToString())
    weights.write(folder)
    golden.save(folder / GOLDEN)
    if manifest.precision == "fp32":
        try:
            write_native_plan(folder)
        except ExportError as error:
            _log.warning("%s has no native.plan, other engines run it: %s", manifest.name, error)
    files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(replace(manifest, files=files).to_json(), encoding="utf-8")


def _check_output(output: Path, overwrite: bool) -> None:
    if not output.parent.is_dir():
        raise ExportError(f"{output.parent} is not a folder: make it first, or choose another --output")
    if not output.exists():
        return
    if not overwrite:
        raise ExportError(f"{output} exists: choose another --output, or replace it with --overwrite")
    if not (output / MANIFEST).is_file():
        raise ExportError(f"{output} exists and is not a bundle, so it is not overwritten: choose another --output")
    if Path.cwd().is_relative_to(output.resolve()):
        raise ExportError(f"{output} holds the current folder, which cannot be replaced: run the export elsewhere")


def _copy_companions(old: Path, new: Path) -> None:
    """Copy what is not part of a bundle: the checkpoint of a bundled model lies in the folder that its export makes."""
    for path in old.iterdir():
        if path.name in _OWN_FILES:
            continue
        if path.is_dir():
            shutil.copytree(path, new / path.name, symlinks=True)
        else:
            shutil.copy2(path, new / path.name, follow_symlinks=False)


def _manifest(trained: Checkpoint, golden: Golden, precision: Precision, name: str) -> Manifest:
    config = trained.model.config
    detail = detail_level(trained.model, golden.target, golden.restored)
    return Manifest(
        name=name,
        scale=config.scale,
        precision=precision,
        needs_reference=config.reference,
        affinity=config.affinity if isinstance(config, MinetConfig) and config.integration == "affinity" else "none",
        golden_tolerance=TOLERANCES[precision].engine * detail / rms(golden.restored),
        version=__version__,
        architecture=config.to_dict(),
        training=trained.record,
        without_reference=config.reference and misses_references(trained.record),
    )


def misses_references(record: Mapping[str, Any]) -> bool:
    """Whether a training left references out now and then, by the data's own doing or by augmentation."""
    makers = (record.get("data", {}).get("contrast", {}), record.get("augmentation", {}))
    return any(maker.get("missing_reference", 0) > 0 for maker in makers)


def _golden(network: Network) -> Golden:
    """What the float32 network makes of a seeded example."""
    target, reference = example(1, *_GOLDEN_SIZE, network.config.scale, Normalisation())
    guide = reference if network.guided else None
    with torch.no_grad():
        restored = network(torch.from_numpy(target), None if guide is None else torch.from_numpy(guide)).restored
    return Golden(target, np.ascontiguousarray(restored.numpy()), guide)
