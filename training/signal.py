"""Physics of contrast: spin echo and inversion recovery signal of each tissue under a protocol."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from minet_sdk.training.labels import TISSUES


@dataclass(frozen=True)
class Protocol:
    """What the operator sets. Times in ms."""

    name: str
    repetition_time: float
    echo_time: float
    inversion_time: float | None = None
    """None for a plain spin echo."""

    fat_suppression: float = 0.0
    """Part of the fat signal that is removed, 0 to 1."""


T1_WEIGHTED = Protocol("T1w", 2001.0, 10.72, inversion_time=877.0)
T2_WEIGHTED = Protocol("T2w", 4511.0, 112.86)
PD_WEIGHTED = Protocol("PD", 3000.0, 25.0)
FS_PD_WEIGHTED = Protocol("FS-PD", 3000.0, 25.0, fat_suppression=0.94)

PROTOCOL_PAIRS = ((T1_WEIGHTED, T2_WEIGHTED), (PD_WEIGHTED, FS_PD_WEIGHTED), (PD_WEIGHTED, T2_WEIGHTED))
"""Reference and target protocols that clinics pair."""

PROTOCOLS = {protocol.name: protocol for protocol in (T1_WEIGHTED, T2_WEIGHTED, PD_WEIGHTED, FS_PD_WEIGHTED)}
"""By name. The two clinical sets of the paper are T1w guiding T2w, fastMRI's knees PD guiding FS-PD."""

_VALUES: dict[str, tuple[float, float, float, float]] = {
    "background": (0.0, 1000.0, 50.0, 0.0),
    "white matter": (0.70, 650.0, 80.0, 0.0),
    "grey matter": (0.82, 1000.0, 95.0, 0.0),
    "deep grey": (0.78, 850.0, 78.0, 0.0),
    "fluid": (1.00, 3500.0, 1500.0, 0.0),
    "soft tissue": (0.85, 350.0, 60.0, 0.6),
    "skin": (0.60, 700.0, 35.0, 0.1),
    "bone": (0.08, 500.0, 10.0, 0.0),
    "marrow": (0.60, 400.0, 60.0, 0.6),
    "eye": (0.95, 3000.0, 500.0, 0.0),
    "mucosa": (0.70, 900.0, 60.0, 0.0),
    "vein": (0.15, 1400.0, 60.0, 0.0),
    "vessel": (0.30, 1400.0, 80.0, 0.0),
    "cerebellar grey": (0.80, 1050.0, 92.0, 0.0),
    "fat": (0.90, 290.0, 165.0, 0.95),
    "fatty marrow": (0.80, 290.0, 150.0, 0.85),
    "muscle": (0.80, 1130.0, 35.0, 0.03),
    "cartilage": (0.80, 1050.0, 42.0, 0.0),
    "meniscus": (0.60, 700.0, 13.0, 0.0),
    "ligament": (0.45, 600.0, 8.0, 0.0),
    "joint fluid": (1.00, 2850.0, 1200.0, 0.0),
    "blood": (0.30, 1400.0, 150.0, 0.0),
}
"""Proton density (0 to 1), T1 (ms), T2 (ms) at about 1.5 T, fat fraction. Those of the knee lie near the relaxation
times of Gold et al., AJR 2004;183:343."""

Table = npt.NDArray[np.float64]


def tissue_table(tissues: Sequence[str] = TISSUES) -> Table:
    """(tissue, 4) of proton density, T1 ms, T2 ms, fat fraction, in the order of ``tissues``."""
    return np.array([_VALUES[tissue] for tissue in tissues])


def signal(table: Table, protocol: Protocol) -> npt.NDArray[np.float64]:
    """Magnitude signal of each tissue.

    Spin echo: PD (1 - exp(-TR/T1)) exp(-TE/T2); inversion recovery: PD |1 - 2 exp(-TI/T1) + exp(-TR/T1)| exp(-TE/T2).

    Args:
        table: (tissue, 4) of `tissue_table`, possibly varied.
        protocol: sequence timing.

    Returns:
        (tissue,) float64, 0 to 1.
    """
    density, t1, t2, fat = table.T
    recovery = 1 - np.exp(-protocol.repetition_time / t1)
    if protocol.inversion_time is not None:
        inverted = 1 - 2 * np.exp(-protocol.inversion_time / t1) + np.exp(-protocol.repetition_time / t1)
        recovery = np.abs(inverted)
    return density * recovery * np.exp(-protocol.echo_time / t2) * (1 - protocol.fat_suppression * fat)
