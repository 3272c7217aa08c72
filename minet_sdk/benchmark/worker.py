"""A peer's own process: opens one engine, then does as the coordinator says; a JSON line in, a JSON line out.

Commands: ``open`` (peer and task), ``run`` (calls, file to keep the result in), ``memory``, ``close``.
"""

import ctypes
import importlib
import json
import os
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from minet_sdk.benchmark.engines import Called, Engine, Task
from minet_sdk.benchmark.inputs import Inputs

_PR_SET_PDEATHSIG = 1
_STATUS = Path("/proc/self/status")


def peak_memory_mib() -> float | None:
    """Highest resident memory of this process; None where the system does not tell.

    Not `getrusage`: its figure starts at the parent's.
    """
    if not _STATUS.exists():
        return None
    lines = (line.split() for line in _STATUS.read_text(encoding="utf-8").splitlines())
    return next((int(words[1]) / 2**10 for words in lines if words[0] == "VmHWM:"), None)


class Worker:
    """Answers commands."""

    def __init__(self) -> None:
        self._engine: Engine | None = None

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """What a command gives, as plain data; ``error`` in place of it if it failed."""
        try:
            return getattr(self, f"_do_{command.pop('do')}")(**command)
        except Exception as error:  # whatever an engine raises costs that engine only
            return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"}

    def _do_open(
        self, maker: str, bundle: str, inputs: str, threads: int | None, work: str, options: dict[str, Any]
    ) -> dict[str, Any]:
        started = time.perf_counter()
        module, _, name = maker.partition(":")
        task = Task(Path(bundle), Inputs.read(Path(inputs)), threads, Path(work), options)
        self._engine = getattr(importlib.import_module(module), name)(task)
        return {"seconds": time.perf_counter() - started}

    def _do_run(self, calls: int, uncounted: int = 0, keep: str = "") -> dict[str, Any]:
        assert self._engine is not None
        for _ in range(uncounted):
            self._engine.call()
        times: defaultdict[str, list[float]] = defaultdict(list)
        called: Called | None = None
        started, processor = time.perf_counter(), time.process_time()
        for _ in range(calls):
            called = self._engine.call()
            for part, seconds in called.times.items():
                times[part] += seconds
        seconds, processor = time.perf_counter() - started, time.process_time() - processor
        if keep and called is not None:
            np.save(keep, called.restored)
        return {"times": times, "seconds": seconds, "processor_seconds": processor}

    def _do_memory(self) -> dict[str, Any]:
        assert self._engine is not None
        return {"peak_mib": peak_memory_mib(), "describe": self._engine.describe()}


def _end_with_parent() -> None:
    """A coordinator that is killed leaves no stopped processes behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _own_channel() -> TextIO:
    """Where answers go: what libraries print goes to stderr from now on."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return channel


def main() -> None:
    """Answer commands until ``close`` or the end of the input."""
    _end_with_parent()
    worker, channel = Worker(), _own_channel()
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "close":
            break
        print(json.dumps(worker.answer(command)), file=channel, flush=True)


if __name__ == "__main__":
    main()
