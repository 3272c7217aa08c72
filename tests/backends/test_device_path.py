"""The TensorRT backend from end to end on a device that is none: values, order of streams, threads, graphs, memory."""

import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from minet_sdk import Runtime
from minet_sdk.bundle import Bundle
from minet_sdk.engines import cache_folder
from minet_sdk.errors import BackendError, InputError

pytestmark = pytest.mark.long

Array = NDArray[np.float32]


def images(height: int, width: int, slices: int = 1, seed: int = 0) -> tuple[Array, Array]:
    """Target and reference of a x2 model."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: 2 * height, : 2 * width]
    smooth = 300 + 100 * np.sin(x / 7 + rng.random((slices, 1, 1)) * 6) * np.cos(y / 5)
    target = smooth[:, ::2, ::2] + rng.random((slices, height, width))
    return target.astype(np.float32), (800 - smooth).astype(np.float32)


@pytest.fixture
def bench(make_bench: Any, small_bundle: Path) -> Any:
    return make_bench(small_bundle)


@pytest.fixture(scope="module")
def cpu(small_bundle: Path) -> Runtime:
    return Runtime(small_bundle, backend="onnxruntime", threads=1)


def test_host_arrays_give_the_bits_of_the_same_engine_on_the_cpu(bench: Any, cpu: Runtime) -> None:
    target, reference = images(24, 20, slices=3)
    with bench.open() as runtime:
        assert runtime.info.golden_error == cpu.info.golden_error
        expected = cpu(target, reference)
        assert np.array_equal(runtime(target, reference), expected)
        assert np.array_equal(runtime(target, runtime.prepare(reference)), expected)
        assert runtime.stats().slices == 6
    assert not bench.leaks()


@pytest.mark.parametrize(("consistency", "size"), [("off", (16, 16)), ("auto", (19, 21))])
def test_device_arrays_give_what_host_arrays_give(
    bench: Any, small_bundle: Path, consistency: Any, size: tuple[int, int]
) -> None:
    """Through the shipped kernels: statistics, normalisation and back, consistency by matrix products."""
    target, reference = images(*size, slices=2)
    with Runtime(small_bundle, backend="onnxruntime", threads=1, consistency=consistency) as host:
        expected = host(target, reference)
    with bench.open(consistency=consistency) as runtime:
        result = runtime(bench.put(target), bench.put(reference))
        assert result.shape == expected.shape
        np.testing.assert_allclose(result.to_host(), expected, atol=2e-6 * np.abs(expected).max())
        one = runtime(bench.put(target[1]), bench.put(reference[1]))
        assert np.array_equal(one.to_host(), result.to_host()[1])
        prepared = runtime.prepare(bench.put(reference))
        assert np.array_equal(runtime(bench.put(target), prepared).to_host(), result.to_host())
        mixed = runtime(bench.put(target), runtime.prepare(reference))
        np.testing.assert_allclose(mixed.to_host(), expected, atol=2e-6 * np.abs(expected).max())
    del result, one, prepared, mixed
    assert not bench.leaks()


def test_single_contrast_models_run_on_the_device(make_bench: Any, make_bundle: Callable[..., Bundle]) -> None:
    location = make_bundle(scale=2, reference=False).location
    target, reference = images(16, 20)
    bench = make_bench(location)
    with bench.open() as runtime, Runtime(location, backend="onnxruntime", threads=1) as host:
        assert np.array_equal(runtime(target), host(target))
        np.testing.assert_allclose(runtime(bench.put(target)).to_host(), host(target), rtol=1e-5)
        with pytest.raises(InputError, match="takes no reference"):
            runtime(bench.put(target), bench.put(reference))
        with pytest.raises(InputError, match="takes no reference"):
            runtime.prepare(bench.put(reference))


def test_nothing_waits_for_the_device_but_to_host(bench: Any) -> None:
    target, reference = images(16, 16)
    with bench.open(consistency="off") as runtime:
        bench.layer.counts.clear()
        result = runtime(bench.put(target), bench.put(reference), stream=42)
        assert result.stream == 42
        assert bench.layer.counts["host waits"] == 0
        result.to_host()
        assert bench.layer.counts["host waits"] == 1


def test_inputs_are_asked_for_on_the_stream_that_reads_them(bench: Any) -> None:
    target, reference = images(16, 16)
    device_target, device_reference = bench.put(target, stream=7), bench.put(reference, stream=8)
    with bench.open(consistency="off") as runtime:
        runtime(device_target, device_reference, stream=42)
        assert device_target.asked == device_reference.asked == [42]
        runtime(device_target, device_reference, stream=0)
        assert device_target.asked[-1] == 1


def test_results_wait_for_themselves_in_both_protocols(bench: Any) -> None:
    """A consumer that goes the protocol's way may read; one that does not is caught by the layer."""
    target, reference = images(16, 16)
    layer = bench.layer
    with bench.open(consistency="off") as runtime:
        result = runtime(bench.put(target), bench.put(reference))
        address = result.__cuda_array_interface__["data"][0]
        stranger = layer.caller_stream(99)
        with pytest.raises(AssertionError, match="may still be using"):
            layer.access(stranger, [address], [])
        layer.wait_for_producer(stranger, result.__cuda_array_interface__["stream"])
        layer.access(stranger, [address], [])
        capsule = result.__dlpack__(stream=98)
        layer.access(layer.caller_stream(98), [address], [])
        unsynchronised = result.__dlpack__(stream=-1)
        with pytest.raises(AssertionError, match="may still be using"):
            layer.access(layer.caller_stream(97), [address], [])
        del capsule, unsynchronised
        with pytest.raises(BufferError, match="own device only"):
            result.__dlpack__(dl_device=(1, 0))
        with pytest.raises(BufferError, match="without a copy"):
            result.__dlpack__(copy=True)


def test_prefetch_has_a_stream_of_its_own_that_the_target_waits_for(bench: Any) -> None:
    target, reference = images(16, 16)
    with bench.open(consistency="off") as runtime:
        prepared = runtime.prepare(bench.put(reference))
        ready = prepared.features[0].ready
        assert not bench.layer.is_done(ready)
        runtime(bench.put(target), prepared, stream=42)
        assert not ready - bench.layer.clocks[42]


def test_features_that_are_dropped_outlive_the_work_that_reads_them(bench: Any) -> None:
    """The layer notes memory that goes back while another stream may read it."""
    target, reference = images(16, 16)
    with bench.open(consistency="off") as runtime:
        for _ in range(2):
            runtime(bench.put(target), runtime.prepare(bench.put(reference)), stream=42)
            gc.collect()
        assert not bench.leaks()


def test_without_keeping_the_features_the_layer_would_notice(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted fault."""

    def keep_nothing(*_: Any) -> None:
        """In place of `TensorRtRunner.keep`."""

    monkeypatch.setattr("minet_sdk.backends.tensorrt.TensorRtRunner.keep", keep_nothing)
    target, reference = images(16, 16)
    with bench.open(consistency="off") as runtime:
        runtime(bench.put(target), runtime.prepare(bench.put(reference)), stream=42)
        assert bench.leaks()


def test_without_waiting_for_the_features_the_layer_would_notice(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted fault: an event that says nothing."""
    target, reference = images(16, 16)
    with bench.open(consistency="off") as runtime:
        prepared = runtime.prepare(bench.put(reference))
        prepared.features[0].ready.clear()
        with pytest.raises(AssertionError, match="may still be using"):
            runtime(bench.put(target), prepared, stream=42)


def test_one_thread_may_use_many_streams(bench: Any) -> None:
    """Its context and buffers are one; the second stream waits for the first."""
    target, reference = images(16, 16)
    with bench.open() as runtime:
        prepared = runtime.prepare(reference)
        results = [runtime(bench.put(target), prepared, stream=stream) for stream in (42, 43, 42, 44)]
        first = results[0].to_host()
        assert all(np.array_equal(result.to_host(), first) for result in results)


def test_many_threads_have_contexts_of_their_own(bench: Any, cpu: Runtime) -> None:
    target, reference = images(24, 20)
    expected = cpu(target, reference)
    with bench.open() as runtime:
        barrier = threading.Barrier(3)

        def restore() -> list[Array]:
            barrier.wait()
            return [runtime(target, reference) for _ in range(4)]

        with ThreadPoolExecutor(3) as pool:
            results = [future.result() for future in [pool.submit(restore) for _ in range(3)]]
    assert all(np.array_equal(result, expected) for some in results for result in some)
    assert len({context.thread for context in bench.trt.contexts}) == 4
    assert not bench.leaks()


def test_the_second_run_of_a_shape_replays_a_graph(bench: Any) -> None:
    target, reference = images(16, 16)
    with bench.open(consistency="off") as runtime:
        before = runtime.info.execution["runs"]
        for _ in range(3):
            runtime(target, reference)
        after = runtime.info.execution["runs"]
    assert runtime.info.execution == {}
    assert after["captured"] - before["captured"] == 2
    assert after["replayed"] - before["replayed"] == 4
    assert after["eager"] - before["eager"] == 2
    assert after["failed"] == 0


@pytest.mark.parametrize("graphs", [True, False])
def test_graphs_that_cannot_be_captured_are_told(bench: Any, caplog: pytest.LogCaptureFixture, graphs: bool) -> None:
    bench.layer.capture_error = "operation not permitted when stream is capturing"
    target, reference = images(16, 16)
    with bench.open(cuda_graphs=graphs) as runtime:
        first = runtime(target, reference)
        assert np.array_equal(runtime(target, reference), first)
        info = runtime.info.execution
    assert info["runs"]["replayed"] == info["runs"]["captured"] == 0
    if graphs:
        assert info["runs"]["failed"] == 4
        assert "not permitted" in info["runs"]["last_failure"]
        assert "runs without a CUDA graph" in caplog.text
    else:
        assert info["runs"]["failed"] == 0
        assert info["cuda_graphs"] == "off"


def test_rtx_captures_itself_and_keeps_what_it_compiled(make_bench: Any, small_bundle: Path, cpu: Runtime) -> None:
    target, reference = images(24, 20)
    bench = make_bench(small_bundle, engine="tensorrt-rtx")
    with bench.open() as runtime:
        assert np.array_equal(runtime(target, reference), cpu(target, reference))
        assert np.array_equal(runtime(target, reference), cpu(target, reference))
        info = runtime.info.execution
        folder = cache_folder(runtime.bundle)
        assert not folder.exists()
    assert info["cuda_graphs"] == "by the engine itself"
    assert info["runs"]["captured"] == info["runs"]["replayed"] == bench.layer.counts["captures"] == 0
    for config in bench.trt.configs:
        assert config.cuda_graph_strategy == "whole"
        # Compiling in the background would change the last bits once it is done.
        assert config.dynamic_shapes_kernel_specialization_strategy == "eager"
        assert config.cache.content == b""
    written = sorted(folder.glob("*.kernels"))
    assert len(written) == 2
    assert written[0].name.startswith("reference-")
    written[1].write_bytes(b"of another driver")
    bench.trt.configs.clear()
    with bench.open(cuda_graphs=False) as runtime:
        assert [config.cache.content for config in bench.trt.configs] == [b"kernels", b"of another driver"]
        assert {config.cuda_graph_strategy for config in bench.trt.configs} == {"disabled"}
    assert written[1].read_bytes() == b"kernels"


def test_old_shapes_make_room_for_new_ones(bench: Any, cpu: Runtime) -> None:
    with bench.open() as runtime:
        for height in (16, 17, 18, 19, 20, 21, 16):
            target, reference = images(height, 16)
            assert np.array_equal(runtime(target, reference), cpu(target, reference))
        held = len(bench.layer.memories)
        for height in (22, 23, 24, 25, 26, 27):
            runtime(*images(height, 16))
        gc.collect()
        assert len(bench.layer.memories) <= held + 4
    gc.collect()
    assert not bench.layer.memories


def test_the_profile_is_the_one_that_fits_best(bench: Any) -> None:
    with bench.open(consistency="off") as runtime:
        bench.trt.contexts.clear()
        runtime(*images(20, 24))
        assert {context.active_optimization_profile for context in bench.trt.contexts} == {0}
        bench.trt.contexts.clear()
        runtime(*images(40, 36))
        assert {context.active_optimization_profile for context in bench.trt.contexts} == {1}
        with pytest.raises(InputError, match=r"target 1x64x20 lies outside .* covers \(1x16x16 to 1x32x32"):
            runtime(*images(64, 20))
        with pytest.raises(InputError, match="lies outside"):
            runtime.prepare(images(64, 20)[1])


def test_info_tells_device_plans_and_graphs(bench: Any) -> None:
    with bench.open(consistency="off") as runtime:
        info = runtime.info
    assert info.backend == info.provider == "tensorrt"
    assert info.versions["engine"] == "tensorrt 1.0"
    assert info.execution["gpu"] == "Host (compute capability 8.0)"
    assert info.execution["device_layer"] == "host 1.0"
    assert info.execution["cuda_graphs"] == "by the runtime"
    assert "(inlined)" in info.execution["plans"]["target"]


def test_an_engine_that_misses_the_golden_vector_is_refused(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted fault: a wrong engine, as builders have made them; everything it took is given back."""
    monkeypatch.setattr(bench.trt.Engine, "error", np.float32(1.01))
    with pytest.raises(BackendError, match="tensorrt fails the golden-vector check"):
        bench.open()
    gc.collect()
    assert not bench.layer.memories


def test_a_refused_plan_is_named_with_the_engines_reason(bench: Any) -> None:
    bench.trt.refuse = {"target"}.__contains__
    with pytest.raises(BackendError, match=r"target-\w+\.plan is refused by tensorrt 1\.0: the plan was made for"):
        bench.open()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"typestr": "<f8"}, "target on the device has dtype float64"),
        ({"typestr": "<c8"}, "dtype complex64; expected float32, or pass a host array"),
        ({"typestr": ">f4"}, "foreign byte order"),
        ({"shape": (16,)}, r"expected \(H, W\)"),
        ({"shape": (0, 16)}, r"expected \(H, W\)"),
        ({"shape": (8, 16)}, "at least 16 x 16"),
        ({"strides": (4, 64)}, "C-contiguous"),
        ({"strides": (66, 4)}, "C-contiguous"),
        ({"stream": 0}, "is 0, which version 3 does not allow"),
        ({"mask": object()}, "has a mask"),
    ],
)
def test_unusable_device_arrays_are_refused_in_one_line(bench: Any, change: dict[str, Any], message: str) -> None:
    target, reference = images(16, 16)
    with bench.open(consistency="off") as runtime:
        given = bench.interface(target[0], **change)
        with pytest.raises(InputError, match=message) as error:
            runtime(given, bench.put(reference[0]))
    assert "\n" not in str(error.value)


def test_the_cuda_array_interface_is_read_in_the_order_of_its_stream(bench: Any) -> None:
    target, reference = images(16, 16)
    with bench.open(consistency="off") as runtime:
        expected = runtime(bench.put(target), bench.put(reference)).to_host()
        given = [bench.interface(array, 9) for array in (target, reference)]
        assert np.array_equal(runtime(*given, stream=42).to_host(), expected)
        given = [bench.interface(array, 9, stream=None) for array in (target, reference)]
        with pytest.raises(AssertionError, match="may still be using"):
            runtime(*given, stream=42)


def test_calls_that_cannot_be_on_the_device(bench: Any, cpu: Runtime) -> None:
    target, reference = images(16, 16)
    with bench.open(consistency="hard") as hard, pytest.raises(InputError, match="hard consistency of a device array"):
        hard(bench.put(target), bench.put(reference))
    with bench.open() as runtime:
        with pytest.raises(InputError, match="target is in device memory and reference in host memory"):
            runtime(bench.put(target), reference)
        with pytest.raises(InputError, match="target is in host memory and reference in device memory"):
            runtime(target, bench.put(reference))
        with pytest.raises(InputError, match="needs a reference"):
            runtime(bench.put(target))
        with pytest.raises(InputError, match=r"this target needs \(1, 32, 32\)"):
            runtime(bench.put(target), bench.put(reference[:, :30]))
        with pytest.raises(InputError, match="expected a CUDA stream"):
            runtime(bench.put(target), bench.put(reference), stream="fast")
        with pytest.raises(InputError, match="stream is for arrays in device memory"):
            runtime(target, reference, stream=42)
        with pytest.raises(InputError, match="comes from another backend"):
            runtime(bench.put(target), cpu.prepare(reference))
    with pytest.raises(BackendError, match="closed"):
        runtime(bench.put(target), bench.put(reference))
    with pytest.raises(InputError, match="backend onnxruntime takes host arrays"):
        cpu(bench.put(target), bench.put(reference))
    with pytest.raises(InputError, match="backend onnxruntime takes host arrays"):
        cpu.prepare(bench.put(reference))


def test_what_is_not_finite_stays_not_finite(bench: Any) -> None:
    target, reference = images(16, 16)
    target[0, 3, 4] = np.nan
    with bench.open(consistency="off") as runtime:
        assert np.isnan(runtime(bench.put(target), bench.put(reference)).to_host()).all()
