"""`minet-sdk train`: train a MINet on this machine."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from minet_sdk.requirements import require


class Data(StrEnum):
    """Where training pairs come from."""

    synthetic = "synthetic"


class Preset(StrEnum):
    """Named architectures, see `training.config.PRESETS`."""

    paper = "paper"
    small = "small"
    fast = "fast"


class Scale(StrEnum):
    """Magnifications MINet is defined for."""

    x2 = "2"
    x4 = "4"


def train(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run: checkpoints and log.")],
    labels: Annotated[Path, typer.Option(help="Folder of label maps subject_01.nii.gz ... subject_16.nii.gz.")],
    data: Annotated[Data, typer.Option(help="Kind of training data.")] = Data.synthetic,
    preset: Annotated[Preset, typer.Option(help="Architecture.")] = Preset.small,
    scale: Annotated[Scale, typer.Option(help="Magnification.")] = Scale.x2,
    reference: Annotated[bool, typer.Option(help="Use a reference; without, a single-contrast network.")] = True,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 20_000,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate of Adam.")] = 1e-3,
    target_weight: Annotated[float, typer.Option(min=0, max=1, help="Weight of the target in the loss.")] = 0.7,
    patch: Annotated[int, typer.Option(min=16, help="Edge of a training patch, high-resolution pixels.")] = 80,
    batch_size: Annotated[int, typer.Option(min=1, help="Patches per step.")] = 6,
    validate_every: Annotated[int, typer.Option(min=1, help="Steps between validations and checkpoints.")] = 500,
    validation_slices: Annotated[int, typer.Option(min=1, help="Slices per validation.")] = 24,
    precision: Annotated[str, typer.Option(help="bf16-mixed or 32-true.")] = "bf16-mixed",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves it to PyTorch.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of weights and data.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the output folder.")] = False,
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
) -> None:
    """Train a network; prints the path of the best checkpoint."""
    torch = require("torch", "training")
    require("lightning", "training")
    from minet_sdk.training.config import preset as architecture
    from minet_sdk.training.fit import TrainingSettings, fit
    from minet_sdk.training.module import OptimiserSettings

    if threads:
        torch.set_num_threads(threads)
    settings = TrainingSettings(
        model=replace(architecture(preset.value, int(scale.value)), reference=reference),
        optimiser=OptimiserSettings(steps=steps, learning_rate=learning_rate, target_weight=target_weight),
        patch=patch,
        batch_size=batch_size,
        validate_every=validate_every,
        validation_slices=validation_slices,
        seed=seed,
        precision=precision,
    )
    best = fit(settings, labels, output, resume=resume, progress=progress)
    typer.echo(best)
