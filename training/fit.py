"""One training run: settings in, a folder with checkpoints, a CSV log and the best network out; resumable."""

import json
import platform
import shlex
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from minet_sdk import __version__
from minet_sdk.errors import TrainingError
from minet_sdk.training.checkpoint import save_checkpoint
from minet_sdk.training.config import MinetConfig
from minet_sdk.training.contrast import ContrastSettings
from minet_sdk.training.labels import SPLITS, read_split
from minet_sdk.training.module import MinetModule, OptimiserSettings
from minet_sdk.training.synthetic import Batch, TrainingBatches, WholeSlices

BEST = "best.safetensors"
LAST = "last.ckpt"
SETTINGS = "settings.json"

LOG_EVERY = 50
"""Most steps between two rows of the log."""


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that determines a run; recorded in its checkpoints."""

    model: MinetConfig
    optimiser: OptimiserSettings
    contrast: ContrastSettings = field(default_factory=ContrastSettings)
    patch: int = 80
    """Edge of a training patch, high-resolution pixels."""

    batch_size: int = 6
    validate_every: int = 500
    """Steps between validations; the run can be resumed from any of them."""

    validation_slices: int = 24
    seed: int = 0
    precision: str = "bf16-mixed"

    def __post_init__(self) -> None:
        """Refuse patches that do not lie on the low-resolution grid."""
        if self.patch % self.model.scale or not 0 < self.patch <= self.contrast.size:
            raise TrainingError(
                f"patch is {self.patch}; it must be a multiple of the scale {self.model.scale} "
                f"and at most {self.contrast.size}"
            )
        if self.optimiser.steps % self.validate_every:
            raise TrainingError(
                f"{self.optimiser.steps} steps are not a multiple of {self.validate_every}, the steps between "
                "validations; change --steps or --validate-every"
            )


def _commit() -> str:
    """The commit of this code, or its release where there is no repository or no git."""
    release = f"release {__version__}"
    git = shutil.which("git")
    if git is None:
        return release
    describe = [git, "describe", "--always", "--dirty", "--abbrev=40"]
    root = Path(__file__).resolve().parent
    return subprocess.run(describe, cwd=root, capture_output=True, text=True, check=False).stdout.strip() or release


def provenance(labels: Path) -> dict[str, Any]:
    """Where a run happens: command, code, versions, data."""
    return {
        "command": shlex.join(["minet-sdk", *sys.argv[1:]]),
        "commit": _commit(),
        "versions": {"minet-sdk": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "data": {"kind": "synthetic, randomised contrast", "labels": labels.name, "splits": SPLITS},
    }


class _SaveBest(Callback):
    """Keep the network with the highest validation gain, with the curve that led to it."""

    def __init__(self, folder: Path, record: dict[str, Any]) -> None:
        self.folder, self.record = folder, record
        self.curve: list[dict[str, float]] = []
        self.seconds_before = 0.0
        self.started = time.perf_counter()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, MinetModule)
        metrics = {key: round(float(trainer.callback_metrics[key]), 4) for key in ("psnr", "ssim", "gain_db")}
        seconds = round(self.seconds_before + time.perf_counter() - self.started, 1)
        self.curve.append({"step": trainer.global_step, "seconds": seconds, **metrics})
        if metrics["gain_db"] >= max(point["gain_db"] for point in self.curve):
            record = {**self.record, "selected_step": trainer.global_step, "curve": self.curve}
            save_checkpoint(self.folder / BEST, pl_module.model, record)

    def state_dict(self) -> dict[str, Any]:
        return {"curve": self.curve, "seconds": self.curve[-1]["seconds"] if self.curve else 0.0}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.curve, self.seconds_before = list(state_dict["curve"]), state_dict["seconds"]


class _Data(lightning.LightningDataModule):
    """Loaders whose training stream continues where a resumed run stopped."""

    def __init__(self, settings: TrainingSettings, labels: Path) -> None:
        super().__init__()
        self.settings = settings
        s = settings
        self.subjects = read_split(labels, "train")
        self.slices = WholeSlices(
            read_split(labels, "validation"), s.contrast, "validation", s.model.scale, s.validation_slices
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        s = self.settings
        assert self.trainer is not None
        batches = TrainingBatches(
            self.subjects,
            s.contrast,
            scale=s.model.scale,
            patch=s.patch,
            batch_size=s.batch_size,
            seed=s.seed,
            first=self.trainer.current_epoch * s.validate_every,
            length=s.validate_every,
        )
        return DataLoader(batches, batch_size=None, shuffle=False)

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self.slices, batch_size=None, shuffle=False)


def _check_same_run(recorded: Path, settings: TrainingSettings) -> None:
    """A resumed run must be the run that was started: other settings would falsify its record."""
    before, now = _flat(json.loads(recorded.read_text())), _flat(json.loads(json.dumps(asdict(settings))))
    changed = [name for name in now if now[name] != before.get(name)]
    if changed:
        difference = "; ".join(f"{name} was {before.get(name)}, is now {now[name]}" for name in changed)
        raise TrainingError(f"{recorded.parent} was started with other settings: {difference}; resume with the same")


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Nested settings by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": setting for inner, setting in _flat(value).items()}
        else:
            flat[name] = value
    return flat


def fit(settings: TrainingSettings, labels: Path, output: Path, *, resume: bool = False, progress: bool = True) -> Path:
    """Train a network.

    Args:
        settings: the run.
        labels: folder of label maps, see `labels.read_split`.
        output: the run's folder: ``best.safetensors``, ``last.ckpt``, ``settings.json`` and
            ``log/version_K/metrics.csv``, K counting resumptions.
        resume: continue from ``last.ckpt``.
        progress: show a progress bar on the terminal.

    Returns:
        Path of the best network.

    Raises:
        TrainingError: the folder holds a run and ``resume`` is False, or holds none, or one with other settings, and
            it is True; or label maps are missing.
    """
    last = output / LAST
    if last.exists() and not resume:
        raise TrainingError(f"{output} holds a run already: give --resume to continue it, or another folder")
    if resume and not last.exists():
        raise TrainingError(f"{output} holds no {LAST} to resume from: leave --resume out to start")
    recorded = output / SETTINGS
    if resume and recorded.exists():
        _check_same_run(recorded, settings)
    data = _Data(settings, labels)
    output.mkdir(parents=True, exist_ok=True)
    recorded.write_text(json.dumps(asdict(settings), indent=2))
    lightning.seed_everything(settings.seed, verbose=False)
    record = {**provenance(labels), "settings": asdict(settings)}
    module = MinetModule(settings.model, settings.optimiser, settings.seed)
    callbacks: list[Callback] = [
        _SaveBest(output, record),
        ModelCheckpoint(output, filename="last", save_top_k=1, enable_version_counter=False),
    ]
    if progress:
        callbacks.append(RichProgressBar(console_kwargs={"stderr": True}))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
        warnings.filterwarnings("ignore", message=".*treespec.*is deprecated.*")
        trainer = lightning.Trainer(
            default_root_dir=output,
            max_epochs=settings.optimiser.steps // settings.validate_every,
            precision=settings.precision,  # type: ignore[arg-type]
            gradient_clip_val=settings.optimiser.clip_norm,
            reload_dataloaders_every_n_epochs=1,
            num_sanity_val_steps=0,
            logger=CSVLogger(output, name="log"),
            log_every_n_steps=min(LOG_EVERY, settings.validate_every),
            callbacks=callbacks,
            enable_progress_bar=progress,
            enable_model_summary=False,
        )
        trainer.fit(module, datamodule=data, ckpt_path=last if resume else None)
    return output / BEST
