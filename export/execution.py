"""A bundle's graphs on a CPU: in ONNX Runtime, and in PyTorch in the very formats that a GPU computes in.

ONNX Runtime has no bfloat16 convolution there, so such a graph runs as its twin in float32, in which the output of
every operator is rounded to bfloat16.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.inliner
import torch
from torch import Tensor

from minet_sdk.bundle import Graph, Precision
from minet_sdk.export.graphs import graph_module
from minet_sdk.export.onnx_from_torch import input_names
from minet_sdk.export.precision import TensorCoreConvolutions
from minet_sdk.export.quantise import Quantisation, emulate
from minet_sdk.requirements import require
from minet_sdk.training.network import Network

Array = npt.NDArray[np.float32]
Run = Callable[[Mapping[str, Array]], Array]
"""Takes inputs by name, of which it picks its own; gives the one output."""

EXECUTION: dict[Precision, str] = {
    "fp32": "",
    "fp16": "convolutions in float32 between casts",
    "bf16": "bfloat16 emulated: float32, every operator's output rounded",
    "int8": "rounded to int8, convolutions in float32 between casts",
    "fp8": "rounded to fp8, convolutions in float32 between casts",
}
"""What must be said of a number that comes out of ONNX Runtime's CPU provider; empty if it runs the graph as it is."""

_FEATURE = "validating an export"
_BFLOAT16, _FLOAT = onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT


def run_onnx(path: Path, precision: Precision) -> Run:
    """A graph in ONNX Runtime on one thread; a bfloat16 graph as its `rounded_twin`.

    Raises:
        One of `runtime_errors`: ONNX Runtime refuses the graph.
    """
    ort = require("onnxruntime", _FEATURE)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    source = rounded_twin(onnx.load_model(path)).SerializeToString() if precision == "bf16" else str(path)
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = {value.name for value in session.get_inputs()}
    return lambda feed: session.run(None, {name: value for name, value in feed.items() if name in names})[0]


def run_torch(network: Network, graph: Graph, precision: Precision, quantisation: Quantisation | None = None) -> Run:
    """A graph's own operators in PyTorch, rounded to the graph's formats after each, sums in float32.

    Args:
        network: float32.
        graph: which part of it.
        precision: of weights and features.
        quantisation: of int8 and fp8.

    Raises:
        ExportError: the precision cannot hold the weights.
    """
    module = graph_module(network, graph, precision)
    if quantisation is not None:
        emulate(module, quantisation)
    names = input_names(network, graph)

    def run(feed: Mapping[str, Array]) -> Array:
        with torch.no_grad(), TensorCoreConvolutions():
            return module(*(torch.from_numpy(feed[name]) for name in names)).numpy()

    return run


def run_network(network: Network) -> Run:
    """The float32 network itself, its restored image."""

    def run(feed: Mapping[str, Array]) -> Array:
        reference: Tensor | None = torch.from_numpy(feed["reference"]) if network.guided else None
        with torch.no_grad():
            features = None if reference is None else network.encode_reference(reference)
            return network.restore(torch.from_numpy(feed["target"]), features).numpy()

    return run


def runtime_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: its exceptions share no base class of their own, a missing input is a ValueError."""
    state = require("onnxruntime.capi.onnxruntime_pybind11_state", _FEATURE)
    return (ValueError, state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NoSuchFile,
            state.NotImplemented, state.RuntimeException)  # fmt: skip


def rounded_twin(model: onnx.ModelProto) -> onnx.ModelProto:
    """A bfloat16 graph in float32, the output of every bfloat16 operator rounded to bfloat16.

    Convolutions and products thus sum in float32 and round once, as tensor cores do.

    Args:
        model: graph with its weights loaded; inputs and outputs float32.
    """
    twin: onnx.ModelProto = onnx.inliner.inline_local_functions(model)
    graph = twin.graph
    graph.ClearField("value_info")
    values = onnx.shape_inference.infer_shapes(twin, check_type=True, strict_mode=True).graph.value_info
    narrow = {value.name for value in values if value.type.tensor_type.elem_type == _BFLOAT16}
    for tensor in graph.initializer:
        _widen(tensor)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _widen(attribute.t)
            elif (node.op_type, attribute.name, attribute.i) == ("Cast", "to", _BFLOAT16):
                attribute.i = _FLOAT
        nodes.append(node)
        for index, name in enumerate(node.output):
            if name in narrow:
                exact, rounded = f"{name}.exact", f"{name}.rounded"
                node.output[index] = exact
                nodes += [_cast(exact, rounded, _BFLOAT16), _cast(rounded, name, _FLOAT)]
    graph.ClearField("node")
    graph.node.extend(nodes)
    return twin


def _widen(tensor: onnx.TensorProto) -> None:
    """A bfloat16 tensor in float32, in place; others stay."""
    if tensor.data_type == _BFLOAT16:
        values: npt.NDArray[Any] = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), tensor.name))


def _cast(source: str, output: str, element_type: int) -> onnx.NodeProto:
    return onnx.helper.make_node("Cast", [source], [output], to=element_type)
