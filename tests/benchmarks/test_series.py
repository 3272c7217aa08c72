"""The series benchmark runs, on something small, and its figures fit together."""

import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_a_short_series_of_small_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("series")
    options = ["--sizes", "64", "--slices", "3", "--rounds", "1", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["series.py", "--output", str(tmp_path / "series.json"), *options])
    module.main()
    report = json.loads((tmp_path / "series.json").read_text())
    (series,), (one,) = report["series"], report["slices"]
    assert (series["model"], series["size"], series["slices"]) == ("minet-x2", 64, 3)
    assert series["run_parts"][0]["total"] <= series["run_seconds"][0]
    assert series["run_to_inference"]["median"] == pytest.approx(
        series["run_seconds"][0] / series["inference_seconds"][0], rel=1e-2
    )
    assert 0 < one["runtime_without_engine_ms"] < one["median_ms"]["engine"]
    assert len(series["run_parts_one_at_a_time"]) == (1 if series["slices_at_once"] > 1 else 0)
    assert all(ms > 0 for steps in one["conditioning_ms"].values() for ms in steps.values())
    assert report["environment"]["cores"] >= 1
