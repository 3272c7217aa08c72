"""What a graph has to multiply at least: convolutions and matrix products, counted in its ONNX form at one size."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minet_sdk.errors import BundleError, InputError, first_line
from minet_sdk.requirements import require

_FEATURE = "counting the operations of a graph"

TILE, WINDOW = 4, 3
"""Of Winograd F(4x4, 3x3), Lavin and Gray 2016: 6 x 6 products give 4 x 4 outputs of a 3x3 convolution."""

WINOGRAD_CHANNELS = 16
"""Convolutions whose channels are multiples of this run as Winograd ones in the native engine."""


@dataclass(frozen=True)
class Operations:
    """Multiplications of one pass; each comes with an addition."""

    convolutions: int
    """By the definition of the convolution."""

    winograd: int
    """The same convolutions, 3x3 ones with channels in multiples of 16 as Winograd F(4x4, 3x3), without transforms."""

    products: int
    """Of matrices: the Gram matrix and the mixing of the integration."""

    def floor_seconds(self, gflops: float, *, winograd: bool = False) -> float:
        """Time of the convolutions alone at a peak of so many GFLOP/s, a multiplication and an addition being two."""
        return 2e-9 * (self.winograd if winograd else self.convolutions) / gflops


def count(graph: Path, shapes: dict[str, tuple[int, ...]]) -> Operations:
    """Count a graph's multiplications.

    Args:
        graph: .onnx file; its weights need not be there.
        shapes: of every input by name.

    Raises:
        MissingPackageError: the package onnx is not installed.
        BundleError: the file is no graph, or its shapes cannot be followed.
        InputError: an input has no shape, or one of another rank.
    """
    model = at_size(graph, shapes)
    known = {value.name: _dimensions(value) for value in (*model.graph.input, *model.graph.value_info)}
    known |= {value.name: _dimensions(value) for value in model.graph.output}
    known |= {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    convolutions = winograd = products = 0
    for node in model.graph.node:
        if node.op_type not in ("Conv", "MatMul"):
            continue
        output, inputs = known.get(node.output[0], ()), [known.get(name, ()) for name in node.input[:2]]
        if not output or not all(inputs) or 0 in (*output, *inputs[0], *inputs[1]):
            raise BundleError(f"{graph}: the shapes around {node.op_type} {node.name} cannot be followed")
        if node.op_type == "MatMul":
            products += math.prod(output) * inputs[0][-1]
            continue
        multiplications = math.prod(output) * math.prod(inputs[1][1:])
        convolutions += multiplications
        winograd += _winograd(node, output, inputs[1]) or multiplications
    return Operations(convolutions, winograd, products)


def at_size(graph: Path, shapes: dict[str, tuple[int, ...]]) -> Any:
    """The graph as an ONNX model, its local functions inlined and every shape inferred from the inputs'."""
    onnx = require("onnx", _FEATURE)
    inliner = require("onnx.inliner", _FEATURE)
    try:
        model = inliner.inline_local_functions(onnx.load(graph, load_external_data=False))
        for value in model.graph.input:
            _fix(value, shapes)
        model.graph.ClearField("value_info")
        for value in model.graph.output:
            value.type.tensor_type.ClearField("shape")
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except InputError:
        raise
    except Exception as error:
        # Protocol buffers and shape inference each raise classes of their own.
        raise BundleError(f"{graph} is not a graph that onnx can follow: {first_line(error)}") from error


def _fix(value: Any, shapes: dict[str, tuple[int, ...]]) -> None:
    dimensions = value.type.tensor_type.shape.dim
    shape = shapes.get(value.name, ())
    if len(shape) != len(dimensions):
        raise InputError(f"input {value.name} got the shape {shape}; expected {len(dimensions)} dimensions")
    for dimension, size in zip(dimensions, shape, strict=True):
        dimension.dim_value = size


def _dimensions(value: Any) -> tuple[int, ...]:
    """Sizes; 0 for one that is not known."""
    return tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)


def _winograd(node: Any, output: tuple[int, ...], weight: tuple[int, ...]) -> int:
    """Multiplications in the Winograd domain; 0 where the convolution is none that it is for."""
    attributes = {attribute.name: list(attribute.ints) or attribute.i for attribute in node.attribute}
    plain = attributes.get("strides", [1, 1]) == [1, 1] and attributes.get("dilations", [1, 1]) == [1, 1]
    fits = weight[2:] == (WINDOW, WINDOW) and not any(size % WINOGRAD_CHANNELS for size in weight[:2])
    if not plain or not fits or attributes.get("group", 1) != 1:
        return 0
    tiles = math.prod(-(-size // TILE) for size in output[2:])
    return output[0] * tiles * (TILE + WINDOW - 1) ** 2 * weight[0] * weight[1]
