"""A trained network as ONNX: symbolic batch and image size, the same tensor names in every bundle."""

import logging
import re
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import onnx
import torch
from torch import Tensor

from minet_sdk.bundle import METADATA_KEY, Graph, Manifest
from minet_sdk.errors import ExportError
from minet_sdk.export.graphs import graph_module
from minet_sdk.export.integration import integration_function
from minet_sdk.export.precision import OPSETS
from minet_sdk.export.quantise import Quantisation, quantise
from minet_sdk.training.model import MINet
from minet_sdk.training.network import Network

INPUTS: dict[Graph, tuple[str, ...]] = {
    "model": ("target", "reference"),
    "reference": ("reference",),
    "target": ("target", "reference_features"),
}
OUTPUT: dict[Graph, str] = {"model": "restored", "reference": "reference_features", "target": "restored"}

_EXAMPLE = (2, 12, 10)
"""N, H, W while tracing: all different, none of them 1, so that PyTorch keeps every one of them symbolic."""


def onnx_from_torch(network: Network, graph: Graph, manifest: Manifest) -> onnx.ModelProto:
    """Export one graph of a bundle.

    Args:
        network: trained network of any kind, float32.
        graph: which part of it.
        manifest: written into the graph's metadata, without its list of files; its precision is that of weights and
            features inside the graph, inputs and outputs are float32 always. int8 and fp8 need its scales.

    Returns:
        A model with weights inside. Axes are named N, H, W and, for what is larger than the target, as ``2*H``.

    Raises:
        ExportError: weights that the precision cannot hold, scales missing, or PyTorch's exporter gives up.
    """
    inputs = input_names(network, graph)
    examples, axes = _tracing_inputs(network)
    module = graph_module(network, graph, manifest.precision)
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                module,
                tuple(examples[name] for name in inputs),
                dynamo=True,
                opset_version=OPSETS[manifest.precision],
                input_names=list(inputs),
                output_names=[OUTPUT[graph]],
                dynamic_shapes=tuple(axes[name] for name in inputs),
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise ExportError(f"PyTorch {torch.__version__} cannot export {graph}.onnx: {error}") from error
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    _strip(model)
    _name_axes(model, tensor_shapes(network)[OUTPUT[graph]])
    if quantisation := Quantisation.of(manifest):
        quantise(model, quantisation)
    model.graph.name = f"minet_{graph}"
    if isinstance(network, MINet) and network.config.integration == "affinity" and graph != "reference":
        config = network.config
        model.functions.append(integration_function(config.affinity, config.stage_features, manifest.precision))
    onnx.helper.set_model_props(model, {METADATA_KEY: manifest.to_json()})
    return model


def input_names(network: Network, graph: Graph) -> tuple[str, ...]:
    """Inputs of a graph in order."""
    return INPUTS[graph] if network.guided else ("target",)


def tensor_shapes(network: Network) -> dict[str, list[int | str]]:
    """Shape of every graph input and output as it stands in the file: numbers, and names of the symbolic axes."""
    images: dict[str, list[int | str]] = {
        "target": ["N", 1, *_axes(1)],
        "reference": ["N", 1, *_axes(network.config.scale)],
        "restored": ["N", 1, *_axes(network.config.scale)],
    }
    if (features := network.features) is None:
        return images
    return {**images, "reference_features": ["N", features.number, features.channels, *_axes(features.multiple)]}


def _axes(multiple: int) -> tuple[str, str]:
    """Names of height and width in those of the target."""
    return ("H", "W") if multiple == 1 else (f"{multiple}*H", f"{multiple}*W")


def _tracing_inputs(network: Network) -> tuple[dict[str, Tensor], dict[str, dict[int, Any]]]:
    """Example tensors and symbolic axes by input name, both according to `tensor_shapes`."""
    batch, height, width = _EXAMPLE
    symbols: dict[int | str, Any] = {"N": torch.export.Dim("N")}
    sizes: dict[int | str, int] = {"N": batch}
    h, w = torch.export.Dim("H"), torch.export.Dim("W")
    for multiple in (1, 2, 4):
        for name, dimension, size in zip(_axes(multiple), (h, w), (height, width), strict=True):
            symbols[name] = dimension if multiple == 1 else multiple * dimension
            sizes[name] = multiple * size
    examples: dict[str, Tensor] = {}
    axes: dict[str, dict[int, Any]] = {}
    for name, shape in tensor_shapes(network).items():
        examples[name] = torch.zeros([sizes[axis] if isinstance(axis, str) else axis for axis in shape])
        axes[name] = {index: symbols[axis] for index, axis in enumerate(shape) if axis in symbols}
    return examples, axes


def _name_axes(model: onnx.ModelProto, output: list[int | str]) -> None:
    """Give the output's axes our names wherever they stand; the exporter invents some where it has to divide."""
    (value,) = model.graph.output
    renamed: dict[str, str] = {}
    for axis, name in zip(value.type.tensor_type.shape.dim, output, strict=True):
        found, wanted = re.findall(r"[A-Za-z]\w*", axis.dim_param), re.findall(r"[A-Za-z]\w*", str(name))
        renamed.update(zip(found, wanted, strict=False))
    for item in (*model.graph.value_info, value):
        for axis in item.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_param = re.sub(r"[A-Za-z]\w*", lambda match: renamed.get(match[0], match[0]), axis.dim_param)


def _strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes about its own work: stack traces with local paths, mostly."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")


@contextmanager
def _quiet() -> Generator[None]:
    """Silence what PyTorch's exporter says about itself and about packages that this project does not use."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)
            warnings.filterwarnings("ignore", r".*The axis name: .* will not be used", UserWarning)
            yield
    finally:
        logger.setLevel(level)
