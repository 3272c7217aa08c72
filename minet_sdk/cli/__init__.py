"""The command line: stdout is data, stderr is progress and errors, every command in a module of its own."""

import sys

import typer

from minet_sdk.cli.train import train
from minet_sdk.errors import MinetError

app = typer.Typer(
    name="minet-sdk",
    help="Multi-contrast MRI super-resolution with MINet. Research use only, not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(train)


@app.callback()
def _common() -> None:
    """Options of all commands would stand here; the callback keeps `train` a subcommand even while it is alone."""


def main() -> None:
    """Entry point: a user's error is one line and exit code 1, a bug keeps its traceback."""
    try:
        app()
    except MinetError as error:
        print(f"minet-sdk: error: {error}", file=sys.stderr)
        sys.exit(1)
