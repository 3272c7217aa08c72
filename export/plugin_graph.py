"""A bundle's graph for TensorRT: its integration node as the kernels' plugins, one for each kernel.

Every plugin node has a model-local function of the same name as its body, so that the graph runs in any engine, and so
that the rewriting can be compared with what it replaces.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import onnx

from minet_sdk.errors import ExportError
from minet_sdk.export.onnx_names import DOMAIN, OPERATOR, PLUGIN_VERSION
from minet_sdk.export.plugin_functions import function_of
from minet_sdk.kernels.launches import CHANNEL_MULTIPLE, MOST_STAGES, SLOTS, Mode
from minet_sdk.kernels.plugin_operators import (
    FOLD_WEIGHTS,
    MIX_STAGES,
    MIX_STAGES_SEPARATE,
    STAGE_AFFINITY,
    STAGE_GRAM,
    STAGE_GRAM_SEPARATE,
    Operator,
    Settings,
)

Route = Literal["mix", "fold"]
"""`mix` writes H = A F and leaves the reduction as it is; `fold` gives the reduction A-dependent weights instead."""

Inputs = Literal["stacked", "separate"]
"""Whether the kernels read the concatenated stage features, or each of them where it lies."""


def rewrite(model: onnx.ModelProto, route: Route = "mix", inputs: Inputs = "stacked") -> onnx.ModelProto:
    """Replace the node `MultiStageIntegration` by the nodes of the plugins.

    Args:
        model: `model.onnx` or `target.onnx` of a bundle, with or without its weights loaded.
        route: ``mix`` takes any batch; ``fold`` fixes the batch to 1, because TensorRT's convolutions share one weight
            between the slices of a batch.
        inputs: ``separate`` spares the concatenation, where ``mix`` is the route.

    Returns:
        A copy. Its inputs, outputs and values are those of ``model``.

    Raises:
        ExportError: the graph is not built as the route needs it; the message says which choice works.
    """
    if route not in get_args(Route) or inputs not in get_args(Inputs):
        raise ExportError(
            f"plugin route is {route!r} with {inputs!r} inputs; expected a route of {', '.join(get_args(Route))} and "
            f"inputs of {', '.join(get_args(Inputs))}"
        )
    result = onnx.ModelProto()
    result.CopyFrom(model)
    integration = _find(result)
    nodes = _Nodes(result, integration)
    if inputs == "stacked":
        features = [integration.features]
        partials = nodes.add(STAGE_GRAM, features, "partials")
    else:
        features = _separate_features(result.graph, integration)
        partials = nodes.add(STAGE_GRAM_SEPARATE, features, "partials")
    mixing = nodes.add(STAGE_AFFINITY, [partials], "mixing")
    if route == "mix":
        operator = MIX_STAGES if inputs == "stacked" else MIX_STAGES_SEPARATE
        nodes.add(operator, [*features, mixing], None)
    else:
        reduction = _reduction(result.graph, integration)
        reduction.input[1] = nodes.add(FOLD_WEIGHTS, [reduction.input[1], mixing], "weight")
        reduction.input[0] = integration.features
        _fix_batch(result.graph)
    nodes.replace_integration()
    return result


@dataclass(frozen=True)
class _Integration:
    """The node that is replaced."""

    node: onnx.NodeProto
    settings: Settings

    @property
    def features(self) -> str:
        return self.node.input[0]

    @property
    def result(self) -> str:
        return self.node.output[0]


class _Nodes:
    """The nodes that take the integration's place, and their functions."""

    def __init__(self, model: onnx.ModelProto, integration: _Integration) -> None:
        self.model = model
        self.integration = integration
        self.nodes: list[onnx.NodeProto] = []

    def add(self, operator: Operator, inputs: Sequence[str], suffix: str | None) -> str:
        """One node; its output is named after the integration's, or is the integration's if there is no suffix."""
        result = self.integration.result
        output = result if suffix is None else f"{result}_{suffix}"
        attributes: dict[str, Any] = {
            **self.integration.settings.attributes(operator),
            "plugin_namespace": DOMAIN,
            "plugin_version": PLUGIN_VERSION,
            # A request for the ahead-of-time form, where TensorRT would else have to guess.
            "aot": 1,
        }
        name = f"{self.integration.node.name or OPERATOR}/{operator.name}"
        self.nodes.append(
            onnx.helper.make_node(operator.name, inputs, [output], name=name, domain=DOMAIN, **attributes)
        )
        opset = next(entry.version for entry in self.model.opset_import if entry.domain == "")
        self.model.functions.append(function_of(operator, self.integration.settings, opset))
        return output

    def replace_integration(self) -> None:
        """Put the nodes where the integration was, and drop what only it used."""
        graph = self.model.graph
        nodes = list(graph.node)
        index = next(index for index, node in enumerate(nodes) if self.integration.result in node.output)
        nodes[index : index + 1] = self.nodes
        used = {name for node in nodes for name in node.input} | {value.name for value in graph.output}
        nodes = [node for node in nodes if node.op_type != "Concat" or used & set(node.output)]
        kept = {name for node in nodes for name in (*node.input, *node.output)}
        _replace(graph.node, nodes)
        _replace(graph.value_info, [value for value in graph.value_info if value.name in kept])
        _replace(
            self.model.functions,
            [function for function in self.model.functions if (function.domain, function.name) != (DOMAIN, OPERATOR)],
        )


def _find(model: onnx.ModelProto) -> _Integration:
    """The one integration node, checked against what the kernels can do."""
    found = [node for node in model.graph.node if (node.domain, node.op_type) == (DOMAIN, OPERATOR)]
    if len(found) != 1:
        raise ExportError(
            f"graph {model.graph.name!r} has {len(found)} nodes {DOMAIN}.{OPERATOR}; expected one: "
            "graphs without integration have no use for the plugins, build them as they are"
        )
    attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in found[0].attribute}
    try:
        settings = Settings(
            stages=attributes["stages"],
            mode=attributes["mode"].decode(),
            temperature=attributes["temperature"],
            gain=attributes["gain"],
        )
    except KeyError as error:
        raise ExportError(f"{DOMAIN}.{OPERATOR} has no attribute {error}: export the bundle again") from error
    if settings.mode not in get_args(Mode):
        raise ExportError(
            f"the integration's mode is {settings.mode!r}; the kernels know {', '.join(get_args(Mode))}: build the "
            "graph without plugins"
        )
    if not 1 <= settings.stages <= MOST_STAGES:
        raise ExportError(
            f"the integration has {settings.stages} stage features; the kernels take 1 to {MOST_STAGES}: build the "
            "graph without plugins"
        )
    channels = _channels(model, found[0].input[0])
    if channels % (CHANNEL_MULTIPLE * settings.stages):
        raise ExportError(
            f"the integration has {channels} channels in {settings.stages} stage features; the kernels take a multiple "
            f"of {CHANNEL_MULTIPLE} in each: build the graph without plugins"
        )
    return _Integration(found[0], settings)


def _channels(model: onnx.ModelProto, name: str) -> int:
    """Size of a tensor's second axis."""
    values = [*model.graph.value_info, *onnx.shape_inference.infer_shapes(model).graph.value_info, *model.graph.input]
    for value in values:
        axes = value.type.tensor_type.shape.dim
        if value.name == name and len(axes) == 4 and axes[1].HasField("dim_value"):
            return axes[1].dim_value
    raise ExportError(f"ONNX cannot infer how many channels {name} has: export the bundle again")


def _separate_features(graph: onnx.GraphProto, integration: _Integration) -> list[str]:
    """The stage features before their concatenation, as many as the plugins have inputs."""
    producers = [node for node in graph.node if integration.features in node.output]
    stages = integration.settings.stages
    if not producers or producers[0].op_type != "Concat" or len(producers[0].input) != stages:
        made_by = f"{producers[0].op_type} of {len(producers[0].input)}" if producers else "nothing"
        raise ExportError(
            f"the stage features {integration.features} come from {made_by}; expected a Concat of {stages}: "
            'rewrite with inputs="stacked"'
        )
    features = list(producers[0].input)
    return features + features[:1] * (SLOTS - stages)


def _reduction(graph: onnx.GraphProto, integration: _Integration) -> onnx.NodeProto:
    """The convolution that alone takes the integration's result, with a weight that is a constant."""
    consumers = [node for node in graph.node if integration.result in node.input]
    kinds = [node.op_type for node in consumers] + [
        "graph output" for value in graph.output if value.name == integration.result
    ]
    if kinds != ["Conv"]:
        raise ExportError(
            f"the integration is followed by {', '.join(kinds) or 'nothing'}; folding needs one Conv: "
            'rewrite with route="mix"'
        )
    (reduction,) = consumers
    groups = [entry.i for entry in reduction.attribute if entry.name == "group"]
    if reduction.input[1] not in {tensor.name for tensor in graph.initializer} or groups not in ([], [1]):
        raise ExportError(
            f"the Conv after the integration has the weight {reduction.input[1]} and the groups {groups or [1]}; "
            'folding needs a constant weight that is not quantised, and one group: rewrite with route="mix"'
        )
    return reduction


def _fix_batch(graph: onnx.GraphProto) -> None:
    """Make the first axis of every input 1, wherever its symbol stands."""
    values = [*graph.input, *graph.output, *graph.value_info]
    batches = [value.type.tensor_type.shape.dim[0] for value in graph.input]
    sizes = {batch.dim_value for batch in batches if batch.HasField("dim_value")}
    if not sizes <= {1}:
        raise ExportError(f'the graph has the batch {max(sizes)}; folding needs 1: rewrite with route="mix"')
    symbols = {batch.dim_param for batch in batches}
    for value in values:
        for axis in value.type.tensor_type.shape.dim:
            if axis.HasField("dim_param") and axis.dim_param in symbols:
                axis.dim_value = 1


def _replace(field: Any, content: Iterable[Any]) -> None:
    """Exchange the content of a repeated field."""
    content = list(content)
    del field[:]
    field.extend(content)
