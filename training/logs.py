"""What a run tells while it trains: rows for the CSV file and TensorBoard, a bar or lines for the person waiting."""

import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeftColumn
from torch import Tensor

from minet_sdk.errors import TrainingError
from minet_sdk.requirements import require
from minet_sdk.training.saving import steps_made

LOG_EVERY = 50
"""Steps between two rows of the log; losses are means over them."""

FOLDER = "log"


def loggers(run: Path, *, tensorboard: bool) -> list[Logger]:
    """The run's loggers, ``log/version_K``, K counting resumptions.

    Raises:
        MissingPackageError: TensorBoard is wanted and not installed.
    """
    csv = CSVLogger(run, name=FOLDER, flush_logs_every_n_steps=1)
    if not tensorboard:
        return [csv]
    require("tensorboard", "logging for TensorBoard")
    return [csv, TensorBoardLogger(run, name=FOLDER, version=csv.version)]


class RunLog(Callback):
    """Writes mean losses, learning rate and seconds a step every `LOG_EVERY` steps, and each validation's measures."""

    def __init__(self, every: int = LOG_EVERY) -> None:
        self.every = every
        self.sums: dict[str, Tensor] = {}
        self.count = 0
        self.since = time.perf_counter()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """The first step starts."""
        self.since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Sum the losses where they are, without waiting for the device; write when it is time."""
        losses: Mapping[str, Tensor] = outputs
        for name, loss in losses.items():
            self.sums[name] = self.sums[name] + loss.detach() if name in self.sums else loss.detach()
        self.count += 1
        if (batch_idx + 1) % self.every == 0:
            self._write_losses(trainer, batch_idx + 1)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write what there is: the time that validation takes is no step's."""
        if self.count:
            self._write_losses(trainer, steps_made(trainer))

    def _write_losses(self, trainer: lightning.Trainer, step: int) -> None:
        """One row.

        Raises:
            TrainingError: a loss is not a number any more.
        """
        row = {name: float(total) / self.count for name, total in self.sums.items()}
        if not all(math.isfinite(value) for value in row.values()):
            raise TrainingError(
                f"the loss is {row['loss']} after {step} steps: the run has diverged; lower the learning rate,"
                " clip gradients (clip_norm) or use precision 32-true"
            )
        row["learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        row["seconds_a_step"] = (time.perf_counter() - self.since) / self.count
        self._start_over()
        for logger in trainer.loggers:
            logger.log_metrics(row, step)
        self.tell(trainer, step, row)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the measures."""
        step = steps_made(trainer)
        row = {name: float(value) for name, value in trainer.callback_metrics.items()}
        for logger in trainer.loggers:
            logger.log_metrics(row, step)
        self.tell(trainer, step, row)
        self._start_over()

    def _start_over(self) -> None:
        self.sums, self.count, self.since = {}, 0, time.perf_counter()

    def tell(self, trainer: lightning.Trainer, step: int, row: Mapping[str, float]) -> None:
        """Nothing here: the log is silent."""


class ToldLog(RunLog):
    """The log, and progress on stderr: a bar on a terminal, else a line for each validation."""

    def __init__(self, every: int = LOG_EVERY) -> None:
        super().__init__(every)
        self.console = Console(stderr=True)
        self.bar: Progress | None = None
        self.task = TaskID(0)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Show the bar."""
        super().on_train_start(trainer, pl_module)
        if trainer.is_global_zero and self.console.is_terminal:
            columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeLeftColumn())
            self.bar = Progress(*columns, TextColumn("{task.description}"), console=self.console)
            self.task = self.bar.add_task("", total=int(trainer.num_training_batches), completed=steps_made(trainer))
            self.bar.start()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self.bar is not None:
            self.bar.update(self.task, completed=batch_idx + 1)

    def tell(self, trainer: lightning.Trainer, step: int, row: Mapping[str, float]) -> None:
        """Losses beside the bar, a line for a validation."""
        if self.bar is not None and "loss" in row:
            self.bar.update(self.task, description=f"loss {row['loss']:.4f}, {row['seconds_a_step']:.3f} s a step")
        if "gain_db" in row and trainer.is_global_zero:
            line = (
                f"step {step} of {trainer.num_training_batches}: PSNR {row['psnr']:.2f} dB, SSIM {row['ssim']:.4f},"
                f" {row['gain_db']:+.2f} dB over zero-filled"
            )
            print(line, file=sys.stderr) if self.bar is None else self.bar.console.print(line, highlight=False)

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Leave the terminal as it was, after an error too."""
        if self.bar is not None:
            self.bar.stop()
