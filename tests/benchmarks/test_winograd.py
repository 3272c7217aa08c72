"""The emulated Winograd convolutions are convolutions, each with the roundings that it is said to have."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def winograd() -> ModuleType:
    """The benchmarks are scripts, not a package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        return importlib.import_module("winograd")


@pytest.mark.parametrize("outputs", [0, 2, 4, 6])
@pytest.mark.parametrize(("dtype", "least", "most"), [(torch.float32, 1e-8, 5e-6), (torch.bfloat16, 1e-4, 0.1)])
def test_every_form_convolves(
    winograd: ModuleType, outputs: int, dtype: torch.dtype, least: float, most: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    image, weight = (torch.randn(shape, generator=generator) for shape in ((1, 16, 13, 9), (32, 16, 3, 3)))
    expected = functional.conv2d(image.double(), weight.double(), padding=1)
    error = winograd.convolve(image, weight, winograd.Form(outputs, dtype)) - expected
    assert least < float(error.norm() / expected.norm()) < most


def test_whole_networks_are_emulated(winograd: ModuleType) -> None:
    """float32 forms agree with float64 to 1e-5; the direct bfloat16 sum stands far above them, and below F(4x4)'s."""
    rows = {row["form"]: row["relative_rms"] for row in winograd.compare(*winograd.random_case("fast", 10))}
    assert len(rows) == len(winograd.FORMS)
    assert max(error for form, error in rows.items() if form.endswith("float32")) < 1e-5
    assert 1e-4 < rows["direct bfloat16"] < rows["F(4x4, 3x3) bfloat16"] < rows["F(6x6, 3x3) bfloat16"]
