"""A trained network as ONNX: symbolic batch and image size, the same tensor names in every bundle."""

import logging
import re
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import onnx
import onnx.utils
import torch
from torch import Tensor, nn

from minet_sdk.bundle import METADATA_KEY, Graph, Manifest, Precision
from minet_sdk.errors import ExportError
from minet_sdk.export.graphs import graphs_of, model_graph
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


def onnx_from_torch(network: Network, manifest: Manifest) -> dict[Graph, onnx.ModelProto]:
    """Export all graphs of a bundle: one that holds everything is traced, the others are cut out of it.

    Args:
        network: trained network of any kind, float32.
        manifest: written into each graph's metadata, without its list of files; its precision is that of weights and
            features inside the graphs, inputs and outputs are float32 always. int8 and fp8 need its scales.

    Returns:
        Models with weights inside. Axes are named N, H, W and, for what is larger than the target, as ``2*H``.

    Raises:
        ExportError: weights that the precision cannot hold, scales missing, or PyTorch's exporter gives up.
    """
    outputs = [OUTPUT[graph] for graph in graphs_of(network) if graph != "target"]
    traced = _traced(network, manifest.precision, outputs)
    models: dict[Graph, onnx.ModelProto] = {
        graph: _part(traced, graph, input_names(network, graph)) for graph in graphs_of(network)
    }
    for graph, model in models.items():
        if quantisation := Quantisation.of(manifest):
            quantise(model, quantisation)
        model.graph.name = f"minet_{graph}"
        if isinstance(network, MINet) and network.config.integration == "affinity" and graph != "reference":
            config = network.config
            model.functions.append(integration_function(config.affinity, config.stage_features, manifest.precision))
        onnx.helper.set_model_props(model, {METADATA_KEY: manifest.to_json()})
    return models


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


class _Traced(nn.Module):
    """What is traced: everything, which also gives out the reference's features where there are any, float32."""

    def __init__(self, network: Network, precision: Precision) -> None:
        super().__init__()
        self.whole = model_graph(network, precision)

    def forward(self, target: Tensor, reference: Tensor | None = None) -> tuple[Tensor, ...]:
        restored, features = self.whole.halves(target, reference)
        return (restored,) if features is None else (restored, features.float())


def _traced(network: Network, precision: Precision, outputs: list[str]) -> onnx.ModelProto:
    """The graph of everything, as PyTorch's exporter makes it, without its remarks and with our names of axes."""
    inputs = input_names(network, "model")
    examples, axes = _tracing_inputs(network)
    module = _Traced(network, precision).eval()
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                module,
                tuple(examples[name] for name in inputs),
                dynamo=True,
                opset_version=OPSETS[precision],
                input_names=list(inputs),
                output_names=outputs,
                dynamic_shapes=tuple(axes[name] for name in inputs),
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise ExportError(f"PyTorch {torch.__version__} cannot export the network: {error}") from error
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    _strip(model)
    _unwrap(model)
    shapes = tensor_shapes(network)
    for output in model.graph.output:
        _name_axes(model, output, shapes[output.name])
    return model


def _part(traced: onnx.ModelProto, graph: Graph, inputs: tuple[str, ...]) -> onnx.ModelProto:
    """One of a bundle's graphs: the nodes between its inputs and its output."""
    if graph == "target":
        traced = _taking_features(traced)
    part = onnx.utils.Extractor(traced).extract_model(list(inputs), [OUTPUT[graph]])
    part.producer_name, part.producer_version = traced.producer_name, traced.producer_version
    return part


def _taking_features(traced: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that begins with the features instead of ending with them: where they were widened, they are narrowed."""
    features = OUTPUT["reference"]
    changed = onnx.ModelProto()
    changed.CopyFrom(traced)
    nodes = changed.graph.node
    (giving,) = (node for node in nodes if features in node.output)
    if giving.op_type != "Cast":
        return changed
    narrow = giving.input[0]
    (narrow_type,) = (value.type.tensor_type.elem_type for value in changed.graph.value_info if value.name == narrow)
    rest = [node for node in nodes if not {features, narrow} & {*node.output}]
    taking = onnx.helper.make_node("Cast", [features], [narrow], name="node_narrow_features", to=narrow_type)
    changed.graph.ClearField("node")
    changed.graph.node.extend([taking, *rest])
    return changed


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


def _name_axes(model: onnx.ModelProto, output: onnx.ValueInfoProto, shape: list[int | str]) -> None:
    """Give an output's axes our names wherever they stand; the exporter invents some where it has to divide."""
    renamed: dict[str, str] = {}
    for axis, name in zip(output.type.tensor_type.shape.dim, shape, strict=True):
        found, wanted = re.findall(r"[A-Za-z]\w*", axis.dim_param), re.findall(r"[A-Za-z]\w*", str(name))
        renamed.update(zip(found, wanted, strict=False))
    for item in (*model.graph.value_info, *model.graph.output):
        for axis in item.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_param = re.sub(r"[A-Za-z]\w*", lambda match: renamed.get(match[0], match[0]), axis.dim_param)


def _strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes about its own work: stack traces with local paths, mostly."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")


def _unwrap(model: onnx.ModelProto) -> None:
    """Name the weights as in the graph that `_Traced` wraps."""
    for tensor in model.graph.initializer:
        tensor.name = tensor.name.removeprefix("whole.")
    for node in model.graph.node:
        node.input[:] = [name.removeprefix("whole.") for name in node.input]


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
