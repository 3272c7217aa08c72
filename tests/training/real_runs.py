"""Trainings in processes that can be killed or that share a run, forked from one interpreter that imports PyTorch once.

    python real_runs.py LABELS FOLDER OBJECTIVE SEED

The seed says where the run is killed. Every run leaves its folder; the tests compare them.
"""

import json
import os
import random
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from minet_sdk.training import preparing
from minet_sdk.training.config import MinetConfig
from minet_sdk.training.fit import fit
from minet_sdk.training.module import RestorationModule
from minet_sdk.training.saving import SaveState
from minet_sdk.training.settings import Machine, TrainingSettings
from minet_sdk.training.stream import StepLoader

STEPS = 24

PLAIN = TrainingSettings(
    network=MinetConfig(stages=1, blocks=1, channels=16, affinity="cosine", skip="sinc"),
    method="minet",
    objective="eq6",
    data_options={"contrast": {"size": 48, "noise": [0.001, 0.002]}},
    patch=32,
    batch_size=4,
    steps=STEPS,
    learning_rate=2e-3,
    warm_up=4,
    average=0.9,
    patience=50,
    validate_every=12,
    validation_slices=3,
    seed=3,
    precision="32-true",
)
BY_OBJECTIVE = {"eq6": PLAIN, "composite": replace(PLAIN, objective="composite", method="lyu")}

KILLS = ("step", "saving", "validation")


def kill_at(place: str, step: int) -> None:
    """Kill this process at a step, or at the first save or validation from this step on."""

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    train, validate, save = RestorationModule.on_train_batch_start, RestorationModule.validation_step, SaveState.save

    def on_train_batch_start(self: RestorationModule, batch: Any, batch_idx: int) -> None:
        if place == "step" and batch_idx >= step:
            kill()
        train(self, batch, batch_idx)

    def validation_step(self: RestorationModule, batch: Any, batch_idx: int) -> None:
        if place == "validation" and batch_idx == 1 and self.trainer.fit_loop.total_batch_idx >= step:
            kill()
        validate(self, batch, batch_idx)

    def whole_or_half(self: SaveState, trainer: Any) -> None:
        if place == "saving" and trainer.fit_loop.total_batch_idx >= step:
            self.path.with_name(f".00000000-{self.path.name}").write_bytes(b"half a file")
            kill()
        save(self, trainer)

    RestorationModule.on_train_batch_start = on_train_batch_start
    RestorationModule.validation_step = validation_step
    SaveState.save = whole_or_half


def with_dropout() -> None:
    """Networks draw random numbers while they train."""
    build = preparing.build

    def build_with_dropout(*arguments: Any) -> Any:
        network: Any = build(*arguments)
        network.target_head.append(nn.Dropout(0.2))
        return network

    preparing.build = build_with_dropout


def in_child(work: Callable[[], object]) -> int:
    """Do something in a process of its own; its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def wait(child: int) -> int:
    """How a child ended: 0, or the negative signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def train(settings: TrainingSettings, machine: Machine, folder: Path, kill: tuple[str, int] | None = None) -> None:
    if settings.objective == "eq6":
        with_dropout()
    if kill is not None:
        kill_at(*kill)
    fit(settings, folder, machine, resume="auto", progress=False)


def killed_again_and_again(settings: TrainingSettings, machine: Machine, folder: Path, seed: int) -> list[str]:
    """Run with kills in random places at growing random steps, until it has ended; where it was killed."""
    rng = random.Random(seed)
    told: list[str] = []
    for step in sorted(rng.sample(range(1, STEPS), 2)):
        kill = (rng.choice(KILLS), step)
        status = wait(in_child(lambda kill=kill: train(settings, machine, folder, kill)))
        assert status in (0, -signal.SIGKILL), status
        told.append(f"{kill[0]} {step}: {'killed' if status else 'had ended'}")
    assert wait(in_child(lambda: train(settings, machine, folder))) == 0
    return told


def forgetful(settings: TrainingSettings, machine: Machine, folder: Path) -> None:
    """A planted fault: a run that starts the data anew when it is resumed."""
    assert wait(in_child(lambda: train(settings, machine, folder, ("step", 8)))) == -signal.SIGKILL

    def forget(self: StepLoader, state: dict[str, int]) -> None:
        self.position = self.remaining.first = 0

    StepLoader.load_state_dict = forget
    train(settings, machine, folder)


def on_two_processes(settings: TrainingSettings, machine: Machine, folder: Path) -> None:
    """Both processes of a run, started as by torchrun."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def work(rank: int) -> None:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "NODE_RANK": "0"}
        os.environ["LOCAL_RANK"] = str(rank)
        cast(Any, preparing.rank_zero_only).rank = rank
        fit(settings, folder, replace(machine, devices=2), progress=False)

    children = [in_child(lambda rank=rank: work(rank)) for rank in range(2)]
    assert [wait(child) for child in children] == [0, 0]


def main() -> None:
    labels, folder, settings, seed = Path(sys.argv[1]), Path(sys.argv[2]), BY_OBJECTIVE[sys.argv[3]], int(sys.argv[4])
    torch.set_num_threads(1)
    machine = Machine(data_path=labels, accelerator="cpu", threads=1, checkpoint_every=5)
    assert wait(in_child(lambda: train(settings, machine, folder / "whole"))) == 0
    told = killed_again_and_again(settings, machine, folder / "killed", seed)
    (folder / "told.json").write_text(json.dumps(told))
    assert wait(in_child(lambda: forgetful(settings, machine, folder / "forgetful"))) == 0
    short = replace(settings, steps=6, validate_every=6)
    for name, batch_size in (("one", 4), ("half", 2)):
        smaller = replace(short, batch_size=batch_size)
        assert wait(in_child(lambda n=name, s=smaller: fit(s, folder / n, machine, progress=False))) == 0
    on_two_processes(short, machine, folder / "two")
    if settings.objective == "eq6":
        on_two_processes(replace(short, objective="l1", steps=2, validate_every=2), machine, folder / "headless")


if __name__ == "__main__":
    main()
