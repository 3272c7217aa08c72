"""The float32 twin of a bfloat16 graph against arithmetic in bfloat16 by ml_dtypes."""

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from minet_sdk.bundle import Bundle, Precision
from minet_sdk.export.execution import rounded_twin, run_network, run_onnx, run_torch, runtime_errors
from minet_sdk.export.quantise import Quantisation
from minet_sdk.training.model import MINet

pytestmark = pytest.mark.long

BFLOAT16 = ml_dtypes.bfloat16


def graph_in_bfloat16() -> tuple[onnx.ModelProto, NDArray[np.float32]]:
    """A product, a sum and a convolution whose sums need more bits than bfloat16 has."""
    weight = np.random.default_rng(0).normal(size=(3, 8, 1, 1)).astype(BFLOAT16)
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 22, "own": 1]>
        graph (float[N, 8, H, W] image) => (float[N, 3, H, W] result) {
            narrow = Cast <to = 16> (image)
            scaled = own.Scale (narrow)
            mixed = Conv (scaled, weight)
            result = Cast <to = 1> (mixed)
        }
        <domain: "own", opset_import: ["": 22]>
        Scale (x) => (y) {
            factor = Constant <value = float {1.3}> ()
            narrow_factor = Cast <to = 16> (factor)
            product = Mul (x, narrow_factor)
            y = Add (product, x)
        }
    """)
    model.graph.initializer.append(
        onnx.helper.make_tensor("weight", onnx.TensorProto.BFLOAT16, weight.shape, weight.tobytes(), raw=True)
    )
    onnx.checker.check_model(model, full_check=True)
    return model, weight.astype(np.float32)


def run(model: onnx.ModelProto, image: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": image})[0])


def test_twin_rounds_after_every_operator() -> None:
    model, weight = graph_in_bfloat16()
    image = np.random.default_rng(1).normal(size=(2, 8, 16, 16)).astype(np.float32)
    twin = rounded_twin(model)
    onnx.checker.check_model(twin, full_check=True)

    narrow = image.astype(BFLOAT16)
    product = np.multiply(narrow, np.array(1.3, BFLOAT16))
    scaled = (product + narrow).astype(np.float64)
    exact = np.einsum("oc,nchw->nohw", weight[..., 0, 0].astype(np.float64), scaled)
    expected = exact.astype(BFLOAT16).astype(np.float32)
    result = run(twin, image)
    np.testing.assert_array_equal(result, result.astype(BFLOAT16).astype(np.float32))
    assert (result != expected).mean() < 0.01, "sums in float32 may fall on the other side of a tie, now and then"
    np.testing.assert_allclose(result, expected, rtol=2**-7, atol=1e-2)


@pytest.mark.parametrize("operator", ["Cast", "Mul", "Add", "Conv"])
def test_a_missing_rounding_would_show(operator: str) -> None:
    """Without the cast after one of the operators, a good part of the results is another number."""
    model, _ = graph_in_bfloat16()
    image = np.random.default_rng(1).normal(size=(2, 8, 16, 16)).astype(np.float32)
    twin = rounded_twin(model)
    right = run(twin, image)
    first = next(node for node in twin.graph.node if node.op_type == operator)
    cast = next(node for node in twin.graph.node if list(node.input) == [first.output[0]])
    assert cast.attribute[0].i == onnx.TensorProto.BFLOAT16
    cast.attribute[0].i = onnx.TensorProto.FLOAT
    assert (run(twin, image) != right).mean() > 0.05


def test_twin_leaves_the_float32_islands(bundle_of: Callable[[str], Bundle]) -> None:
    twin = rounded_twin(onnx.load_model(bundle_of("bf16").graph("target")))
    producers = {name: node for node in twin.graph.node for name in node.output}
    (softmax,) = [node for node in twin.graph.node if node.op_type == "Softmax"]
    assert producers[softmax.input[0]].op_type != "Cast"
    (gram, product) = [node for node in twin.graph.node if node.op_type == "MatMul"]
    assert not gram.output[0].endswith(".exact")
    assert product.output[0].endswith(".exact")
    convolutions = [node for node in twin.graph.node if node.op_type == "Conv"]
    exact = [node for node in convolutions if not node.output[0].endswith(".exact")]
    assert [node.input[1].endswith("interpolate.kernel") for node in exact] == [True]
    assert producers["restored"].op_type == "Add"


@pytest.mark.parametrize(
    ("precision", "apart"), [("fp32", 1e-6), ("fp16", 3e-3), ("bf16", 2e-3), ("int8", 5e-2), ("fp8", 5e-2)]
)
def test_onnxruntime_and_pytorch_agree(
    bundle_of: Callable[[str], Bundle], network: MINet, precision: Precision, apart: float
) -> None:
    """Two ways to compute the same graph: as far apart as its rounding, and not as the float32 network."""
    bundle = bundle_of(precision)
    golden = bundle.golden()
    assert golden is not None
    assert golden.reference is not None
    feed = {"target": golden.target, "reference": golden.reference}
    first = run_onnx(bundle.graph("model"), precision)(feed)
    second = run_torch(network, "model", precision, Quantisation.of(bundle.manifest))(feed)
    plain = run_network(network)(feed)
    np.testing.assert_allclose(plain, golden.restored, atol=1e-5)
    with torch.no_grad():
        detail = (golden.restored - network.interpolate(torch.from_numpy(golden.target)).numpy()).std()
    assert np.sqrt(np.mean((first - second) ** 2)) < apart * detail
    if precision != "fp32":
        assert np.abs(second - plain).max() > 1e-4 * detail


def test_missing_input_is_one_of_the_runtime_errors(bundle_of: Callable[[str], Bundle]) -> None:
    with pytest.raises(runtime_errors()):
        run_onnx(bundle_of("fp32").graph("model"), "fp32")({})
