"""The command line: stdout is data, stderr is progress and errors, every command in a module of its own."""

import signal
import sys
from types import FrameType

import typer

from minet_sdk import __version__
from minet_sdk.cli.bench import bench
from minet_sdk.cli.demo import demo
from minet_sdk.cli.evaluate import evaluate
from minet_sdk.cli.export import export
from minet_sdk.cli.inspect import info, models, verify
from minet_sdk.cli.run import run
from minet_sdk.cli.train import train
from minet_sdk.errors import MinetError

COMMANDS = (demo, run, models, info, verify, export, train, evaluate, bench)

app = typer.Typer(
    name="minet-sdk",
    help="Multi-contrast MRI super-resolution with MINet. Research use only, not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in COMMANDS:
    app.command()(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def common(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    """Multi-contrast MRI super-resolution with MINet. Research use only, not a medical device."""


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def main() -> None:
    """Entry point: a user's error is one line and exit code 1, a bug keeps its traceback.

    A request to terminate ends it as an error does, so that no half-written output is left behind.
    """
    signal.signal(signal.SIGTERM, _end)
    try:
        app()
    except (MinetError, OSError) as error:
        print(f"minet-sdk: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
