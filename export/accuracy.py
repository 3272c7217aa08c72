"""How far an exported graph may stray from the trained network, measured against what the network itself contributes.

A network with a skip adds a little detail to an interpolated image: an error that is small beside the image may be all
of that detail, so differences are relative to the rms of the detail.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from minet_sdk.bundle import Precision
from minet_sdk.training.model import MINet

Array = npt.NDArray[np.float32]

_LEAST_DETAIL = 1e-2
"""Rms of the detail, relative to the image, below which float32 rounding of the image itself would count as error."""


class Tolerance(NamedTuple):
    """Root-mean-square difference, relative to the rms of the detail."""

    export: float
    """Allowed between the exported graph and PyTorch float32 when the bundle is written."""

    engine: float
    """Allowed between any engine on any device and the golden vector."""


TOLERANCES: dict[Precision, Tolerance] = {"fp32": Tolerance(5e-5, 1e-3), "fp16": Tolerance(1e-2, 2e-2)}
"""float16 rounds to 5e-4 relative at each of some dozens of layers; float32 engines may use Winograd convolutions."""


def detail_level(network: MINet, target: Array, restored: Array) -> float:
    """Rms of what the network adds to its interpolated target, or of ``restored`` for a network without a skip.

    Args:
        network: float32 network.
        target: (N, 1, H, W) normalised.
        restored: (N, 1, scale * H, scale * W), what the network makes of it.
    """
    level = rms(restored)
    if network.config.skip == "none":
        return level
    with torch.no_grad():
        interpolated = network.interpolate(torch.from_numpy(target)).numpy()
    return max(rms(restored - interpolated), _LEAST_DETAIL * level)


def rms(values: Array) -> float:
    """Root mean square, accumulated in float64."""
    return float(np.sqrt(np.mean(values.astype(np.float64) ** 2)))


def difference(result: Array, expected: Array) -> float:
    """Rms difference of two arrays; inf if the result is not finite."""
    return rms(result - expected) if np.isfinite(result).all() else float("inf")
