"""`minet-sdk train` as a person uses it: a settings file, options that win, a run, its resumption."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from minet_sdk import cli
from minet_sdk.training.checkpoint import load_checkpoint

TINY = """
recipe: quick
network: {stages: 1, blocks: 1, channels: 16}
data: synthetic
data_options: {anatomy: knee, contrast: {size: 64}}
patch: 32
steps: 2
validate_every: 1
validation_slices: 1
learning_rate: 1e-3
threads: 1
accelerator: cpu
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_run_from_a_file_and_options_and_its_resumption(config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ["--config", str(config), "--learning-rate", "2e-3", "--target-weight", "0.5", "-o", str(run)]
    result = CliRunner().invoke(cli.app, ["train", *options, "--no-progress"])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{run / 'best.safetensors'}\n"
    settings = load_checkpoint(run / "best.safetensors").record["settings"]
    assert settings["learning_rate"] == 2e-3
    assert settings["objective_settings"] == {"target_weight": 0.5}
    assert settings["network"]["channels"] == 16
    assert settings["warm_up"] == 20
    assert settings == json.loads((run / "settings.json").read_text())
    assert CliRunner().invoke(cli.app, ["train", *options, "--resume"]).stdout == result.stdout


def test_a_dry_run_prints_a_settings_file(config: Path, tmp_path: Path) -> None:
    options = ["--config", str(config), "--method", "zeng", "--scale", "4", "--data-option", "preset=random"]
    shown = CliRunner().invoke(cli.app, ["train", *options[:2], "--recipe", "small", "--dry-run"])
    assert yaml.safe_load(shown.stdout)["steps"] == 2
    config.write_text(TINY.replace("network: {stages: 1, blocks: 1, channels: 16}", ""))
    shown = CliRunner().invoke(cli.app, ["train", *options, "--dry-run"])
    assert shown.exit_code == 0, shown.output
    content = yaml.safe_load(shown.stdout)
    assert (content["method"], content["objective"], content["scale"]) == ("zeng", "mse", 4)
    assert content["data_options"] == {"anatomy": "knee", "contrast": {"size": 64}, "preset": "random"}
    again = tmp_path / "again.yaml"
    again.write_text(shown.stdout)
    assert CliRunner().invoke(cli.app, ["train", "--config", str(again), "--dry-run"]).stdout == shown.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no folder for the run: give --output"),
        (["--data-option", "anatomy"], "--data-option is 'anatomy'; expected NAME=VALUE"),
        (["--data-option", "contrast={noise: [1,"], "the value in YAML (while parsing a flow node"),
        (["--method", "bicubic"], "bicubic is an interpolation"),
        (["--config", "none.yaml"], "none.yaml: cannot be read"),
        (["--data", "mrd"], "data is 'mrd'; expected synthetic or fastmri or dicom or nifti"),
        (["-o", "run"], "need the folder of label maps"),
        (["-o", "run", "--data-option", "colour=red", "labels"], "synthetic data have no option colour"),
    ],
)
def test_mistakes_are_one_line(
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["minet-sdk", "train", *options])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert message in told.err
    assert len(told.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())
