"""The native engine as a runner: real bundles, many threads, and the reasons for which it is not there."""

import os
import platform
import shutil
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minet_sdk.backends import BACKENDS, Need, availability, choose, native, native_library
from minet_sdk.backends.base import RunnerOptions
from minet_sdk.backends.native import NativeEngine, NativeRunner, probe, shared_plan
from minet_sdk.bundle import NATIVE_PLAN, Bundle, models_folder, open_bundle
from minet_sdk.errors import BackendError, BundleError
from minet_sdk.export.native_plan import add_native_plan

SPEC = next(spec for spec in BACKENDS if spec.name == "native")
needs_engine = pytest.mark.skipif(bool(probe()), reason=probe() or "-")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundled x2 model, with a plan even if it was exported without."""
    folder = tmp_path_factory.mktemp("bundle")
    shutil.copytree(models_folder() / "minet-x2", folder, dirs_exist_ok=True)
    found = open_bundle(folder)
    return found if NATIVE_PLAN in found.manifest.files else add_native_plan(found)


def runner(threads: int = 2) -> NativeRunner:
    return NativeRunner("native", ("fp32",), RunnerOptions(threads=threads))


def batch(count: int, height: int = 20, width: int = 27) -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    target = rng.standard_normal((count, 1, height, width)).astype(np.float32)
    return target, rng.standard_normal((count, 1, 2 * height, 2 * width)).astype(np.float32)


@needs_engine
def test_golden_vector(bundle: Bundle) -> None:
    golden, engine = bundle.golden(), runner()
    assert golden is not None
    assert golden.reference is not None
    assert engine.activate(bundle).sha256 == bundle.sha256
    assert golden.error(engine.restore(golden.target, engine.encode(golden.reference))) < 1e-5
    assert engine.version.startswith("native ")
    assert engine.details()["threads"] == 2
    engine.deactivate()
    engine.deactivate()
    with pytest.raises(BackendError, match="closed"):
        engine.restore(golden.target, None)


@needs_engine
def test_agrees_with_onnx_runtime(bundle: Bundle) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(bundle.graph("model"), options, providers=["CPUExecutionProvider"])
    target, reference = batch(3)
    expected = session.run(None, {"target": target, "reference": reference})[0]
    engine = runner()
    engine.activate(bundle)
    restored = engine.restore(target, engine.encode(reference))
    assert restored.shape == expected.shape
    assert np.sqrt(np.mean((restored - expected) ** 2) / np.mean(expected**2)) < 1e-5


@needs_engine
def test_threads_share_one_runner_and_agree(bundle: Bundle) -> None:
    target, reference = batch(6)
    engine = runner(threads=3)
    engine.activate(bundle)
    expected = [engine.restore(target[i : i + 1], engine.encode(reference[i : i + 1])) for i in range(6)]

    def restore(index: int) -> Any:
        i = index % 6
        return i, engine.restore(target[i : i + 1], engine.encode(reference[i : i + 1]))

    with ThreadPoolExecutor(4) as callers:
        for i, restored in callers.map(restore, range(24)):
            np.testing.assert_array_equal(restored, expected[i])


@needs_engine
def test_a_forked_process_restores_alone_and_ends(bundle: Bundle) -> None:
    """Where the helper threads are not, though what they are waited for with is."""
    target, reference = batch(1)
    engine = runner(threads=3)
    engine.activate(bundle)
    expected = engine.restore(target, engine.encode(reference))
    child = os.fork()
    if not child:
        same = np.array_equal(engine.restore(target, engine.encode(reference)), expected)
        engine.deactivate()
        del engine
        os._exit(0 if same else 1)
    deadline, ended = time.monotonic() + 60, (0, 0)
    while not ended[0] and time.monotonic() < deadline:
        time.sleep(0.01)
        ended = os.waitpid(child, os.WNOHANG)
    if not ended[0]:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended == (child, 0)
    np.testing.assert_array_equal(engine.restore(target, engine.encode(reference)), expected)


@needs_engine
def test_one_thread_gives_the_same_bits(bundle: Bundle) -> None:
    target, reference = batch(1, 33, 18)
    results: list[Any] = []
    for threads in (1, 2, 4):
        engine = runner(threads)
        engine.activate(bundle)
        results.append(engine.restore(target, engine.encode(reference)))
    for result in results:
        np.testing.assert_array_equal(result, results[0])


@needs_engine
def test_runners_of_one_bundle_share_its_weights(bundle: Bundle) -> None:
    first, second = runner(), runner()
    first.activate(bundle)
    second.activate(bundle)
    plan = shared_plan(bundle)
    assert [engine.engine.plan for engine in (first, second)] == [plan, plan]


@needs_engine
def test_memory_is_what_the_network_needs(bundle: Bundle) -> None:
    """Planned, not allocated: what is kept of the reference, and a handful of images while restoring."""
    memory = NativeEngine(shared_plan(bundle), threads=2).memory(160, 160)
    image = 160 * 160 * 32 * 4  # on the target's grid
    # Three stage outputs and three halves of fusions.
    assert memory.features == pytest.approx(6 * image, abs=10_000)
    assert memory.restore <= 8 * image + 2**20  # and what each thread has of its own


@needs_engine
def test_memory_limit_is_checked_before_anything_is_computed(bundle: Bundle) -> None:
    target, reference = batch(1)
    free = runner()
    free.activate(bundle)
    needed = free.memory(20, 27)
    expected = free.restore(target, free.encode(reference))
    for limit in (needed, needed - 1):
        limited = NativeRunner("native", ("fp32",), RunnerOptions(threads=2, memory_limit=limit))
        limited.activate(bundle)
        if limit == needed:
            np.testing.assert_array_equal(limited.restore(target, limited.encode(reference)), expected)
            continue
        with pytest.raises(BackendError, match=r"this image needs \d+ MiB, the memory limit is \d+ MiB: restore"):
            limited.encode(reference)
        with pytest.raises(BackendError, match="the memory limit is"):
            limited.restore(target, free.encode(reference))


@needs_engine
def test_damaged_plan_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    for path in bundle.location.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = bytearray((tmp_path / NATIVE_PLAN).read_bytes())
    content[100] ^= 1
    (tmp_path / NATIVE_PLAN).write_bytes(content)
    with pytest.raises(BundleError, match="does not match its SHA-256"):
        open_bundle(tmp_path)


def test_what_it_cannot_run_is_passed_over_with_the_reason(bundle: Bundle) -> None:
    files = frozenset(bundle.manifest.files)
    for need, reason in (
        (Need("fp16", files=files), "runs fp32, not fp16"),
        (Need("fp32", files=files - {NATIVE_PLAN}), "the model has no native.plan: export it again"),
        (Need(bare=True), "opens bundles only, not a lone .onnx file"),
    ):
        assert availability(SPEC, need).reason == reason
        with pytest.raises(BackendError, match="backend native cannot run here"):
            choose("native", need)
    bare = replace(bundle, manifest=replace(bundle.manifest, files={}))
    with pytest.raises(BackendError, match=r"has no native.plan: export it again"):
        runner().activate(bare)
    with pytest.raises(BackendError, match=r"opens bundles only"):
        runner().activate(Path("model.onnx"))


def test_reasons_for_being_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in (native, native_library):
        monkeypatch.setattr(module, "library_path", lambda: tmp_path / "libminet.so")
    assert "was not compiled: install a C++ compiler" in probe()
    with pytest.raises(BackendError, match="was not compiled"):
        choose("native")
    native_library.library.cache_clear()
    (tmp_path / "libminet.so").write_bytes(b"no library")
    assert "cannot be loaded" in probe()
    native_library.library.cache_clear()
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert f"this is {sys.platform} on aarch64" in probe()


def test_adding_a_plan_keeps_the_bundle_whole(bundle: Bundle, tmp_path: Path) -> None:
    for path in bundle.location.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    again = add_native_plan(open_bundle(tmp_path))
    assert NATIVE_PLAN in again.manifest.files
    assert replace(again.manifest, files={}) == replace(bundle.manifest, files={})
