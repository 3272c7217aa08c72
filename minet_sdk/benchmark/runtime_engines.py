"""The inside of a peer that is this SDK as a caller has it: `Runtime`, one slice or a series in a scanner's order."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from minet_sdk.backends.base import Runner
from minet_sdk.benchmark.engines import Array, Called, Task, Times
from minet_sdk.conditioning import Conditioning
from minet_sdk.runtime import Runtime


class RuntimeEngine:
    """`Runtime` as a caller has it, and how much of its time went where.

    Options: ``backend`` and ``consistency``. Times are taken where the runtime calls the network and its conditioning
    of the slice, in the same call.
    """

    def __init__(self, task: Task) -> None:
        self._seconds = {"engine": 0.0, "conditioning": 0.0}
        self._inside: set[str] = set()
        self._runtime = Runtime(
            task.bundle,
            backend=task.options["backend"],
            threads=task.threads,
            consistency=task.options.get("consistency", "auto"),
        )
        # This process does nothing but measure. Every engine is called through these two; conditioning, which came with
        # its engine, may call its NumPy form, which then counts once.
        self._count("engine", Runner, "encode", "restore")
        for kind in (Conditioning, *Conditioning.__subclasses__()):
            self._count("conditioning", kind, "normalise", "undo", "see", "trust", "consistent")
        self._target = task.inputs.targets[0]
        self._reference = None if task.inputs.reference is None else task.inputs.references[0]

    def _count(self, part: str, kind: type[Any], *methods: str) -> None:
        """Add the time that a class's own methods take to a part of the call."""

        def timed(inner: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any) -> Any:
                if part in self._inside:
                    return inner(*arguments)
                self._inside.add(part)
                started = time.perf_counter()
                try:
                    return inner(*arguments)
                finally:
                    self._seconds[part] += time.perf_counter() - started
                    self._inside.remove(part)

            return call

        for method in methods:
            if method in vars(kind):
                setattr(kind, method, timed(getattr(kind, method)))

    def describe(self) -> dict[str, Any]:
        """See `Engine`."""
        found = self._runtime.info
        consistency = self._runtime.consistency_for(self._target)
        return {"engine": found.versions["engine"], "consistency": consistency, **found.execution}

    def call(self) -> Called:
        """See `Engine`; parts ``runtime``, ``engine``, ``conditioning``, and what is left of ``runtime`` without them.

        ``difference`` is left without the engine, ``glue`` without either.
        """
        self._seconds.update(engine=0.0, conditioning=0.0)
        started = time.perf_counter()
        restored = self._runtime(self._target, self._reference)
        seconds = time.perf_counter() - started
        engine, conditioning = self._seconds["engine"], self._seconds["conditioning"]
        times = {
            "runtime": [seconds],
            "engine": [engine],
            "conditioning": [conditioning],
            "difference": [seconds - engine],
            "glue": [seconds - engine - conditioning],
        }
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
