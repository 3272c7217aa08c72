"""What a network costs: parameters, and multiplications for one restored slice, the prefetchable part apart."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from minet_sdk.training.architecture import Architecture
from minet_sdk.training.integration import MultiStageIntegration
from minet_sdk.training.layers import ChannelSpatialAttention
from minet_sdk.training.network import build

SIDE = 320
"""Of the restored slice that the multiplications are counted for; clinical matrices are about this large."""


@dataclass(frozen=True)
class Cost:
    """Of one network."""

    parameters: int
    """All that are trained, those of a reference head included."""

    reference_multiplications: int
    """Multiply-accumulates that need the reference alone, and so can be done before the target exists."""

    target_multiplications: int
    """Multiply-accumulates from the target's arrival to the restored slice."""

    @property
    def giga(self) -> float:
        """All multiply-accumulates in 1e9 (GMAC)."""
        return (self.reference_multiplications + self.target_multiplications) / 1e9


def cost(config: Architecture, side: int = SIDE) -> Cost:
    """Count one slice of ``side`` x ``side`` restored pixels, as it is restored: without the reference's own head.

    Convolutions and the products of F_Int are counted, F_Att with the 27 weights that it has; fixed interpolation is
    not.

    Args:
        config: of any kind; a multiple of its scale must be ``side``.
        side: of the restored slice.
    """
    done: list[int] = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        done.append(_multiplications(module, output.shape))

    with FakeTensorMode():
        network = build(config)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | ChannelSpatialAttention | MultiStageIntegration):
                module.register_forward_hook(count)
        low = side // config.scale
        features = network.encode_reference(torch.zeros(1, 1, side, side)) if network.guided else None
        reference = sum(done)
        network.restore(torch.zeros(1, 1, low, low), features)
        return Cost(sum(parameter.numel() for parameter in network.parameters()), reference, sum(done) - reference)


def _multiplications(module: nn.Module, output: torch.Size) -> int:
    if isinstance(module, nn.Conv2d):
        return output[0] * output[2] * output[3] * module.weight.numel()
    if isinstance(module, ChannelSpatialAttention):
        return output.numel() * module.weight.numel()
    return 2 * output.numel() * output[1]
