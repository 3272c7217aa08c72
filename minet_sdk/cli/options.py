"""Options that several commands share."""

from typing import Annotated, Literal

import typer

Backend = Annotated[str, typer.Option(help="Inference engine, see `minet-sdk info`; auto takes the best present.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads of the engine.")]
Consistency = Annotated[
    Literal["auto", "off", "soft", "hard"],
    typer.Option(help="Put the measured centre of k-space back: soft for magnitude images, hard for complex ones."),
]
JsonOutput = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
