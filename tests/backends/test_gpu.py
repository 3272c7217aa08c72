"""What only a GPU can show: the TensorRT backends against the CPU, bit for bit from run to run, and with PyTorch."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from minet_sdk import Runtime
from minet_sdk.backends import BACKENDS, availability
from minet_sdk.errors import InputError

pytestmark = [
    pytest.mark.gpu,
    # NVIDIA's packages warn of their own affairs.
    pytest.mark.filterwarnings("default"),
]

Array = NDArray[np.float32]

CLOSE = 1e-4
"""Largest difference from the CPU, relative to the image's range: other kernels, other order of sums, no TF32."""


def images(height: int, width: int, slices: int, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: 2 * height, : 2 * width]
    smooth = 300 + 100 * np.sin(x / 7 + rng.random((slices, 1, 1)) * 6) * np.cos(y / 5)
    target = smooth[:, ::2, ::2] + rng.random((slices, height, width))
    return target.astype(np.float32), (800 - smooth).astype(np.float32)


@pytest.fixture(scope="module", params=["tensorrt", "tensorrt-rtx", "onnxruntime-cuda", "onnxruntime-tensorrt"])
def backend(request: pytest.FixtureRequest) -> str:
    reason = availability(next(spec for spec in BACKENDS if spec.name == request.param)).reason
    if reason:
        pytest.skip(reason)
    return request.param


@pytest.fixture(scope="module")
def gpu(backend: str, small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A runtime whose plans are built on first use, in a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        with Runtime(small_bundle, backend=backend) as runtime:
            yield runtime


@pytest.fixture
def on_device(gpu: Runtime) -> Runtime:
    """Only the TensorRT backends take device arrays."""
    if gpu.info.backend.startswith("onnxruntime"):
        pytest.skip("takes host arrays")
    return gpu


@pytest.fixture(scope="module")
def cpu(small_bundle: Path) -> Runtime:
    return Runtime(small_bundle, backend="onnxruntime")


@pytest.fixture
def pair() -> tuple[Array, Array]:
    return images(160, 144, 3)


def cuda(array: Array) -> torch.Tensor:
    return torch.from_numpy(array).cuda()


def assert_close(found: Array, expected: Array) -> None:
    assert float(np.abs(found - expected).max()) <= CLOSE * float(np.ptp(expected))


@pytest.mark.parametrize("size", [(16, 16), (33, 47), (160, 160), (320, 184)])
def test_host_arrays_agree_with_the_cpu(gpu: Runtime, cpu: Runtime, size: tuple[int, int]) -> None:
    target, reference = images(*size, slices=1)
    assert_close(gpu(target, reference), cpu(target, reference))


def test_same_bits_from_run_to_run(gpu: Runtime, small_bundle: Path, pair: tuple[Array, Array]) -> None:
    """Eager, replayed, and from a second runtime with the same plans."""
    expected = gpu(*pair)
    assert all(np.array_equal(gpu(*pair), expected) for _ in range(10))
    with Runtime(small_bundle, backend=gpu.info.backend) as second:
        assert np.array_equal(second(*pair), expected)
    with Runtime(small_bundle, backend=gpu.info.backend, cuda_graphs=False) as eager:
        assert np.array_equal(eager(*pair), expected)


def test_same_bits_from_many_threads(gpu: Runtime, pair: tuple[Array, Array]) -> None:
    expected = gpu(*pair)
    with ThreadPoolExecutor(8) as pool:
        results = [future.result() for future in [pool.submit(gpu, *pair) for _ in range(64)]]
    assert all(np.array_equal(result, expected) for result in results)


def test_graphs_are_replayed(on_device: Runtime) -> None:
    target, reference = images(48, 52, 1)
    before = on_device.info.execution["runs"]
    for _ in range(5):
        on_device(target, reference)
    after = on_device.info.execution["runs"]
    assert after["failed"] == 0
    if on_device.info.execution["cuda_graphs"] == "by the runtime":
        assert after["captured"] - before["captured"] == 2
        assert after["replayed"] - before["replayed"] == 8


@pytest.mark.parametrize("consistency", ["off", "auto"])
def test_device_arrays_agree_with_host_arrays(
    on_device: Runtime, small_bundle: Path, pair: tuple[Array, Array], consistency: Any
) -> None:
    with Runtime(small_bundle, backend=on_device.info.backend, consistency=consistency) as runtime:
        expected = runtime(*pair)
        result = torch.from_dlpack(runtime(*map(cuda, pair)))
        assert result.is_cuda
        assert_close(result.cpu().numpy(), expected)
        assert np.array_equal(runtime(*map(cuda, pair)).to_host(), result.cpu().numpy())


def test_the_callers_stream_is_used_and_not_waited_for(on_device: Runtime, pair: tuple[Array, Array]) -> None:
    """Inputs are made late on the caller's stream; the call returns long before, and still reads them."""
    expected = on_device(*map(cuda, pair)).to_host()
    stream = torch.cuda.Stream()
    sources = [cuda(array) for array in pair]
    late = [torch.zeros_like(source) for source in sources]
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(1_000_000_000)  # pyright: ignore[reportPrivateUsage] # the only way to keep a stream busy
        for copy, source in zip(late, sources, strict=True):
            copy.copy_(source)
        result = on_device(*late, stream=stream)
        assert not stream.query()
        restored = torch.from_dlpack(result)
    stream.synchronize()
    assert np.array_equal(restored.cpu().numpy(), expected)


def test_without_a_stream_the_protocols_keep_the_order(on_device: Runtime, pair: tuple[Array, Array]) -> None:
    expected = on_device(*map(cuda, pair)).to_host()
    for _ in range(20):
        result = torch.from_dlpack(on_device(*map(cuda, pair)))
        doubled = result * 2
        del result
        assert np.array_equal(doubled.cpu().numpy(), expected * 2)


def test_the_cuda_array_interface(on_device: Runtime, pair: tuple[Array, Array]) -> None:
    class Interface:
        def __init__(self, tensor: torch.Tensor) -> None:
            self.tensor = tensor
            self.__cuda_array_interface__: Any = tensor.__cuda_array_interface__

    expected = on_device(*map(cuda, pair)).to_host()
    tensors = [Interface(cuda(array)) for array in pair]
    torch.cuda.synchronize()
    result = on_device(*tensors)
    result.synchronise()
    assert np.array_equal(torch.as_tensor(result, device="cuda").cpu().numpy(), expected)


def test_a_prefetched_reference_gives_the_same_bits(on_device: Runtime, pair: tuple[Array, Array]) -> None:
    expected = on_device(*pair)
    assert np.array_equal(on_device(pair[0], on_device.prepare(pair[1])), expected)
    device = on_device(*map(cuda, pair)).to_host()
    prepared = on_device.prepare(cuda(pair[1]))
    for _ in range(3):
        assert np.array_equal(on_device(cuda(pair[0]), prepared).to_host(), device)


def test_a_series_is_prefetched_while_it_is_restored(on_device: Runtime) -> None:
    """Slice after slice with the next reference under way, dropped features included."""
    target, reference = images(160, 160, 12)
    expected = [on_device(low, guide) for low, guide in zip(target, reference, strict=True)]
    prepared = on_device.prepare(reference[0])
    for index, low in enumerate(target):
        current = prepared
        if index + 1 < len(target):
            prepared = on_device.prepare(reference[index + 1])
        assert np.array_equal(on_device(low, current), expected[index])


def test_device_arrays_that_cannot_be_read(on_device: Runtime, pair: tuple[Array, Array]) -> None:
    target, reference = map(cuda, pair)
    for wrong, message in (
        (target.double(), "dtype float64"),
        (target.transpose(1, 2), "C-contiguous"),
        (target.to(torch.complex64), "dtype complex64"),
        (target.requires_grad_(), "cannot be read through DLPack"),
    ):
        with pytest.raises(InputError, match=message):
            on_device(wrong, reference)
    with pytest.raises(InputError, match="target is in device memory and reference in host memory"):
        on_device(target.detach(), pair[1])


def test_many_shapes_in_turn(gpu: Runtime, cpu: Runtime) -> None:
    """More than a thread keeps contexts for."""
    for size in [(32, 32), (40, 32), (48, 32), (56, 32), (64, 32), (72, 32)] * 2:
        target, reference = images(*size, slices=1)
        assert_close(gpu(target, reference), cpu(target, reference))


def test_a_size_outside_the_plan_is_refused(on_device: Runtime) -> None:
    with pytest.raises(InputError, match="lies outside what"):
        on_device(*images(700, 32, 1))


def test_pycuda_applications(backend: str, small_bundle: Path, gpu: Runtime, pair: tuple[Array, Array]) -> None:
    if backend.startswith("onnxruntime"):
        pytest.skip("takes host arrays")
    driver = pytest.importorskip("pycuda.driver")
    gpuarray = pytest.importorskip("pycuda.gpuarray")
    driver.init()
    context = driver.Device(0).make_context()
    try:
        with Runtime(small_bundle, backend=backend, device_layer="pycuda") as runtime:
            assert runtime.info.execution["device_layer"].startswith("pycuda")
            expected = runtime(*pair)
            assert_close(expected, gpu(*pair))
            stream = driver.Stream()
            arrays = [gpuarray.to_gpu(array) for array in pair]
            result = runtime(*arrays, stream=stream)
            assert result.stream == stream.handle
            assert_close(result.to_host(), expected)
            assert np.array_equal(runtime(*arrays, stream=stream).to_host(), result.to_host())
            del result, arrays
    finally:
        context.pop()
        context.detach()


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "fp8"])
def test_bundled_precisions_pass_their_golden_vector(
    backend: str, make_bundle: Callable[..., Any], tmp_path: Path, precision: Any
) -> None:
    """Opening is the check; what the device or the backend lacks is said before anything is built."""
    from minet_sdk.backends import Need
    from minet_sdk.export.bundle import export_bundle

    spec = next(spec for spec in BACKENDS if spec.name == backend)
    reason = availability(spec, Need(precision)).reason
    if reason:
        pytest.skip(reason)
    checkpoint = make_bundle(scale=2).location.parent / "random.safetensors"
    export_bundle(checkpoint, tmp_path / precision, precision=precision)
    with Runtime(tmp_path / precision, backend=backend) as runtime:
        assert runtime.info.golden_error is not None
        assert runtime.info.golden_error <= runtime.bundle.manifest.golden_tolerance
