"""Engines of two revisions meet in one process, and only engines of the same bits are compared."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from minet_sdk.backends import native

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(name="steps")
def make_steps(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmarks are scripts, not a package."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("native_steps")


@pytest.mark.long
@pytest.mark.skipif(bool(native.probe()), reason=native.probe())
def test_two_revisions(steps: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "steps.json"
    options = ["--output", str(output), "--presets", "fast", "--sizes", "40", "--seconds", "0.01"]
    monkeypatch.setattr(sys, "argv", ["native_steps.py", "HEAD", ".", *options])
    steps.main()
    report = json.loads(output.read_text())
    assert list(report["revisions"]) == ["HEAD", "."]
    assert {one["threads"] for one in report["comparisons"]} >= {1}
    for one in report["comparisons"]:
        assert one["revisions"]["HEAD"]["of_the_first"]["median"] == 1
        assert one["revisions"]["."]["of_the_first"]["rounds"] >= steps.FEWEST_ROUNDS


def test_other_bits_are_refused(steps: ModuleType) -> None:
    class Other:
        def __init__(self, added: float) -> None:
            self.added = np.float32(added)

        def run(self, target: Any, reference: Any) -> Any:
            return reference + self.added + np.float32(target.size)

    assert set(steps.compare({"a": Other(0), "b": Other(0)}, 8, 0)) == {"a", "b"}
    with pytest.raises(SystemExit, match="b does not give the bits of a"):
        steps.compare({"a": Other(0), "b": Other(1e-3)}, 8, 0)
