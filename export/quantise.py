"""int8 and fp8: the inputs and weights of the large convolutions on an 8-bit grid, everything else float16 as before.

Symmetric, one scale for each input and for each output channel of a weight. The graph says so with QuantizeLinear and
DequantizeLinear in front of the convolution, which engines fuse into it; `emulate` does the same in PyTorch.
"""

from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from minet_sdk.bundle import Manifest
from minet_sdk.errors import ExportError
from minet_sdk.export.weights import content
from minet_sdk.training.network import Network

Format = Literal["int8", "fp8"]

LARGEST: dict[Format, int] = {"int8": 127, "fp8": 448}
"""Largest magnitude that is used of each format; int8's -128 has no positive counterpart."""

_TORCH: dict[Format, torch.dtype] = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
_ONNX: dict[Format, int] = {"int8": onnx.TensorProto.INT8, "fp8": onnx.TensorProto.FLOAT8E4M3FN}
_SMALLEST_SCALE = 2.0**-14
"""Smallest normal float16: below it a scale itself would be imprecise."""

_QUANTISED_PARTS = ("reference_groups.", "target_groups.", "fusions.", "reduction")
_LEFT_ALONE = ".attention."
"""Channel attention works on one pixel: nothing to gain, and a sigmoid multiplies whole channels by what it says."""

_GRAPH_PREFIXES = ("reference_graph.", "target_graph.")
"""What `ModelGraph` puts before the names of its two halves."""


@dataclass(frozen=True)
class Quantisation:
    """Everything that makes a quantised graph out of a float16 one."""

    format: Format

    scales: dict[str, float]
    """Of the input of each quantised layer by its name in `MINet`; float16 numbers."""

    @classmethod
    def of(cls, manifest: Manifest) -> "Quantisation | None":
        """What a manifest records; None for precisions without it.

        Raises:
            ExportError: the precision needs scales and the manifest has none.
        """
        if manifest.precision not in LARGEST:
            return None
        scales: object = manifest.quantisation.get("scales")
        if not isinstance(scales, dict):
            raise ExportError(f"manifest of {manifest.name} has no scales for {manifest.precision}: calibrate it first")
        return cls(manifest.precision, cast(dict[str, float], scales))


def quantised_layers(network: nn.Module) -> list[str]:
    """Convolutions that are quantised, by name: those of the residual groups, the fusions and the reduction.

    Heads, upsampler, attention and tail stay float16: they cost little, and what the tail rounds is in the image.
    """
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and name.startswith(_QUANTISED_PARTS) and _LEFT_ALONE not in name
    ]


def layers_of_graph(network: Network, graph: str) -> list[str]:
    """The quantised layers that a graph of the bundle holds."""
    reference = "reference_groups."
    return [
        name for name in quantised_layers(network) if graph == "model" or (graph == "reference") == (reference in name)
    ]


def scale_of(largest: float, number_format: Format) -> float:
    """Scale that maps magnitudes up to ``largest`` onto the format; a float16 number."""
    return float(np.float16(max(largest / LARGEST[number_format], _SMALLEST_SCALE)))


def quantised(values: Tensor, scale: Tensor | float, number_format: Format) -> Tensor:
    """Round ``values / scale`` to the format, ties to even; what lies outside goes to the nearest end."""
    top = LARGEST[number_format]
    steps = values.float() / scale
    if number_format == "int8":
        return steps.round().clamp(-top - 1, top).to(torch.int8)
    return steps.clamp(-top, top).to(torch.float8_e4m3fn)


def quantised_weight(weight: Tensor, number_format: Format) -> tuple[Tensor, Tensor]:
    """A convolution's weight (out, in, H, W) in the format, and the scale of each output channel, float16."""
    largest = weight.detach().float().abs().amax(dim=(1, 2, 3))
    scale = torch.tensor([scale_of(value, number_format) for value in largest.tolist()])
    return quantised(weight.detach(), scale[:, None, None, None], number_format), scale.half()


def emulate(module: nn.Module, quantisation: Quantisation) -> None:
    """Make a module's quantised layers compute in place what the graph says, on any device that has its dtype.

    Args:
        module: one of `export.graphs`, or a network; its layers are found by name.
        quantisation: of all layers; those that the module does not have are left out.
    """
    kind = quantisation.format
    for name, layer in module.named_modules():
        scale = quantisation.scales.get(_layer(name))
        if scale is None or not isinstance(layer, nn.Conv2d):
            continue
        steps, scales = quantised_weight(layer.weight, kind)
        weight = steps.float() * scales.float()[:, None, None, None]
        layer.weight = nn.Parameter(weight.to(layer.weight.dtype), requires_grad=False)

        def round_input(_: nn.Module, inputs: tuple[Tensor], scale: float = scale) -> tuple[Tensor]:
            values = inputs[0]
            return ((quantised(values, scale, kind).float() * scale).to(values.dtype),)

        layer.register_forward_pre_hook(round_input)


def quantise(model: onnx.ModelProto, quantisation: Quantisation) -> None:
    """Put QuantizeLinear and DequantizeLinear before the quantised layers of a float16 graph, in place.

    Args:
        model: graph with its weights inside.
        quantisation: of all layers of the bundle; a graph has some of them.
    """
    graph, kind = model.graph, quantisation.format
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    added: dict[str, onnx.TensorProto] = {}
    for node in graph.node:
        name = _layer(node.input[1].removesuffix(".weight")) if node.op_type == "Conv" else ""
        if name in quantisation.scales:
            source, weight = node.input[0], weights[node.input[1]]
            zero, scale = f"{kind}_zero", f"{weight.name.removesuffix('weight')}input_scale"
            added[zero] = onnx.helper.make_tensor(zero, _ONNX[kind], (), b"\0", raw=True)
            added[scale] = onnx.numpy_helper.from_array(np.array(quantisation.scales[name], np.float16), scale)
            steps, restored = f"{scale}.steps", f"{scale}.restored"
            weight_scale, weight_restored = f"{weight.name}_scale", f"{weight.name}_restored"
            added[weight_scale] = _store(weight, weight_scale, kind)
            nodes += [
                _node("QuantizeLinear", [source, scale, zero], steps),
                _node("DequantizeLinear", [steps, scale, zero], restored),
                _node("DequantizeLinear", [weight.name, weight_scale], weight_restored, axis=0),
            ]
            node.input[0], node.input[1] = restored, weight_restored
        nodes.append(node)
    stored = {tensor.name for tensor in graph.initializer if tensor.data_type == _ONNX[kind]}
    types = [value for value in graph.value_info if value.name not in stored]
    graph.initializer.extend(added.values())
    graph.ClearField("value_info")
    graph.value_info.extend(types)
    graph.ClearField("node")
    graph.node.extend(nodes)


def scales_in(model: onnx.ModelProto) -> dict[str, float]:
    """Scale of the input of every quantised convolution that a graph holds, by the layer's name in `MINet`.

    A convolution counts if its input is rounded to 8 bits and its weight is stored in 8 bits of the same format.
    """
    producers = {node.output[0]: node for node in model.graph.node}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    found: dict[str, float] = {}
    for node in model.graph.node:
        sides = [producers.get(name) for name in node.input[:2]] if node.op_type == "Conv" else []
        if len(sides) < 2 or any(side is None or side.op_type != "DequantizeLinear" for side in sides):
            continue
        activation, weight = cast(list[onnx.NodeProto], sides)
        rounding = producers.get(activation.input[0])
        stored = tensors.get(weight.input[0])
        if rounding is None or rounding.op_type != "QuantizeLinear" or stored is None:
            continue
        same_scale = rounding.input[1] == activation.input[1]
        if same_scale and stored.data_type == tensors[rounding.input[2]].data_type:
            layer = _layer(stored.name.removesuffix(".weight"))
            found[layer] = float(onnx.numpy_helper.to_array(tensors[rounding.input[1]]))
    return found


def _store(weight: onnx.TensorProto, scale_name: str, kind: Format) -> onnx.TensorProto:
    """Round a graph's weight in place; the scales of its output channels."""
    values = torch.from_numpy(onnx.numpy_helper.to_array(weight).astype(np.float32))
    steps, scale = quantised_weight(values, kind)
    data = steps.view(torch.uint8).numpy().tobytes()
    weight.CopyFrom(onnx.helper.make_tensor(weight.name, _ONNX[kind], list(weight.dims), data, raw=True))
    assert len(content(weight)) == values.numel()
    return onnx.numpy_helper.from_array(scale.numpy(), scale_name)


def _node(operator: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return onnx.helper.make_node(operator, inputs, [output], name=f"node_{output}", **attributes)


def _layer(name: str) -> str:
    """Name in `MINet` of a layer of one of the graphs."""
    for prefix in _GRAPH_PREFIXES:
        name = name.removeprefix(prefix)
    return name
