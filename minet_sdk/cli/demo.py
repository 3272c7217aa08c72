"""`minet-sdk demo`: the bundled model on the bundled study, with numbers and a picture."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from minet_sdk.cli.console import progress_bar, remark
from minet_sdk.cli.options import Backend, Consistency, JsonOutput, Threads
from minet_sdk.demo import DATA, Comparison, demonstrate
from minet_sdk.errors import MissingPackageError
from minet_sdk.requirements import require
from minet_sdk.run import RESEARCH_USE
from minet_sdk.runtime import Runtime


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for series, picture and figures.")] = Path(
        "minet-demo"
    ),
    backend: Backend = "auto",
    threads: Threads = None,
    consistency: Consistency = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    json: JsonOutput = False,
) -> None:
    """Degrade the T2 of the bundled study, restore it guided by the T1, and compare with the truth."""
    picture = True
    try:
        require("matplotlib", "the comparison picture")
    except MissingPackageError as missing:
        picture = False
        remark(f"no picture: {missing}")
    with progress_bar("restoring") as progress:
        comparisons = demonstrate(
            output,
            lambda name: Runtime(name, backend=backend, threads=threads, consistency=consistency),
            overwrite=overwrite,
            picture=picture,
            progress=progress,
        )
    if json:
        print((output / "comparison.json").read_text(encoding="utf-8"), end="")
    else:
        _print_table(comparisons)
    for comparison in comparisons:
        remark(f"derived series: {comparison.run.output}")
        if comparison.picture:
            remark(f"picture: {comparison.picture}")
    remark(f"{DATA}. {RESEARCH_USE}")


def _print_table(comparisons: list[Comparison]) -> None:
    table = Table("scale", "method", "PSNR dB", "SSIM", "NMSE")
    for comparison in comparisons:
        for method, values in comparison.measures.items():
            row = (f"x{comparison.scale}", method, f"{values.psnr:.2f}", f"{values.ssim:.4f}", f"{values.nmse:.5f}")
            table.add_row(*row, end_section=method == "MINet")
    Console().print(table)
