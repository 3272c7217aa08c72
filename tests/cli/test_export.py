"""`minet-sdk export` from the command line."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from minet_sdk.bundle import open_bundle
from minet_sdk.cli import app, main
from minet_sdk.engines import load
from minet_sdk.errors import BackendError, ExportError, InputError
from minet_sdk.training.checkpoint import save_checkpoint
from minet_sdk.training.config import MinetConfig
from minet_sdk.training.model import build

pytest.importorskip("tensorrt_rtx", reason="pip install 'minet-sdk[tensorrt-rtx]'")


@pytest.fixture(autouse=True)
def without_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on every machine without a GPU; the tests are to say the same where TensorRT is installed."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a training run leaves in its folder."""
    config = MinetConfig(stages=1, blocks=1, channels=16, reference=False, integration="none", attention=False)
    folder = tmp_path / "knee-x2"
    folder.mkdir()
    with torch.random.fork_rng(devices=[]):
        save_checkpoint(folder / "best.safetensors", build(config), {})
    monkeypatch.chdir(tmp_path)
    return folder / "best.safetensors"


@pytest.fixture
def bundle(small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle of a network with a reference, exported before."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(small_bundle, "brain-x2"))


def test_prints_the_bundle_and_shows_what_was_checked(checkpoint: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(checkpoint), "--precision", "fp16", "--engine", "none"])
    assert result.exit_code == 0, result.output
    assert result.stdout == "knee-x2-fp16\n"
    assert "values against PyTorch" in result.stderr
    assert open_bundle("knee-x2-fp16").manifest.name == "knee-x2-fp16"
    assert not Path("knee-x2-fp16/engines").exists()
    again = CliRunner().invoke(app, ["export", str(checkpoint), "--precision", "fp16", "--engine", "none"])
    assert isinstance(again.exception, ExportError)


def test_json_is_for_scripts(checkpoint: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(checkpoint), "-o", "knee", "--name", "knee one", "--json"])
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    bundle = open_bundle("knee")
    assert data["bundle"] == "knee"
    assert data["name"] == bundle.manifest.name == "knee one"
    assert data["sha256"] == bundle.sha256
    assert set(data["files"]) == set(bundle.manifest.files)
    assert all(check["passed"] for check in data["checks"])
    tensorrt, rtx = data["engines"]
    assert tensorrt == {
        "engine": "tensorrt",
        "graph": None,
        "status": "skipped",
        "reason": "package tensorrt is not installed: pip install 'minet-sdk[tensorrt]'",
    }
    assert (rtx["engine"], rtx["graph"], rtx["status"], rtx["reason"]) == ("tensorrt-rtx", "model", "built", None)
    plan = load(Path(rtx["plan"]))
    assert len(plan.read()) == rtx["size"]
    assert rtx["key"]["bundle_sha256"] == bundle.sha256
    assert [tensor["name"] for tensor in rtx["details"]["tensors"]] == ["target", "restored"]


def test_a_newcomer_without_a_gpu_gets_plans_and_is_told_what_they_are_good_for(checkpoint: Path) -> None:
    command = ["export", str(checkpoint), "--engine", "tensorrt-rtx", "--precision", "fp16"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert result.stdout == "knee-x2-fp16\n"
    (plan,) = Path("knee-x2-fp16/engines").glob("*.plan")
    told = result.stderr.splitlines()
    assert any(line.startswith(f"tensorrt-rtx built: {plan.name}, ") and line.endswith(" s") for line in told)
    assert any("targets of 1x16x16 to 1x192x192" in line for line in told)
    assert any("runs on any NVIDIA GPU of compute capability 8.0, 8.6, 8.9, 12.0 or newer" in line for line in told)
    assert any('Runtime("knee-x2-fp16", backend="tensorrt-rtx")' in line for line in told)
    assert any("not compared with the golden vector yet" in line for line in told)


def test_plans_are_added_to_a_bundle(bundle: Path) -> None:
    before = open_bundle(bundle).sha256
    options = ["--opt", "40x32", "--max", "2x64x64", "--min", "16x16", "--compute-capability", "8.9", "--whole-model"]
    result = CliRunner().invoke(app, ["export", str(bundle), *options])
    assert result.exit_code == 0, result.output
    assert result.stdout == "brain-x2\n"
    assert "tensorrt skipped: package tensorrt is not installed: pip install 'minet-sdk[tensorrt]'" in result.stderr
    assert "runs on any NVIDIA GPU of compute capability 8.9, with TensorRT-RTX" in result.stderr
    plans = [load(path) for path in sorted((bundle / "engines").glob("*.plan"))]
    assert [plan.key.graph for plan in plans] == ["model", "reference", "target"]
    for plan in plans:
        (profile,) = plan.key.profiles
        assert (profile.minimum, profile.optimum, profile.maximum) == ((1, 16, 16), (1, 40, 32), (2, 64, 64))
        assert plan.key.gpu == "8.9"
    assert open_bundle(bundle).sha256 == before


def test_a_single_size_gets_the_golden_vectors_profile_besides(bundle: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(bundle), "--engine", "tensorrt-rtx", "--opt", "40x32"])
    assert result.exit_code == 0, result.output
    assert "tensorrt-rtx: targets of 1x40x32; 1x24x20\n" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--min", "16x16"], "--min and --max are limits around --opt"),
        (["--opt", "40x32", "--profile", "knee"], "--profile knee and --opt 40x32 exclude each other"),
        (["--opt", "40"], "size is '40'; give HxW or NxHxW"),
        (["--opt", "40x32", "--max", "32x32"], "optimum 1x40x32 is larger than maximum 1x32x32"),
        (["--opt", "8x32"], "side of 8; give 16 to 4096"),
        (["--compute-capability", "89"], "compute capability is '89'; give major.minor"),
        (
            ["--name", "other", "--overwrite"],
            "brain-x2 is a bundle already, to which plans are added: leave out --name",
        ),
        (["--precision", "fp32"], "leave out --precision"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(bundle: Path, options: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["export", str(bundle), *options])
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)
    assert not (bundle / "engines").exists()


def test_an_engine_that_was_asked_for_and_cannot_be_built_is_an_error(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["minet-sdk", "export", str(checkpoint), "--engine", "tensorrt"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "minet-sdk: error: --engine tensorrt cannot build here: package tensorrt is not installed: "
        "pip install 'minet-sdk[tensorrt]'\n"
    )
    assert not Path("knee-x2-fp32").exists(), "found out before the export"


def test_a_plan_that_was_asked_for_and_fails_is_an_error(bundle: Path) -> None:
    """Hopper is no target of TensorRT-RTX, which its builder says."""
    options = ["--engine", "tensorrt-rtx", "--compute-capability", "9.0"]
    result = CliRunner().invoke(app, ["export", str(bundle), *options])
    assert isinstance(result.exception, BackendError)
    assert "brain-x2 is complete, its plans for tensorrt-rtx are not" in str(result.exception)
    assert "does not build for compute capability 9.0: choose of 7.5, 8.0" in str(result.exception)
    shown = CliRunner().invoke(app, ["export", str(bundle), "--compute-capability", "9.0"])
    assert shown.exit_code == 0, "what is not asked for by name is shown, and no error"
    assert "tensorrt-rtx target failed: " in shown.stderr


def test_precisions_that_old_gpus_lack_are_refused_first(checkpoint: Path) -> None:
    options = ["--precision", "bf16", "--engine", "tensorrt-rtx", "--compute-capability", "7.5"]
    result = CliRunner().invoke(app, ["export", str(checkpoint), *options])
    assert isinstance(result.exception, BackendError)
    assert "bf16 needs compute capability 8.0 or newer, not 7.5" in str(result.exception)
