"""The registry of methods: complete, in the tables' order, pure data, and fair where it says so."""

import subprocess
import sys
from dataclasses import fields
from typing import get_args

import pytest
import torch

from minet_sdk.errors import TrainingError
from minet_sdk.training.architecture import SCALES, Architecture
from minet_sdk.training.config import MinetConfig, preset
from minet_sdk.training.methods import METHODS, Method, Size, find_method
from minet_sdk.training.network import build
from minet_sdk.training.objectives import OBJECTIVES, make_objective
from minet_sdk.training.settings import TrainingSettings

pytestmark = pytest.mark.long

NETWORKS = {name: method for name, method in METHODS.items() if method.trained != "never"}
RIVALS = ("edsr", "edsr-large", "smore-2d", "zeng", "lyu-mse", "lyu")


def parameters(config: Architecture) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(config).parameters())


def test_rows_are_those_of_the_tables_in_their_order() -> None:
    assert list(METHODS) == [
        "bicubic", "zero-filled", "edsr", "edsr-large", "smore-2d", "zeng", "lyu-mse", "lyu", "minet-no-reference",
        "minet-reduction-only", "minet-no-h", "minet-no-attention", "minet", "minet-paper-affinity",
        "minet-released-affinity", "minet-fast",
    ]  # fmt: skip
    assert all(method.name == name and method.source for name, method in METHODS.items())


def test_registry_needs_no_torch() -> None:
    code = "import sys, minet_sdk.training.methods; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_described_at_both_scales_in_both_sizes(name: str) -> None:
    method = NETWORKS[name]
    for size in get_args(Size):
        for scale in SCALES:
            config = method.config(scale, size)
            assert config.scale == scale
            assert config.reference == method.guided
    assert method.objective in OBJECTIVES


@pytest.mark.parametrize("name", NETWORKS)
def test_recipe_is_of_settings_that_exist(name: str) -> None:
    recipe = dict(NETWORKS[name].recipe)
    make_objective(NETWORKS[name].objective, recipe.get("objective_settings"))
    assert set(recipe) <= {entry.name for entry in fields(TrainingSettings)}


@pytest.mark.parametrize("scale", SCALES)
def test_matched_rivals_have_the_parameters_and_the_skip_of_minet(scale: int) -> None:
    """Within 5 %: nobody wins by size, nor by the interpolation that the network adds to."""
    minet = parameters(METHODS["minet"].config(scale))
    for name in RIVALS:
        config = METHODS[name].config(scale)
        assert parameters(config) == pytest.approx(minet, rel=0.05), name
        assert config.to_dict()["skip"] == "sinc"
        assert METHODS[name].config(scale, "published").to_dict()["skip"] == "none"


def test_ablations_change_what_they_are_named_for() -> None:
    changes = {
        "minet-no-reference": {"reference": False},
        "minet-reduction-only": {"integration": "reduction"},
        "minet-no-h": {"integration": "none"},
        "minet-no-attention": {"attention": False},
    }
    for name, change in changes.items():
        for scale in SCALES:
            whole = METHODS["minet"].config(scale).to_dict()
            assert METHODS[name].config(scale).to_dict() == {**whole, **change}
    assert METHODS["minet"].config(4) == preset("small", 4)
    assert METHODS["minet"].config(2, "published") == MinetConfig()


def test_what_differs_from_a_publication_is_said() -> None:
    for name in (*RIVALS, "minet", "minet-fast"):
        assert METHODS[name].adapted, name
    assert "not on VGG" in METHODS["lyu"].adapted


def test_interpolations_have_no_network() -> None:
    for name in ("bicubic", "zero-filled"):
        with pytest.raises(TrainingError, match=f"{name} is an interpolation"):
            METHODS[name].config(2)


def test_unknown_names_are_refused() -> None:
    assert isinstance(find_method("zeng"), Method)
    with pytest.raises(TrainingError, match="method is 'srcnn'; choose one of bicubic, zero-filled, edsr"):
        find_method("srcnn")
    with pytest.raises(TrainingError, match="scale is 3; zeng is defined for 2 and 4"):
        METHODS["zeng"].config(3)
    with pytest.raises(TrainingError, match="size is 'large'; choose one of matched, published"):
        METHODS["zeng"].config(2, "large")  # type: ignore[arg-type] # the point of the test
