"""What a run writes while it trains: the best network so far, and the state to resume from."""

import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from minet_sdk.atomic import replacing
from minet_sdk.training.checkpoint import save_checkpoint
from minet_sdk.training.folder import RunFolder
from minet_sdk.training.module import RestorationModule

CURVE_MEASURES = ("psnr", "ssim", "gain_db")


class SaveBest(Callback):
    """Keep the network with the highest validation gain, with the curve that led to it."""

    def __init__(self, folder: RunFolder, record: dict[str, Any]) -> None:
        self.folder, self.record = folder, record
        self.curve: list[dict[str, float]] = []
        self.seconds_before = 0.0
        self.started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Training time, without interruptions."""
        return round(self.seconds_before + time.perf_counter() - self.started, 1)

    @property
    def best(self) -> dict[str, float]:
        """The last of the points with the highest gain."""
        return max(reversed(self.curve), key=lambda point: point["gain_db"])

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Training time starts here."""
        self.started = time.perf_counter()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Add a point to the curve; save the network if it is the highest."""
        assert isinstance(pl_module, RestorationModule)
        measures = {name: round(float(trainer.callback_metrics[name]), 4) for name in CURVE_MEASURES}
        self.curve.append({"step": steps_made(trainer), "seconds": self.seconds, **measures})
        if trainer.is_global_zero and self.best is self.curve[-1]:
            record = {**self.record, "selected_step": self.curve[-1]["step"], "curve": self.curve}
            save_checkpoint(self.folder.best, pl_module.network, record)

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
        """Continue a curve; what the weights started from is known to the process that started them only."""
        self.curve, self.seconds_before = list(state_dict["curve"]), state_dict["seconds"]
        if "initialised" in state_dict["record"]:
            self.record["initialised"] = state_dict["record"]["initialised"]


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


def steps_made(trainer: lightning.Trainer) -> int:
    """Training batches so far; Lightning's own count of steps counts every optimiser."""
    return trainer.fit_loop.total_batch_idx + 1
