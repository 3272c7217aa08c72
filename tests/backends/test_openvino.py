"""OpenVINO as a runner: real bundles against float64, many threads, and what is refused instead of being rounded."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from minet_sdk import Runtime
from minet_sdk.backends import BACKENDS, Need, choose, openvino, openvino_graph
from minet_sdk.backends.base import RunnerOptions
from minet_sdk.backends.openvino import MOST_SIZES, OpenVinoRunner, lacking
from minet_sdk.bundle import Bundle, Precision, open_bundle
from minet_sdk.errors import BackendError
from minet_sdk.requirements import require
from minet_sdk.training.checkpoint import load_checkpoint
from minet_sdk.training.float64 import in_float64

pytestmark = [pytest.mark.long, pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")]

Array = npt.NDArray[np.float32]
MakeBundle = Callable[..., Bundle]
(SPEC,) = (spec for spec in BACKENDS if spec.name == "openvino")


def runner(model: Bundle, threads: int = 1) -> OpenVinoRunner:
    made = OpenVinoRunner(SPEC.provider, SPEC.precisions, RunnerOptions(threads=threads))
    made.activate(model)
    return made


def batch(count: int, height: int, width: int, seed: int = 1) -> tuple[Array, Array]:
    """Normalised images with a bright object, as (N, 1, H, W) and (N, 1, 2H, 2W)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : 2j * height, -1 : 1 : 2j * width]
    reference = np.exp(-((x**2 + y**2) ** 2) * 3) + 0.05 * rng.standard_normal((count, 1, 2 * height, 2 * width))
    return reference[:, :, ::2, ::2].astype(np.float32) * 0.8, reference.astype(np.float32)


def apart(found: npt.NDArray[Any], exact: npt.NDArray[Any]) -> float:
    return float(np.sqrt(np.mean((found - exact) ** 2.0) / np.mean(exact**2.0)))


def test_the_bundled_model_against_float64() -> None:
    bundle = open_bundle("minet-x2")
    exact = in_float64(load_checkpoint(bundle.location / "checkpoint.safetensors").model)
    engine = runner(bundle)
    for height, width in ((24, 20), (17, 23), (33, 16)):
        target, reference = batch(1, height, width)
        with torch.no_grad():
            features = exact.encode_reference(torch.from_numpy(reference).double())
            expected = exact.restore(torch.from_numpy(target).double(), features).numpy()
        assert apart(engine.restore(target, engine.encode(reference)), expected) < 1e-6
    assert engine.details()["computed_in"].keys() == {"reference", "target"}
    assert all(set(formats) == {"f32"} for formats in engine.details()["computed_in"].values())
    assert engine.details()["folded"]
    assert engine.version.startswith("openvino 20")


@pytest.mark.parametrize("changes", [{"affinity": "paper"}, {"reference": False}, {}, {"grid": "target"}])
def test_random_models_against_float64(
    changes: dict[str, Any], make_bundle: MakeBundle, small_network: Callable[..., Any]
) -> None:
    bundle, exact = make_bundle(scale=2, **changes), in_float64(small_network(scale=2, **changes))
    target, reference = batch(3, 19, 16)
    with torch.no_grad():
        guide = torch.from_numpy(reference).double()
        features = exact.encode_reference(guide) if bundle.manifest.needs_reference else None
        expected = exact.restore(torch.from_numpy(target).double(), features).numpy()
    engine = runner(bundle)
    ours = engine.encode(reference) if bundle.manifest.needs_reference else None
    assert apart(engine.restore(target, ours), expected) < 3e-6


def test_a_batch_is_its_slices_and_a_prepared_reference_is_the_reference(small_bundle: Path) -> None:
    target, reference = batch(3, 20, 18)
    engine = runner(open_bundle(small_bundle))
    together = engine.restore(target, engine.encode(reference))
    for index in range(3):
        one = slice(index, index + 1)
        np.testing.assert_array_equal(engine.restore(target[one], engine.encode(reference[one])), together[one])
    with Runtime(small_bundle, backend="openvino", threads=1) as runtime:
        prepared = runtime.prepare(reference[:, 0])
        assert prepared.nbytes == 3 * 3 * 16 * 40 * 36 * 4
        np.testing.assert_array_equal(runtime(target[:, 0], prepared), runtime(target[:, 0], reference[:, 0]))
        assert runtime.info.execution["threads"] == 1


def test_a_target_waits_for_no_compilation(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prepared reference has brought the target's graph of its size with it."""
    target, reference = batch(1, 22, 16)
    engine = runner(open_bundle(small_bundle))
    features = engine.encode(reference)
    monkeypatch.setattr(engine, "_compile", None)
    engine.restore(target, features)


def test_bits_repeat_and_many_threads_share_one_runner(small_bundle: Path) -> None:
    """More sizes at a time than are kept compiled."""
    bundle = open_bundle(small_bundle)
    first, second = runner(bundle, threads=2), runner(bundle, threads=2)
    cases = [batch(1, 16 + 2 * index, 18, seed=index) for index in range(MOST_SIZES + 1)]
    expected = [first.restore(target, first.encode(reference)) for target, reference in cases]
    for (target, reference), before in zip(cases, expected, strict=True):
        np.testing.assert_array_equal(second.restore(target, second.encode(reference)), before)
    started = threading.Barrier(4)

    def restore(caller: int) -> None:
        started.wait()
        for index in range(len(cases)):
            target, reference = cases[(index + caller) % len(cases)]
            restored = first.restore(target, first.encode(reference))
            np.testing.assert_array_equal(restored, expected[(index + caller) % len(cases)])

    with ThreadPoolExecutor(4) as callers:
        list(callers.map(restore, range(4)))
    assert len(first._compiled) == 2 * MOST_SIZES  # pyright: ignore[reportPrivateUsage] # sizes of two graphs


def test_a_closed_runner_says_so(small_bundle: Path) -> None:
    engine = runner(open_bundle(small_bundle))
    target, reference = batch(1, 16, 16)
    features = engine.encode(reference)
    engine.deactivate()
    engine.deactivate()
    with pytest.raises(BackendError, match="closed"):
        engine.restore(target, features)
    with pytest.raises(BackendError, match="closed"):
        engine._restore_impl(target, features)  # pyright: ignore[reportPrivateUsage] # closed while a call was under way


@pytest.mark.parametrize(("precision", "formats"), [("bf16", {"bf16"}), ("int8", {"i8", "u8"})])
def test_narrow_precisions_run_as_such_and_hold_their_gate(
    precision: Precision, formats: set[str], make_bundle: MakeBundle
) -> None:
    if lacking(precision):
        pytest.skip(lacking(precision))
    bundle = make_bundle(precision)
    with Runtime(bundle.location, threads=1) as runtime:
        info = runtime.info
    assert (info.backend, info.precision) == ("openvino", precision)
    assert info.golden_error is not None
    assert 0 < info.golden_error < bundle.manifest.golden_tolerance
    for computed in info.execution["computed_in"].values():
        assert set(computed) & formats
        assert set(computed) <= {"f32", *formats}


def test_eight_bits_where_openvino_is_wrong_are_caught(
    monkeypatch: pytest.MonkeyPatch, make_bundle: MakeBundle
) -> None:
    """Planted fault, and a real one: without the rewriting, OpenVINO's 8-bit fusions are far off."""
    if lacking("int8"):
        pytest.skip(lacking("int8"))
    location = make_bundle("int8").location

    def untouched(model: Any) -> int:
        return 0

    monkeypatch.setattr(openvino_graph, "widen_fusions", untouched)
    with pytest.raises(BackendError, match=r"openvino fails the golden-vector check of random: relative error"):
        Runtime(location, backend="openvino", threads=1)


def test_a_processor_without_the_instructions_is_told(make_bundle: MakeBundle) -> None:
    """A process of its own, in which OpenVINO's kernels are held to AVX2: it computes bfloat16 in float32, unasked."""
    code = (
        "import sys; from minet_sdk import Runtime\n"
        "try: Runtime(sys.argv[1], backend='openvino')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    command = [sys.executable, "-c", code, str(make_bundle("bf16").location)]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert said.startswith("BackendError ")
    assert "this processor " in said
    assert said.endswith("open a bundle in fp32\n")


def test_missing_instructions_are_found_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Core:
        def get_property(self, *_: str) -> list[str]:
            return ["FP32"]

    monkeypatch.setattr(openvino_graph.openvino(), "Core", Core)
    assert lacking("fp32") == lacking("fp16") == lacking(None) == ""
    cases: list[tuple[Precision, str]] = [("bf16", "no bfloat16 instructions"), ("int8", "no 8-bit instructions")]
    for precision, words in cases:
        with pytest.raises(BackendError, match=f"backend openvino cannot run here: this processor has {words}"):
            choose("openvino", Need(precision))


def test_precisions_that_it_does_not_run_are_refused(small_bundle: Path) -> None:
    with pytest.raises(BackendError, match="backend openvino cannot run here: runs fp32, fp16, bf16, int8, not fp8"):
        choose("openvino", Need("fp8"))
    with pytest.raises(BackendError, match="backend openvino cannot run here: opens bundles only"):
        choose("openvino", Need(bare=True))
    engine = OpenVinoRunner("CPU", ("bf16",), RunnerOptions())
    with pytest.raises(BackendError, match="model random is fp32; CPU runs bf16 only"):
        engine.activate(open_bundle(small_bundle))
    with pytest.raises(BackendError, match=r"not a lone \.onnx file, which has no golden vector"):
        engine.activate(small_bundle / "model.onnx")


def test_what_openvino_refuses_is_one_line(small_bundle: Path) -> None:
    target, reference = batch(1, 16, 16)
    engine = runner(open_bundle(small_bundle))
    features = engine.encode(reference)
    with pytest.raises(BackendError, match=r"openvino failed in target\.onnx: ") as error:
        engine.restore(target, [features[0][:, :1]])
    assert "\n" not in str(error.value)


def test_the_import_reports_to_nobody(tmp_path: Path) -> None:
    """OpenVINO by itself loads the package that tells its maker; the opt-out makes that harmless for the comparison."""
    consent = tmp_path / "intel" / "openvino_telemetry"
    consent.parent.mkdir()
    consent.write_text("0")
    loaded = "import sys; print('openvino_telemetry' in sys.modules, 'openvino' in sys.modules)"
    ours = "from minet_sdk.requirements import require; require('openvino', 'a test'); "

    def said(code: str) -> str:
        environment = {**os.environ, "HOME": str(tmp_path), "CI": "true"}
        command = [sys.executable, "-W", "error", "-c", code]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    assert said(ours + loaded) == "False True"
    assert said("import openvino; " + loaded) == "True True"


def test_an_import_leaves_the_hidden_package_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    marker = type(sys)("openvino_telemetry")
    monkeypatch.setitem(sys.modules, "openvino_telemetry", marker)
    monkeypatch.delitem(sys.modules, "openvino")
    monkeypatch.setattr("importlib.import_module", lambda name: sys.modules["openvino_telemetry"])  # type: ignore[arg-type]
    assert require("openvino", "a test") is None
    assert sys.modules["openvino_telemetry"] is marker


def test_formats_are_checked_against_what_openvino_says(
    make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted fault: a processor that widens everything."""
    if lacking("bf16"):
        pytest.skip(lacking("bf16"))
    bundle = make_bundle("bf16")

    def widened(compiled: Any) -> dict[str, int]:
        return {"f32": 12}

    monkeypatch.setattr(openvino, "computed_in", widened)
    message = r"asked for bf16 and runs the convolutions of reference\.onnx 12 in f32: .* open a bundle in fp32"
    with pytest.raises(BackendError, match=message):
        runner(bundle).encode(batch(1, 16, 16)[1])
