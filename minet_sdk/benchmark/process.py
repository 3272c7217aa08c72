"""The outside of a peer: its process, which is stopped by the system whenever another one's turn has come."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from minet_sdk.benchmark.peaks import THREAD_VARIABLES
from minet_sdk.errors import BackendError

_CAN_STOP = hasattr(signal, "SIGSTOP")
_PATIENCE = 10.0
"""Seconds that a process may take to end."""


@dataclass(frozen=True)
class Peer:
    """One engine in one form: pure data, so that it can be named across processes."""

    name: str
    title: str
    maker: str
    """Module and class, made with a `minet_sdk.benchmark.engines.Task`."""

    options: dict[str, Any] = field(default_factory=dict[str, Any])
    ours: bool = False
    """A backend of this SDK."""


@dataclass(frozen=True)
class Place:
    """What all peers of a comparison share."""

    bundle: Path
    inputs: Path
    threads: int | None
    """None leaves it to each engine."""

    work: Path
    """An existing folder."""


class PeerProcess:
    """A running peer; use as a context manager.

    Args:
        peer: which.
        place: with which model and inputs.
        timeout: seconds that a command may take.
    """

    def __init__(self, peer: Peer, place: Place, timeout: float = 1200.0) -> None:
        self.peer = peer
        self.place = place
        self._timeout = timeout

    def __enter__(self) -> Self:
        threads = {} if self.place.threads is None else dict.fromkeys(THREAD_VARIABLES, str(self.place.threads))
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "minet_sdk.benchmark.worker"],
            env={**os.environ, **threads},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )
        self.started = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.resume()
        if kind is not None:
            self._process.kill()
        with contextlib.suppress(OSError):
            print(json.dumps({"do": "close"}), file=self._process.stdin, flush=True)
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._said):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def open(self) -> dict[str, Any]:
        """Make the engine; gives ``seconds``.

        Raises:
            BackendError: it cannot be made; the message says why.
        """
        return self.ask(
            "open",
            maker=self.peer.maker,
            bundle=os.fspath(self.place.bundle),
            inputs=os.fspath(self.place.inputs),
            threads=self.place.threads,
            work=os.fspath(self.place.work),
            options=self.peer.options,
        )

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Have a command done and wait for its answer.

        Raises:
            BackendError: it failed, the process ended, or the time is over.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps({"do": command, **arguments}), file=self._process.stdin, flush=True)
            with selectors.DefaultSelector() as selector:
                selector.register(self._process.stdout, selectors.EVENT_READ)
                if not selector.select(self._timeout):
                    self._process.kill()
                    raise BackendError(f"{self.peer.title} gave no answer to {command} in {self._timeout:.0f} s")
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise BackendError(f"{self.peer.title} ended during {command}: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BackendError(f"{self.peer.title}: {answer['error']}")
        return answer

    def pause(self) -> None:
        """Stop all threads of the process, those too that spin while they wait for work."""
        if _CAN_STOP and self._process.poll() is None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        if _CAN_STOP and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE)
        self._said.seek(0)
        said = " ".join(self._said.read().split())[-300:]
        return f"exit status {self._process.returncode}{f', {said}' if said else ''}"
