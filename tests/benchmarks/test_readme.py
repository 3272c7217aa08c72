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
    for page in readme.PAGES:
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


CLINICAL, ICBM, CIT168 = (
    "synthetic, clinical protocols",
    "real, ICBM152 T1 to T2",
    "real, CIT168 T1 to T2, hippocampus",
)


def test_bundled_models_keep_their_promise(readme: Any) -> None:
    """Over zero-filled at least 2.5 dB at x4 and 1 dB at x2; better than the best method without reference.

    On ICBM at x4 at least 3 dB over zero-filled without k-space consistency, 4 dB with it.
    """
    results = readme.load("comparison")["results"]
    for scale, least in (("x2", 1.0), ("x4", 2.5)):
        for name in (CLINICAL, ICBM, CIT168):
            found = results[scale]["sets"][name]
            if name != CIT168:
                assert found["rows"]["bundled-minet"]["soft"]["gain_db"]["mean"] >= least, name
            over = found["over"]["bundled-minet"]["best single-contrast method"]["gain_db"]
            assert over["interval"][0] > 0, name
    icbm = results["x4"]["sets"][ICBM]["rows"]["bundled-minet"]
    assert icbm["off"]["gain_db"]["mean"] >= 3
    assert icbm["soft"]["gain_db"]["mean"] >= 4


def test_the_fast_student_keeps_its_promise(readme: Any) -> None:
    """Four times fewer multiplications than `small`, and no less gain anywhere; 3 dB over zero-filled on ICBM at x4."""
    results = readme.load("comparison")["results"]
    for found in results.values():
        about = found["about"]
        assert about["small"]["gmac_320"] >= 4 * about["bundled-minet-fast"]["gmac_320"]
        for one in found["sets"].values():
            assert one["over"]["bundled-minet-fast"]["small"]["gain_db"]["mean"] >= 0
    assert results["x4"]["sets"][ICBM]["rows"]["bundled-minet-fast"]["off"]["gain_db"]["mean"] >= 3


def test_a_wrong_reference_does_no_harm(readme: Any) -> None:
    """Never more than 0.2 dB below the model's own result without one; right references are used."""
    for of_scale in readme.load("comparison")["results"].values():
        bundled = {row: sets for row, sets in of_scale["robustness"].items() if row.startswith("bundled-")}
        assert len(bundled) == 2
        for by_set in bundled.values():
            for by_gate in by_set.values():
                assert by_gate["gate"]["another subject's"]["over_missing"]["interval"][0] >= -0.2
                assert by_gate["gate"]["another subject's"]["over_missing"]["mean"] >= -0.2
                assert by_gate["gate"]["right"]["refused"] <= 0.1
