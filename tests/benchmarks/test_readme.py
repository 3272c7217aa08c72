"""The README's figures are those of the committed JSON, and of the models that are bundled."""

import importlib
from pathlib import Path
from typing import Any, get_args

import pytest

from minet_sdk.bundle import Precision, models_folder, sha256

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def readme() -> Any:
    """The benchmarks are scripts, not a package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        return importlib.import_module("readme")


def test_tables_are_those_of_the_json(readme: Any) -> None:
    assert len(readme.CARDS) >= 2
    for page in (readme.README, readme.QUALITY, *readme.CARDS):
        assert readme.with_tables(page) == page.read_text(encoding="utf-8"), page


def test_figures_are_those_of_the_bundled_models(readme: Any) -> None:
    """By their checkpoints: a bundle that is exported anew holds the same network."""
    results = readme.load("comparison")["results"]
    measured = {
        f"{row.removeprefix('bundled-')}-{scale}": about["sha256"]
        for scale, of_scale in results.items()
        for row, about in of_scale["about"].items()
        if row.startswith("bundled-")
    }
    assert set(measured) == {folder.name for folder in models_folder().iterdir()}
    for name, sha in [*measured.items(), *readme.load("precision")["models"].items()]:
        assert sha256(models_folder() / name / "checkpoint.safetensors") == sha


def test_every_precision_keeps_its_limit(readme: Any) -> None:
    for by_precision in readme.load("precision")["results"].values():
        assert set(by_precision) == set(get_args(Precision))
        for result in by_precision.values():
            for found in result["executed_by"].values():
                assert abs(found["change_db_mean"]) <= result["limit_db"]


def test_bundled_models_keep_their_promise(readme: Any) -> None:
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
