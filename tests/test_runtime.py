"""The inference API: same bits every way it can be called, and clear errors for everything it cannot do."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from minet_sdk import Runtime
from minet_sdk.bundle import GOLDEN, MANIFEST, Bundle, Golden, sha256
from minet_sdk.errors import BackendError, BundleError, InputError
from minet_sdk.kspace import degrade, enforce_consistency
from minet_sdk.normalisation import Normalisation
from minet_sdk.training.checkpoint import load_checkpoint

Array = NDArray[np.float32]


def phantom(slices: int, height: int, width: int, seed: int = 0) -> Array:
    """Smooth blobs, positive, about 1000 at most."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = np.zeros((slices, height, width))
    for _ in range(12):
        at, radius = rng.uniform(0.2, 0.8, 2) * (height, width), rng.uniform(2, 8)
        image += rng.uniform(50, 300, (slices, 1, 1)) * (np.hypot(y - at[0], x - at[1]) < radius)
    return image.astype(np.float32)


@pytest.fixture(scope="module", params=["native", "openvino", "onnxruntime"])
def runtime(small_bundle: Path, request: pytest.FixtureRequest) -> Runtime:
    return Runtime(small_bundle, backend=request.param, threads=1)


@pytest.fixture(scope="module")
def pair() -> tuple[Array, Array]:
    truth = phantom(3, 48, 40)
    return degrade(truth, 2), 800 - truth


def test_restores_what_the_network_restores(small_bundle: Path, pair: tuple[Array, Array]) -> None:
    """Against PyTorch, in the target's own intensity scale."""
    target, reference = pair
    model = load_checkpoint(small_bundle.parent / "random.safetensors").model
    normalisation = Normalisation()
    statistics = normalisation.statistics(target)
    with torch.no_grad():
        batch = [torch.from_numpy(a[:, None]) for a in (normalisation.apply(target), normalisation.apply(reference))]
        expected = normalisation.undo(model(*batch).restored[:, 0].numpy(), statistics)
    with Runtime(small_bundle, consistency="off") as plain:
        restored = plain(target, reference)
    assert restored.dtype == np.float32
    np.testing.assert_allclose(restored, expected, atol=2e-5 * float(np.ptp(expected)))
    with Runtime(small_bundle, consistency="soft") as soft:
        np.testing.assert_allclose(
            soft(target, reference),
            enforce_consistency(restored, target, 2, "soft"),
            atol=1e-5 * float(np.ptp(expected)),
        )


def test_one_slice_is_one_of_a_stack(runtime: Runtime, pair: tuple[Array, Array]) -> None:
    target, reference = pair
    stack = runtime(target, reference)
    assert stack.shape == (3, 48, 40)
    assert np.array_equal(runtime(target[1], reference[1]), stack[1])


def test_a_call_is_ready_infer_and_finish(runtime: Runtime, pair: tuple[Array, Array]) -> None:
    target, reference = pair
    inferred = runtime.infer(runtime.ready(target[0], reference[0])).values
    assert np.array_equal(runtime.finish(inferred, target[0]), runtime(target[0], reference[0]))
    assert np.array_equal(runtime.infer(runtime.ready(target[0], runtime.prepare(reference[0]))).values, inferred)
    with pytest.raises(InputError, match="ready takes one slice"):
        runtime.ready(target, reference)
    inferred[3, 4] = np.nan
    with pytest.raises(BackendError, match="not finite"):
        runtime.finish(inferred, target[0])


def test_prepared_reference_gives_the_same_bits(runtime: Runtime, pair: tuple[Array, Array]) -> None:
    target, reference = pair
    prepared = runtime.prepare(reference)
    expected = runtime(target, reference)
    assert np.array_equal(runtime(target, prepared), expected)
    assert np.array_equal(runtime(target, prepared), expected)


def test_two_graphs_give_the_bits_of_the_one_graph(small_bundle: Path, pair: tuple[Array, Array]) -> None:
    """The one graph as any ONNX consumer would run it, with none of this project's code."""
    target, reference = pair
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(small_bundle / "model.onnx", options, providers=["CPUExecutionProvider"])
    normalisation = Normalisation()
    with Runtime(small_bundle, backend="onnxruntime", threads=1, consistency="off") as runtime:
        for low, guide in zip(target, reference, strict=True):
            statistics = normalisation.statistics(low)
            inputs = {"target": normalisation.apply(low), "reference": normalisation.apply(guide)}
            one = np.asarray(session.run(None, {name: value[None, None] for name, value in inputs.items()})[0])
            assert np.array_equal(runtime(low, guide), normalisation.undo(one[0, 0], statistics))


def test_same_bits_from_run_to_run_and_from_many_threads(small_bundle: Path, pair: tuple[Array, Array]) -> None:
    target, reference = pair
    with Runtime(small_bundle, threads=2) as first:
        expected = first(target, reference)
        with ThreadPoolExecutor(4) as pool:
            results = [future.result() for future in [pool.submit(first, target, reference) for _ in range(12)]]
    with Runtime(small_bundle, threads=2) as second:
        results.append(second(target, reference))
    assert all(np.array_equal(result, expected) for result in results)


def test_intensity_scale_is_the_targets(runtime: Runtime, pair: tuple[Array, Array]) -> None:
    target, reference = pair
    restored = runtime(target, reference)
    np.testing.assert_allclose(runtime(target * 8, reference * 0.25), restored * 8, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.uint16, np.int32])
def test_real_dtypes_are_accepted(runtime: Runtime, pair: tuple[Array, Array], dtype: type) -> None:
    target, reference = (np.clip(np.rint(a), 0, 2000) for a in pair)
    expected = runtime(target, reference)
    assert np.array_equal(runtime(target.astype(dtype), reference.astype(dtype)), expected)


def test_complex_target_is_projected_hard(small_bundle: Path) -> None:
    truth = phantom(1, 48, 40)[0]
    y, x = np.mgrid[:48, :40]
    phase = np.exp(1j * (0.05 * x + 0.03 * y))
    spectrum = np.fft.fftshift(np.fft.fft2(truth * phase, norm="ortho"))[12:36, 10:30]
    target = np.fft.ifft2(np.fft.ifftshift(spectrum), norm="ortho") / 2
    with Runtime(small_bundle) as runtime:
        restored = runtime(target, 800 - truth)
    assert restored.dtype == np.float32
    assert (restored >= 0).all()
    with Runtime(small_bundle, consistency="off") as off:
        plain = off(target, 800 - truth)
    assert np.mean((restored - truth) ** 2) < np.mean((plain - truth) ** 2)


def test_a_constant_slice_comes_back(runtime: Runtime) -> None:
    restored = runtime(np.full((20, 20), 37.0), np.full((40, 40), 5.0))
    np.testing.assert_allclose(restored, 37, atol=1e-3)


BAD_CALLS: dict[str, tuple[Any, Any, str]] = {
    "missing reference": (np.zeros((24, 20)), None, "needs a reference"),
    "reference of another size": (np.zeros((24, 20)), np.zeros((24, 20)), r"needs \(48, 40\)"),
    "reference of another scale": (np.zeros((24, 20)), np.zeros((96, 80)), "magnifies by 2"),
    "fewer reference slices": (np.zeros((3, 24, 20)), np.zeros((2, 48, 40)), "has shape"),
    "four dimensions": (np.zeros((1, 1, 24, 20)), np.zeros((1, 1, 48, 40)), r"expected \(H, W\)"),
    "one dimension": (np.zeros(24), np.zeros(48), r"expected \(H, W\)"),
    "no slices": (np.zeros((0, 24, 20)), np.zeros((0, 48, 40)), r"expected \(H, W\)"),
    "too small": (np.zeros((4, 4)), np.zeros((8, 8)), "at least 16"),
    "NaN": (np.full((24, 20), np.nan), np.zeros((48, 40)), "480 values that are NaN"),
    "beyond float32": (
        np.full((24, 20), 1e39),
        np.zeros((48, 40)),
        "480 values that are NaN, infinite or above 1e\\+30",
    ),
    "too large to be summed": (np.full((24, 20), 1e31), np.zeros((48, 40)), "480 values"),
    "ragged": ([[1.0, 2.0], [3.0]], np.zeros((48, 40)), "target is no array of numbers"),
    "infinite reference": (np.zeros((24, 20)), np.full((48, 40), np.inf), "reference has 1920 values"),
    "text": (np.full((24, 20), "a"), np.zeros((48, 40)), "dtype"),
    "bool": (np.zeros((24, 20), bool), np.zeros((48, 40)), "dtype bool"),
    "objects": (np.full((24, 20), None), np.zeros((48, 40)), "dtype object"),
    "complex reference": (np.zeros((24, 20)), np.zeros((48, 40), complex), "reference has dtype complex128"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls_say_what_is_wrong_in_one_line(runtime: Runtime, case: str) -> None:
    target, reference, message = BAD_CALLS[case]
    with pytest.raises(InputError, match=message) as error:
        runtime(target, reference)
    assert "\n" not in str(error.value)


def test_prepare_refuses_what_no_target_could_fit(runtime: Runtime) -> None:
    with pytest.raises(InputError, match="multiples of 2"):
        runtime.prepare(np.zeros((41, 40)))


def test_prepared_by_another_model_is_refused(
    runtime: Runtime, make_bundle: Callable[..., Bundle], pair: tuple[Array, Array]
) -> None:
    other = make_bundle(scale=2, affinity="paper")
    with Runtime(other.location) as stranger, pytest.raises(InputError, match="another model"):
        runtime(pair[0], stranger.prepare(pair[1]))


def test_large_slices_are_refused_before_they_take_memory(small_bundle: Path) -> None:
    with Runtime(small_bundle, largest_output=40 * 40) as runtime, pytest.raises(InputError, match="over the limit"):
        runtime(np.zeros((24, 20)), np.zeros((48, 40)))


def test_single_contrast_models_take_no_reference(make_bundle: Callable[..., Bundle]) -> None:
    bundle = make_bundle(scale=2, reference=False)
    with Runtime(bundle.location) as runtime:
        assert runtime(phantom(2, 20, 24)).shape == (2, 40, 48)
        with pytest.raises(InputError, match="takes no reference"):
            runtime(np.zeros((20, 24)), np.zeros((40, 48)))
        with pytest.raises(InputError, match="takes no reference"):
            runtime.prepare(np.zeros((40, 48)))


def test_a_bare_onnx_file_opens(small_bundle: Path, tmp_path: Path, pair: tuple[Array, Array]) -> None:
    for name in ("model.onnx", "weights.bin"):
        shutil.copy(small_bundle / name, tmp_path / name)
    with Runtime(small_bundle, backend="onnxruntime", threads=1) as runtime:
        expected = runtime(*pair)
    with Runtime(tmp_path / "model.onnx", threads=1) as bare:
        assert bare.info.golden_error is None
        assert bare.info.passed_over["native"] == "opens bundles only, not a lone .onnx file"
        assert np.array_equal(bare(*pair), expected)
        assert np.array_equal(bare(pair[0], bare.prepare(pair[1])), expected)


def test_someone_elses_onnx_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(b"\x00\x01 not a protobuf")
    with pytest.raises(BundleError, match=r"other.onnx cannot be loaded"):
        Runtime(tmp_path / "other.onnx")


def test_an_engine_that_misses_the_golden_vector_is_refused(small_bundle: Path, tmp_path: Path) -> None:
    """Planted fault: a golden vector that is 1 % off, in a bundle whose hashes are right."""
    folder = Path(shutil.copytree(small_bundle, tmp_path / "copy"))
    with np.load(folder / GOLDEN) as data:
        golden = Golden(data["target"], data["restored"] * np.float32(1.01), data["reference"])
    before = sha256(folder / GOLDEN)
    golden.save(folder / GOLDEN)
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace(before, sha256(folder / GOLDEN)))
    with pytest.raises(BackendError, match=r"fails the golden-vector check.*9\.\d+e-03"):
        Runtime(folder)


def test_info_and_stats_tell_what_happened(small_bundle: Path, pair: tuple[Array, Array]) -> None:
    with Runtime(small_bundle, backend="onnxruntime") as runtime:
        assert runtime.stats().slices == 0
        assert runtime.stats().p50_ms is None
        runtime(*pair)
        stats, info = runtime.stats(), runtime.info
    assert stats.slices == stats.prepared_slices == 3
    assert stats.p50_ms is not None
    assert stats.p99_ms is not None
    assert 0 < stats.p50_ms <= stats.p99_ms
    assert info.backend == "onnxruntime"
    assert info.provider == "CPUExecutionProvider"
    assert info.golden_error is not None
    assert info.golden_error < 1e-4
    assert info.versions["engine"].startswith("onnxruntime ")
    assert info.peak_memory_mib is not None
    assert 20 < info.peak_memory_mib < 20_000


def test_auto_says_what_it_passed_over(small_bundle: Path) -> None:
    with Runtime(small_bundle) as runtime:
        assert runtime.info.backend == "native"
        assert "CUDAExecutionProvider" in runtime.info.passed_over["onnxruntime-cuda"]


def test_a_closed_runtime_says_so(small_bundle: Path, pair: tuple[Array, Array]) -> None:
    runtime = Runtime(small_bundle)
    runtime.close()
    runtime.close()
    with pytest.raises(BackendError, match="closed"):
        runtime(*pair)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backend": "abacus"}, InputError, "choose one of auto"),
        ({"backend": "onnxruntime-cuda"}, BackendError, "cannot run here"),
        ({"consistency": "some"}, InputError, "choose one of"),
        ({"threads": 0}, InputError, "at least 1"),
    ],
)
def test_bad_options(small_bundle: Path, options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Runtime(small_bundle, **options)  # type: ignore[arg-type]
