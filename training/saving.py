"""What a run writes while it trains: the best network so far, and the state to resume from."""

import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from minet_sdk.atomic import replacing
from minet_sdk.errors import TrainingError
from minet_sdk.training.checkpoint import save_checkpoint
from minet_sdk.training.folder import RunFolder
from minet_sdk.training.module import RestorationModule

CURVE_MEASURES = ("psnr", "ssim", "gain_db")


class SaveBest(Callback):
    """Keep the network with the highest validation gain, with the curve that led to it."""

    def __init__(self, folder: RunFolder, record: dict[str, Any]) -> None:
        self.folder = folder
        self.record: dict[str, Any] = record
        self.curve: list[dict[str, float]] = []
        self.seconds_before = 0.0
        self.started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Training time, without interruptions."""
        return round(self.seconds_before + time.perf_counter() - self.started, 1)

    @property
    def best(self) -> dict[str, float]:
        """The last of the points with the highest gain; a gain that is not finite is the lowest."""
        return max(reversed(self.curve), key=_finite_gain)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Training time starts here; a resumed run that had stopped early, and was killed before it said so, ends."""
        self.started = time.perf_counter()
        if any(one.wait_count >= one.patience for one in trainer.early_stopping_callbacks):
            trainer.should_stop = True

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Add a point to the curve; save the network if it is the highest.

        Raises:
            TrainingError: the gain is not finite.
        """
        assert isinstance(pl_module, RestorationModule)
        self._check_gain(trainer)
        measures = {name: round(float(trainer.callback_metrics[name]), 4) for name in CURVE_MEASURES}
        self.curve.append({"step": steps_made(trainer), "seconds": self.seconds, **measures})
        if trainer.is_global_zero and self.best is self.curve[-1]:
            record = {**self.record, "selected_step": self.curve[-1]["step"], "curve": self.curve}
            save_checkpoint(self.folder.best, pl_module.network, record)

    def _check_gain(self, trainer: lightning.Trainer) -> None:
        """Raise where nothing was learnt, before anything is saved."""
        gain, baseline = (float(trainer.callback_metrics[name]) for name in ("gain_db", "zero_filled_psnr"))
        if not math.isfinite(baseline):
            raise TrainingError(
                f"zero-filled k-space has a PSNR of {baseline} dB in validation: a slice is empty or not finite; leave"
                " it out of the data"
            )
        if not math.isfinite(gain):
            raise TrainingError(
                f"the validation gain is {gain} dB after {steps_made(trainer)} steps: the run has diverged; lower the"
                " learning rate, clip gradients (clip_norm) or use precision 32-true"
            )

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Say that the run has ended, and how."""
        if trainer.is_global_zero:
            steps = int(self.curve[-1]["step"])
            ended = {"steps": steps, "stopped_early": steps < trainer.num_training_batches, "seconds": self.seconds}
            self.folder.write(self.folder.finished, {**ended, "best": self.best})

    def state_dict(self) -> dict[str, Any]:
        """Curve and record, for the state to resume from."""
        return {"curve": self.curve, "seconds": self.seconds, "record": self.record}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue a curve, and the record of the process that started the run, with what is other in this one."""
        self.curve, self.seconds_before = list(state_dict["curve"]), state_dict["seconds"]
        started = state_dict["record"]
        other = {name: value for name, value in self.record.items() if value != started.get(name)}
        resumption = {name: self.record[name] for name in ("command", "commit") if name in self.record} | other
        self.record = {**started, "resumed": [*started.get("resumed", []), resumption]}


class SaveState(Callback):
    """Save everything that the rest of the run depends on, every so many steps and after every validation.

    It must stand last, so that it saves what the other callbacks have made of the step.
    """

    def __init__(self, path: Path, every: int, validate_every: int) -> None:
        self.path, self.every, self.validate_every = path, every, validate_every

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time; where a validation follows, after it, or a resumed run would leave it out."""
        step = batch_idx + 1
        if step % self.every == 0 and step % self.validate_every:
            self.save(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save."""
        self.save(trainer)

    def save(self, trainer: lightning.Trainer) -> None:
        """Save, whole or not at all; every process of the run must call it."""
        with replacing(self.path) if trainer.is_global_zero else nullcontext(self.path) as path:
            trainer.save_checkpoint(path)


def recorded(path: Path) -> dict[str, Any]:
    """The record in a state to resume from; empty where the file is none that this version wrote."""
    try:
        state = torch.load(path, map_location="cpu", mmap=True)
        return state["callbacks"][SaveBest.__qualname__]["record"]
    except (OSError, EOFError, RuntimeError, KeyError, TypeError, UnpicklingError):
        return {}


def _finite_gain(point: Mapping[str, float]) -> float:
    return point["gain_db"] if math.isfinite(point["gain_db"]) else -math.inf


def steps_made(trainer: lightning.Trainer) -> int:
    """Training batches so far; Lightning's own count of steps counts every optimiser."""
    return trainer.fit_loop.total_batch_idx + 1
