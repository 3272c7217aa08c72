"""`minet-sdk evaluate` as a person uses it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from minet_sdk import cli
from minet_sdk.bundle import Bundle

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")


def test_models_of_one_name_have_a_row_each(make_bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    models = [str(shutil.copytree(make_bundle().location, tmp_path / run / "model")) for run in "ab"]
    other = str(shutil.copytree(make_bundle().location, tmp_path / "other"))
    contrast = 'contrast={"size": 48, "missing_reference": 0}'
    data = ["--data", "synthetic", "--slices", "1", "--option", "anatomy=knee", "--option", contrast]
    result = CliRunner().invoke(cli.app, ["evaluate", *models, other, *data, "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())["results"]
    assert [row for row in found if "," not in row] == ["bicubic", "zero-filled", *models, "other"]
