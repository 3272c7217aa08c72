"""`minet-sdk bench`: a bundle's latency on every engine that is here, side by side."""

import importlib.util
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from minet_sdk.bundle import Bundle, open_bundle
from minet_sdk.cli.console import print_json, remark
from minet_sdk.cli.options import JsonOutput
from minet_sdk.errors import InputError
from minet_sdk.requirements import require

_WIDTH = 120

_CHECKPOINT = "checkpoint.safetensors"
"""Where a bundled model keeps what it was exported from."""


def bench(
    model: Annotated[str, typer.Argument(metavar="BUNDLE", help="Bundled name or bundle folder.")] = "minet-x2",
    size: Annotated[
        list[int] | None, typer.Option(min=16, help="Edge of the restored image, pixels; repeat for more. 320.")
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option(min=1, help="Threads of every engine; repeat for more. All cores.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds in which each engine has its turn.")] = 7,
    seconds: Annotated[
        float, typer.Option(min=1, help="After these no further round starts, for each size and number of threads.")
    ] = 300.0,
    backend: Annotated[
        list[str] | None, typer.Option(help="Backend of this SDK; repeat for more. All that can run here.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="What the bundle was exported from: adds PyTorch, and float64 for accuracy.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File for the result as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="File for a picture, .png.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    json: JsonOutput = False,
) -> None:
    """Measure a bundle's latency, memory, start and accuracy on every engine here, in interleaved rounds.

    Each engine runs in a process of its own and is stopped while another one has its turn. Nothing else should run.
    """
    for path in (output, plot):
        if path is not None and path.exists() and not overwrite:
            raise InputError(f"{path} exists: give another file, or --overwrite")
    if plot is not None:
        require("matplotlib", "the picture")
    from minet_sdk.benchmark.bench import bench_bundle
    from minet_sdk.benchmark.comparison import Pace
    from minet_sdk.benchmark.machine import cores
    from minet_sdk.benchmark.plot import draw_latency
    from minet_sdk.benchmark.suite import subject_of, write_json
    from minet_sdk.training.torch_peers import float64_peer, torch_peers

    bundle = open_bundle(model)
    trained = _checkpoint(bundle, checkpoint)
    peers = torch_peers(trained)
    exact = float64_peer(trained) if trained is not None and peers[0] else None
    subject = subject_of(bundle, backend or (), peers, exact)
    with tempfile.TemporaryDirectory() as work:
        report = bench_bundle(
            subject,
            [(edge, edge) for edge in size or [320]],
            threads or [cores()],
            Pace(rounds, seconds),
            Path(work),
            remark,
        )
    if output is not None:
        write_json(report, output)
    if plot is not None:
        draw_latency(report["comparisons"], plot)
    if json:
        print_json(report)
    else:
        _show(report)


def _checkpoint(bundle: Bundle, given: Path | None) -> Path | None:
    """What the bundle was exported from, as far as is known."""
    if given is None:
        beside = bundle.location / _CHECKPOINT
        return beside if beside.is_file() else None
    if not given.is_file():
        raise InputError(f"{given} does not exist: give the checkpoint that the bundle was exported from")
    if importlib.util.find_spec("torch") is not None:
        from minet_sdk.training.checkpoint import load_checkpoint

        found = load_checkpoint(given).model.config.to_dict()
        if found != (expected := {**found, **bundle.manifest.architecture}):
            changed = sorted(name for name in found if found[name] != expected[name])
            raise InputError(f"{given} is another network than the bundle's: {', '.join(changed)} differ")
    return given


def _show(report: dict[str, Any]) -> None:
    from minet_sdk.benchmark.table import HEADINGS, rows

    # A file or a pipe has no width of its own, and wrapped figures cannot be read.
    console = Console(width=None if Console().is_terminal else _WIDTH)
    for comparison in report["comparisons"]:
        height, width = comparison["size"]
        table = Table(
            *HEADINGS, title=f"{comparison['model']}, {height} x {width}, {comparison['threads']} threads", box=None
        )
        for row in rows(comparison):
            table.add_row(*row)
        console.print(table)
        for name, reason in {**comparison["absent"], **comparison["failed"]}.items():
            remark(f"{name}: {reason}")
        if comparison["load"]["warning"]:
            remark(f"warning: {comparison['load']['warning']}")
    remark(f"errors {report['comparisons'][0]['accuracy']}; -o keeps everything as JSON")
