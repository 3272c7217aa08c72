"""The benchmark of loading measures real workers."""

import importlib.util
import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "loading.py"


def test_every_number_of_workers_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    specification = importlib.util.spec_from_file_location("loading_benchmark", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    benchmark = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(benchmark)
    output = tmp_path / "loading.json"
    options = json.dumps({"anatomy": "knee", "contrast": {"size": 64}})
    arguments = ["--patch", "32", "--batch-size", "2", "--workers", "0", "1", "--seconds", "0.2"]
    benchmark.main([*arguments, "--options", options, "--output", str(output)])
    report = json.loads(output.read_text())
    assert report == json.loads(capsys.readouterr().out)
    assert [result["workers"] for result in report["results"]] == [0, 1]
    for result in report["results"]:
        assert result["slices_per_second"] == pytest.approx(result["batches_per_second"], rel=0.01)
        assert result["slices_per_second"] > 0
