"""`minet-sdk export`: a trained checkpoint becomes a bundle, and TensorRT plans where they can be built."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from minet_sdk.bundle import Bundle, Graph, Precision, open_bundle
from minet_sdk.cli.console import print_json, remark
from minet_sdk.cli.options import JsonOutput
from minet_sdk.errors import BackendError, InputError
from minet_sdk.gpus import parse_capability
from minet_sdk.profiles import Profile, coverage, parse_size, profile_set
from minet_sdk.requirements import require

if TYPE_CHECKING:
    from minet_sdk.export.engines import Outcome
    from minet_sdk.export.validate import Check

_UNNAMED = ("best", "last", "checkpoint")
"""File names that training and this SDK give to every checkpoint; the folder tells them apart."""


def export(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            help="Checkpoint of `minet-sdk train`, else the bundled minet-x2; or a bundle folder to add plans to."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to write; named after checkpoint and precision if left out."),
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "bf16", "int8", "fp8"] | None,
        typer.Option(help="Of weights and features in the graphs; fp32 if left out."),
    ] = None,
    engine: Annotated[
        Literal["all", "tensorrt", "tensorrt-rtx", "none"],
        typer.Option(help="Plans to build; all takes every engine whose builder is installed."),
    ] = "all",
    profile: Annotated[
        Literal["brain", "knee", "all"] | None,
        typer.Option(help="Clinical matrices that the plans cover; all if left out."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Slices at once that a named profile is made for.")] = 1,
    minimum: Annotated[
        str | None, typer.Option("--min", help="Smallest target, HxW or NxHxW of the low-resolution image.")
    ] = None,
    optimum: Annotated[
        str | None, typer.Option("--opt", help="Target to tune for, instead of --profile; alone: the only size.")
    ] = None,
    maximum: Annotated[str | None, typer.Option("--max", help="Largest target.")] = None,
    route: Annotated[
        Literal["mix", "fold", "inlined"],
        typer.Option(help="Integration in TensorRT plans: kernels that mix features or fold weights, or none."),
    ] = "mix",
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(help="GPU to build TensorRT-RTX plans for, such as 8.9; may be repeated; else 8.0 and newer."),
    ] = None,
    whole_model: Annotated[
        bool, typer.Option("--whole-model", help="Build a plan of model.onnx too, for use without this SDK.")
    ] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Folder of real slices for int8 and fp8: a DICOM series in `target`, one in `reference`."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the model in its manifest; the folder's if left out.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is already there.")] = False,
    json: JsonOutput = False,
) -> None:
    """Export a checkpoint as an ONNX bundle, validated against PyTorch, and TensorRT plans; prints its path."""
    own_profile = _own_profile(minimum, optimum, maximum, profile)
    capabilities = [parse_capability(text) for text in compute_capability or ()] or None
    require("onnx", "export")
    from minet_sdk.export.engines import ENGINES, build_engines, obstacle

    found: list[Check] = []
    outcomes: list[Outcome] = []
    existing = _existing(checkpoint)
    kind: Precision = existing.manifest.precision if existing else precision or "fp32"
    if engine in ("tensorrt", "tensorrt-rtx") and (reason := obstacle(engine, kind, capabilities)):
        raise BackendError(f"--engine {engine} cannot build here: {reason}")
    if existing:
        given = {"--output": output, "--precision": precision, "--name": name, "--calibration": calibration}
        _refuse(checkpoint, [*(option for option in given if given[option]), *(["--overwrite"] if overwrite else [])])
    bundle = existing or _exported(checkpoint, output, kind, calibration, name, overwrite, found)
    if engine != "none":
        outcomes = build_engines(
            bundle,
            ENGINES if engine == "all" else (engine,),
            own_profile or profile_set(profile or "all", bundle.manifest.scale, batch),
            graphs=_graphs(bundle, whole_model),
            route=route,
            compute_capabilities=capabilities,
            report=_report_outcome,
        )
        _report_use(outcomes)
    failed = [outcome.reason for outcome in outcomes if outcome.status != "built"]
    if engine != "all" and failed:
        raise BackendError(f"the bundle {bundle.location} is complete, its plans for {engine} are not: {failed[0]}")
    if json:
        print_json(_to_dict(bundle, found, outcomes))
    else:
        typer.echo(bundle.location)


def _own_profile(
    minimum: str | None, optimum: str | None, maximum: str | None, named: str | None
) -> tuple[Profile, ...] | None:
    """The profile of --min, --opt and --max, if they are given."""
    if optimum is None:
        if minimum is not None or maximum is not None:
            raise InputError("--min and --max are limits around --opt: give --opt too, the size to tune for")
        return None
    if named is not None:
        raise InputError(f"--profile {named} and --opt {optimum} exclude each other: give one of them")
    best = parse_size(optimum)
    low, high = (best if text is None else parse_size(text) for text in (minimum, maximum))
    return (Profile(low, best, high),)


def _existing(path: Path | None) -> Bundle | None:
    """The bundle, if a folder was given in place of a checkpoint."""
    return open_bundle(path) if path is not None and path.is_dir() else None


def _refuse(bundle: Path | None, options: list[str]) -> None:
    if options:
        raise InputError(f"{bundle} is a bundle already, to which plans are added: leave out {', '.join(options)}")


def _graphs(bundle: Bundle, whole_model: bool) -> tuple[Graph, ...]:
    """What the runtime runs, and the whole model if it is wanted."""
    if not bundle.manifest.needs_reference:
        return ("model",)
    return ("reference", "target", "model") if whole_model else ("reference", "target")


def _exported(
    checkpoint: Path | None,
    output: Path | None,
    precision: Precision,
    calibration: Path | None,
    name: str | None,
    overwrite: bool,
    found: "list[Check]",
) -> Bundle:
    """Export the checkpoint; adds every validation check to ``found`` and shows them."""
    for package in ("torch", "onnxscript", "onnxruntime", "safetensors"):
        require(package, "export")
    from minet_sdk.export.bundle import bundled_checkpoint, export_bundle

    def report(checks: "list[Check]") -> None:
        found.extend(checks)
        Console(stderr=True).print(_table(checks))

    if output is None:
        output = Path(f"{_stem(checkpoint or bundled_checkpoint())}-{precision}")
    return export_bundle(checkpoint, output, precision, name, overwrite, report, calibration)


def _stem(checkpoint: Path) -> str:
    return checkpoint.resolve().parent.name if checkpoint.stem in _UNNAMED else checkpoint.stem


def _report_outcome(outcome: "Outcome") -> None:
    plan = outcome.plan
    if plan is None:
        subject = f"{outcome.engine} {outcome.graph}" if outcome.graph else outcome.engine
        remark(f"{subject} {outcome.status}: {outcome.reason}")
    else:
        seconds = plan.details["build_seconds"]
        remark(f"{outcome.engine} built: {plan.path.name}, {plan.size / 1e6:.1f} MB, {seconds:.1f} s")


def _report_use(outcomes: "list[Outcome]") -> None:
    """What the plans of each engine are good for; they differ in the graph only."""
    from minet_sdk.export.engines import good_for

    shown: set[str] = set()
    for outcome in outcomes:
        if outcome.plan is not None and outcome.engine not in shown:
            shown.add(outcome.engine)
            remark(f"{outcome.engine}: targets of {coverage(outcome.plan.key.profiles)}")
            for line in good_for(outcome.plan):
                remark(f"{outcome.engine}: {line}")


def _to_dict(bundle: Bundle, checks: "list[Check]", outcomes: "list[Outcome]") -> dict[str, Any]:
    from minet_sdk.export.engines import good_for

    def outcome_to_dict(outcome: "Outcome") -> dict[str, Any]:
        common = {
            "engine": outcome.engine,
            "graph": outcome.graph,
            "status": outcome.status,
            "reason": outcome.reason or None,
        }
        plan = outcome.plan
        if plan is None:
            return common
        record = {"sha256": plan.sha256, "size": plan.size, "key": asdict(plan.key), "details": plan.details}
        return {**common, "plan": str(plan.path), **record, "good_for": list(good_for(plan))}

    return {
        "bundle": str(bundle.location),
        "name": bundle.manifest.name,
        "precision": bundle.manifest.precision,
        "sha256": bundle.sha256,
        "files": {name: (bundle.location / name).stat().st_size for name in bundle.manifest.files},
        "checks": [
            {"subject": c.subject, "question": c.question, "answer": c.answer, "passed": c.passed} for c in checks
        ],
        "engines": [outcome_to_dict(outcome) for outcome in outcomes],
    }


def _table(checks: "list[Check]") -> Table:
    """What was compared with PyTorch, and everything that failed; the rest as one row a file."""
    table = Table("file", "check", "result", box=None, padding=(0, 2, 0, 0))
    formal: dict[str, int] = {}
    for check in checks:
        if check.passed and not check.measured:
            formal[check.subject] = formal.get(check.subject, 0) + 1
    for subject, count in formal.items():
        table.add_row(subject, "form", f"{count} checks passed")
    for check in checks:
        if check.measured or not check.passed:
            table.add_row(check.subject, check.question, check.answer if check.passed else f"FAILED: {check.answer}")
    return table
