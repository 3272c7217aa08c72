"""How commands talk: data on stdout, JSON on request, progress and remarks on stderr."""

import json
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from minet_sdk.pipeline import Progress as ProgressCallback


def remark(text: str) -> None:
    """A line for the person at the terminal."""
    print(text, file=sys.stderr)


def print_json(data: Any) -> None:
    """Data for a script; floats that JSON cannot hold never occur in it."""
    print(json.dumps(data, indent=2, allow_nan=False, default=str))


@contextmanager
def progress_bar(label: str) -> Generator[ProgressCallback]:
    """A progress bar while the block runs, if stderr is a terminal; gives the callback that moves it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
