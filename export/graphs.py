"""The three graphs of a bundle as modules over a trained MINet: only what inference needs, in the form engines want.

Against `training.model`: no head for the reference, the attention's banded weight folded into a constant, the
integration as one node, and explicit casts.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from minet_sdk.bundle import Graph, Precision
from minet_sdk.export.integration import IntegrationNode
from minet_sdk.export.precision import DTYPES, cast_weights
from minet_sdk.training.layers import ChannelSpatialAttention
from minet_sdk.training.model import MINet


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


class ReferenceGraph(nn.Module):
    """Eq. 1, `reference.onnx`: (N, 1, sH, sW) -> (N, L + 1, C, sH, sW), both float32."""

    def __init__(self, network: MINet, precision: Precision) -> None:
        super().__init__()
        self.reference_head = copy.deepcopy(network.reference_head)
        self.reference_groups = copy.deepcopy(network.reference_groups)
        cast_weights(self, precision)
        self.dtype = DTYPES[precision]

    def encode(self, reference: Tensor) -> Tensor:
        """Like `MINet.encode_reference`, the result in the graph's precision."""
        features = [self.reference_head(reference.to(self.dtype))]
        for group in self.reference_groups:
            features.append(group(features[-1]))
        return torch.stack(features, dim=1)

    def forward(self, reference: Tensor) -> Tensor:
        """Like `MINet.encode_reference`."""
        return self.encode(reference).float()


class TargetGraph(nn.Module):
    """Eq. 2-5, `target.onnx`: (N, 1, H, W) and the reference graph's result -> (N, 1, sH, sW), all float32."""

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
        return restored + self.interpolate(target) if self.config.skip == "sinc" else restored

    def forward(self, target: Tensor, reference_features: Tensor | None = None) -> Tensor:
        """Restore a batch; reference_features exactly if the network has a reference branch."""
        return self.restore(target, None if reference_features is None else reference_features.to(self.dtype))


class ModelGraph(nn.Module):
    """Everything, `model.onnx`: (N, 1, H, W) and (N, 1, sH, sW) -> (N, 1, sH, sW), all float32.

    The features pass through the same stack as between the other two graphs. Without it, engines that compute float16
    operators in float32 keep digits here that the two graphs round away, and the results differ.
    """

    def __init__(self, network: MINet, precision: Precision) -> None:
        super().__init__()
        self.target_graph = TargetGraph(network, precision)
        if network.config.reference:
            self.reference_graph = ReferenceGraph(network, precision)

    def forward(self, target: Tensor, reference: Tensor | None = None) -> Tensor:
        """Restore a batch; a reference exactly if the network has a reference branch."""
        features = None if reference is None else self.reference_graph.encode(reference)
        return self.target_graph.restore(target, features)


GRAPHS: dict[Graph, type[ModelGraph | ReferenceGraph | TargetGraph]] = {
    "model": ModelGraph,
    "reference": ReferenceGraph,
    "target": TargetGraph,
}


def graphs_of(network: MINet) -> tuple[Graph, ...]:
    """The graphs that a network's bundle holds: a single-contrast network has nothing to prefetch."""
    return ("model", "reference", "target") if network.config.reference else ("model",)
