"""What a form of Winograd convolution costs in accuracy, for whole networks: tile sizes and bfloat16 multiplications.

    python benchmarks/winograd.py

Every 3x3 convolution that the native engine runs as Winograd is replaced by an emulation in PyTorch with the same
roundings: transforms and sums in float32, and for bfloat16 both factors of the point-by-point multiplication rounded.
Compared with the network in float64. What a form costs in time cannot be told from here; docs/native.md says more.
"""

import argparse
import copy
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from minet_sdk.bundle import models_folder, open_bundle
from minet_sdk.export.slices import Slices, bundled_slices
from minet_sdk.training.checkpoint import load_checkpoint
from minet_sdk.training.config import preset
from minet_sdk.training.model import MINet, build

PANEL = 16
"""The native engine wants channels in multiples of it."""


@dataclass(frozen=True)
class Form:
    """One way to compute a 3x3 convolution; outputs 0 stands for the direct sum."""

    outputs: int
    """Along an axis of a tile."""

    dtype: torch.dtype = torch.float32
    """Of the factors of the multiplication; sums are float32."""

    @property
    def name(self) -> str:
        """F(4x4, 3x3) and the like."""
        kind = f"F({self.outputs}x{self.outputs}, 3x3)" if self.outputs else "direct"
        return f"{kind} {str(self.dtype).removeprefix('torch.')}"

    @property
    def multiplications(self) -> float:
        """For each pixel and pair of channels."""
        return (self.outputs + 2) ** 2 / self.outputs**2 if self.outputs else 9.0


FORMS = (
    Form(0),
    Form(2),
    Form(4),
    Form(6),
    Form(0, torch.bfloat16),
    Form(2, torch.bfloat16),
    Form(4, torch.bfloat16),
    Form(6, torch.bfloat16),
)


def transforms(outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    """B^T, G and A^T of F(outputs, 3) after Toom and Cook in float64, at the points 0, 1, -1, 2, -2, 1/2, -1/2."""
    points = [
        Fraction(0),
        *(sign * Fraction(x) for x in (Fraction(1), Fraction(2), Fraction(1, 2)) for sign in (1, -1)),
    ]
    points = points[: outputs + 1]
    size = outputs + 2

    def product(roots: Iterable[Fraction]) -> list[Fraction]:
        """Coefficients of the polynomial with these roots, lowest first."""
        found = [Fraction(1)]
        for root in roots:
            found = [a - root * b for a, b in zip([Fraction(0), *found], [*found, Fraction(0)], strict=True)]
        return found

    b, g, a = (np.zeros(shape) for shape in ((size, size), (size, 3), (outputs, size)))
    for i, point in enumerate(points):
        others = [other for other in points if other != point]
        b[i, : size - 1] = [float(value) for value in product(others)]
        scale = Fraction(1)
        for other in others:
            scale *= point - other
        g[i] = [float(point**k / scale) for k in range(3)]
        a[:, i] = [float(point**k) for k in range(outputs)]
    b[-1] = [float(value) for value in product(points)]
    g[-1, 2] = a[-1, -1] = 1
    return torch.from_numpy(b), torch.from_numpy(g), torch.from_numpy(a)


def convolve(image: Tensor, weight: Tensor, form: Form) -> Tensor:
    """A 3x3 convolution with zeros around: (N, C, H, W) and (K, C, 3, 3) -> (N, K, H, W)."""
    if not form.outputs:
        narrow, factors = (tensor.to(form.dtype).float() for tensor in (image, weight))
        return functional.conv2d(narrow, factors, padding=1)
    b, g, a = transforms(form.outputs)
    tile, size = form.outputs, form.outputs + 2
    height, width = image.shape[2:]
    rows, columns = -(-height // tile), -(-width // tile)
    padded = functional.pad(image, (1, columns * tile - width + 1, 1, rows * tile - height + 1))
    tiles = padded.unfold(2, size, tile).unfold(3, size, tile)
    u = (g @ weight.double() @ g.T).float().to(form.dtype).float()
    v = (b.float() @ tiles @ b.float().T).to(form.dtype).float()
    m = torch.einsum("kcij,ncyxij->nkyxij", u, v)
    y = a.float() @ m @ a.float().T
    return y.permute(0, 1, 2, 4, 3, 5).reshape(*y.shape[:2], rows * tile, columns * tile)[..., :height, :width]


class Emulation(TorchFunctionMode):
    """Computes every convolution that the native engine runs as Winograd in one form."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace conv2d where it fits."""
        if func is torch.conv2d and args[1].shape[2:] == (3, 3) and not any(side % PANEL for side in args[1].shape[:2]):
            image, weight, bias = args[:3]
            result = convolve(image, weight, self.form)
            return result if bias is None else result + bias[:, None, None]
        return func(*args, **(kwargs or {}))


def compare(network: MINet, target: Tensor, reference: Tensor) -> list[dict[str, Any]]:
    """Every form against float64."""
    network = network.eval()
    double = copy.deepcopy(network).double()
    if network.config.skip == "sinc":
        double.interpolate.float()
    with torch.no_grad():
        exact = double(target.double(), reference.double()).restored
        peak = float(exact.max() - exact.min())
        rows: list[dict[str, Any]] = []
        for form in FORMS:
            with Emulation(form):
                error = network(target, reference).restored.double() - exact
            root = float(error.square().mean().sqrt())
            rows.append(
                {
                    "form": form.name,
                    "multiplications": round(form.multiplications, 3),
                    "relative_rms": float(f"{root / float(exact.square().mean().sqrt()):.2g}"),
                    "psnr_db": round(20 * float(np.log10(peak / root)), 1),
                }
            )
    return rows


def bundled_case() -> tuple[MINet, Tensor, Tensor]:
    """minet-x2 and the middle slice of the bundled study."""
    slices, bundle = bundled_slices(), open_bundle(models_folder() / "minet-x2")
    middle = len(slices.targets) // 2
    one = Slices(slices.targets[middle : middle + 1], slices.references[middle : middle + 1], slices.source)
    (inputs,) = one.inputs(2, bundle.manifest.normalisation)
    network = load_checkpoint(bundle.location / "checkpoint.safetensors").model
    assert isinstance(network, MINet)
    return network, torch.from_numpy(inputs.target), torch.from_numpy(inputs.reference)


def random_case(name: str, size: int) -> tuple[MINet, Tensor, Tensor]:
    """A preset with random weights and noise of so many low-resolution rows and columns."""
    network = build(preset(name, 2), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        # A tail of zeros would hide everything before it.
        torch.nn.init.normal_(network.target_tail.weight, std=0.02)
    sides = ((1, 1, size, size), (1, 1, 2 * size, 2 * size))
    target, reference = (torch.randn(shape, generator=generator) for shape in sides)
    return network, target, reference


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=48, help="low-resolution rows and columns of the random networks")
    size = parser.parse_args().size
    cases = {
        "paper x2, random weights, noise": random_case("paper", size),
        "small x2, random weights, noise": random_case("small", size),
        "minet-x2, bundled slice": bundled_case(),
    }
    print(json.dumps({name: compare(*case) for name, case in cases.items()}, indent=1))


if __name__ == "__main__":
    main()
