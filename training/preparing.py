"""A run made ready: data opened, network, objective and teacher built, and the Lightning Trainer that drives them."""

import json
import logging
import math
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from torch.utils.data import DataLoader, Subset

from minet_sdk.errors import TrainingError, first_line
from minet_sdk.training.checkpoint import load_checkpoint
from minet_sdk.training.config import MinetConfig
from minet_sdk.training.loading import (
    PATCHES_PER_SLICE,
    Augmentation,
    Batch,
    SliceBatches,
    WholeSlices,
    default_augmentation,
    loader_options,
    make_loader,
)
from minet_sdk.training.logs import LOG_EVERY
from minet_sdk.training.module import AdversarialModule, RestorationModule
from minet_sdk.training.network import Network, build, seeded
from minet_sdk.training.objectives import Eq6, make_objective
from minet_sdk.training.pairs import PairSource, open_source, record_of
from minet_sdk.training.provenance import data_files, fingerprint, provenance
from minet_sdk.training.settings import Machine, TrainingSettings
from minet_sdk.training.stream import StepBatches, StepLoader
from minet_sdk.training.warm_start import initialise

EXPECTED_WARNINGS = (
    ".*does not have many workers.*",
    ".*treespec.*is deprecated.*",
    ".*find_unused_parameters=True was specified in DDP constructor.*",
)
"""What Lightning and PyTorch say of a run that is as it should be."""


class RunData(lightning.LightningDataModule):
    """The loaders of every device."""

    def __init__(self, units: SliceBatches, slices: WholeSlices, settings: TrainingSettings, machine: Machine) -> None:
        super().__init__()
        self.units, self.slices = units, slices
        self.settings, self.machine = settings, machine

    def train_dataloader(self) -> StepLoader:
        """This device's part of every step."""
        trainer = self.trainer
        assert trainer is not None
        units_a_step = self.settings.batch_size // self.units.batch_size
        batches = StepBatches(self.units, units_a_step, trainer.global_rank, trainer.world_size)
        return StepLoader(batches, self.settings.steps, **loader_options(self.machine.workers))

    def val_dataloader(self) -> DataLoader[Batch]:
        """This device's part of the validation slices."""
        trainer = self.trainer
        assert trainer is not None
        mine = Subset(self.slices, range(trainer.global_rank, len(self.slices), trainer.world_size))
        return make_loader(mine)


@dataclass(frozen=True)
class Prepared:
    """All parts of a run."""

    settings: TrainingSettings
    """Told in steps."""

    module: RestorationModule
    data: RunData
    record: dict[str, Any]
    """What every checkpoint tells about the run."""

    notes: tuple[str, ...]
    """What was approximated, assumed or left out, for the user to see."""


def prepare(settings: TrainingSettings, machine: Machine, *, fresh: bool = True) -> Prepared:
    """Open the data, build network and objective.

    Args:
        settings: the run.
        machine: where the data lie.
        fresh: False if weights are about to be read from the state to resume from, so that none need be initialised.

    Raises:
        TrainingError: data, teacher or initial weights cannot be used, or settings do not fit each other.
    """
    if machine.threads:
        torch.set_num_threads(machine.threads)
    source = open_source(settings.data, machine.data_path, "train", settings.data_options)
    validation = open_source(settings.data, machine.data_path, "validation", settings.data_options)
    units = _units(source, settings)
    slices_a_step = settings.batch_size // units.batch_size
    settings = settings.in_steps(0 if source.endless else math.ceil(len(source) / slices_a_step))
    slices = WholeSlices(validation, "validation", settings.network.scale, settings.validation_slices)
    network = build(settings.network, settings.seed)
    record = {
        **provenance(),
        "method": settings.method,
        "settings": settings.to_dict(),
        "data": source.describe(),
        "augmentation": record_of(units.augmentation),
    }
    if files := data_files(settings.data_options):
        record["data_files"] = files
    notes = [*source.notes]
    if settings.initialise and fresh:
        record["initialised"] = taken = initialise(network, Path(settings.initialise))
        if taken["left_as_made"]:
            left = len(taken["left_as_made"])
            notes.append(f"{left} of {left + taken['taken']} tensors do not fit {settings.initialise} and start anew")
    teacher = _teacher(settings)
    if teacher is not None:
        record["teacher"] = fingerprint(Path(settings.teacher))
    with seeded(settings.seed):
        objective = make_objective(settings.objective, settings.objective_settings)
    form = RestorationModule
    if objective.discriminator is not None:
        form = AdversarialModule
        if settings.precision == "16-mixed":
            raise TrainingError("precision is 16-mixed; an adversarial objective trains in bf16-mixed or 32-true")
    module = form(network, objective, settings, teacher)
    record = json.loads(json.dumps(record))  # plain types alone, which every reader of a checkpoint understands
    return Prepared(settings, module, RunData(units, slices, settings, machine), record, tuple(notes))


def _units(source: PairSource, settings: TrainingSettings) -> SliceBatches:
    """The endless stream of the patches of one slice each, or of whole slices."""
    patches = PATCHES_PER_SLICE if settings.patch and settings.batch_size % PATCHES_PER_SLICE == 0 else 1
    augmentation = record_of(default_augmentation(source)) | dict(settings.augmentation)
    return SliceBatches(
        source,
        scale=settings.network.scale,
        patch=settings.patch,
        batch_size=patches,
        seed=settings.seed,
        augmentation=Augmentation.from_dict(augmentation),
        patches_per_slice=patches,
    )


def _teacher(settings: TrainingSettings) -> Network | None:
    """The network to imitate."""
    if not settings.teacher:
        return None
    teacher = load_checkpoint(Path(settings.teacher)).model
    if teacher.config.scale != settings.network.scale:
        raise TrainingError(
            f"{settings.teacher} is for scale {teacher.config.scale}, the network for {settings.network.scale};"
            " choose a teacher of the same scale"
        )
    return teacher


def make_trainer(
    prepared: Prepared, machine: Machine, callbacks: Sequence[Callback], logger: Sequence[Logger], folder: Path
) -> lightning.Trainer:
    """Lightning's Trainer for a run: one epoch of all its steps, with validations in between.

    Raises:
        TrainingError: this machine has no such devices or does not train in this precision, Lightning has no such
            strategy, or there are more devices than validation slices.
    """
    settings, module = prepared.settings, prepared.module
    several = machine.devices != 1 or machine.nodes > 1
    parallel = "ddp_find_unused_parameters_true" if leaves_parameters(module) else "ddp"
    strategy = parallel if several and machine.strategy == "auto" else machine.strategy
    on_gpu = machine.accelerator == "gpu" or (machine.accelerator == "auto" and torch.cuda.is_available())
    if settings.precision == "16-mixed" and not on_gpu:
        raise TrainingError("precision is 16-mixed, which only a GPU trains in; choose bf16-mixed or 32-true")
    try:
        trainer = lightning.Trainer(
            default_root_dir=folder,
            accelerator=machine.accelerator,
            devices=machine.devices or "auto",
            num_nodes=machine.nodes,
            strategy=strategy,
            use_distributed_sampler=False,
            precision=settings.precision,
            max_epochs=1,
            val_check_interval=settings.validate_every,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            deterministic="warn" if machine.deterministic and on_gpu else None,
            logger=list(logger),
            log_every_n_steps=min(LOG_EVERY, settings.steps),
            callbacks=list(callbacks),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError) as error:
        raise TrainingError(
            f"cannot train with devices={machine.devices}, accelerator={machine.accelerator}, nodes={machine.nodes},"
            f" strategy={strategy}: {first_line(error)}"
        ) from error
    devices_in_all, slices = trainer.num_devices * trainer.num_nodes, len(prepared.data.slices)
    if slices < devices_in_all:
        raise TrainingError(
            f"validation has {slices} of the slices that {devices_in_all} devices need, one for each: train on fewer"
            " devices, or validate on more slices (validation_slices)"
        )
    return trainer


def leaves_parameters(module: RestorationModule) -> bool:
    """Whether a step gives some parameters no gradient.

    Those of the other network, where there are two optimisers, and MINet's reference head, which eq. 6 alone looks at.
    """
    config = module.network.config
    has_reference_head = isinstance(config, MinetConfig) and config.reference
    return not module.automatic_optimization or (has_reference_head and not isinstance(module.objective, Eq6))


def is_main_process() -> bool:
    """Whether this is the process that writes files and talks, of all devices' processes."""
    return getattr(rank_zero_only, "rank", 0) == 0


@contextmanager
def quiet() -> Generator[None]:
    """Keep away what Lightning says of every run."""
    logs = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in EXPECTED_WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
