"""How large the inputs of the quantised layers get on real slices, seen in the float32 network.

Slices are degraded to the model's scale and normalised as at inference; both contrasts take both roles.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from minet_sdk.export.quantise import LARGEST, Format, quantised, quantised_layers, scale_of
from minet_sdk.export.slices import Slices
from minet_sdk.normalisation import Normalisation
from minet_sdk.training.network import Network

Collector = Literal["max", "percentile", "mse"]
"""max: the largest magnitude seen. percentile: the 99.99th. mse: the limit that leaves the least squared error."""

HEADROOM: dict[Format, float] = {"int8": 1.5, "fp8": 4.0}
"""Factor on the collected range, because other slices are brighter than those that were seen.

Measured (benchmarks/results/precision.json): with none, slices of stronger contrast came out 48 dB from what float32
makes of them, with it 57 dB. int8 pays for headroom with coarser steps, so it gets little; fp8 is a floating-point
format and pays nothing.
"""

_DIRECTIONS = 2
_BINS = 2048
_PERCENTILE = 0.9999
_FRACTIONS = [step / 40 for step in range(6, 41)]
"""Of the maximum: the limits that `mse` chooses from."""


def calibrate(
    network: Network, slices: Slices, number_format: Format, collector: Collector = "max", headroom: float | None = None
) -> dict[str, Any]:
    """Choose the scale of every quantised layer's input.

    Args:
        network: float32.
        slices: at full resolution; all of them are used.
        number_format: that the layers are quantised to.
        collector: how a range follows from the values seen.
        headroom: factor on the range; None is the format's own.

    Returns:
        What the manifest records: ``scales`` by layer, and how they came about.

    Raises:
        ExportError: the slices do not fit the network's scale.
    """
    factor = HEADROOM[number_format] if headroom is None else headroom
    ranges = collect(network, slices, number_format, collector)
    return {
        "format": number_format,
        "collector": collector,
        "headroom": factor,
        "slices": len(slices.targets),
        "directions": _DIRECTIONS,
        "source": slices.source,
        "data_sha256": slices.sha256(),
        "tensors": len(ranges),
        "scales": {name: scale_of(factor * value, number_format) for name, value in ranges.items()},
    }


def collect(network: Network, slices: Slices, number_format: Format, collector: Collector = "max") -> dict[str, float]:
    """Range of magnitudes of every quantised layer's input."""
    largest: dict[str, float] = {}

    def widen(name: str, magnitudes: Tensor) -> None:
        largest[name] = max(largest.get(name, 0.0), float(magnitudes.max()))

    _observe(network, slices, widen)
    if collector == "max":
        return largest
    counts = {name: torch.zeros(_BINS, dtype=torch.float64) for name in largest}

    def count(name: str, magnitudes: Tensor) -> None:
        counts[name] += torch.histc(magnitudes, _BINS, 0, max(largest[name], 1e-30)).double()

    _observe(network, slices, count)
    choose = _percentile if collector == "percentile" else _least_squares
    return {name: choose(counts[name], largest[name], number_format) for name in largest}


def _observe(network: Network, slices: Slices, see: Callable[[str, Tensor], None]) -> None:
    """Run the network on the slices in both directions and show the magnitudes of all quantised layers' inputs."""
    hooks: list[Any] = []
    for name in quantised_layers(network):

        def show(_: nn.Module, inputs: tuple[Tensor], name: str = name) -> None:
            see(name, inputs[0].abs())

        hooks.append(network.get_submodule(name).register_forward_pre_hook(show))
    try:
        with torch.no_grad():
            for direction in (slices, slices.swapped()):
                for given in direction.inputs(network.config.scale, Normalisation()):
                    guide = torch.from_numpy(given.reference) if network.guided else None
                    features = None if guide is None else network.encode_reference(guide)
                    network.restore(torch.from_numpy(given.target), features)
    finally:
        for hook in hooks:
            hook.remove()


def _percentile(counts: Tensor, largest: float, number_format: Format) -> float:
    """Upper edge of the bin that holds the percentile."""
    shares = counts.cumsum(0) / counts.sum()
    return largest * (int((shares < _PERCENTILE).sum()) + 1) / _BINS


def _least_squares(counts: Tensor, largest: float, number_format: Format) -> float:
    """The limit under which rounding and clipping together cost least."""
    centres = (torch.arange(_BINS) + 0.5) / _BINS * largest

    def error(limit: float) -> float:
        scale = max(limit / LARGEST[number_format], 1e-30)
        rounded = quantised(centres, scale, number_format).float() * scale
        return float((counts * (rounded - centres).double() ** 2).sum())

    return min((fraction * largest for fraction in _FRACTIONS), key=error)
