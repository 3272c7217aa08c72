"""Graphs with plugin nodes in ONNX Runtime, through the nodes' functions: values as before, and as in float64."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import onnx
import onnx.external_data_helper
import onnx.parser
import onnxruntime
import pytest
from numpy.typing import NDArray

from minet_sdk.bundle import Bundle
from minet_sdk.errors import ExportError
from minet_sdk.export.onnx_names import DOMAIN, OPSET
from minet_sdk.export.plugin_functions import function_of
from minet_sdk.export.plugin_graph import Inputs, Route, rewrite
from minet_sdk.kernels.launches import SLOTS, SPLITS
from minet_sdk.kernels.plugin_operators import STAGE_GRAM, Settings
from minet_sdk.kernels.reference import Affinity, gram, integrate
from minet_sdk.requirements import require

STATE = require("onnxruntime.capi.onnxruntime_pybind11_state", "these tests")
"""Where ONNX Runtime's exceptions are."""

MODES: tuple[Affinity, ...] = get_args(Affinity)
STAGES, CHANNELS, OUTPUTS = 3, 8, 4
TEMPERATURE, GAIN = 0.2, 0.7
KINDS = {"float": np.float32, "float16": np.float16}
ROUTES: list[tuple[Route, Inputs]] = [(route, inputs) for route in get_args(Route) for inputs in get_args(Inputs)]


def weight() -> NDArray[np.float64]:
    return np.random.default_rng(1).normal(size=(OUTPUTS, STAGES * CHANNELS, 3, 3)) / 8


def small(
    mode: Affinity = "cosine",
    kind: str = "float",
    *,
    batch: str = "N",
    stages: int = STAGES,
    channels: int = CHANNELS,
    before: str = "features = Concat <axis = 1>",
    after: str = "reduced = Conv <pads = [1, 1, 1, 1]> (mixed, weight)",
) -> onnx.ModelProto:
    """Concat, integration, reduction."""
    names = [f"stage_{index}" for index in range(stages)]
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": {OPSET}, "{DOMAIN}": 1]>
        graph ({", ".join(f"{kind}[{batch}, {channels}, H, W] {name}" for name in names)})
            => ({kind}[{batch}, K, H, W] reduced)
        {{
            {before} ({", ".join(names)})
            mixed = {DOMAIN}.MultiStageIntegration <
                mode = "{mode}", stages = {stages}, temperature = {TEMPERATURE},
                gain = {GAIN if mode == "released" else 1.0}, plugin_namespace = "{DOMAIN}", plugin_version = "1"
            > (features)
            {after}
        }}
    """)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight().astype(KINDS[kind]), "weight"))
    return model


def stages_of(kind: str, batch: int) -> NDArray[Any]:
    """(N, M, C, H, W); stages differ by little, so that no softmax is one-hot."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=(batch, 1, CHANNELS, 5, 7))
    return (0.1 * (common + 0.2 * rng.normal(size=(batch, STAGES, CHANNELS, 5, 7)))).astype(KINDS[kind])


def run(model: onnx.ModelProto, feed: dict[str, NDArray[Any]]) -> NDArray[Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return np.asarray(session.run(None, {name: feed[name] for name in names})[0])


def run_small(model: onnx.ModelProto, stages: NDArray[Any]) -> NDArray[Any]:
    return run(model, {f"stage_{index}": stages[:, index] for index in range(STAGES)})


def convolution(features: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """3x3 with padding 1, in float64."""
    padded = np.pad(features, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.einsum("nchwyx,ocyx->nohw", windows, weights)


def expected_small(mode: Affinity, stages: NDArray[Any], kind: str) -> NDArray[np.float64]:
    mixed = integrate(stages.astype(np.float64), mode, temperature=TEMPERATURE, gain=GAIN)
    flat = mixed.reshape(len(stages), -1, *stages.shape[3:])
    return convolution(flat, weight().astype(KINDS[kind]).astype(np.float64))


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize(("route", "inputs"), ROUTES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("kind", "tolerance"), [("float", 2e-6), ("float16", 2e-3)])
def test_values_in_float64(mode: Affinity, kind: str, tolerance: float, route: Route, inputs: Inputs) -> None:
    model = small(mode, kind)
    before = model.SerializeToString()
    rewritten = rewrite(model, route, inputs)
    assert model.SerializeToString() == before
    onnx.checker.check_model(rewritten, full_check=True)
    stages = stages_of(kind, batch=2 if route == "mix" else 1)
    expected = expected_small(mode, stages, kind)
    result = run_small(rewritten, stages)
    assert result.dtype == KINDS[kind]
    np.testing.assert_allclose(result, expected, atol=tolerance * np.abs(expected).max())


@pytest.fixture(scope="module")
def whole(bundle_of: Callable[[str], Bundle]) -> onnx.ModelProto:
    """A whole network's graph, float16, its weights inside."""
    return onnx.load(bundle_of("fp16").graph("model"))


@pytest.mark.parametrize(("route", "inputs"), ROUTES)
def test_values_of_a_network(whole: onnx.ModelProto, route: Route, inputs: Inputs) -> None:
    rng = np.random.default_rng(5)
    rewritten = rewrite(whole, route, inputs)
    onnx.checker.check_model(rewritten, full_check=True)
    batch = 2 if route == "mix" else 1
    feed = {
        "target": rng.normal(size=(batch, 1, 9, 14)).astype(np.float32),
        "reference": rng.normal(size=(batch, 1, 18, 28)).astype(np.float32),
    }
    expected = run(whole, feed)
    np.testing.assert_allclose(run(rewritten, feed), expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize("fault", ["mode", "temperature", "order of the stages"])
def test_planted_faults(fault: str) -> None:
    """The comparison above sees them."""
    model = small("cosine")
    node = next(node for node in model.graph.node if node.domain == DOMAIN)
    attributes = {entry.name: entry for entry in node.attribute}
    if fault == "mode":
        attributes["mode"].s = b"paper"
    elif fault == "temperature":
        attributes["temperature"].f = 0.25
    else:
        concat = model.graph.node[0]
        concat.input[0], concat.input[1] = concat.input[1], concat.input[0]
    stages = stages_of("float", 2)
    expected = expected_small("cosine", stages, "float")
    assert np.abs(run_small(rewrite(model, "mix", "separate"), stages) - expected).max() > 1e-3 * np.abs(expected).max()


def test_nodes() -> None:
    assert operators(rewrite(small())) == ["Concat", "StageGram", "StageAffinity", "MixStages", "Conv"]
    assert operators(rewrite(small(), "fold")) == ["Concat", "StageGram", "StageAffinity", "FoldWeights", "Conv"]
    separate = rewrite(small(), "mix", "separate")
    assert operators(separate) == ["StageGramSeparate", "StageAffinity", "MixStagesSeparate", "Conv"]
    assert operators(rewrite(small(), "fold", "separate"))[0] == "Concat"
    for node in separate.graph.node:
        if node.op_type == "MixStagesSeparate":
            assert list(node.input[:SLOTS]) == ["stage_0", "stage_1", "stage_2", *["stage_0"] * (SLOTS - STAGES)]
    assert {function.opset_import[0].version for function in separate.functions} == {OPSET}
    newer = small()
    newer.opset_import[0].version = 21
    assert {function.opset_import[0].version for function in rewrite(newer).functions} == {21}
    for model in (rewrite(small()), separate):
        used = {node.op_type for node in model.graph.node if node.domain == DOMAIN}
        assert {function.name for function in model.functions} == used


def test_rest_of_an_exported_graph_is_untouched(whole: onnx.ModelProto) -> None:
    """Weights may be elsewhere; the manifest stays in the metadata."""
    model = onnx.ModelProto()
    model.CopyFrom(whole)
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > 1000:
            onnx.external_data_helper.set_external_data(tensor, "weights.bin")
            tensor.ClearField("raw_data")
    rewritten = rewrite(model)
    assert rewritten.graph.initializer == model.graph.initializer
    assert rewritten.metadata_props == model.metadata_props
    assert rewritten.graph.input == model.graph.input
    assert rewritten.graph.output == model.graph.output
    assert [node for node in rewritten.graph.node if node.domain != DOMAIN] == [
        node for node in model.graph.node if node.domain != DOMAIN
    ]
    known = {name for node in rewritten.graph.node for name in (*node.input, *node.output)}
    assert {value.name for value in rewritten.graph.value_info} <= known


def test_folding_is_for_one_slice() -> None:
    rewritten = rewrite(small(), "fold")
    shapes = [
        [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*rewritten.graph.input, *rewritten.graph.output)
    ]
    assert shapes == [[1, CHANNELS, "H", "W"]] * STAGES + [[1, "K", "H", "W"]]
    with pytest.raises(STATE.InvalidArgument, match="Got: 2 Expected: 1"):
        run_small(rewritten, stages_of("float", 2))
    for value in rewritten.graph.input:
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    rewritten.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "N"
    with pytest.raises(STATE.Fail, match=r"requested shape:\{3,3\}"):
        run_small(rewritten, stages_of("float", 2))


def test_one_bad_number_spoils_its_slice_and_no_other() -> None:
    stages = stages_of("float", 2)
    stages[0, 1, 2, 3, 4] = np.inf
    result = run_small(rewrite(small(after="reduced = Identity (mixed)")), stages)
    assert np.isnan(result[0]).all()
    assert np.isfinite(result[1]).all()


def test_partial_sums_have_the_kernels_shape() -> None:
    stages = stages_of("float", 2)
    function = function_of(STAGE_GRAM, Settings(STAGES))
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": {OPSET}, "{DOMAIN}": 1]>
        graph (float[N, K, H, W] features) => (float[N, S, M, M] partials) {{
            partials = {DOMAIN}.StageGram <stages = {STAGES}, aot = 1> (features)
        }}
    """)
    model.functions.append(function)
    result = run(model, {"features": stages.reshape(2, -1, 5, 7)})
    assert result.shape == (2, SPLITS, STAGES, STAGES)
    np.testing.assert_allclose(result.sum(1), gram(stages), rtol=1e-5)


def unknown_mode(model: onnx.ModelProto) -> onnx.ModelProto:
    model.graph.node[1].attribute[0].s = b"sideways"
    return model


def without_gain(model: onnx.ModelProto) -> onnx.ModelProto:
    del model.graph.node[1].attribute[3]
    return model


REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], Route, Inputs, str]] = {
    "no integration": (
        lambda: rewrite(small()), "mix", "stacked", "has 0 nodes minet.MultiStageIntegration; expected one",
    ),
    "channels": (lambda: small(channels=12), "mix", "stacked", "36 channels in 3 stage features"),
    "stages": (lambda: small(stages=33), "mix", "stacked", "33 stage features; the kernels take 1 to 32"),
    "mode": (lambda: unknown_mode(small()), "mix", "stacked", "mode is 'sideways'; the kernels know paper, released"),
    "attribute": (lambda: without_gain(small()), "mix", "stacked", "has no attribute 'gain': export the bundle again"),
    "no convolution": (
        lambda: small(after="reduced = Relu (mixed)"), "fold", "stacked", 'followed by Relu; .*route="mix"',
    ),
    "second consumer": (
        lambda: small(after="once = Conv (mixed, weight)  reduced = Add (once, mixed)"), "fold", "stacked",
        'followed by Conv, Add; .*route="mix"',
    ),
    "computed weight": (
        lambda: small(after="other = Relu (weight)  reduced = Conv (mixed, other)"), "fold", "stacked",
        'has the weight other .*route="mix"',
    ),
    "batch of two": (lambda: small(batch="2"), "fold", "stacked", 'the graph has the batch 2; .*route="mix"'),
    "no concatenation": (
        lambda: small(stages=1, before="features = Sum"), "mix", "separate", 'come from Sum of 1; .*inputs="stacked"',
    ),
    "unknown route": (small, "around", "stacked", "plugin route is 'around'"),  # type: ignore[dict-item]
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    make, route, inputs, message = REFUSED[name]
    with pytest.raises(ExportError, match=message):
        rewrite(make(), route, inputs)


def test_import_needs_no_torch() -> None:
    program = "import sys, minet_sdk.export.plugin_graph; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
