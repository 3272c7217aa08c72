"""One step in a process of its own: whatever it does, it costs only itself, and only so much time."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

Status = Literal["passed", "failed", "missing package", "timed out", "crashed", "not run"]

EXIT_MISSING = 3
"""Of a step's process: a package that it needs is not there."""

_KEPT_OUTPUT = 4000
_LAST_WORDS_SECONDS = 2.0


@dataclass
class Outcome:
    """What came of a step."""

    status: Status
    seconds: float = 0.0
    limit_seconds: float = 0.0
    reason: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    output: str = ""
    """The end of what it printed, unless it passed."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def run_isolated(command: list[str], result: Path, limit_seconds: float, environment: dict[str, str]) -> Outcome:
    """Run a step's process and its children to their end, or to the limit.

    Args:
        command: program and arguments; it writes its values to ``result`` as it finds them.
        result: what is there counts, however the process ended.
        limit_seconds: after these the process and what it started are killed.
        environment: of the process.
    """
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )
    assert process.stdout is not None
    output = _Tail(process.stdout)
    timed_out = False
    try:
        process.wait(limit_seconds)
    except subprocess.TimeoutExpired:
        timed_out = True
    finally:
        _end_group(process)
    found, unreadable = _read(result)
    outcome = Outcome(
        "passed",
        round(time.monotonic() - started, 2),
        round(limit_seconds, 1),
        values=found.get("values", {}),
        problems=found.get("problems", []),
        skipped=found.get("skipped", []),
    )
    printed = output.text()
    _judge(outcome, process.returncode, timed_out, found.get("error", ""), unreadable, printed)
    if outcome.status != "passed":
        outcome.output = printed
    return outcome


def _judge(outcome: Outcome, code: int, timed_out: bool, error: str, unreadable: str, printed: str) -> None:
    last_line = (printed.strip().splitlines() or ["it printed nothing"])[-1]
    if timed_out:
        outcome.status, outcome.reason = "timed out", f"did not end within {outcome.limit_seconds:g} s"
    elif code < 0:
        outcome.status, outcome.reason = "crashed", f"ended by {_signal_name(-code)}"
    elif code == EXIT_MISSING:
        outcome.status, outcome.reason = "missing package", error
    elif code != 0:
        outcome.status, outcome.reason = "failed", error or f"exit code {code}: {last_line}"
    elif unreadable:
        outcome.status, outcome.reason = "failed", f"{unreadable}; its last words: {last_line}"
    elif outcome.problems:
        outcome.status, outcome.reason = "failed", outcome.problems[0]


def _read(result: Path) -> tuple[dict[str, Any], str]:
    """Content of a result file, and why there is none."""
    try:
        found = json.loads(result.read_text(encoding="utf-8"))
    except OSError:
        return {}, "the step wrote no result"
    except ValueError:
        return {}, "the step's result is not JSON"
    return (found, "") if isinstance(found, dict) else ({}, "the step's result is no JSON object")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and whatever it started and left behind; they are a session of their own."""
    if sys.platform == "win32":
        process.kill()
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class _Tail:
    """Reads a pipe to its end and keeps the last part, so that no amount of output hurts."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe, self._kept = pipe, b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while block := os.read(self._pipe.fileno(), 65536):
            self._kept = (self._kept + block)[-_KEPT_OUTPUT:]

    def text(self) -> str:
        """The last part; a process that escaped the session may hold the pipe open, so the wait has an end."""
        self._thread.join(_LAST_WORDS_SECONDS)
        if not self._thread.is_alive():
            self._pipe.close()
        return self._kept.decode("utf-8", errors="replace")
