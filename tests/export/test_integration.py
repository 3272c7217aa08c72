"""The node's function body, run by ONNX's own reference evaluator (NumPy), against float64."""

from typing import get_args

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from minet_sdk.bundle import Precision
from minet_sdk.export.integration import integration_function
from minet_sdk.export.onnx_names import DOMAIN
from minet_sdk.export.precision import OPSETS
from minet_sdk.kernels.reference import Affinity, integrate

MODES: tuple[Affinity, ...] = get_args(Affinity)
TEMPERATURE, GAIN = 0.2, 0.7
STAGES, CHANNELS = 4, 3


def features(dtype: type, level: float, batch: int = 2) -> NDArray[np.floating]:
    """(N, M * C, H, W); stages differ by little, so that no softmax is one-hot."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=(batch, 1, CHANNELS, 7, 5))
    own = rng.normal(size=(batch, STAGES, CHANNELS, 7, 5))
    return (level * (common + 0.1 * own)).reshape(batch, STAGES * CHANNELS, 7, 5).astype(dtype)


def run(function: onnx.FunctionProto, mode: str, values: NDArray[np.floating]) -> NDArray[np.floating]:
    """The function inside a graph of one node."""
    kind = {"float32": "float", "float16": "float16", "bfloat16": "bfloat16"}[values.dtype.name]
    (opset,) = (entry.version for entry in function.opset_import)
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": {opset}, "{DOMAIN}": 1]>
        graph ({kind}[N, MC, H, W] features) => ({kind}[N, MC, H, W] mixed) {{
            mixed = minet.MultiStageIntegration <
                mode = "{mode}", stages = {STAGES}, temperature = {TEMPERATURE},
                gain = {GAIN if mode == "released" else 1.0}, plugin_namespace = "minet", plugin_version = "1"
            > (features)
        }}
    """)
    model.functions.append(function)
    onnx.checker.check_model(model, full_check=True)
    with np.errstate(all="ignore"):
        results = ReferenceEvaluator(model).run(None, {"features": values})
    assert isinstance(results, list)
    return results[0]


def expected(mode: Affinity, values: NDArray[np.floating]) -> NDArray[np.float64]:
    stacked = values.astype(np.float64).reshape(len(values), STAGES, CHANNELS, *values.shape[2:])
    return integrate(stacked, mode, temperature=TEMPERATURE, gain=GAIN).reshape(values.shape)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("precision", "dtype", "tolerance"),
    [
        ("fp32", np.float32, 2e-5),
        ("fp16", np.float16, 3e-3),
        ("bf16", ml_dtypes.bfloat16, 2e-2),
        ("int8", np.float16, 3e-3),
        ("fp8", np.float16, 3e-3),
    ],
)
def test_body_is_the_integration(mode: Affinity, precision: Precision, dtype: type, tolerance: float) -> None:
    values = features(dtype, 0.1)
    function = integration_function(mode, STAGES, precision)
    assert [entry.version for entry in function.opset_import] == [OPSETS[precision]]
    result = run(function, mode, values)
    assert result.dtype == dtype
    largest = np.abs(values.astype(np.float64)).max()
    np.testing.assert_allclose(result.astype(np.float64), expected(mode, values), atol=tolerance * largest)


def test_zero_features_stay_finite() -> None:
    assert not run(integration_function("cosine", STAGES, "fp32"), "cosine", features(np.float32, 0)).any()


def naive(function: onnx.FunctionProto) -> onnx.FunctionProto:
    """The same body with a Gram matrix in float16."""
    plain = onnx.FunctionProto()
    plain.CopyFrom(function)
    by_output = {node.output[0]: index for index, node in enumerate(plain.node)}
    plain.node[by_output["exact"]].attribute[0].i = onnx.TensorProto.FLOAT16
    plain.node[by_output["gram"]].output[0] = "gram_half"
    cast = onnx.helper.make_node("Cast", ["gram_half"], ["gram"], to=onnx.TensorProto.FLOAT)
    plain.node.insert(by_output["gram"] + 1, cast)
    return plain


@pytest.mark.parametrize("mode", MODES)
def test_float16_features_need_the_float32_island(mode: Affinity) -> None:
    """Squared norms around 4e5: the exported body is right, the naive one overflows."""
    values = features(np.float16, 60.0)
    flat = values.reshape(len(values), STAGES, -1).astype(np.float64)
    assert np.square(flat).sum(-1).min() > 2 * 65504
    function = integration_function(mode, STAGES, "fp16")
    np.testing.assert_allclose(run(function, mode, values), expected(mode, values), rtol=3e-3, atol=0.5)
    assert not np.isfinite(run(naive(function), mode, values)).all()


def test_naive_variant_is_right_where_nothing_overflows() -> None:
    """Otherwise the test above would prove nothing."""
    values = features(np.float16, 0.5)
    function = integration_function("cosine", STAGES, "fp16")
    np.testing.assert_allclose(run(naive(function), "cosine", values), expected("cosine", values), atol=2e-2)
