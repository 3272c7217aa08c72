"""`minet-sdk export`: turn a checkpoint into a bundle."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from minet_sdk.cli.console import print_json
from minet_sdk.cli.options import JsonOutput
from minet_sdk.requirements import require

if TYPE_CHECKING:
    from minet_sdk.export.validate import Check

_UNNAMED = ("best", "last", "checkpoint")
"""File names that training and this SDK give to every checkpoint; the folder tells them apart."""


def export(
    checkpoint: Annotated[
        Path | None, typer.Argument(help="Checkpoint of `minet-sdk train`; the bundled minet-x2 if left out.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to write; named after checkpoint and precision if left out."),
    ] = None,
    precision: Annotated[Literal["fp32", "fp16"], typer.Option(help="Of weights and features in the graphs.")] = "fp32",
    name: Annotated[
        str | None, typer.Option(help="Name of the model in its manifest; the folder's if left out.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is already there.")] = False,
    json: JsonOutput = False,
) -> None:
    """Export a checkpoint as an ONNX bundle, validated against PyTorch; prints the bundle's path."""
    for package in ("torch", "onnx", "onnxscript", "onnxruntime", "safetensors"):
        require(package, "export")
    from minet_sdk.export.bundle import bundled_checkpoint, export_bundle

    found: list[Check] = []
    if output is None:
        output = Path(f"{_stem(checkpoint or bundled_checkpoint())}-{precision}")

    def report(checks: "list[Check]") -> None:
        found.extend(checks)
        Console(stderr=True).print(_table(checks))

    bundle = export_bundle(checkpoint, output, precision, name, overwrite, report)
    if not json:
        typer.echo(bundle.location)
        return
    print_json(
        {
            "bundle": str(bundle.location),
            "name": bundle.manifest.name,
            "precision": bundle.manifest.precision,
            "sha256": bundle.sha256,
            "files": {name: (bundle.location / name).stat().st_size for name in bundle.manifest.files},
            "checks": [
                {"subject": c.subject, "question": c.question, "answer": c.answer, "passed": c.passed} for c in found
            ],
        }
    )


def _stem(checkpoint: Path) -> str:
    return checkpoint.resolve().parent.name if checkpoint.stem in _UNNAMED else checkpoint.stem


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
