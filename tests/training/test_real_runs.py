"""Real processes: a run killed at random steps, and a run shared by two processes, end with the weights they should."""

import json
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from minet_sdk.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.long

SCRIPT = Path(__file__).with_name("real_runs.py")

Runs = Callable[[str], Path]


@pytest.fixture
def runs(labels: Path, once: Callable[[str, Callable[[Path], object]], Path]) -> Runs:
    """The folder that `real_runs.py` fills for an objective."""

    def run(objective: str) -> Path:
        def fill(folder: Path) -> None:
            command = [sys.executable, "-W", "error", str(SCRIPT), str(labels), str(folder), objective]
            process = subprocess.run([*command, str(secrets.randbits(32))], capture_output=True, text=True, check=False)
            assert process.returncode == 0, process.stderr

        return once(f"real runs of {objective}", fill)

    return run


OBJECTIVES = ("eq6", pytest.param("composite", marks=pytest.mark.slow))


def state(run: Path) -> dict[str, Any]:
    return torch.load(run / "last.ckpt")


def tensors(value: Any, name: str = "") -> dict[str, Tensor]:
    """Every tensor of a nested state by its path."""
    if isinstance(value, Tensor):
        return {name: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return {path: tensor for key, inner in items for path, tensor in tensors(inner, f"{name}/{key}").items()}


def difference(first: Path, second: Path) -> float:
    """Largest difference between the networks and discriminators that two runs ended with."""
    one, other = (tensors(state(run)["state_dict"]) for run in (first, second))
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_run_killed_at_random_steps_is_bitwise_the_same(objective: str, runs: Runs) -> None:
    """Weights, average, optimisers, early stopping and curve; the networks draw random numbers while they train."""
    folder = runs(objective)
    told = json.loads((folder / "told.json").read_text())
    assert any("killed" in kill for kill in told)
    whole, killed = (tensors({key: state(folder / run)[key] for key in ("state_dict", "optimizer_states", "callbacks")})
                     for run in ("whole", "killed"))  # fmt: skip
    assert whole.keys() == killed.keys()
    assert [name for name in whole if not torch.equal(whole[name], killed[name])] == [], told
    assert any("average" in name for name in whole)
    assert any("exp_avg" in name for name in whole)
    networks = [load_checkpoint(folder / run / "best.safetensors") for run in ("whole", "killed")]
    curves = [[{**point, "seconds": 0} for point in network.record["curve"]] for network in networks]
    assert curves[0] == curves[1], told
    assert [point["step"] for point in curves[0]] == [12, 24][: len(curves[0])]
    best = [network.model.state_dict() for network in networks]
    assert all(torch.equal(best[0][name], best[1][name]) for name in best[0])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_run_that_forgets_where_its_data_were_is_noticed(objective: str, runs: Runs) -> None:
    assert difference(runs(objective) / "whole", runs(objective) / "forgetful") > 1e-3


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_nothing_is_left_of_the_kills(objective: str, runs: Runs) -> None:
    run = runs(objective) / "killed"
    names = {"best.safetensors", "last.ckpt", "settings.json", "finished.json", "log"}
    assert {path.name for path in run.iterdir()} == names
    finished = json.loads((run / "finished.json").read_text())
    assert finished["steps"] == 24
    assert not finished["stopped_early"]


def test_two_processes_train_a_network_whose_reference_head_no_objective_sees(runs: Runs) -> None:
    """Without looking for parameters that have no gradient, the second step is one too many."""
    assert json.loads((runs("eq6") / "headless" / "finished.json").read_text())["steps"] == 2


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_two_processes_do_what_one_does(objective: str, runs: Runs) -> None:
    """The same batch on two devices as on one; the half batch, which two strangers would see, gives something else."""
    folder = runs(objective)
    assert difference(folder / "one", folder / "two") < 1e-4
    assert difference(folder / "one", folder / "half") > 1e-3
    one, two = (load_checkpoint(folder / run / "best.safetensors").record["curve"] for run in ("one", "two"))
    for name in ("psnr", "ssim", "gain_db"):
        assert two[0][name] == pytest.approx(one[0][name], abs=2e-3)
