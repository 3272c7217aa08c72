"""ONNX Runtime runs where it was asked to, or the runtime does not open."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from minet_sdk import Runtime
from minet_sdk.backends.base import RunnerOptions
from minet_sdk.backends.onnx_runtime import CPU, CUDA, TENSORRT, OnnxRuntimeRunner, provider_options
from minet_sdk.bundle import open_bundle
from minet_sdk.errors import BackendError, BundleError


def test_nodes_are_counted_by_the_provider_that_runs_them(small_bundle: Path) -> None:
    with Runtime(small_bundle, backend="onnxruntime", threads=1) as runtime:
        execution = runtime.info.execution
    nodes = execution.pop("nodes")
    assert execution == {"threads": 1, "memory_pattern": False, "deterministic": True}
    assert set(nodes) == {"reference", "target"}
    assert all(set(providers) == {CPU} and providers[CPU] > 10 for providers in nodes.values())


@pytest.mark.parametrize("spins", [False, True])
def test_no_core_is_busy_after_a_call(small_bundle: Path, monkeypatch: pytest.MonkeyPatch, spins: bool) -> None:
    """Threads that look for work while there is none take it from the next graph. Planted fault: an option left out."""
    add = onnxruntime.SessionOptions.add_session_config_entry

    def add_but_one(options: Any, name: str, value: str) -> None:
        if name != "session.force_spinning_stop":
            add(options, name, value)

    if spins:
        monkeypatch.setattr(onnxruntime.SessionOptions, "add_session_config_entry", add_but_one)
    rng = np.random.default_rng(0)
    target, reference = (rng.random((side, side), np.float32) for side in (64, 128))
    idle: list[float] = []
    with Runtime(small_bundle, backend="onnxruntime", threads=2) as runtime:
        for _ in range(5):
            runtime(target, reference)
            started = time.process_time()
            time.sleep(0.1)
            idle.append(time.process_time() - started)
    assert (min(idle) > 0.005) == spins


def test_heavy_nodes_on_another_provider_are_refused(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted fault: a session that says it is on CUDA while its nodes are not."""
    session = onnxruntime.InferenceSession

    class Liar:
        def __init__(self, path: str, options: Any, providers: Any) -> None:
            self._session = session(path, options, providers=[CPU])

        def get_providers(self) -> list[str]:
            return [CUDA, CPU]

        def __getattr__(self, name: str) -> Any:
            return getattr(self._session, name)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Liar)
    runner = OnnxRuntimeRunner(CUDA, ("fp32",), RunnerOptions())
    with pytest.raises(BackendError, match=rf"asked for {CUDA} and put \d+ Conv on {CPU} in reference\.onnx"):
        runner.activate(open_bundle(small_bundle))


def test_a_provider_that_is_not_there_is_refused(small_bundle: Path) -> None:
    """The real thing: this onnxruntime has no CUDA, warns about it, and would run on the CPU."""
    runner = OnnxRuntimeRunner(CUDA, ("fp32",), RunnerOptions())
    with pytest.warns(UserWarning, match="not in available provider names"), pytest.raises(BackendError) as error:
        runner.activate(open_bundle(small_bundle))
    assert "asked for CUDAExecutionProvider and took CPUExecutionProvider" in str(error.value)


def test_a_precision_that_the_backend_does_not_run_is_refused(small_bundle: Path) -> None:
    """A bare file's precision is known only once it is open."""
    runner = OnnxRuntimeRunner(CPU, ("fp16",), RunnerOptions())
    with pytest.raises(BackendError, match=f"model random is fp32; {CPU} runs fp16 only"):
        runner.activate(small_bundle / "model.onnx")
    with pytest.raises(BackendError, match="closed"):
        runner.encode(None)  # type: ignore[arg-type] # never looked at


def test_provider_options(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    bundle = open_bundle(small_bundle)
    options = RunnerOptions(device=3)
    assert provider_options(CPU, options, bundle) == [(CPU, {})]
    ((name, cuda),) = provider_options(CUDA, options, bundle)
    assert (name, cuda["device_id"], cuda["use_tf32"], cuda["cudnn_conv_algo_search"]) == (CUDA, "3", "0", "HEURISTIC")
    (first, settings), (second, _) = provider_options(TENSORRT, options, bundle)
    assert (first, second) == (TENSORRT, CUDA)
    assert settings["device_id"] == "3"
    assert settings["trt_engine_cache_path"] == f"/somewhere/minet-sdk/engines/{bundle.sha256}/onnxruntime"
    assert "trt_fp16_enable" not in settings
    assert provider_options(TENSORRT, options, None)[0][1] == {"device_id": "3"}


def test_a_damaged_graph_is_named(tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(b"\x00\x01 no protobuf")
    with pytest.raises(BundleError, match=r"other\.onnx cannot be loaded by onnxruntime"):
        OnnxRuntimeRunner(CPU, ("fp32",), RunnerOptions()).activate(tmp_path / "other.onnx")


def test_features_stay_where_they_were_computed(small_bundle: Path) -> None:
    """As a value of the engine's own memory, which a GPU would otherwise give to the host and take back."""
    runner = OnnxRuntimeRunner(CPU, ("fp32",), RunnerOptions(threads=1))
    runner.activate(open_bundle(small_bundle))
    rng = np.random.default_rng(0)
    target, reference = (rng.random((1, 1, side, side), np.float32) for side in (24, 48))
    features = runner.encode(reference)
    assert isinstance(features.value, onnxruntime.OrtValue)
    assert features.value.device_name() == "cpu"
    assert features.nbytes == features.value.numpy().nbytes
    restored = runner.restore(target, features)
    assert restored.shape == reference.shape
    # What a caller passes on need not be contiguous, and results are the caller's own.
    assert np.array_equal(runner.restore(np.asfortranarray(target), features), restored)
    restored[:] = 0
    assert np.array_equal(
        runner.restore(target, runner.encode(reference[..., ::-1][..., ::-1])), runner.restore(target, features)
    )
    runner.deactivate()
