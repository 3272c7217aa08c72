"""The whole export: what it writes, and that a failing one leaves nothing behind."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from minet_sdk.bundle import Bundle, Precision, models_folder, open_bundle
from minet_sdk.errors import ExportError, TrainingError
from minet_sdk.export import bundle as bundle_module
from minet_sdk.export.accuracy import TOLERANCES, Tolerance
from minet_sdk.export.bundle import bundled_checkpoint, export_bundle
from minet_sdk.export.slices import bundled_slices
from minet_sdk.export.validate import Check
from minet_sdk.training.checkpoint import save_checkpoint
from minet_sdk.training.model import MINet

pytestmark = pytest.mark.long


@pytest.fixture
def overflowing(small_network: Callable[..., MINet], tmp_path: Path) -> Path:
    """A checkpoint that float16 cannot hold."""
    network = small_network(reference=False, stages=1)
    with torch.no_grad():
        network.target_tail.weight *= 1e8
    folder = tmp_path / "input"
    folder.mkdir()
    save_checkpoint(folder / "large.safetensors", network, {})
    return folder / "large.safetensors"


@pytest.mark.parametrize("precision", get_args(Precision))
def test_bundle_opens_and_says_what_it_is(bundle_of: Callable[[str], Bundle], network: MINet, precision: str) -> None:
    manifest = open_bundle(bundle_of(precision).location).manifest
    plan = ["native.plan"] if precision == "fp32" else []
    assert sorted(manifest.files) == ["golden.npz", "model.onnx", *plan, "reference.onnx", "target.onnx", "weights.bin"]
    assert (manifest.name, manifest.precision, manifest.scale) == ("random", precision, 2)
    assert manifest.affinity == "cosine"
    assert manifest.needs_reference
    assert not manifest.without_reference
    assert manifest.architecture == network.config.to_dict()
    assert manifest.training == {"command": "none", "seed": 3, "storage": "float32"}


@pytest.mark.parametrize(("precision", "margin"), [("fp16", 10), ("int8", 5)])
def test_golden_vector_is_what_the_network_restores(
    bundle_of: Callable[[str], Bundle], network: MINet, precision: str, margin: float
) -> None:
    bundle = bundle_of(precision)
    golden = bundle.golden()
    assert golden is not None
    assert golden.reference is not None
    assert golden.target.shape == (1, 1, 24, 20)
    assert abs(golden.target.mean()) < 1e-5
    assert golden.target.std() == pytest.approx(1, rel=1e-4)
    with torch.no_grad():
        restored = network(torch.from_numpy(golden.target), torch.from_numpy(golden.reference)).restored.numpy()
        interpolated = network.interpolate(torch.from_numpy(golden.target)).numpy()
    np.testing.assert_allclose(golden.restored, restored, atol=1e-6)
    # An engine that loses the network and keeps its skip must not pass.
    assert golden.error(interpolated) > margin * bundle.manifest.golden_tolerance


def test_single_contrast_bundle_has_one_graph(simple_bundle: Path) -> None:
    bundle = open_bundle(simple_bundle)
    assert sorted(bundle.manifest.files) == ["golden.npz", "model.onnx", "native.plan", "weights.bin"]
    assert (bundle.manifest.name, bundle.manifest.affinity) == ("other", "none")
    golden = bundle.golden()
    assert golden is not None
    assert golden.reference is None
    assert [path.name for path in simple_bundle.parent.iterdir()] == ["simple"]


def test_existing_output_is_kept_unless_told_otherwise(simple_checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "simple"
    output.mkdir()
    (output / "manifest.json").write_text("old")
    with pytest.raises(ExportError, match="exists: choose another --output"):
        export_bundle(simple_checkpoint, output)
    assert (output / "manifest.json").read_text() == "old"
    shutil.copy(simple_checkpoint, output / "checkpoint.safetensors")
    (output / "reference.onnx").write_text("of the old bundle")
    export_bundle(output / "checkpoint.safetensors", output, overwrite=True)
    assert sorted(open_bundle(output).manifest.files) == ["golden.npz", "model.onnx", "native.plan", "weights.bin"]
    assert (output / "checkpoint.safetensors").read_bytes() == simple_checkpoint.read_bytes()
    assert not (output / "reference.onnx").exists()


def test_what_is_no_bundle_is_never_overwritten(simple_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ExportError, match="is not a bundle"):
        export_bundle(simple_checkpoint, tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").is_file()


def test_the_current_folder_is_not_replaced(
    simple_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "manifest.json").write_text("old")
    (tmp_path / "engines").mkdir()
    for current, output in ((tmp_path, "."), (tmp_path / "engines", "..")):
        monkeypatch.chdir(current)
        with pytest.raises(
            ExportError, match=r"\.+ holds the current folder, which cannot be replaced: run the export"
        ):
            export_bundle(simple_checkpoint, Path(output), overwrite=True)
    assert (tmp_path / "manifest.json").read_text() == "old"


@pytest.mark.parametrize("overwrite", [False, True])
def test_failed_validation_leaves_nothing_new(
    simple_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    """No arithmetic meets a tolerance below zero; an older bundle stays as it is."""
    monkeypatch.setitem(TOLERANCES, "fp32", Tolerance(-1, 1))
    output = tmp_path / "simple"
    if overwrite:
        output.mkdir()
        (output / "manifest.json").write_text("old")
    seen: list[Check] = []
    with pytest.raises(ExportError, match=r"not written, 1 of \d+ checks failed: model\.onnx: values against PyTorch"):
        export_bundle(simple_checkpoint, output, overwrite=overwrite, report=seen.extend)
    assert sum(not check.passed for check in seen) == 1
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == (
        ["simple", "simple/manifest.json"] if overwrite else []
    )


def test_quantised_export_calibrates_by_itself(simple_checkpoint: Path, tmp_path: Path) -> None:
    bundle = export_bundle(simple_checkpoint, tmp_path / "simple", "fp8")
    record = bundle.manifest.quantisation
    assert record["source"].startswith("ICBM152")
    assert (record["format"], record["collector"], record["slices"], record["directions"]) == ("fp8", "max", 10, 2)
    assert record["data_sha256"] == bundled_slices().halves()[0].sha256()
    assert record["tensors"] == len(record["scales"]) == 3


@pytest.mark.slow
@pytest.mark.parametrize("precision", get_args(Precision))
def test_bundled_model_exports_in_every_precision(precision: Precision, tmp_path: Path) -> None:
    seen: list[Check] = []
    export_bundle(None, tmp_path / "bundle", precision, report=seen.extend)
    assert sum("PSNR on real slices" in check.question for check in seen) == (1 if precision == "fp32" else 2)


def test_weights_that_float16_cannot_hold(overflowing: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"target_tail\.weight have values that are not finite in fp16"):
        export_bundle(overflowing, tmp_path / "large", "fp16")
    assert [path.name for path in tmp_path.iterdir()] == ["input"]


def test_missing_inputs_are_named(tmp_path: Path, simple_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingError, match="no such checkpoint"):
        export_bundle(tmp_path / "none.safetensors", tmp_path / "output")
    with pytest.raises(ExportError, match="is not a folder"):
        export_bundle(simple_checkpoint, tmp_path / "missing" / "output")
    assert bundled_checkpoint() == models_folder() / "minet-x2" / "checkpoint.safetensors"
    monkeypatch.setattr(bundle_module, "models_folder", lambda: tmp_path)
    with pytest.raises(ExportError, match="is not installed: give the path"):
        export_bundle(None, tmp_path / "output")
    assert not list(tmp_path.iterdir())
