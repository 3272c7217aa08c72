"""The README's figures are those of the committed JSON, and of the models that are bundled."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

from minet_sdk.bundle import Precision, open_bundle

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def readme() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme", ROOT / "benchmarks" / "readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_are_those_of_the_json(readme: ModuleType) -> None:
    text = readme.README.read_text(encoding="utf-8")
    assert readme.with_tables(text) == text


def test_figures_are_those_of_the_bundled_models(readme: ModuleType) -> None:
    for scale, sha in readme.load("quality")["models"].items():
        assert open_bundle(f"minet-{scale}").sha256 == sha
    for name, sha in readme.load("precision")["models"].items():
        assert open_bundle(name).sha256 == sha


def test_every_precision_keeps_its_limit(readme: ModuleType) -> None:
    for by_precision in readme.load("precision")["results"].values():
        assert set(by_precision) == set(get_args(Precision))
        for result in by_precision.values():
            for found in result["executed_by"].values():
                assert abs(found["change_db_mean"]) <= result["limit_db"]


def test_bundled_models_keep_their_promise(readme: ModuleType) -> None:
    """At least 2 dB over zero-filled at x4, 1 dB at x2 on synthetic subjects and no loss at x2 on the bundled pair."""
    results = readme.load("quality")["results"]
    for scale, least in (("x2", 1.0), ("x4", 2.0)):
        for name, by_method in results[scale].items():
            gain = by_method["MINet, soft"]["gain_db"]
            if name.startswith("synthetic, clinical"):
                assert gain >= least, name
            if name.startswith("real, ICBM152"):
                assert gain >= (0 if scale == "x2" else least), name
            guided = by_method["MINet over single-contrast"]
            assert guided["gain_db"] > 0, name
            assert guided["gain_db_interval"] is None or guided["gain_db_interval"][0] > 0, name
