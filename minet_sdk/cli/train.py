"""`minet-sdk train`: train a network on this machine, or on several devices and nodes."""

from pathlib import Path
from typing import Annotated, Any

import typer

from minet_sdk.cli.console import print_json
from minet_sdk.errors import TrainingError
from minet_sdk.requirements import require

NOT_SETTINGS = ("output", "config", "resume", "progress", "dry_run", "measure", "data_option", "target_weight")
"""Parameters of the command that are no settings of the run, or only part of one."""


def train(
    context: typer.Context,
    data_path: Annotated[
        Path | None,
        typer.Argument(metavar="PATH", help="Folder of the data; label maps subject_01.nii.gz ... for synthetic."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder of the run: checkpoints, log.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Settings file (YAML); options given here win.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Named settings to start from: paper, small, fast, quick. [default: small]")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Row of the comparison: minet, edsr, zeng, lyu, ... [default: minet]")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Size of the method's network: matched or published. [default: matched]")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Size of a MINet instead: paper, small, fast or deep.")] = None,
    scale: Annotated[int | None, typer.Option(help="Magnification, 2 or 4. [default: 2]")] = None,
    data: Annotated[
        str | None, typer.Option(help="Kind of data: synthetic, fastmri, dicom, nifti. [default: synthetic]")
    ] = None,
    data_option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Option of this kind of data; may be repeated.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Length of the run in steps.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Length of the run in passes over the data, instead.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Patches of a step, over all devices.")] = None,
    patch: Annotated[
        int | None, typer.Option(help="Edge of a training patch, high-resolution pixels; 0 takes whole slices.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate of Adam.")] = None,
    schedule: Annotated[str | None, typer.Option(help="cosine or constant.")] = None,
    warm_up: Annotated[int | None, typer.Option(help="Steps over which the learning rate rises.")] = None,
    clip_norm: Annotated[float | None, typer.Option(help="Largest norm of the gradient; 0 does not clip.")] = None,
    average: Annotated[
        float | None, typer.Option(help="Decay of the moving average of the weights, such as 0.999; 0 for none.")
    ] = None,
    objective: Annotated[str | None, typer.Option(help="eq6, l1, mse or composite instead of the method's.")] = None,
    target_weight: Annotated[float | None, typer.Option(help="Weight of the target in eq. 6.")] = None,
    initialise: Annotated[
        str | None, typer.Option(metavar="CHECKPOINT", help="Start from these weights, as far as they fit.")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(metavar="CHECKPOINT", help="Imitate this network's images, besides the truth.")
    ] = None,
    teacher_weight: Annotated[float | None, typer.Option(help="Weight of the difference from the teacher.")] = None,
    validate_every: Annotated[int | None, typer.Option(help="Steps between validations.")] = None,
    validation_slices: Annotated[int | None, typer.Option(help="Slices per validation.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="End the run after so many validations without a better gain.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="32-true, bf16-mixed or 16-mixed. [default: bf16-mixed if it is fast here]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights and data.")] = None,
    accelerator: Annotated[str | None, typer.Option(help="auto, cpu or gpu.")] = None,
    devices: Annotated[int | None, typer.Option(help="Devices of each node; 0 takes all. [default: 1]")] = None,
    nodes: Annotated[int | None, typer.Option(help="Nodes; each runs this command under its launcher.")] = None,
    strategy: Annotated[str | None, typer.Option(help="How devices share the work, by Lightning's name.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that prepare data, for each device.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of each process; 0 leaves it to PyTorch.")] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(help="Steps after which the state to resume from is saved, besides validations.")
    ] = None,
    deterministic: Annotated[bool | None, typer.Option(help="Prefer repeatable operations on a GPU.")] = None,
    tensorboard: Annotated[bool | None, typer.Option(help="Log for TensorBoard, too.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the output folder.")] = False,
    progress: Annotated[bool, typer.Option(help="Say on stderr how far the run is.")] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print all settings as a settings file, and train nothing.")
    ] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Print how long a step and a validation take here, and train nothing.")
    ] = False,
) -> None:
    """Train a network; prints the path of the best checkpoint."""
    require("torch", "training")
    from minet_sdk.training.assembling import assemble, read_settings, to_yaml

    given = {name: value for name, value in context.params.items() if name not in NOT_SETTINGS}
    if data_option:
        given["data_options"] = dict(_option(text) for text in data_option)
    if target_weight is not None:
        given["objective_settings"] = {"target_weight": target_weight}
    run = assemble(read_settings(config) if config else {}, given)
    if dry_run:
        typer.echo(to_yaml(run), nl=False)
        return
    require("lightning", "training")
    from minet_sdk.training.fit import fit
    from minet_sdk.training.preparing import is_main_process
    from minet_sdk.training.step_time import measure_step

    if measure:
        time = measure_step(run.settings, run.machine)
        print_json({"step_s": time.step, "step_cpu_s": time.step_cpu, "validation_s": time.validation})
        return
    if output is None:
        raise TrainingError("no folder for the run: give --output, or --dry-run to see what would be trained")
    best = fit(run.settings, output, run.machine, resume="yes" if resume else "no", progress=progress)
    if is_main_process():
        typer.echo(best)


def _option(text: str) -> tuple[str, Any]:
    """``NAME=VALUE``, the value as YAML has it."""
    name, separator, value = text.partition("=")
    if not separator:
        raise TrainingError(f"--data-option is {text!r}; expected NAME=VALUE")
    yaml = require("yaml", "reading --data-option")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise TrainingError(f"--data-option is {text!r}; expected NAME=VALUE, the value in YAML ({reason})") from error
