"""Plans that NVIDIA's own TensorRT-RTX builder makes without a GPU, and what it takes to refuse the impossible."""

import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from minet_sdk.backends.tensorrt_builder import BuiltPlan, engine_from_onnx
from minet_sdk.backends.tensorrt_log import logger_of
from minet_sdk.bundle import Bundle, Precision
from minet_sdk.engines import numbers
from minet_sdk.errors import BackendError
from minet_sdk.export.plugin_graph import rewrite
from minet_sdk.gpus import Capability, lacks_precision
from minet_sdk.profiles import Profile, profile_set

pytestmark = pytest.mark.long

trt: Any = pytest.importorskip("tensorrt_rtx", reason="pip install 'minet-sdk[tensorrt-rtx]'")

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
STATIC = Profile((1, 40, 32), (1, 40, 32), (1, 40, 32))
DYNAMIC = Profile((1, 16, 16), (1, 40, 32), (3, 64, 64))
CAPABILITIES: tuple[Capability, ...] = ((7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1))


def header(plan: bytes) -> tuple[bytes, int, tuple[int, ...], int]:
    """Magic, length, version and the bits of the targeted capabilities, as observed in plans of TensorRT-RTX 1.7."""
    magic, length = struct.unpack_from("<4s12xQ", plan)
    return magic, length, tuple(plan[24:28]), plan[32]


def check_plan(built: BuiltPlan) -> None:
    """What can be said of a plan without a driver: its header, by NVIDIA's runtime and by hand."""
    magic, length, version, _ = header(built.data)
    assert magic == b"vtrt"
    assert length == len(built.data)
    assert version == numbers(built.engine_version)
    assert not malformed(built.data)
    assert built.seconds > 0
    assert built.activation_bytes is not None
    assert built.activation_bytes > 0


def malformed(plan: bytes) -> bool:
    """Whether NVIDIA's runtime refuses a plan by its header; it needs no driver for that."""
    _, diagnosis = trt.Runtime(trt.Logger(trt.Logger.INTERNAL_ERROR)).get_engine_validity(plan)
    return bool(diagnosis & int(trt.EngineInvalidityDiagnostics.MALFORMED_ENGINE))


def test_nvidias_runtime_knows_a_plan_from_something_else() -> None:
    assert malformed(b"no plan at all " * 100)


@pytest.fixture(scope="module")
def graph_of(make_bundle: Callable[..., Bundle]) -> Callable[[Precision], Path]:
    """The target graph of a small network in a precision."""
    return lambda precision: make_bundle(precision).graph("target")


@pytest.fixture(scope="module")
def made(make_bundle: Callable[..., Bundle]) -> Bundle:
    """A float16 bundle; nobody changes it."""
    return make_bundle("fp16")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_builds_static_and_dynamic(graph_of: Callable[[Precision], Path], precision: Precision) -> None:
    for profiles in ((STATIC,), (DYNAMIC,), (STATIC, DYNAMIC)):
        built = engine_from_onnx(trt, graph_of(precision), profiles)
        check_plan(built)
        assert built.profiles == profiles
        expected = (
            {"(foreignNode) Converting conv activation scales to fp32."} if precision in ("int8", "fp8") else set()
        )
        assert set(built.remarks) <= expected | {text.replace("activation", "weight") for text in expected}
        inputs = {tensor.name: (tensor.dtype, tensor.shape) for tensor in built.tensors if tensor.mode == "input"}
        assert inputs == {
            "target": ("float32", (-1, 1, -1, -1)),
            "reference_features": ("float32", (-1, 3, 16, -1, -1)),
        }
        assert [tensor.name for tensor in built.tensors if tensor.mode == "output"] == ["restored"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_capability_builds_or_is_known_not_to(
    graph_of: Callable[[Precision], Path], precision: Precision
) -> None:
    """NVIDIA's builder is the reference for the table of what GPUs lack."""
    graph = graph_of(precision)
    able = [c for c in CAPABILITIES[1:] if not lacks_precision(precision, [c])]
    bits: set[int] = set()
    for capability in CAPABILITIES[1:]:
        if capability in able:
            built = engine_from_onnx(trt, graph, [STATIC], compute_capabilities=[capability])
            check_plan(built)
            bits.add(header(built.data)[-1])
        else:
            with pytest.raises(BackendError, match=rf"Cannot compile for target\(s\) sm{capability[0]}{capability[1]}"):
                engine_from_onnx(trt, graph, [STATIC], compute_capabilities=[capability])
    assert len(bits) == len(able)
    together = engine_from_onnx(trt, graph, [STATIC], compute_capabilities=able[::-1])
    assert header(together.data)[-1] == sum(bits)
    assert together.capabilities == tuple(able)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_turing_cannot_take_the_integration(graph_of: Callable[[Precision], Path], precision: Precision) -> None:
    """TensorRT-RTX has no float32 product for these GPUs, and the Gram matrix is one in every precision."""
    reason = "FP32 GEMM is not supported" if not lacks_precision(precision, [(7, 5)]) else "HW-specific datatypes"
    with pytest.raises(BackendError, match=reason):
        engine_from_onnx(trt, graph_of(precision), [STATIC], compute_capabilities=[(7, 5)])


def test_the_default_targets_are_ampere_and_newer(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((16, 16, 3, 3), np.float16), "w")
    graph = save(tmp_path / "conv.onnx", [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])], [weight])
    turing = header(engine_from_onnx(trt, graph, [], compute_capabilities=[(7, 5)]).data)[-1]
    rest = header(engine_from_onnx(trt, graph, [], compute_capabilities=CAPABILITIES[1:]).data)[-1]
    default = header(engine_from_onnx(trt, graph, []).data)[-1]
    assert default & turing == 0
    assert default & rest == rest


def test_hopper_is_no_target(made: Bundle) -> None:
    with pytest.raises(BackendError, match=r"for compute capability 9\.0: choose of 7\.5, 8\.0, 8\.6, 8\.9, 12\.0, 12"):
        engine_from_onnx(trt, made.graph("reference"), [STATIC], compute_capabilities=[(9, 0)])


def test_clinical_profiles_build_and_the_log_tells_their_memory(made: Bundle) -> None:
    graph = made.graph("reference")
    needs = [engine_from_onnx(trt, graph, profile_set(name, 2)).activation_bytes or 0 for name in ("brain", "all")]
    assert needs[1] / needs[0] == pytest.approx((640 * 640) / (512 * 512), rel=0.1)


def test_graphs_with_the_kernels_build_from_bytes(made: Bundle) -> None:
    """TensorRT-RTX inlines the kernels' ONNX bodies: what is tested is the path of bytes with weights elsewhere."""
    path = made.graph("target")
    for route in ("mix", "fold"):
        model = rewrite(onnx.load_model(path, load_external_data=False), route=route)
        data = model.SerializeToString()
        check_plan(engine_from_onnx(trt, data, [STATIC], weights_beside=path))
        with pytest.raises(BackendError, match=r"refuses the graph: .*initializer"):
            engine_from_onnx(trt, data, [STATIC])
    with pytest.raises(BackendError, match=r"takes 1 slice at once, the profile asks for 3"):
        engine_from_onnx(trt, data, [DYNAMIC], weights_beside=path)


# What cannot be built.


def save(path: Path, nodes: list[Any], initialisers: list[Any] = [], shape: list[Any] = [1, 16, 32, 32]) -> Path:  # noqa: B006 # not changed
    """A graph from x to y, both float16."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT16, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT16, None)
    graph = helper.make_graph(nodes, "graph", [x], [y], initialisers)
    opsets = [helper.make_opsetid("", 19), helper.make_opsetid("nowhere", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def test_a_builder_that_gives_nothing_becomes_the_cause_in_its_log(tmp_path: Path) -> None:
    scale = numpy_helper.from_array(np.array(0.05, np.float16), "scale")
    zero = helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, [], [0])
    weight = numpy_helper.from_array(np.ones((16, 16, 3, 3), np.float16), "w")
    nodes = [
        helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{name}_q"], name=f"quantise {name}")
        for name in ("x", "w")
    ] + [
        helper.make_node("DequantizeLinear", [f"{name}_q", "scale", "zero"], [f"{name}_d"], name=f"dequantise {name}")
        for name in ("x", "w")
    ]
    nodes.append(helper.make_node("Conv", ["x_d", "w_d"], ["y"], pads=[1, 1, 1, 1], name="conv"))
    path = save(tmp_path / "fp8.onnx", nodes, [scale, zero, weight])
    check_plan(engine_from_onnx(trt, path, [], compute_capabilities=[(8, 9)]))
    with pytest.raises(BackendError) as caught:
        engine_from_onnx(trt, path, [], compute_capabilities=[(8, 0)])
    assert "fp8.onnx: IBuilder::buildSerializedNetwork" in str(caught.value)
    assert "Cannot compile for target(s) sm80, because the model contains HW-specific datatypes" in str(caught.value)
    assert "/_src/" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    nodes = [helper.make_node("Sin", ["x"], ["a"], name="fine"), helper.make_node("Odd", ["a"], ["y"], name="odd one",
                                                                                 domain="nowhere")]  # fmt: skip
    with pytest.raises(BackendError, match=r"refuses .*odd\.onnx: node odd one \(Odd\): .*Plugin not found"):
        engine_from_onnx(trt, save(tmp_path / "odd.onnx", nodes), [])


def test_files_that_are_no_graphs_are_refused(tmp_path: Path, made: Bundle) -> None:
    with pytest.raises(BackendError, match=r"nothing\.onnx: .*cannot be found"):
        engine_from_onnx(trt, tmp_path / "nothing.onnx", [])
    (tmp_path / "text.onnx").write_text("no graph " * 50)
    with pytest.raises(BackendError, match=r"text\.onnx: .*Failed to parse"):
        engine_from_onnx(trt, tmp_path / "text.onnx", [])
    shutil.copy(made.graph("reference"), tmp_path / "lone.onnx")
    with pytest.raises(BackendError, match=r"lone\.onnx: .*initializer: reference_graph\.reference_head"):
        engine_from_onnx(trt, tmp_path / "lone.onnx", [STATIC])


def test_a_graph_of_any_size_needs_a_profile(made: Bundle) -> None:
    with pytest.raises(BackendError, match="takes targets of any size: say with a profile"):
        engine_from_onnx(trt, made.graph("reference"), [])


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ("Z", "axis 2 of z is named 'Z'"),
        ("3*H", "cannot build .*kOPT values for profile 0 violate shape constraints"),
        # Of this the builder only warns, and makes a plan that fails at its first use.
        ("2*W", "in these profiles: .*not self-consistent"),
    ],
)
def test_axes_that_contradict_are_refused(tmp_path: Path, axis: str, message: str) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, "H", "W"])
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 1, axis, "W"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("Concat", ["x", "x"], ["xx"], axis=2),
        helper.make_node("Concat", ["xx", "z"], ["y"], axis=1),
    ]
    graph = helper.make_graph(nodes, "graph", [x, z], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "a.onnx")
    with pytest.raises(BackendError, match=message):
        engine_from_onnx(trt, tmp_path / "a.onnx", [Profile((1, 16, 16), (1, 32, 32), (1, 64, 48))])


def test_the_cause_arrives_while_a_runtime_lives(made: Bundle) -> None:
    """TensorRT ignores every logger but the first, so that builders and runtimes have to share one."""
    graph = made.graph("target")
    runtime = trt.Runtime(logger_of(trt))
    with pytest.raises(BackendError, match=r"FP32 GEMM is not supported"):
        engine_from_onnx(trt, graph, [STATIC], compute_capabilities=[(7, 5)])
    assert engine_from_onnx(trt, graph, [STATIC]).remarks == ()
    del runtime


def test_a_foreign_logger_in_the_same_process_is_remarked_on(made: Bundle) -> None:
    runtime = trt.Runtime(trt.Logger(trt.Logger.INTERNAL_ERROR))
    built = engine_from_onnx(trt, made.graph("reference"), [STATIC])
    assert any("logger passed into createInferBuilder differs" in remark for remark in built.remarks)
    del runtime


def test_messages_go_to_the_thread_that_collects() -> None:
    logger = logger_of(trt)
    assert logger_of(trt) is logger
    with logger.collect() as outer:
        logger.log(trt.ILogger.WARNING, "a remark\n  of two lines In build at /_src/a/b.cpp:12")
        with logger.collect() as inner:
            logger.log(trt.ILogger.VERBOSE, "nothing")
            logger.log(trt.ILogger.ERROR, "[checkMacros.cpp::catchCudaError::250] no driver")
            logger.log(trt.ILogger.ERROR, "the cause")
            thread = threading.Thread(target=logger.log, args=(trt.ILogger.INFO, "of the library's own thread"))
            thread.start()
            thread.join()
    assert (outer.errors, outer.warnings) == ([], ["a remark of two lines"])
    assert inner.errors == ["[checkMacros.cpp::catchCudaError::250] no driver", "the cause"]
    assert inner.cause() == logger.last_error == "the cause"
    assert inner.remarks == outer.remarks == ["of the library's own thread"]


def test_messages_that_nobody_collects_go_to_pythons_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", logger="minet_sdk"):
        logger_of(trt).log(trt.ILogger.ERROR, "out of memory")
        logger_of(trt).log(trt.ILogger.INFO, "loaded")
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "TensorRT: out of memory"),
        ("DEBUG", "TensorRT: loaded"),
    ]


QUIET = """
import sys
from pathlib import Path
import tensorrt_rtx
from minet_sdk.backends.tensorrt_builder import engine_from_onnx
from minet_sdk.profiles import Profile
from minet_sdk.errors import BackendError
threads = len(list(Path("/proc/self/task").glob("*")))
engine_from_onnx(tensorrt_rtx, Path(sys.argv[1]), [Profile((1, 16, 16), (1, 40, 32), (3, 64, 64))])
try:
    engine_from_onnx(tensorrt_rtx, Path(sys.argv[1]), [])
except BackendError:
    pass
assert len(list(Path("/proc/self/task").glob("*"))) == threads
"""


def test_building_prints_nothing_and_leaves_nothing(made: Bundle, tmp_path: Path) -> None:
    places = {name: tmp_path / name for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "work")}
    for place in places.values():
        place.mkdir()
    environment = {name: str(place) for name, place in places.items()} | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", QUIET, str(made.graph("target"))],
        capture_output=True,
        text=True,
        cwd=places["work"],
        env=environment,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not [file for place in places.values() for file in place.rglob("*")]
