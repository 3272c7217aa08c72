"""`minet-sdk evaluate`: models and interpolations on the same test data: table, JSON, picture."""

import json
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from minet_sdk.atomic import replacing
from minet_sdk.cli.console import print_json, remark
from minet_sdk.cli.options import Backend, JsonOutput, Threads
from minet_sdk.errors import InputError
from minet_sdk.requirements import require


def evaluate(
    models: Annotated[list[str], typer.Argument(help="Bundles: bundled names or folders, of one scale.")],
    data: Annotated[str, typer.Option(help="Kind of test data: synthetic, fastmri, dicom or nifti.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for evaluation.json and evaluation.png.")],
    path: Annotated[Path | None, typer.Option(help="Where the test data lie.")] = None,
    split: Annotated[str, typer.Option(help="test, validation, train, or all.")] = "test",
    slices: Annotated[int, typer.Option(min=1, help="Slices per subject of synthetic data.")] = 16,
    option: Annotated[list[str] | None, typer.Option(help="Option of the data, name=value; see docs/data.md.")] = None,
    backend: Backend = "auto",
    threads: Threads = None,
    as_json: JsonOutput = False,
) -> None:
    """Measure models on test data against interpolation; prints the table."""
    require("scipy", "evaluation")
    from minet_sdk.runtime import Runtime
    from minet_sdk.training.evaluation import evaluate as measure_all
    from minet_sdk.training.evaluation import interpolations, markdown, summary, with_runtime
    from minet_sdk.training.evaluation_picture import draw_evaluation
    from minet_sdk.training.evaluation_sets import volumes_of
    from minet_sdk.training.pairs import open_source

    source = open_source(data, path, split, _options(option or []))  # type: ignore[arg-type] # checked there
    for note in source.notes:
        remark(note)
    with ExitStack() as stack:
        runtimes = {
            name: stack.enter_context(Runtime(name, backend=backend, threads=threads, consistency="off"))
            for name in models
        }
        scales = {runtime.scale for runtime in runtimes.values()}
        if len(scales) > 1:
            raise InputError(f"models have the scales {sorted(scales)}; evaluate one scale at a time")
        scale = scales.pop()
        methods = interpolations(scale)
        titles = _titles(runtimes, methods)
        methods |= {titles[name]: with_runtime(one) for name, one in runtimes.items()}
        rows = measure_all(methods, volumes_of(source, scale, slices), scale, lambda name: remark(f"{name} done"))
        output.mkdir(parents=True, exist_ok=True)
        report: dict[str, Any] = {
            "scale": scale,
            "data": source.describe(),
            "split": split,
            "models": {name: runtime.info.model_sha256 for name, runtime in runtimes.items()},
            "backends": {name: runtime.info.backend for name, runtime in runtimes.items()},
            "results": summary(rows),
        }
        with replacing(output / "evaluation.json") as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        draw_evaluation(output / "evaluation.png", methods, next(volumes_of(source, scale, 1)), scale)
    if as_json:
        print_json(report)
    else:
        typer.echo(markdown(report["results"]))
    remark(f"wrote {output}/evaluation.json and evaluation.png. Research use only, not a medical device.")


def _titles(models: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """What the table calls each model: its folder's name, or all that was given where others are called the same."""
    short = {model: Path(model).name for model in models}
    times = Counter([*short.values(), *taken])
    return {model: name if times[name] == 1 else model for model, name in short.items()}


def _options(given: list[str]) -> dict[str, Any]:
    """``name=value`` texts as data; a value is JSON where it can be read as such, else text."""
    options: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"option {text!r} has no value; write name=value")
        try:
            options[name] = json.loads(value)
        except json.JSONDecodeError:
            options[name] = value
    return options
