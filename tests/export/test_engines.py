"""Plans that NVIDIA's own TensorRT-RTX builder makes without a GPU, and what it takes to refuse the impossible.

TensorRT itself cannot be installed without its GPU libraries: what this SDK asks of it is recorded in real builds with
TensorRT-RTX, whose interface is the same, and compared with the bindings of two versions of TensorRT.
"""

import json
import shutil
import struct
import subprocess
import sys
import sysconfig
import threading
import types
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from minet_sdk.backends.tensorrt_builder import BuiltPlan, engine_from_onnx
from minet_sdk.backends.tensorrt_log import logger_of
from minet_sdk.bundle import Bundle, Golden, Manifest, Precision, open_bundle
from minet_sdk.engines import bundle_folder, find, numbers, store
from minet_sdk.errors import BackendError, ExportError, InputError
from minet_sdk.export.bundle import write_bundle
from minet_sdk.export.engines import Outcome, build_engines, good_for, obstacle
from minet_sdk.export.onnx_from_torch import onnx_from_torch
from minet_sdk.export.plugin_graph import rewrite
from minet_sdk.export.quantise import quantised_layers
from minet_sdk.gpus import Capability, Gpu, lacks_precision
from minet_sdk.profiles import Profile, covering, profile_set
from minet_sdk.training.model import MINet

trt: Any = pytest.importorskip("tensorrt_rtx", reason="pip install 'minet-sdk[tensorrt-rtx]'")

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
STATIC = Profile((1, 40, 32), (1, 40, 32), (1, 40, 32))
DYNAMIC = Profile((1, 16, 16), (1, 40, 32), (3, 64, 64))
CAPABILITIES: tuple[Capability, ...] = ((7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1))
STUBS = Path(__file__).parent.parent / "kernels" / "stub_tensorrt"
BINDINGS = Path(sys.prefix) / "tensorrt"
VERSIONS = ("10.16.1.11", "11.4.0.106")


@pytest.fixture(autouse=True)
def without_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on every machine without a GPU; the tests are to say the same where TensorRT is installed."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)


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
def write(
    small_network: Callable[..., MINet],
    make_manifest: Callable[..., Manifest],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Bundle]:
    """Write the bundle of a small network; its validation, which takes long, has tests of its own."""

    def make(precision: Precision, **fields: object) -> Bundle:
        network = small_network(**{"stages": 1, **fields})
        manifest = make_manifest(network, precision)
        if network.config.integration != "affinity":
            manifest = replace(manifest, affinity="none")
        folder = tmp_path_factory.mktemp("bundle") / "random"
        folder.mkdir()
        image = np.ones((1, 1, 24, 20), np.float32)
        double = image.repeat(2, axis=2).repeat(2, axis=3)
        write_bundle(network, manifest, Golden(image, double, double if manifest.needs_reference else None), folder)
        return open_bundle(folder)

    return make


@pytest.fixture(scope="module")
def made(write: Callable[..., Bundle]) -> Bundle:
    """A float16 bundle; tests copy it before they change it."""
    return write("fp16")


@pytest.fixture(scope="module")
def graph_of(
    made: Bundle,
    small_network: Callable[..., MINet],
    make_manifest: Callable[..., Manifest],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[Precision], Path]:
    """The target graph of the same network in a precision, made once."""
    network = small_network(stages=1)
    graphs: dict[Precision, Path] = {"fp16": made.graph("target")}

    def make(precision: Precision) -> Path:
        if precision not in graphs:
            manifest = make_manifest(network, precision)
            if precision in ("int8", "fp8"):
                manifest = replace(manifest, quantisation={"scales": dict.fromkeys(quantised_layers(network), 0.05)})
            graphs[precision] = tmp_path_factory.mktemp(precision) / "target.onnx"
            onnx.save(onnx_from_torch(network, "target", manifest), graphs[precision])
        return graphs[precision]

    return make


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
            "reference_features": ("float32", (-1, 2, 16, -1, -1)),
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


def test_float32_is_float32_unless_tf32_is_asked_for(graph_of: Callable[[Precision], Path]) -> None:
    graph = graph_of("fp32")
    flags: list[int] = []

    def note(config: Any) -> None:
        flags.append(config.flags)

    recording = Recording(trt, on_build=note)
    for tf32 in (False, True):
        assert engine_from_onnx(recording, graph, [STATIC], tf32=tf32).settings == (("tf32",) if tf32 else ())
    bit = 1 << int(trt.BuilderFlag.TF32)
    assert [bool(value & bit) for value in flags] == [False, True]
    assert all(value & (1 << int(trt.BuilderFlag.STRICT_NANS)) for value in flags)


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
    with pytest.raises(BackendError, match=r"lone\.onnx: .*initializer: reference_head"):
        engine_from_onnx(trt, tmp_path / "lone.onnx", [STATIC])


def test_profiles_that_no_gpu_holds_are_refused_before_the_builder_reserves_memory(made: Bundle) -> None:
    huge = Profile((1, 16, 16), (1, 40, 32), (256, 4096, 4096))
    recording = Recording(trt)
    with pytest.raises(BackendError, match=r"with targets of 256x4096x4096 the tensor reference has 17179869184 elem"):
        engine_from_onnx(recording, made.graph("reference"), [DYNAMIC, huge])
    assert not any(name == "build_serialized_network" for _, name in recording.used)


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


def test_options_of_the_other_engine_are_refused(made: Bundle) -> None:
    graph = made.graph("reference")
    with pytest.raises(InputError, match="are options of tensorrt"):
        engine_from_onnx(trt, graph, [STATIC], version_compatible=True)
    with pytest.raises(InputError, match="are options of tensorrt"):
        engine_from_onnx(trt, graph, [STATIC], hardware_compatible=True)
    with pytest.raises(InputError, match="for tensorrt-rtx only"):
        engine_from_onnx(as_tensorrt(Recording(trt)), graph, [STATIC], compute_capabilities=[(8, 9)])


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


def test_a_failed_build_keeps_no_builder(made: Bundle) -> None:
    """One that is freed by a garbage collection in a call of the logger waits for a lock that TensorRT holds."""
    recording = Recording(trt)
    with pytest.raises(BackendError) as caught:
        engine_from_onnx(recording, made.graph("target"), [STATIC], compute_capabilities=[(9, 0)])
    assert {"Builder", "INetworkDefinition", "OnnxParser", "IBuilderConfig"} <= {kind for kind, _ in recording.made}
    assert [kind for kind, reference in recording.made if reference() is not None] == []
    assert "compute capability 9.0" in str(caught.value), "the error is still held"


def test_messages_go_to_the_thread_that_collects() -> None:
    logger = logger_of(trt)
    assert logger_of(Recording(trt)) is logger
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


# A bundle's plans.


@pytest.fixture
def bundle(made: Bundle, tmp_path: Path) -> Bundle:
    """A float16 bundle of its own."""
    return open_bundle(shutil.copytree(made.location, tmp_path / "random"))


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


def test_single_contrast_models_have_one_graph(write: Callable[..., Bundle]) -> None:
    bundle = write("fp16", reference=False, integration="none", attention=False)
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


# What is asked of TensorRT.


class Recording:
    """Stands before TensorRT-RTX's module or one of its objects and notes which members are used, and how."""

    def __init__(
        self,
        subject: Any,
        used: dict[tuple[str, str], str] | None = None,
        on_build: Callable[[Any], None] | None = None,
    ) -> None:
        self.pretend(subject=subject, used={} if used is None else used, on_build=on_build, made=[])

    def pretend(self, **members: Any) -> None:
        """Have members of its own, which are not noted."""
        self.__dict__.update(members)

    def _note(self, name: str) -> None:
        kind = type(self.subject)
        if isinstance(self.subject, types.ModuleType):
            self.used["", name] = ""
        elif isinstance(self.subject, type):
            self.used[self.subject.__name__, name] = ""
        else:
            self.used[kind.__name__, name] = (getattr(kind, name).__doc__ or "").split("\n")[0]

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.subject, name)
        if name.startswith("__"):
            return value
        self._note(name)
        if isinstance(value, type):
            if issubclass(value, trt.ILogger):
                return value
            recording = Recording(value, self.used, self.on_build)
            recording.pretend(made=self.made)
            return recording
        if not callable(value):
            return value

        def call(*arguments: Any) -> Any:
            if name == "build_serialized_network" and self.on_build is not None:
                self.on_build(arguments[1].subject)
            result = value(*(a.subject if isinstance(a, Recording) else a for a in arguments))
            ours = type(result).__module__.startswith("tensorrt_rtx") and not hasattr(type(result), "__members__")
            if not ours or isinstance(result, trt.IHostMemory | trt.Dims):
                return result
            return self._follow(result)

        return call

    def _follow(self, made: Any) -> "Recording":
        """Note what is made with it too, and whether it lives."""
        self.made.append((type(made).__name__, weakref.ref(made)))
        recording = Recording(made, self.used, self.on_build)
        recording.pretend(made=self.made)
        return recording

    def __call__(self, *arguments: Any) -> Any:
        return self._follow(self.subject(*(a.subject if isinstance(a, Recording) else a for a in arguments)))

    def __setattr__(self, name: str, value: Any) -> None:
        self._note(name)
        setattr(self.subject, name, value)


def as_tensorrt(recording: Recording, version: str = VERSIONS[0]) -> Recording:
    """The recording under TensorRT's name, so that the builder takes the way of TensorRT."""
    recording.pretend(__name__="tensorrt", __version__=version)
    return recording


COMPARE = """
import json, re, sys
sys.path.insert(0, str(sys.argv[1]))
import ctypes
for library in sys.argv[2:]:
    ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
import tensorrt_bindings as trt
problems = []
for kind, name, signature in json.load(sys.stdin):
    owner = getattr(trt, kind, None) if kind else trt
    if not hasattr(owner, name):
        problems.append(f"{kind}.{name} is missing")
    elif signature.replace("tensorrt_rtx", "tensorrt") not in (getattr(owner, name).__doc__ or ""):
        problems.append(f"{kind}.{name} is not {signature}")
print(json.dumps({"version": trt.__version__, "problems": problems}))
"""

START = """
import ctypes, sys
from pathlib import Path
sys.path.insert(0, str(sys.argv[1]))
for library in sys.argv[3:]:
    ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
import tensorrt_bindings as bindings
sys.modules["tensorrt"] = bindings
from minet_sdk.bundle import open_bundle
from minet_sdk.cuda.driver import Driver, Gpu
from minet_sdk.export import engines
print(engines.obstacle("tensorrt", "fp16"))
engines.probe = lambda: Driver("", (13, 0), (Gpu(0, "NVIDIA L4", (8, 9)),))
print(engines.obstacle("tensorrt", "fp16"))
print(*engines.build_engines(open_bundle(sys.argv[2]), ["tensorrt"], graphs=["reference"]))
"""


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Libraries that let NVIDIA's bindings load, by version: they hold the few symbols and nothing behind them."""
    folder = tmp_path_factory.mktemp("stubs")
    made: dict[str, list[Path]] = {}
    for version in VERSIONS:
        major = version.split(".")[0]
        for source, library in (("infer", "nvinfer"), ("parser", "nvonnxparser"), ("plugin", "nvinfer_plugin")):
            name = f"lib{library}.so.{major}"
            command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", folder / name, STUBS / f"{source}.c"]
            subprocess.run([str(part) for part in command], check=True, capture_output=True)
            made.setdefault(version, []).append(folder / name)
    return made


@pytest.fixture(scope="module")
def asked(made: Bundle, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, str]]:
    """Every member of TensorRT's interface that the builder uses, with the signature that TensorRT-RTX declares."""
    used: dict[tuple[str, str], str] = {}
    graph, cache = made.graph("reference"), tmp_path_factory.mktemp("timings") / "folder" / "timings.cache"
    recording = as_tensorrt(Recording(trt, used))
    for step in ("write the cache", "read it"):
        with pytest.warns(DeprecationWarning, match="Timing cache operations are no-ops"):
            built = engine_from_onnx(recording, graph, [STATIC, DYNAMIC], hardware_compatible=True, timing_cache=cache)
        assert cache.stat().st_size > 0, step
        assert not [remark for remark in built.remarks if "cannot be written" in remark]
    with pytest.warns(DeprecationWarning, match="Timing cache operations are no-ops"):
        built = engine_from_onnx(recording, graph, [STATIC], hardware_compatible=True, timing_cache=cache / "in a file")
    assert "in a file cannot be written" in built.remarks[-1]
    assert (built.engine, built.engine_version) == ("tensorrt", VERSIONS[0])
    assert built.settings == ("hardware-compatible",)
    with pytest.raises(BackendError, match="libnvinfer_lean"):
        engine_from_onnx(recording, graph, [STATIC], version_compatible=True)
    with pytest.raises(BackendError, match="initializer"):
        engine_from_onnx(recording, graph.read_bytes(), [STATIC])
    engine_from_onnx(recording, graph.read_bytes(), [STATIC], weights_beside=graph, tf32=True)
    names = {name for _, name in used}
    assert {"build_serialized_network", "add_optimization_profile", "set_timing_cache", "get_error"} <= names
    return [(kind, name, signature) for (kind, name), signature in sorted(used.items())]


def compare(asked: list[tuple[str, str, str]], version: str, libraries: list[Path]) -> list[str]:
    command = [sys.executable, "-c", COMPARE, str(BINDINGS / version), *map(str, libraries)]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, timeout=60, check=True)
    answer = json.loads(done.stdout)
    assert answer["version"] == version
    return answer["problems"]


needs_bindings = pytest.mark.skipif(
    not all((BINDINGS / version).is_dir() for version in VERSIONS) or not sysconfig.get_platform().startswith("linux"),
    reason=f"the bindings of TensorRT are not in {BINDINGS}: make test installs them there",
)


@needs_bindings
@pytest.mark.parametrize("version", VERSIONS)
def test_tensorrt_has_all_that_the_builder_asks_of_it(
    asked: list[tuple[str, str, str]], stubs: dict[str, list[Path]], version: str
) -> None:
    assert compare(asked, version, stubs[version]) == []


@needs_bindings
def test_what_tensorrt_lacks_would_be_noticed(stubs: dict[str, list[Path]]) -> None:
    planted = [
        ("Builder", "build_cuda_engine", ""),
        ("IBuilderConfig", "set_flag", "set_flag(self: anything, flag: str) -> None"),
        ("", "ComputeCapability", ""),
    ]
    assert len(compare(planted, VERSIONS[1], stubs[VERSIONS[1]])) == len(planted)


@needs_bindings
@pytest.mark.parametrize("version", VERSIONS)
def test_tensorrt_that_does_not_start_is_one_line(bundle: Bundle, stubs: dict[str, list[Path]], version: str) -> None:
    libraries = map(str, stubs[version])
    command = [sys.executable, "-c", START, str(BINDINGS / version), str(bundle.location), *libraries]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    without_gpu, with_gpu, outcome = done.stdout.splitlines()
    assert without_gpu.startswith("its builder measures kernels on the GPU that the plan is for: ")
    assert with_gpu == ""
    assert "status='failed'" in outcome
    assert "cannot make a builder here" in outcome
