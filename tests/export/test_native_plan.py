"""Graphs become native programs that compute what PyTorch computes, fused and prefetched as far as it goes."""

import copy
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from minet_sdk.backends.native import NativeEngine, NativePlan, probe
from minet_sdk.bundle import Manifest
from minet_sdk.errors import ExportError
from minet_sdk.export.native_plan import native_program, write_native_plan
from minet_sdk.export.native_program import Activation, Code, Program, Tensor
from minet_sdk.export.onnx_from_torch import onnx_from_torch
from minet_sdk.export.weights import WEIGHTS, SharedWeights
from minet_sdk.training.model import MINet

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def planned(
    exported: Callable[[str], tuple[MINet, Path]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[MINet, Path]]:
    """A random network and the folder of its graph, weights and plan, made once."""
    made: dict[str, tuple[MINet, Path]] = {}

    def make(kind: str) -> tuple[MINet, Path]:
        if kind not in made:
            network, path = exported(kind)
            graph, folder, weights = onnx.load(path), tmp_path_factory.mktemp("plan"), SharedWeights()
            weights.take_from(graph)
            weights.write(folder)
            (folder / "model.onnx").write_bytes(graph.SerializeToString())
            write_native_plan(folder)
            made[kind] = network, folder
        return made[kind]

    return make


def program_of(folder: Path, scale: int) -> Program:
    graph = onnx.load(folder / "model.onnx", load_external_data=False)
    return native_program(graph, (folder / WEIGHTS).read_bytes(), scale)


@pytest.mark.parametrize("size", [(16, 16), (17, 23)])
def test_network_gives_what_pytorch_gives(
    planned: Callable[[str], tuple[MINet, Path]], kind: str, size: tuple[int, int]
) -> None:
    compare(*planned(kind), size)


@pytest.mark.parametrize("scale", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_network_on_the_targets_grid_gives_what_pytorch_gives(
    small_network: Callable[..., MINet], make_manifest: Callable[..., Manifest], scale: int, tmp_path: Path
) -> None:
    network, weights = small_network(scale=scale, grid="target"), SharedWeights()
    graph = onnx_from_torch(network, make_manifest(network))["model"]
    weights.take_from(graph)
    weights.write(tmp_path)
    (tmp_path / "model.onnx").write_bytes(graph.SerializeToString())
    write_native_plan(tmp_path)
    # Every stage on the target's grid, and the reference's share of them prepared.
    operations = program_of(tmp_path, scale).operations
    assert {tensor.multiple for operation in operations for tensor in operation.inputs[:1]} <= {1, scale}
    assert all(operation.output.multiple == 1 for operation in operations if operation.code is Code.CONVOLUTION1)
    for size in ((16, 16), (13, 21), (1, 7)):
        compare(network, tmp_path, size)


def compare(network: MINet, folder: Path, size: tuple[int, int]) -> None:
    """The engine's result with PyTorch's in float64, in one call and with a prepared reference."""
    if reason := probe():
        pytest.skip(reason)
    scale, rng = network.config.scale, np.random.default_rng(3)
    target = rng.standard_normal(size).astype(np.float32)
    reference = None
    if network.config.reference:
        reference = rng.standard_normal((scale * size[0], scale * size[1])).astype(np.float32)
    double = copy.deepcopy(network).double()
    if network.config.skip == "sinc":
        double.interpolate.float()
    with torch.no_grad():
        guide = None if reference is None else torch.from_numpy(reference)[None, None].double()
        expected = double(torch.from_numpy(target)[None, None].double(), guide).restored[0, 0].numpy()
    engine = NativeEngine(NativePlan(folder), threads=2)
    restored = engine.run(target, reference)
    assert np.sqrt(np.mean((restored - expected) ** 2) / np.mean(expected**2)) < 1e-5
    prepared = engine.restore(target, None if reference is None else engine.prepare(reference))
    np.testing.assert_array_equal(prepared, restored)


def test_operations_are_fused(planned: Callable[[str], tuple[MINet, Path]]) -> None:
    """Two branches of two stages with one block each; nothing is left that only scales or adds."""
    _, folder = planned("cosine x2")
    operations = program_of(folder, 2).operations
    assert Counter(operation.code for operation in operations) == {
        # Upsampling 1 + 1, two branches of 2 stages of 3, attention, reduction.
        Code.CONVOLUTION3: 2 + 2 * 2 * 3 + 2,
        # The halves of two fusions.
        Code.CONVOLUTION1: 4,
        # Two heads, the tail and the interpolation.
        Code.DIRECT: 4,
        Code.DENSE: 2 * 2 * 2,
        Code.GRAM: 2,
        Code.AFFINITY: 1,
    }
    # With one block a group, only the convolution after it reads a scaled sum.
    assert [operation.sum for operation in operations if operation.scale is not None] == [None] * 4
    (attention,) = (
        operation for operation in operations if operation.activation is Activation.SIGMOID and operation.gate
    )
    assert attention.code is Code.CONVOLUTION3
    assert len(attention.residuals) == 2


def test_all_that_the_reference_decides_is_prepared(planned: Callable[[str], tuple[MINet, Path]]) -> None:
    _, folder = planned("cosine x2")
    program = program_of(folder, 2)
    of_target: set[Tensor] = {program.target}
    early: list[Code] = []
    for operation in program.operations:
        if of_target.intersection(operation.uses()):
            of_target.update(operation.makes())
        else:
            early.append(operation.code)
    assert Counter(early)[Code.CONVOLUTION1] == 2
    assert Counter(early)[Code.GRAM] == 1
    assert Counter(early)[Code.CONVOLUTION3] == 2 * 3


def test_reduction_without_integration_convolves_the_reference_early(
    planned: Callable[[str], tuple[MINet, Path]],
) -> None:
    _, folder = planned("reduction x2")
    operations = program_of(folder, 2).operations
    last = max(operations, key=lambda operation: (len(operation.inputs), operations.index(operation)))
    assert (last.code, len(last.inputs)) == (Code.CONVOLUTION3, 2)
    assert len(last.residuals) == 2


def test_plan_holds_no_weights(planned: Callable[[str], tuple[MINet, Path]]) -> None:
    _, folder = planned("cosine x2")
    assert (folder / "native.plan").stat().st_size < 10_000 < (folder / WEIGHTS).stat().st_size


def test_the_same_graph_gives_the_same_plan(planned: Callable[[str], tuple[MINet, Path]]) -> None:
    _, folder = planned("cosine x2")
    before = (folder / "native.plan").read_bytes()
    write_native_plan(folder)
    assert (folder / "native.plan").read_bytes() == before


def test_other_precisions_are_refused(
    small_network: Callable[..., MINet], make_manifest: Callable[..., Manifest], tmp_path: Path
) -> None:
    manifest = make_manifest(small_network(), "fp16")
    model = _graph([helper.make_node("Relu", ["target"], ["restored"])], {})
    helper.set_model_props(model, {"minet.manifest": manifest.to_json()})
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match="is fp16; the native engine runs fp32"):
        write_native_plan(tmp_path)
    assert not (tmp_path / "native.plan").exists()


def _graph(nodes: list[onnx.NodeProto], weights: dict[str, Any], scale: int = 1) -> onnx.ModelProto:
    """A graph from target to restored whose float32 weights lie in weights.bin from the start."""
    target = helper.make_tensor_value_info("target", TensorProto.FLOAT, ["N", 1, "H", "W"])
    restored = helper.make_tensor_value_info("restored", TensorProto.FLOAT, ["N", 1, f"{scale}*H", f"{scale}*W"])
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    return helper.make_model(helper.make_graph(nodes, "graph", [target], [restored], tensors))


def test_another_network_runs_too(tmp_path: Path) -> None:
    """EDSR in small: blocks with a factor, a pixel shuffle, no reference."""
    if reason := probe():
        pytest.skip(reason)
    rng = np.random.default_rng(0)
    weights: dict[str, Any] = {"factor": np.float32(0.1).reshape(())}
    nodes: list[onnx.NodeProto] = []

    def convolution(source: str, result: str, inputs: int, outputs: int) -> None:
        weights[f"{result}_w"] = (rng.standard_normal((outputs, inputs, 3, 3)) / (3 * inputs**0.5)).astype(np.float32)
        weights[f"{result}_b"] = rng.standard_normal(outputs).astype(np.float32)
        nodes.append(helper.make_node("Conv", [source, f"{result}_w", f"{result}_b"], [result], pads=[1] * 4))

    convolution("target", "head", 1, 32)
    current = "head"
    for block in range(2):
        convolution(current, f"a{block}", 32, 32)
        nodes.append(helper.make_node("Relu", [f"a{block}"], [f"r{block}"]))
        convolution(f"r{block}", f"c{block}", 32, 32)
        nodes.append(helper.make_node("Mul", [f"c{block}", "factor"], [f"m{block}"]))
        nodes.append(helper.make_node("Add", [f"m{block}", current], [f"s{block}"]))
        current = f"s{block}"
    convolution(current, "body", 32, 32)
    nodes.append(helper.make_node("Add", ["body", "head"], ["whole"]))
    convolution("whole", "wide", 32, 128)
    nodes.append(helper.make_node("DepthToSpace", ["wide"], ["fine"], blocksize=2, mode="CRD"))
    convolution("fine", "restored", 32, 1)
    model, shared = _graph(nodes, weights, scale=2), SharedWeights()
    target = rng.standard_normal((1, 1, 13, 18)).astype(np.float32)
    outputs: Any = ReferenceEvaluator(model).run(None, {"target": target})
    expected = outputs[0][0, 0]
    shared.take_from(model)
    shared.write(tmp_path)
    content = (tmp_path / WEIGHTS).read_bytes()
    program = native_program(model, content, 2)
    assert len(program.operations) == 8
    engine = NativeEngine(NativePlan(program=program.to_bytes(content), weights=content), threads=2)
    np.testing.assert_allclose(engine.run(target[0, 0]), expected, rtol=0, atol=2e-5 * np.abs(expected).max())


_WEIGHT = {"w": np.ones((1, 1, 3, 3), np.float32), "two": np.ones((2, 1, 3, 3), np.float32)}


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([helper.make_node("Tanh", ["target"], ["restored"], name="bend")], r"node bend \(Tanh\): no such operation"),
        (
            [helper.make_node("Conv", ["target", "w"], ["restored"], strides=[2, 2], pads=[1] * 4)],
            r"node restored \(Conv\): only square kernels with stride",
        ),
        ([helper.make_node("Conv", ["target", "w"], ["restored"])], r"padding \[0, 0, 0, 0\] changes"),
        ([helper.make_node("Conv", ["target", "target"], ["restored"])], "its weight is computed"),
        (
            [helper.make_node("ReduceMean", ["target", "axes"], ["restored"], keepdims=0)],
            r"\(ReduceMean\): it averages over something else",
        ),
        ([helper.make_node("Relu", ["nothing"], ["restored"])], "input nothing is no image"),
        ([helper.make_node("DepthToSpace", ["target"], ["restored"], blocksize=2)], "only mode CRD"),
        (
            [
                helper.make_node("Conv", ["target", "two"], ["wide"], pads=[1] * 4),
                helper.make_node("SpaceToDepth", ["wide"], ["restored"], blocksize=2),
            ],
            "only an image of one channel can be folded",
        ),
    ],
)
def test_what_is_unknown_is_named(nodes: list[onnx.NodeProto], message: str) -> None:
    model = _graph(nodes, {**_WEIGHT, "axes": np.array([2, 3])})
    SharedWeights().take_from(model)
    with pytest.raises(ExportError, match=message):
        native_program(model, bytes(64), 1)
