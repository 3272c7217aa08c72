"""One training run: settings in, a folder with checkpoints, logs and the best network out; resumable at any step."""

import sys
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping

from minet_sdk.training.averaging import WeightAverage
from minet_sdk.training.folder import Resume, RunFolder
from minet_sdk.training.logs import RunLog, ToldLog, loggers
from minet_sdk.training.preparing import is_main_process, make_trainer, prepare, quiet
from minet_sdk.training.provenance import as_started
from minet_sdk.training.saving import SaveBest, SaveState, recorded
from minet_sdk.training.settings import Machine, TrainingSettings


def fit(
    settings: TrainingSettings,
    output: Path,
    machine: Machine | None = None,
    *,
    resume: Resume = "no",
    progress: bool = True,
) -> Path:
    """Train a network.

    Args:
        settings: the run.
        output: the run's folder, see `folder.RunFolder`; the log is ``log/version_K``, K counting resumptions.
        machine: where the data lie, and what computes.
        resume: whether to continue a run in ``output``. A finished run is left as it is.
        progress: say on stderr how far the run is.

    Returns:
        Path of the best network.

    Raises:
        TrainingError: the folder holds a run and ``resume`` is `no`, or none and it is `yes`, or one with other
            settings or files; data, teacher or initial weights cannot be used; or the run diverged.
    """
    machine = machine or Machine()
    folder = RunFolder(output)
    continues = folder.continues(resume) if is_main_process() else folder.last.exists()
    prepared = prepare(settings, machine, fresh=not continues)
    settings = prepared.settings
    told = settings.to_dict()
    if continues:
        told = as_started(told, recorded(folder.last))
        folder.check_same_run(told)
        if folder.finished.exists():
            return folder.best
    callbacks: list[Callback] = [SaveBest(folder, prepared.record)]
    if settings.average:
        callbacks.append(WeightAverage(settings.average))
    callbacks.append(ToldLog() if progress else RunLog())
    if settings.patience:
        callbacks.append(
            EarlyStopping("gain_db", mode="max", patience=settings.patience, check_on_train_epoch_end=False)
        )
    callbacks.append(SaveState(folder.last, machine.checkpoint_every, settings.validate_every))
    with quiet(), torch.random.fork_rng(devices=[]):
        logs = loggers(output, tensorboard=machine.tensorboard)
        trainer = make_trainer(prepared, machine, callbacks, logs, output)
        if is_main_process():
            folder.begin(told)
            if progress:
                print(*prepared.notes, sep="\n", end="\n" if prepared.notes else "", file=sys.stderr)
        trainer.fit(prepared.module, datamodule=prepared.data, ckpt_path=folder.last if continues else None)
    return folder.best
