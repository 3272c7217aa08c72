"""16-bit graphs: where float32 stays, and that nothing overflows."""

from collections.abc import Callable

import numpy as np
import onnx
import onnx.inliner
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from minet_sdk.bundle import Bundle, Precision
from minet_sdk.errors import ExportError
from minet_sdk.export.graphs import ModelGraph
from minet_sdk.export.precision import TensorCoreConvolutions, cast_weights
from minet_sdk.training.model import MINet

pytestmark = pytest.mark.long

FLOAT, HALF, BRAIN = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor, by onnx's own strict inference."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
    values = [*inferred.input, *inferred.output, *inferred.value_info]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in inferred.initializer}


@pytest.mark.parametrize("graph", ["model", "reference", "target"])
@pytest.mark.parametrize(
    ("precision", "element", "opset"),
    [("fp16", HALF, 18), ("bf16", BRAIN, 22), ("int8", HALF, 19), ("fp8", HALF, 19)],
)
def test_graphs_are_strongly_typed(
    bundle_of: Callable[[str], Bundle], graph: str, precision: str, element: int, opset: int
) -> None:
    original = onnx.load_model(bundle_of(precision).location / f"{graph}.onnx")
    assert {entry.domain: entry.version for entry in original.opset_import}[""] == opset
    model = onnx.inliner.inline_local_functions(original)
    del model.graph.value_info[:]
    types = types_of(model)
    nodes = list(model.graph.node)
    for value in [*model.graph.input, *model.graph.output]:
        assert value.type.tensor_type.elem_type == FLOAT
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    wide = [node for node in convolutions if types[node.input[0]] == FLOAT]
    assert len(convolutions) > 10
    assert [node.input[1].endswith("interpolate.kernel") for node in wide] == [True] * (graph != "reference")
    for node in nodes:
        if node.op_type in ("Relu", "Sigmoid", "ReduceMean", "DepthToSpace") and node.input[0] not in _island(nodes):
            assert types[node.input[0]] == element, node.name
        if node.op_type == "Softmax":
            assert types[node.input[0]] == FLOAT
    if graph == "reference":
        assert not [node for node in nodes if node.op_type == "MatMul"]
        return
    gram, product = [node for node in nodes if node.op_type == "MatMul"]
    assert [types[name] for name in gram.input] == [FLOAT, FLOAT]
    assert [types[name] for name in product.input] == [element, element]
    last = next(node for node in nodes if node.output[0] == "restored")
    assert [types[name] for name in last.input] == [FLOAT, FLOAT]


def _island(nodes: list[onnx.NodeProto]) -> set[str]:
    """What the sinc interpolation computes."""
    names = {"target"}
    for node in nodes:
        if node.op_type in ("Pad", "Conv", "DepthToSpace") and node.input[0] in names:
            names.update(node.output)
    return names


def test_stays_finite_where_a_float16_gram_overflows(bundle_of: Callable[[str], Bundle], network: MINet) -> None:
    """The real features of one reference: their squared norm is over 65504."""
    location = bundle_of("fp16").location
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    rng = np.random.default_rng(0)
    target = 8 * rng.normal(size=(1, 1, 24, 20)).astype(np.float32)
    reference = 8 * rng.normal(size=(1, 1, 48, 40)).astype(np.float32)

    def run(graph: str, **inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(onnxruntime.InferenceSession(location / f"{graph}.onnx", options).run(None, inputs)[0])

    features = run("reference", reference=reference)
    flat = torch.from_numpy(features)[0, 1:].flatten(1).half()
    naive = flat @ flat.T
    assert not torch.isfinite(naive).all()
    assert torch.isnan(functional.softmax(naive, dim=-1)).any()

    with torch.no_grad():
        expected = network(torch.from_numpy(target), torch.from_numpy(reference)).restored.numpy()
        with TensorCoreConvolutions():
            arithmetic = ModelGraph(network, "fp16")(torch.from_numpy(target), torch.from_numpy(reference)).numpy()
    for restored in (run("model", target=target, reference=reference), arithmetic):
        np.testing.assert_allclose(restored, expected, atol=5e-3 * np.abs(expected).max())


def test_weights_beyond_float16_are_refused(small_network: Callable[..., MINet]) -> None:
    network = small_network(stages=1)
    with torch.no_grad():
        network.reduction.weight[0, 0, 0, 0] = 1e5
        network.target_groups[0].last.bias[0] = float("nan")  # type: ignore[union-attr,index]
    with pytest.raises(ExportError, match=r"target_groups\.0\.last\.bias, reduction\.weight.*65504"):
        ModelGraph(network, "fp16")
    with pytest.raises(ExportError, match=r"target_groups\.0\.last\.bias have"):
        ModelGraph(network, "fp32")


def test_cast_keeps_the_original(network: MINet) -> None:
    ModelGraph(network, "fp16")
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_tensor_core_convolution_sums_in_float32(precision: Precision, dtype: torch.dtype) -> None:
    """4096 ones: a 16-bit sum sticks at 2048 or 256, and the result is still rounded to 16 bits."""
    layer = torch.nn.Conv2d(4096, 1, 1)
    torch.nn.init.ones_(layer.weight)
    torch.nn.init.constant_(layer.get_parameter("bias"), 0.7)
    cast_weights(layer, precision)
    with TensorCoreConvolutions(), torch.no_grad():
        result = layer(torch.ones(1, 4096, 1, 1, dtype=dtype))
    assert result.dtype == dtype
    assert result.item() == 4096
