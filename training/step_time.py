"""How long a step of a run takes here, so that methods can be given numbers of steps that cost the same."""

import itertools
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from minet_sdk.errors import TrainingError
from minet_sdk.training.preparing import make_trainer, prepare, quiet
from minet_sdk.training.settings import Machine, TrainingSettings

WARM_UP = 3
"""Steps that are made before the clock counts."""


@dataclass(frozen=True)
class StepTime:
    """Seconds on this machine, with what else it does now."""

    step: float
    """Median of a training step, loading included."""

    step_cpu: float
    """Mean processor time of this process in a step: less disturbed by other work on the machine."""

    validation: float
    """One validation."""

    def steps_within(self, minutes: float, validations: int = 10) -> int:
        """The most steps that fit into a time, a multiple of the number of validations.

        Args:
            minutes: for the whole run.
            validations: how many the run makes, evenly spread.

        Raises:
            TrainingError: not one step between validations fits.
        """
        interval = int((60 * minutes / validations - self.validation) / self.step)
        if interval < 1:
            raise TrainingError(
                f"{minutes} minutes are too short for {validations} validations of {self.validation:.1f} s and a step"
                f" of {self.step:.2f} s between each; allow more time or validate less"
            )
        return interval * validations


def measure_step(settings: TrainingSettings, machine: Machine | None = None, steps: int = 10) -> StepTime:
    """Make some steps of a run and a validation, and forget them.

    Args:
        settings: the run.
        machine: where it is to take place.
        steps: how many are measured.

    Raises:
        TrainingError: as for `fit.fit`.
    """
    count = WARM_UP + steps
    short = replace(settings, steps=count, epochs=0, validate_every=count, warm_up=0)
    machine = machine or Machine()
    clock = _Clock()
    prepared = prepare(short, machine)
    slices = prepared.data.slices
    for index in range(len(slices)):
        slices[index]  # made once in a run, kept for every later validation
    with tempfile.TemporaryDirectory() as folder, quiet(), torch.random.fork_rng(devices=[]):
        trainer = make_trainer(prepared, machine, [clock], [], Path(folder))
        trainer.fit(prepared.module, datamodule=prepared.data)
    ends = clock.ends[WARM_UP - 1 :]
    step = statistics.median(later - earlier for earlier, later in itertools.pairwise(ends))
    return StepTime(step, (clock.cpu[-1] - clock.cpu[WARM_UP - 1]) / steps, clock.validation)


class _Clock(Callback):
    """Notes when steps end and how long validation takes."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.cpu: list[float] = []
        self.validation = 0.0

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())
        self.cpu.append(time.process_time())

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.validation = time.perf_counter()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.validation = time.perf_counter() - self.validation
