"""Plans of the runtime, with NVIDIA's real builder of TensorRT-RTX: found, else built once and kept."""

import logging
import shutil
from pathlib import Path

import pytest
import tensorrt_rtx

from minet_sdk.backends.tensorrt_plans import golden_size, integration_of, kernel_cache, obtain
from minet_sdk.bundle import Bundle, bare_bundle, open_bundle
from minet_sdk.engines import bundle_folder, cache_folder
from minet_sdk.errors import BackendError
from minet_sdk.gpus import Gpu

GPU = Gpu("NVIDIA RTX 4000", (8, 9), "13.0")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def bundle(small_bundle: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """All tests of this module share the cache that the first one fills."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return open_bundle(small_bundle)


def test_a_plan_is_built_once(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "minet_sdk")
    built, origin = obtain(tensorrt_rtx, bundle, "reference", GPU)
    assert built.path.parent == cache_folder(bundle)
    assert ", built in " in origin
    assert "no tensorrt-rtx plan of reference.onnx for NVIDIA RTX 4000: building one now" in caplog.text
    assert any(profile.covers(golden_size(bundle)) for profile in built.key.profiles)
    assert any(profile.covers((1, 320, 320)) for profile in built.key.profiles)
    found, origin = obtain(tensorrt_rtx, bundle, "reference", GPU)
    assert (found.path, found.sha256) == (built.path, built.sha256)
    assert origin == f"{built.path} (none)"
    other, _ = obtain(tensorrt_rtx, bundle, "reference", Gpu("NVIDIA RTX 2000", (8, 6), "13.0"))
    assert other.path == built.path


def test_a_damaged_plan_is_told_and_built_again(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "minet_sdk")
    plan, _ = obtain(tensorrt_rtx, bundle, "reference", GPU)
    good = plan.path.read_bytes()
    plan.path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    again, origin = obtain(tensorrt_rtx, bundle, "reference", GPU)
    assert "built in" in origin
    assert "does not match its SHA-256" in caplog.text
    assert again.read()


def test_plans_of_the_bundle_come_first(bundle: Bundle, tmp_path: Path) -> None:
    obtain(tensorrt_rtx, bundle, "reference", GPU)
    copy = open_bundle(shutil.copytree(bundle.location, tmp_path / "copy"))
    shutil.copytree(cache_folder(bundle), bundle_folder(copy), dirs_exist_ok=True)
    found, _ = obtain(tensorrt_rtx, copy, "reference", GPU)
    assert found.path.parent == bundle_folder(copy)


def test_what_a_bundles_own_graphs_compute(bundle: Bundle) -> None:
    assert integration_of(bundle, "reference") == "none"
    assert integration_of(bundle, "target") == "inlined"


def test_a_bundle_without_a_golden_vector_has_no_plan(bundle: Bundle) -> None:
    bare = bare_bundle(bundle.graph("model"), {"minet.manifest": bundle.manifest.to_json()})
    with pytest.raises(BackendError, match="has no golden vector to check a plan with"):
        obtain(tensorrt_rtx, bare, "model", GPU)


def test_compiled_kernels_belong_to_plan_gpu_and_driver(bundle: Bundle) -> None:
    plan, _ = obtain(tensorrt_rtx, bundle, "reference", GPU)
    names = {
        kernel_cache(bundle, plan, gpu).name for gpu in (GPU, Gpu("A/B, C", (8, 9), "13.0"), Gpu("A", (9, 0), "13.1"))
    }
    assert len(names) == 3
    assert all("/" not in name and " " not in name for name in names)
