"""What a precision costs in dB: real slices, restored by the exported graph and by the float32 network."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from minet_sdk.bundle import Precision
from minet_sdk.export.execution import Run
from minet_sdk.export.slices import Slices
from minet_sdk.measures import psnr
from minet_sdk.normalisation import Normalisation

Array = npt.NDArray[np.float32]

DECIBELS: dict[Precision, float] = {"fp32": 0.01, "fp16": 0.05, "bf16": 0.1, "int8": 0.3, "fp8": 0.3}
"""How far the PSNR against the truth may be from that of the float32 network, up or down.

fp8 has the limit of int8: both spend 8 bits, int8 more of them on values near the top of the range, fp8 on all smaller
ones. A change for the better counts too: it is an image that the network did not mean.
"""


@dataclass(frozen=True)
class Fidelity:
    """One set of slices, restored twice; dB, the peak is the largest value of the truth."""

    network_psnr: float
    """Of the float32 network against the truth."""

    psnr: float
    """Of the exported graph against the truth."""

    difference_psnr: float
    """Of the exported graph against the float32 network, on the same peak."""

    @property
    def change(self) -> float:
        """What the precision adds to the PSNR."""
        return self.psnr - self.network_psnr


def restore(run: Run, slices: Slices, scale: int, normalisation: Normalisation) -> Array:
    """Degrade and restore, slice by slice: (slices, H, W) in the intensity scale of the truth.

    Args:
        run: takes ``target`` and, if it has one, ``reference``; gives the restored slice.
        slices: the truth.
        scale: of the model.
        normalisation: of the model.

    Raises:
        ExportError: the slices do not fit the scale.
    """
    restored = [
        normalisation.undo(run({"target": given.target, "reference": given.reference})[0, 0], given.statistics)
        for given in slices.inputs(scale, normalisation)
    ]
    return np.stack(restored)


def fidelity(truth: Array, network: Array, restored: Array) -> Fidelity:
    """Compare two restorations of (slices, H, W)."""
    apart = float(np.mean((restored.astype(np.float64) - network) ** 2))
    peak = float(truth.max())
    difference = float("inf") if apart == 0 else float(10 * np.log10(peak**2 / apart))
    return Fidelity(psnr(truth, network), psnr(truth, restored), difference)
