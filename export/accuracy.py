"""How far an exported graph may stray from the trained network, measured against what the network itself contributes.

A network with a skip adds a little detail to an interpolated image: an error that is small beside the image may be all
of that detail, so differences are relative to the rms of the detail.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from minet_sdk.bundle import Precision
from minet_sdk.training.network import Network

Array = npt.NDArray[np.float32]

_LEAST_DETAIL = 1e-2
"""Rms of the detail, relative to the image, below which float32 rounding of the image itself would count as error."""


class Tolerance(NamedTuple):
    """Root-mean-square difference, relative to the rms of the detail."""

    export: float
    """Allowed between the exported graph and PyTorch float32 when the bundle is written."""

    engine: float
    """Allowed between any engine on any device and the golden vector."""


TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(5e-5, 1e-3),
    "fp16": Tolerance(1e-2, 2e-2),
    "bf16": Tolerance(2e-2, 4e-2),
    "int8": Tolerance(1e-1, 1.5e-1),
    "fp8": Tolerance(1e-1, 1.5e-1),
}
"""float32 engines may use Winograd convolutions. Of the others, some dozens of layers round every value: float16 by at
most 5e-4 relative, bfloat16 by 4e-3, fp8 by 6e-2, int8 by 4e-3 of the largest; most of it averages out in the sums of
a convolution. Measured on the bundled models and on random ones: 1e-3, 8e-3, 5e-2, 4e-2. Two right 8-bit engines that
only sum in another order are as far apart as from float32: what falls on the other side of a tie moves a whole step.
"""


def detail_level(network: Network, target: Array, restored: Array) -> float:
    """Rms of what the network adds to its interpolated target, or of ``restored`` for a network without a skip.

    Args:
        network: float32 network.
        target: (N, 1, H, W) normalised.
        restored: (N, 1, scale * H, scale * W), what the network makes of it.
    """
    level = rms(restored)
    with torch.no_grad():
        interpolated = network.interpolated(torch.from_numpy(target))
    return level if interpolated is None else max(rms(restored - interpolated.numpy()), _LEAST_DETAIL * level)


def rms(values: Array) -> float:
    """Root mean square, accumulated in float64."""
    return float(np.sqrt(np.mean(values.astype(np.float64) ** 2)))


def difference(result: Array, expected: Array) -> float:
    """Rms difference of two arrays; inf if the result is not finite."""
    return rms(result - expected) if np.isfinite(result).all() else float("inf")
