"""A bundle's plans: built where a builder is installed, found again, replaced with the bundle."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minet_sdk.backends.tensorrt_builder import engine_from_onnx
from minet_sdk.bundle import Bundle, open_bundle
from minet_sdk.engines import bundle_folder, find, store
from minet_sdk.errors import ExportError
from minet_sdk.export.engines import Outcome, build_engines, good_for, obstacle
from minet_sdk.gpus import Gpu
from minet_sdk.profiles import Profile, covering, profile_set

trt: Any = pytest.importorskip("tensorrt_rtx", reason="pip install 'minet-sdk[tensorrt-rtx]'")

STATIC = Profile((1, 40, 32), (1, 40, 32), (1, 40, 32))


@pytest.fixture(autouse=True)
def without_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on every machine without a GPU; the tests are to say the same where TensorRT is installed."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)


def malformed(plan: bytes) -> bool:
    """Whether NVIDIA's runtime refuses a plan by its header; it needs no driver for that."""
    _, diagnosis = trt.Runtime(trt.Logger(trt.Logger.INTERNAL_ERROR)).get_engine_validity(plan)
    return bool(diagnosis & int(trt.EngineInvalidityDiagnostics.MALFORMED_ENGINE))


@pytest.fixture
def bundle(bundle_of: Callable[[str], Bundle], tmp_path: Path) -> Bundle:
    """A float16 bundle of its own."""
    return open_bundle(shutil.copytree(bundle_of("fp16").location, tmp_path / "random"))


def test_a_bundle_gets_plans_where_a_builder_is_installed(bundle: Bundle) -> None:
    reported: list[Outcome] = []
    outcomes = build_engines(bundle, report=reported.append)
    assert outcomes == reported
    assert [(o.engine, o.graph, o.status) for o in outcomes] == [
        ("tensorrt", None, "skipped"),
        ("tensorrt-rtx", "reference", "built"),
        ("tensorrt-rtx", "target", "built"),
    ]
    assert outcomes[0].reason == "package tensorrt is not installed: pip install 'minet-sdk[tensorrt]'"
    assert open_bundle(bundle.location).sha256 == bundle.sha256, "plans are not part of the bundle's identity"
    gpu = Gpu("NVIDIA L4", (8, 9), "13.0")
    for outcome in outcomes[1:]:
        assert outcome.graph is not None
        found = find(
            bundle,
            outcome.graph,
            engine="tensorrt-rtx",
            engine_version=trt.__version__,
            gpu=gpu,
            target=(1, 160, 160),
        )
        assert found.plan == outcome.plan
        assert outcome.plan is not None
        assert not malformed(outcome.plan.read())
        assert outcome.plan.key.profiles == profile_set("all", 2)
        assert outcome.plan.key.integration == ("inlined" if outcome.graph == "target" else "none")
        lines = good_for(outcome.plan)
        assert f"8.0, 8.6, 8.9, 12.0 or newer, with TensorRT-RTX {trt.__version__} exactly" in lines[0]
        assert "not compared with the golden vector yet" in lines[1]


def test_the_golden_vector_fits_into_every_plan(bundle: Bundle) -> None:
    golden = bundle.golden()
    assert golden is not None
    _, _, height, width = golden.target.shape
    outcomes = build_engines(bundle, ["tensorrt-rtx"], [STATIC], graphs=["reference"])
    assert outcomes[0].plan is not None
    assert outcomes[0].plan.key.profiles == (STATIC, *covering([], (1, height, width)))


def test_plans_of_an_older_bundle_are_removed(bundle: Bundle) -> None:
    other = Bundle(bundle.location, bundle.manifest, "ef" * 32)
    key = engine_from_onnx(trt, bundle.graph("reference"), [STATIC]).key(other, "reference", "none")
    stale = store(bundle_folder(bundle), key, b"old")
    (bundle_folder(bundle) / "target-0.plan").write_bytes(b"without its json")
    (outcome,) = build_engines(bundle, ["tensorrt-rtx"], [STATIC], graphs=["reference"])
    assert outcome.plan is not None
    assert sorted(bundle_folder(bundle).glob("*.plan")) == [outcome.plan.path]
    assert not stale.path.with_suffix(".json").exists()


def test_single_contrast_models_have_one_graph(simple_bundle: Path, tmp_path: Path) -> None:
    bundle = open_bundle(shutil.copytree(simple_bundle, tmp_path / "simple"))
    (outcome,) = build_engines(bundle, ["tensorrt-rtx"], [STATIC], compute_capabilities=[(8, 9), (8, 6)])
    assert outcome.plan is not None
    assert (outcome.graph, outcome.plan.key.integration, outcome.plan.key.gpu) == ("model", "none", "8.6, 8.9")
    assert "compute capability 8.6, 8.9, with" in good_for(outcome.plan)[0]


def test_capabilities_without_the_precision_are_skipped() -> None:
    assert obstacle("tensorrt-rtx", "fp8", [(8, 0), (8, 9)]) == "fp8 needs compute capability 8.9 or newer, not 8.0"
    assert not obstacle("tensorrt-rtx", "fp8")
    assert not obstacle("tensorrt-rtx", "fp8", [(8, 9)])


def test_a_graph_that_fails_does_not_stop_the_next(bundle: Bundle) -> None:
    bundle.graph("reference").write_bytes(b"damaged after it was opened")
    outcomes = build_engines(bundle, ["tensorrt-rtx"], [STATIC])
    assert [(o.graph, o.status) for o in outcomes] == [("reference", "failed"), ("target", "built")]
    assert "reference.onnx" in outcomes[0].reason


def test_a_bare_graph_has_no_folder_for_plans(bundle: Bundle) -> None:
    bare = Bundle(bundle.graph("model"), bundle.manifest, "0")
    with pytest.raises(ExportError, match="is a bare"):
        build_engines(bare)
