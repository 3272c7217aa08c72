"""A trained network in float64 from end to end: the parts that are float32 always are replaced by exact ones."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from minet_sdk.kernels import reference
from minet_sdk.kernels.reference import Affinity
from minet_sdk.training.integration import MultiStageIntegration
from minet_sdk.training.layers import SINC_TAPS, SincDownsampler, SincUpsampler
from minet_sdk.training.network import Network


class ExactIntegration(nn.Module):
    """Eq. 7-8 by `minet_sdk.kernels.reference`."""

    def __init__(self, integration: MultiStageIntegration) -> None:
        super().__init__()
        self.mode: Affinity = integration.mode
        self.settings: dict[str, float] = {}
        if self.mode == "cosine":
            self.settings["temperature"] = float(integration.log_temperature.detach().double().exp())
        if self.mode == "released":
            self.settings["gain"] = float(integration.gain.detach().double())

    def forward(self, stages: Tensor) -> Tensor:
        """(N, M, C, H, W) -> (N, M, C, H, W), float64."""
        return torch.from_numpy(reference.integrate(stages.numpy(), self.mode, **self.settings))


class ExactUpsampler(nn.Module):
    """As `SincUpsampler`, with its float32 kernel."""

    kernel: Tensor

    def __init__(self, upsampler: SincUpsampler) -> None:
        super().__init__()
        self.scale = upsampler.scale
        self.register_buffer("kernel", upsampler.kernel.double())

    def forward(self, target: Tensor) -> Tensor:
        """(N, 1, H, W) -> (N, 1, scale * H, scale * W), float64."""
        before, after = SINC_TAPS // 2 - 1, SINC_TAPS // 2
        padded = functional.pad(target, (before, after, before, after), mode="replicate")
        return functional.pixel_shuffle(functional.conv2d(padded, self.kernel), self.scale)


class ExactDownsampler(nn.Module):
    """As `SincDownsampler`, with its float32 kernel."""

    kernel: Tensor

    def __init__(self, downsampler: SincDownsampler) -> None:
        super().__init__()
        self.factor, self.reach = downsampler.factor, downsampler.reach
        self.register_buffer("kernel", downsampler.kernel.double())

    def forward(self, image: Tensor) -> Tensor:
        """(N, 1, factor * H, factor * W) -> (N, 1, H, W), float64."""
        padded = functional.pad(image, 4 * (self.reach,), mode="replicate")
        return functional.conv2d(padded, self.kernel, stride=self.factor)


def in_float64(network: Network) -> Network:
    """A copy of a network that computes in float64; for inference on a CPU."""
    exact = copy.deepcopy(network).double().eval()
    for name, part in network.named_modules():
        if isinstance(part, MultiStageIntegration):
            exact.set_submodule(name, ExactIntegration(part))
        elif isinstance(part, SincUpsampler):
            exact.set_submodule(name, ExactUpsampler(part))
        elif isinstance(part, SincDownsampler):
            exact.set_submodule(name, ExactDownsampler(part))
    return exact
