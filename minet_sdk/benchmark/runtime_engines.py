"""The inside of a peer that is this SDK as a caller has it: `Runtime`, one slice or a series in a scanner's order."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from minet_sdk.backends.base import Runner
from minet_sdk.benchmark.engines import Array, Called, Task, Times
from minet_sdk.runtime import Runtime


class RuntimeEngine:
    """`Runtime` as a caller has it, and how much of its time the engine beneath it took.

    Options: ``backend`` and ``consistency``. The engine's time is taken where the runtime calls it, in the same call.
    """

    def __init__(self, task: Task) -> None:
        self._engine_seconds = 0.0
        self._count_time_of("encode")
        self._count_time_of("restore")
        self._runtime = Runtime(
            task.bundle,
            backend=task.options["backend"],
            threads=task.threads,
            consistency=task.options.get("consistency", "auto"),
        )
        self._target = task.inputs.targets[0]
        self._reference = None if task.inputs.reference is None else task.inputs.references[0]

    def _count_time_of(self, method: str) -> None:
        inner: Callable[..., Any] = getattr(Runner, method)

        def timed(*arguments: Any) -> Any:
            started = time.perf_counter()
            try:
                return inner(*arguments)
            finally:
                self._engine_seconds += time.perf_counter() - started

        # Every engine is called through these two; this process does nothing but measure.
        setattr(Runner, method, timed)

    def describe(self) -> dict[str, Any]:
        """See `Engine`."""
        found = self._runtime.info
        consistency = self._runtime.consistency_for(self._target)
        return {"engine": found.versions["engine"], "consistency": consistency, **found.execution}

    def call(self) -> Called:
        """See `Engine`; parts ``runtime``, ``engine`` and their ``difference``."""
        self._engine_seconds = 0.0
        started = time.perf_counter()
        restored = self._runtime(self._target, self._reference)
        seconds = time.perf_counter() - started
        engine = self._engine_seconds
        times = {"runtime": [seconds], "engine": [engine], "difference": [seconds - engine]}
        return Called(times, restored)


class ScannerEngine:
    """A series in a scanner's order of events: the reference is complete, `prepare`; then target slices stream in.

    Slices follow one another without a pause. Option ``prefetch`` False restores each with its plain reference.
    """

    def __init__(self, task: Task) -> None:
        self._runtime = Runtime(task.bundle, backend=task.options["backend"], threads=task.threads)
        self._inputs = task.inputs
        self._prefetch = task.options.get("prefetch", True)

    def describe(self) -> dict[str, Any]:
        """See `Engine`."""
        return {"engine": self._runtime.info.versions["engine"], **self._runtime.info.execution}

    def call(self) -> Called:
        """See `Engine`; part ``slice`` is what a target slice waits, ``prepare`` what a reference slice costs."""
        times: Times = {"slice": []}
        guides: list[Any] = list(self._inputs.references)
        if self._prefetch:
            times["prepare"] = []
            for index, reference in enumerate(guides):
                started = time.perf_counter()
                guides[index] = self._runtime.prepare(reference)
                times["prepare"].append(time.perf_counter() - started)
        restored: list[Array] = []
        for target, guide in zip(self._inputs.targets, guides, strict=True):
            started = time.perf_counter()
            restored.append(self._runtime(target, guide))
            times["slice"].append(time.perf_counter() - started)
        return Called(times, np.stack(restored))
