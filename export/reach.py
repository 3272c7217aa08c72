"""What a graph's geometry says of it: how far an output pixel looks, what takes in the whole image, what it holds.

Places are counted in pixels of the restored image: sample i of a tensor with step m stands at m * i on both axes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from minet_sdk.export.onnx_names import DOMAIN, OPERATOR

FLOAT_BYTES = 4

CHANNEL_ATTENTION, AFFINITY = "channel attention", "affinity"

_POINTWISE = frozenset(
    {"Add", "Cast", "Clip", "Concat", "DequantizeLinear", "Div", "Identity", "LeakyRelu", "Mul", "PRelu"}
    | {"QuantizeLinear", "Relu", "Sigmoid", "Split", "Sub", "Tanh"}
)  # fmt: skip
"""Operators whose result at one place depends on their inputs at this place only."""


@dataclass(frozen=True)
class Extent:
    """What a restored pixel depends on, and what restoring it costs in memory."""

    reach: int | None
    """Pixels to one side, the whole image's parts left aside; None: there is an operator of unknown reach."""

    global_parts: tuple[str, ...]
    """What depends on every pixel, in words."""

    bytes_per_pixel: float
    """Of images that are alive at once, when the nodes run in their order, in float32."""


@dataclass(frozen=True)
class _Field:
    """Where a tensor's samples stand, and how far before and after its place a sample looks."""

    step: int
    """0: one value for the whole image, which stands nowhere."""

    before: int = 0
    after: int = 0


class _UnknownReachError(Exception):
    """An operator's reach is not known."""


_Stack = tuple[_Field, ...]
"""Images in a row along axis 1, each with its own reach."""


def extent_of(model: onnx.ModelProto, scale: int) -> Extent:
    """Reach, global parts and memory of a graph from `target` (and `reference`) to `restored`.

    Args:
        model: its weights may lie outside.
        scale: magnification.
    """
    walk = _Walk(model, scale)
    parts = dict.fromkeys(part for node in model.graph.node if (part := walk.global_part(node)))
    try:
        reach = walk.reach()
    except _UnknownReachError:
        reach = None
    return Extent(reach, tuple(parts), _live_bytes(model, scale))


class _Walk:
    """From the inputs of a graph to its result, node after node."""

    def __init__(self, model: onnx.ModelProto, scale: int) -> None:
        self._graph = model.graph
        self._numbers = _whole_numbers(model)
        self._weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
        self._fields: dict[str, _Field | _Stack] = {
            value.name: _Field(scale if value.name == "target" else 1) for value in model.graph.input
        }

    def reach(self) -> int:
        """Largest distance along an axis at which a pixel of the result depends on an input.

        Raises:
            _UnknownReachError: there is an operator whose reach is not known.
        """
        for node in self._graph.node:
            given = [self._fields[name] for name in node.input if name in self._fields]
            if given:
                self._fields.update(dict.fromkeys(node.output, self._result(node, given)))
        result = self._fields[self._graph.output[0].name]
        if not isinstance(result, _Field) or result.step != 1:
            raise _UnknownReachError
        return max(result.before, result.after)

    def global_part(self, node: onnx.NodeProto) -> str:
        """What to call a node that takes in the whole image; empty for any other."""
        if (node.domain, node.op_type) == (DOMAIN, OPERATOR):
            return AFFINITY
        over = _attributes(node).get("axes") or (self._given(node, 1) if len(node.input) > 1 else [])
        spatial = not over or any(axis % 4 in (2, 3) for axis in over)
        means = node.op_type == "GlobalAveragePool" or (node.op_type.startswith("Reduce") and spatial)
        return CHANNEL_ATTENTION if means else ""

    def _given(self, node: onnx.NodeProto, index: int) -> list[int]:
        """A constant input of whole numbers; empty if it is none."""
        return self._numbers.get(node.input[index], []) if index < len(node.input) else []

    def _result(self, node: onnx.NodeProto, given: list[_Field | _Stack]) -> _Field | _Stack:
        stacks = [value for value in given if isinstance(value, tuple)]
        images = [value for value in given if isinstance(value, _Field)]
        if stacks or node.op_type == "Unsqueeze":
            return self._rearranged(node, stacks, images)
        placed = [field for field in images if field.step]
        if not placed or self.global_part(node) == CHANNEL_ATTENTION:
            return _Field(0)
        if len({field.step for field in placed}) > 1:
            raise _UnknownReachError
        widest = _Field(placed[0].step, max(f.before for f in placed), max(f.after for f in placed))
        if node.op_type in _POINTWISE or self.global_part(node) == AFFINITY:
            return widest
        return self._moved(node, widest)

    def _rearranged(self, node: onnx.NodeProto, stacks: list[_Stack], images: list[_Field]) -> _Field | _Stack:
        """Images put into a stack, or taken out of one."""
        if node.op_type == "Unsqueeze" and not stacks and self._given(node, 1) == [1]:
            return (images[0],)
        if node.op_type == "Concat" and not images and _attributes(node)["axis"] == 1:
            return tuple(field for stack in stacks for field in stack)
        if node.op_type == "Slice" and self._given(node, 3) == [1] and self._given(node, 4) in ([], [1]):
            start, end = self._given(node, 1), self._given(node, 2)
            if len(start) == len(end) == 1:
                return stacks[0][start[0] : end[0]]
        if node.op_type == "Squeeze" and len(stacks[0]) == 1:
            return stacks[0][0]
        if node.op_type == "Cast":
            return stacks[0]
        raise _UnknownReachError

    def _moved(self, node: onnx.NodeProto, field: _Field) -> _Field:
        """After an operator that looks at neighbours, or changes where samples stand."""
        attributes, step = _attributes(node), field.step
        if node.op_type == "Conv":
            pads = attributes.get("pads", [0] * 4)[:2]
            strides = attributes.get("strides", [1, 1])
            if len(set(strides)) > 1 or attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
                raise _UnknownReachError
            kernel = attributes.get("kernel_shape") or self._weights.get(node.input[1], [])[2:]
            spans = [(size - 1) * gap for size, gap in zip(kernel, attributes.get("dilations", [1, 1]), strict=True)]
            ends = [span - pad for span, pad in zip(spans, pads, strict=True)]
            return _Field(step * strides[0], field.before + step * max(pads), field.after + step * max(ends))
        if node.op_type == "Pad":
            pads = self._given(node, 1)
            wraps = attributes.get("mode", b"constant") == b"wrap"
            if wraps or len(pads) != 8 or pads[2] != pads[3] or any(pads[:2] + pads[4:6]):
                raise _UnknownReachError
            return _Field(step, field.before + step * pads[2], field.after - step * pads[2])
        if node.op_type == "DepthToSpace" and step % attributes["blocksize"] == 0:
            finer = step // attributes["blocksize"]
            return _Field(finer, field.before + step - finer, field.after)
        if node.op_type == "SpaceToDepth":
            coarser = step * attributes["blocksize"]
            return _Field(coarser, field.before, field.after + coarser - step)
        raise _UnknownReachError


def _live_bytes(model: onnx.ModelProto, scale: int) -> float:
    """Bytes of images that are alive at once, at most, for each pixel of the result.

    Vectors, constants and weights are left out: they do not grow with the image. The integration forms one transposed
    copy of the stages beside its result.
    """
    inferred = onnx.shape_inference.infer_shapes(model)
    graph = inferred.graph
    sizes = {value.name: _bytes(value, scale) for value in (*graph.value_info, *graph.input, *graph.output)}
    last = {name: index for index, node in enumerate(graph.node) for name in node.input}
    alive = {value.name: sizes[value.name] for value in graph.input}
    most = sum(alive.values())
    for index, node in enumerate(graph.node):
        alive |= {name: sizes.get(name, 0.0) for name in node.output}
        extra = sizes.get(node.input[0], 0.0) if node.op_type == OPERATOR else 0.0
        most = max(most, sum(alive.values()) + extra)
        alive = {name: size for name, size in alive.items() if last.get(name, -1) > index}
    return most


def _bytes(value: onnx.ValueInfoProto, scale: int) -> float:
    """Of a tensor, for each pixel of the result; 0 if it is no image."""
    dims = value.type.tensor_type.shape.dim
    if len(dims) < 4 or not all(dim.dim_param for dim in dims[-2:]):
        return 0.0
    numbers = int(np.prod([dim.dim_value or 1 for dim in dims[1:-2]]))
    # An axis of the target's size is a plain name, one of the restored image's a product with the scale.
    coarse = [scale / _factor(dim.dim_param) for dim in dims[-2:]]
    return FLOAT_BYTES * numbers / float(np.prod(coarse))


def _factor(name: str) -> int:
    """How many times finer than the target's an axis such as ``2*H`` is."""
    factor = name.split("*")[0]
    return int(factor) if factor.isdigit() else 1


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _whole_numbers(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Constants that say along which axes, or by how much; they are stored inside the graph."""
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and isinstance(value := _attributes(node).get("value"), onnx.TensorProto):
            found[node.output[0]] = value
    whole = (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
    return {
        name: [int(number) for number in onnx.numpy_helper.to_array(tensor).ravel()]
        for name, tensor in found.items()
        if tensor.data_type in whole and not tensor.external_data
    }
