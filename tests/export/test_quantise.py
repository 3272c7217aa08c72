"""8-bit layers against integer arithmetic done here, and where they stand in the graphs."""

from collections.abc import Callable
from typing import Any, get_args

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from minet_sdk.bundle import Bundle, Manifest
from minet_sdk.errors import ExportError
from minet_sdk.export.quantise import (
    Format,
    Quantisation,
    emulate,
    layers_of_graph,
    quantise,
    quantised,
    quantised_layers,
    quantised_weight,
    scale_of,
    scales_in,
)
from minet_sdk.training.model import MINet

pytestmark = pytest.mark.long

FORMATS: tuple[Format, ...] = get_args(Format)
SCALE = 0.0234375
"""A float16 number."""


def steps_of(values: NDArray[np.floating], scale: Any, number_format: Format) -> NDArray[np.float64]:
    """The 8-bit numbers, by NumPy and ml_dtypes."""
    exact = values.astype(np.float32) / np.float32(scale)
    if number_format == "int8":
        return np.clip(np.rint(exact), -128, 127).astype(np.float64)
    return np.clip(exact, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float64)


@pytest.mark.parametrize("number_format", FORMATS)
def test_rounding_is_that_of_the_format(number_format: Format) -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=500), 40 * rng.normal(size=500), SCALE * (np.arange(-140, 140) + 0.5)])
    expected = steps_of(values, SCALE, number_format)
    result = quantised(torch.from_numpy(values).float(), SCALE, number_format).float().numpy()
    np.testing.assert_array_equal(result, expected)
    assert np.isfinite(result).all()


def test_weight_has_a_scale_for_each_output_channel() -> None:
    weight = torch.randn(3, 5, 3, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-2, 1.0, 50.0]).view(
        3, 1, 1, 1
    )
    steps, scale = quantised_weight(weight, "int8")
    assert scale.dtype == torch.float16
    assert steps.abs().amax(dim=(1, 2, 3)).tolist() == [127, 127, 127]
    wide = scale.float()[:, None, None, None]
    assert ((steps.float() * wide - weight).abs() <= 0.501 * wide).all()


def test_scale_of_nothing_is_a_normal_number() -> None:
    assert scale_of(0.0, "int8") == np.finfo(np.float16).smallest_normal
    assert scale_of(127.0, "int8") == scale_of(448.0, "fp8") == 1.0


@pytest.mark.parametrize("number_format", FORMATS)
def test_quantised_convolution_is_integer_arithmetic(number_format: Format) -> None:
    """A 1x1 convolution: the products of the 8-bit numbers, summed exactly, times both scales."""
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(4, 6, 1, 1)).astype(np.float16)
    bias = rng.normal(size=4).astype(np.float16)
    image = rng.normal(size=(2, 6, 5, 7)).astype(np.float32)
    top = {"int8": 127, "fp8": 448}[number_format]
    weight_scale = (np.abs(weight).max(axis=(1, 2, 3)).astype(np.float32) / top).astype(np.float16).astype(np.float64)
    weight_steps = steps_of(weight[..., 0, 0], weight_scale[:, None], number_format)
    image_steps = steps_of(image.astype(np.float16), SCALE, number_format)
    products = np.einsum("oc,nchw->nohw", weight_steps, image_steps)
    expected = products * SCALE * weight_scale[:, None, None] + bias[:, None, None]

    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 19]>
        graph (float[N, 6, H, W] image) => (float[N, 4, H, W] result) {
            half = Cast <to = 10> (image)
            mixed = Conv (half)
            result = Cast <to = 1> (mixed)
        }
    """)
    for name, values in (("target_graph.fusions.0.weight", weight), ("target_graph.fusions.0.bias", bias)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
        model.graph.node[1].input.append(name)
    quantisation = Quantisation(number_format, {"fusions.0": SCALE, "fusions.1": 1.0})
    quantise(model, quantisation)
    onnx.checker.check_model(model, full_check=True)
    assert scales_in(model) == {"fusions.0": SCALE}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"image": image})

    layer = torch.nn.ModuleDict({"fusions": torch.nn.ModuleList([torch.nn.Conv2d(6, 4, 1)])})
    convolution = layer.get_submodule("fusions.0")
    convolution.load_state_dict({"weight": torch.from_numpy(weight).float(), "bias": torch.from_numpy(bias).float()})
    emulate(layer, quantisation)
    with torch.no_grad():
        emulated = convolution(torch.from_numpy(image.astype(np.float16)).float()).numpy()
    for found in (np.asarray(result), emulated):
        np.testing.assert_allclose(found, expected, atol=3e-3 * np.abs(expected).max())
    plain = np.einsum("oc,nchw->nohw", weight[..., 0, 0].astype(np.float64), image) + bias[:, None, None]
    assert np.abs(plain - expected).max() > 6e-3 * np.abs(expected).max()


def test_which_layers_are_quantised(network: MINet) -> None:
    names = quantised_layers(network)
    groups = [f"{branch}_groups.{i}" for branch in ("target", "reference") for i in range(2)]
    inside = [f"{group}.{layer}" for group in groups for layer in ("blocks.0.first", "blocks.0.second", "last")]
    assert sorted(names) == sorted([*inside, "fusions.0", "fusions.1", "reduction"])
    parts = [layers_of_graph(network, graph) for graph in ("reference", "target")]
    assert layers_of_graph(network, "model") == names
    assert sorted([*parts[0], *parts[1]]) == sorted(names)
    assert {name.split(".")[0] for name in parts[0]} == {"reference_groups"}


@pytest.mark.parametrize("number_format", FORMATS)
@pytest.mark.parametrize("graph", ["model", "reference", "target"])
def test_graphs_share_the_manifests_scales(
    bundle_of: Callable[[str], Bundle], network: MINet, number_format: Format, graph: str
) -> None:
    bundle = bundle_of(number_format)
    model = onnx.load_model(bundle.location / f"{graph}.onnx")
    scales = bundle.manifest.quantisation["scales"]
    assert scales_in(model) == {name: scales[name] for name in layers_of_graph(network, graph)}
    consumers = {name: node.op_type for node in model.graph.node for name in node.input}
    operators = {operator: [n for n in model.graph.node if n.op_type == operator] for operator in ("QuantizeLinear",
                 "DequantizeLinear")}  # fmt: skip
    for node in operators["DequantizeLinear"]:
        assert consumers[node.output[0]] == "Conv"
    for node in operators["QuantizeLinear"]:
        assert consumers[node.output[0]] == "DequantizeLinear"
    assert len(operators["DequantizeLinear"]) == 2 * len(operators["QuantizeLinear"])
    kind = {"int8": onnx.TensorProto.INT8, "fp8": onnx.TensorProto.FLOAT8E4M3FN}[number_format]
    stored = [t for t in model.graph.initializer if t.data_type == kind]
    assert len(stored) == len(operators["QuantizeLinear"]) + 1
    (zero,) = [tensor for tensor in stored if not tensor.dims]
    assert onnx.numpy_helper.to_array(zero).astype(np.float32) == 0


def test_a_manifest_without_scales_is_refused(network: MINet, make_manifest: Callable[..., Manifest]) -> None:
    with pytest.raises(ExportError, match="has no scales for int8: calibrate it first"):
        Quantisation.of(make_manifest(network, "int8"))
    assert Quantisation.of(make_manifest(network, "fp16")) is None
