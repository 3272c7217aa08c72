"""What all networks share: how they are called, what they give, and the registry that builds them from plain data."""

from abc import abstractmethod
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from minet_sdk.errors import InputError, TrainingError
from minet_sdk.training.architecture import Architecture


class Restoration(NamedTuple):
    """What training needs from one forward pass."""

    restored: Tensor
    """(N, 1, scale * H, scale * W)."""

    reference: Tensor | None = None
    """The reference as its own head gives it back, same shape; None for networks without such a head."""

    intermediates: tuple[Tensor, ...] = ()
    """Further images that the objective compares with the truth, (N, 1, k * H, k * W) with k up to the scale."""


class FeatureLayout(NamedTuple):
    """Shape of what a guided network computes of the reference alone: (N, number, channels, k * H, k * W)."""

    number: int
    channels: int
    multiple: int
    """k: height and width in those of the target."""


class Network(nn.Module):
    """Restores a low-resolution target; guided ones with the help of a sharp reference.

    A guided network is two functions, so that what depends on the reference alone can run before the target exists.
    """

    @property
    @abstractmethod
    def config(self) -> Architecture:
        """What it looks like."""

    @property
    def guided(self) -> bool:
        """Whether it takes a reference."""
        return self.config.reference

    @property
    def features(self) -> FeatureLayout | None:
        """Layout of `encode_reference`'s result; None for single-contrast networks."""
        return None

    def encode_reference(self, reference: Tensor) -> Tensor:
        """What depends on the reference alone: (N, 1, sH, sW) -> as `features` says."""
        raise InputError(f"{type(self).__name__} takes no reference")

    @abstractmethod
    def restore(self, target: Tensor, reference_features: Tensor | None) -> Tensor:
        """(N, 1, H, W), and `encode_reference`'s result exactly if it is guided -> (N, 1, sH, sW)."""

    def interpolated(self, target: Tensor) -> Tensor | None:
        """The image that the network adds detail to, (N, 1, sH, sW); None if it makes the whole image itself."""
        return None

    @abstractmethod
    def forward(self, target: Tensor, reference: Tensor | None = None) -> Restoration:
        """Restore a batch.

        Args:
            target: (N, 1, H, W) normalised low-resolution target.
            reference: (N, 1, sH, sW) normalised reference; None exactly if the network is not guided.

        Raises:
            InputError: a reference is missing or superfluous.
        """

    def check_reference(self, reference: Tensor | None) -> None:
        """Refuse a missing or superfluous reference.

        Raises:
            InputError: it is one of these.
        """
        if self.guided != (reference is not None):
            raise InputError(f"this network {'needs a' if self.guided else 'takes no'} reference")


def add_detail_only(tail: nn.Conv2d) -> None:
    """Let a network with a skip start as the interpolation that it adds to: its last convolution gives zero."""
    nn.init.zeros_(tail.weight)
    nn.init.zeros_(tail.get_parameter("bias"))


def kinds() -> dict[str, tuple[type[Architecture], type[nn.Module]]]:
    """Description and network of every kind."""
    from minet_sdk.training.config import MinetConfig
    from minet_sdk.training.edsr import EDSR, EdsrConfig
    from minet_sdk.training.lyu import Lyu, LyuConfig
    from minet_sdk.training.model import MINet
    from minet_sdk.training.zeng import Zeng, ZengConfig

    return {
        MinetConfig.kind: (MinetConfig, MINet),
        EdsrConfig.kind: (EdsrConfig, EDSR),
        ZengConfig.kind: (ZengConfig, Zeng),
        LyuConfig.kind: (LyuConfig, Lyu),
    }


def config_from_dict(data: Mapping[str, Any]) -> Architecture:
    """Inverse of `Architecture.to_dict`; a record without a kind, as older checkpoints have, is of a MINet.

    Raises:
        TrainingError: unknown kind or field.
    """
    known = kinds()
    kind = data.get("kind", "minet")
    if kind not in known:
        raise TrainingError(f"architecture is of kind {kind!r}, this SDK knows {', '.join(known)}: update minet-sdk")
    return known[kind][0].from_dict(dict(data))


def build(config: Architecture, seed: int = 0) -> Network:
    """A freshly initialised network of any kind; the same seed gives the same weights."""
    network: Any = kinds()[config.kind][1]
    with seeded(seed):
        return network(config)


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """Draw from a generator of this seed, and leave the global one as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
