"""`minet-sdk export` from the command line."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from minet_sdk.bundle import open_bundle
from minet_sdk.cli import app
from minet_sdk.errors import ExportError
from minet_sdk.training.checkpoint import save_checkpoint
from minet_sdk.training.config import MinetConfig
from minet_sdk.training.model import build


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


def test_prints_the_bundle_and_shows_what_was_checked(checkpoint: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(checkpoint), "--precision", "fp16"])
    assert result.exit_code == 0, result.output
    assert result.stdout == "knee-x2-fp16\n"
    assert "values against PyTorch" in result.stderr
    assert open_bundle("knee-x2-fp16").manifest.name == "knee-x2-fp16"
    again = CliRunner().invoke(app, ["export", str(checkpoint), "--precision", "fp16"])
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
