"""The three graphs of a bundle as modules over a trained network: only what inference needs, in the form engines want.

MINet's have no head for the reference, the attention's banded weight folded into a constant, the integration as one
node, and explicit casts. Every other network is its own graph already.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from minet_sdk.bundle import Graph, Precision
from minet_sdk.export.integration import IntegrationNode, becomes_nodes
from minet_sdk.export.precision import DTYPES, cast_weights
from minet_sdk.training.layers import ChannelSpatialAttention, PhaseFolding, SincDownsampler, SincUpsampler
from minet_sdk.training.model import MINet
from minet_sdk.training.network import Network


class FoldedAttention(nn.Module):
    """F_Att, eq. 4, with the banded weight as a constant."""

    weight: Tensor
    bias: Tensor

    def __init__(self, attention: ChannelSpatialAttention) -> None:
        super().__init__()
        self.register_buffer("weight", attention.band().detach())
        self.register_buffer("bias", attention.bias.detach().repeat(attention.channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return x * torch.sigmoid(functional.conv2d(x, self.weight, self.bias, padding=1)) + x


class FoldingNode(PhaseFolding):
    """`PhaseFolding` as ONNX nodes of its own, whose channels are all those of the first phase, then of the second."""

    def stacked(self, image: Tensor) -> Tensor:
        """(N, C, factor * H, factor * W) -> (N, factor^2 * C, H, W)."""
        if not becomes_nodes():
            return torch.cat(super().forward(image), dim=1)
        batch, channels, height, width = image.shape
        shape = (batch, channels * self.factor**2, height // self.factor, width // self.factor)
        attributes: dict[str, Any] = {"blocksize": self.factor}
        return torch.onnx.ops.symbolic("SpaceToDepth", (image,), attributes, dtype=image.dtype, shape=shape)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Like `PhaseFolding.forward`."""
        return list(self.stacked(image).split(image.shape[1], dim=1))

    def unfold(self, phases: list[Tensor]) -> Tensor:
        """Like `PhaseFolding.unfold`."""
        if not becomes_nodes():
            return super().unfold(phases)
        batch, channels, height, width = phases[0].shape
        attributes: dict[str, Any] = {"blocksize": self.factor, "mode": "DCR"}
        shape = (batch, channels, self.factor * height, self.factor * width)
        stacked = torch.cat(phases, dim=1)
        return torch.onnx.ops.symbolic("DepthToSpace", (stacked,), attributes, dtype=stacked.dtype, shape=shape)


class ReferenceGraph(nn.Module):
    """Eq. 1, `reference.onnx` of a MINet: (N, 1, sH, sW) -> (N, L + 1, C, sH, sW), or H, W on the target's grid.

    Both float32.
    """

    def __init__(self, network: MINet, precision: Precision) -> None:
        super().__init__()
        self.reference_head = copy.deepcopy(network.reference_head)
        self.reference_groups = copy.deepcopy(network.reference_groups)
        cast_weights(self, precision)
        self.dtype = DTYPES[precision]
        self.fold = FoldingNode(network.config.scale) if network.config.grid == "target" else None

    def encode(self, reference: Tensor) -> Tensor:
        """Like `MINet.encode_reference`, the result in the graph's precision."""
        narrow = reference.to(self.dtype)
        features = [self.reference_head(narrow if self.fold is None else self.fold.stacked(narrow))]
        for group in self.reference_groups:
            features.append(group(features[-1]))
        return torch.stack(features, dim=1)

    def forward(self, reference: Tensor) -> Tensor:
        """Like `MINet.encode_reference`."""
        return self.encode(reference).float()


class TargetGraph(nn.Module):
    """Eq. 2-5, `target.onnx` of a MINet: (N, 1, H, W) and the reference graph's result -> (N, 1, sH, sW).

    All float32.
    """

    def __init__(self, network: MINet, precision: Precision) -> None:
        super().__init__()
        config = network.config
        self.config = config
        self.dtype = DTYPES[precision]
        self.target_head = copy.deepcopy(network.target_head)
        self.target_groups = copy.deepcopy(network.target_groups)
        if config.reference:
            self.fusions = copy.deepcopy(network.fusions)
        if config.integration != "none":
            self.reduction = copy.deepcopy(network.reduction)
        if config.attention:
            self.target_attention = FoldedAttention(network.target_attention)
        self.target_tail = copy.deepcopy(network.target_tail)
        cast_weights(self, precision)
        if config.integration == "affinity":
            self.integration = IntegrationNode(copy.deepcopy(network.integration), config.stage_features)
        if config.skip == "sinc":
            self.interpolate = copy.deepcopy(network.interpolate)

    def restore(self, target: Tensor, reference_features: Tensor | None) -> Tensor:
        """Like `MINet.restore`, the features in the graph's precision."""
        reference = [] if reference_features is None else list(reference_features.unbind(1))
        first = self.target_head(target.to(self.dtype))
        current = first
        outputs: list[Tensor] = []
        for stage, group in enumerate(self.target_groups):
            if reference:
                current = current + self.fusions[stage](torch.cat([reference[stage], current], dim=1))
            current = group(current)
            outputs.append(current)
        total = first + (self.target_attention(current) if self.config.attention else current)
        if self.config.integration != "none":
            stages = torch.cat([*reference[1:], *outputs], dim=1)
            total = total + self.reduction(
                self.integration(stages) if self.config.integration == "affinity" else stages
            )
        restored = self.target_tail(total).float()
        if self.config.grid == "target":
            restored = functional.pixel_shuffle(restored, self.config.scale)
        return restored + self.interpolate(target) if self.config.skip == "sinc" else restored

    def forward(self, target: Tensor, reference_features: Tensor | None = None) -> Tensor:
        """Restore a batch; reference_features exactly if the network has a reference branch."""
        return self.restore(target, None if reference_features is None else reference_features.to(self.dtype))


class ModelGraph(nn.Module):
    """Everything, `model.onnx` of a MINet: (N, 1, H, W) and (N, 1, sH, sW) -> (N, 1, sH, sW), all float32.

    The features pass through the same stack as between the other two graphs. Without it, engines that compute float16
    operators in float32 keep digits here that the two graphs round away, and the results differ.
    """

    def __init__(self, network: MINet, precision: Precision) -> None:
        super().__init__()
        self.target_graph = TargetGraph(network, precision)
        if network.config.reference:
            self.reference_graph = ReferenceGraph(network, precision)

    def halves(self, target: Tensor, reference: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The restored batch and, in the graph's precision, the reference's features on the way to it."""
        features = None if reference is None else self.reference_graph.encode(reference)
        return self.target_graph.restore(target, features), features

    def forward(self, target: Tensor, reference: Tensor | None = None) -> Tensor:
        """Restore a batch; a reference exactly if the network has a reference branch."""
        return self.halves(target, reference)[0]


class PlainGraph(nn.Module):
    """A graph of a network that is its own graph: cast to the precision, but for the fixed interpolations."""

    def __init__(self, network: Network, precision: Precision) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        cast_weights(self.network, precision)
        for name, module in network.named_modules():
            if isinstance(module, SincUpsampler | SincDownsampler):
                self.network.set_submodule(name, copy.deepcopy(module))
            elif isinstance(module, PhaseFolding):
                self.network.set_submodule(name, FoldingNode(module.factor))
        self.dtype = DTYPES[precision]


class PlainReferenceGraph(PlainGraph):
    """`reference.onnx`: (N, 1, sH, sW) -> the network's features, both float32."""

    def forward(self, reference: Tensor) -> Tensor:
        """Like `Network.encode_reference`."""
        return self.network.encode_reference(reference).float()


class PlainTargetGraph(PlainGraph):
    """`target.onnx`: (N, 1, H, W) and the reference graph's result -> (N, 1, sH, sW), all float32."""

    def forward(self, target: Tensor, reference_features: Tensor) -> Tensor:
        """Like `Network.restore`."""
        return self.network.restore(target, reference_features.to(self.dtype))


class PlainModelGraph(PlainGraph):
    """`model.onnx`: (N, 1, H, W) and, for a guided network, (N, 1, sH, sW) -> (N, 1, sH, sW), all float32."""

    def halves(self, target: Tensor, reference: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Like `ModelGraph.halves`."""
        features = None if reference is None else self.network.encode_reference(reference)
        return self.network.restore(target, features), features

    def forward(self, target: Tensor, reference: Tensor | None = None) -> Tensor:
        """Restore a batch."""
        return self.halves(target, reference)[0]


GRAPHS: tuple[Graph, ...] = ("model", "reference", "target")


def graph_module(network: Network, graph: Graph, precision: Precision) -> nn.Module:
    """One graph of a network's bundle as a module, in evaluation mode.

    Raises:
        ExportError: the precision cannot hold the weights.
    """
    if graph == "model":
        return model_graph(network, precision)
    if isinstance(network, MINet):
        return {"reference": ReferenceGraph, "target": TargetGraph}[graph](network, precision).eval()
    return {"reference": PlainReferenceGraph, "target": PlainTargetGraph}[graph](network, precision).eval()


def model_graph(network: Network, precision: Precision) -> ModelGraph | PlainModelGraph:
    """The graph of everything, in evaluation mode.

    Raises:
        ExportError: the precision cannot hold the weights.
    """
    made = ModelGraph(network, precision) if isinstance(network, MINet) else PlainModelGraph(network, precision)
    return made.eval()


def graphs_of(network: Network) -> tuple[Graph, ...]:
    """The graphs that a network's bundle holds: a single-contrast network has nothing to prefetch."""
    return GRAPHS if network.guided else ("model",)
