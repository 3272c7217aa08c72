"""F_Int, the multi-stage integration of eq. 7-8: weigh all stage features against each other.

The Gram matrix and the softmax are float32 whatever the precision of the features: the inner products run over millions
of elements and overflow float16.
"""

import torch
from torch import Tensor, nn

from minet_sdk.errors import TrainingError
from minet_sdk.kernels.reference import GRAM_FLOOR, START_GAIN, START_TEMPERATURE, Affinity


class MultiStageIntegration(nn.Module):
    """H = F + S F with S the row softmax of an affinity between the M stage features.

    Affinity modes, all from the Gram matrix G = F F^T:
        paper: G itself (eq. 7); one-hot at any useful size, see the tests.
        released: row maximum minus G, with a learnt gain that starts at 0 (the authors' released code).
        cosine: G_ij / sqrt(G_ii G_jj) over a learnt temperature.
    """

    kernels = False
    """Whether `forward` goes through `minet_sdk.kernels.torch_operator`; see `use_kernels`."""

    def __init__(self, mode: Affinity) -> None:
        super().__init__()
        self.mode: Affinity = mode
        if mode == "released":
            self.gain = nn.Parameter(torch.full((1,), START_GAIN))
        if mode == "cosine":
            self.log_temperature = nn.Parameter(torch.tensor(START_TEMPERATURE).log())

    def affinity(self, stages: Tensor) -> Tensor:
        """S of (N, M, C, H, W): (N, M, M) float32, rows sum to 1."""
        with torch.autocast(stages.device.type, enabled=False):
            flat = stages.flatten(2).float()
            gram = flat @ flat.transpose(1, 2)
            if self.mode == "cosine":
                norm = gram.diagonal(dim1=1, dim2=2).clamp(min=GRAM_FLOOR).sqrt()
                energy = gram / (norm[:, :, None] * norm[:, None, :]) / self.log_temperature.exp()
            elif self.mode == "released":
                energy = gram.amax(dim=-1, keepdim=True) - gram
            else:
                energy = gram
            return energy.softmax(dim=-1)

    def mixing(self, stages: Tensor) -> Tensor:
        """A = I + S (with the gain of `released`): (N, M, M) float32, so that H = A F."""
        weights = self.affinity(stages)
        if self.mode == "released":
            weights = self.gain * weights
        return torch.eye(weights.shape[-1], device=weights.device, dtype=weights.dtype) + weights

    def forward(self, stages: Tensor) -> Tensor:
        """(N, M, C, H, W) -> (N, M, C, H, W)."""
        if self.kernels:
            return self._forward_through_kernels(stages)
        mixing = self.mixing(stages).to(stages.dtype)
        return (mixing @ stages.flatten(2)).view_as(stages)

    def _forward_through_kernels(self, stages: Tensor) -> Tensor:
        from minet_sdk.kernels.torch_operator import integrate

        temperature = self.log_temperature.exp() if self.mode == "cosine" else 1.0
        gain = self.gain if self.mode == "released" else 1.0
        return integrate(stages.flatten(1, 2), stages.shape[1], self.mode, temperature, gain).view_as(stages)


def use_kernels(network: nn.Module, enabled: bool = True) -> None:
    """Let a network's integration run through the operators of `minet_sdk.kernels.torch_operator`, or no longer.

    On CUDA these launch the project's own kernels, in training too; anywhere else they compute what the module does.

    Args:
        network: anything that holds a `MultiStageIntegration`.
        enabled: False goes back to plain PyTorch.

    Raises:
        TrainingError: the network has no integration.
    """
    found = [module for module in network.modules() if isinstance(module, MultiStageIntegration)]
    if not found:
        raise TrainingError(f"{type(network).__name__} has no multi-stage integration that kernels could run")
    for module in found:
        module.kernels = enabled
