"""Peers against each other on one slice: rounds in which each has its turn while all others are stopped.

The first call of every peer is not counted; its result is what accuracy is judged by.
"""

import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from minet_sdk.benchmark.distribution import Distribution, paired_ratio
from minet_sdk.benchmark.inputs import relative_rms
from minet_sdk.benchmark.machine import free_memory_share
from minet_sdk.benchmark.process import Peer, PeerProcess, Place
from minet_sdk.errors import BackendError

Tell = Callable[[str], None]
Array = npt.NDArray[Any]

TURN_SECONDS = 0.5
"""A turn has as many calls as fit, at least one."""

MOST_CALLS = 20

LEAST_FREE_MEMORY = 0.1
"""Of all; a machine that swaps measures nothing, and one without swap ends somebody's process."""

SHORT_SECONDS = 0.3
"""Calls shorter than this are preceded by one that is not counted, which meets the caches that others left."""


@dataclass(frozen=True)
class Pace:
    """How long to measure."""

    rounds: int = 7
    seconds: float = 600.0
    """After these no further round starts, once there are ``least``."""

    least: int = 2
    seed: int = 0
    """Of the order of turns."""


@dataclass(frozen=True)
class Entry:
    """A peer at its place, under the name that its result shall have."""

    name: str
    peer: Peer
    place: Place


@dataclass
class _Runner:
    """What is known of one peer while it runs."""

    process: PeerProcess
    calls: int
    uncounted: int
    open_seconds: float
    first_seconds: float
    rounds: dict[str, list[list[float]]] = field(default_factory=dict[str, list[list[float]]])
    seconds: float = 0.0
    processor_seconds: float = 0.0

    def turn(self) -> None:
        """One round's calls."""
        self.process.resume()
        try:
            answer = self.process.ask("run", calls=self.calls, uncounted=self.uncounted)
        finally:
            self.process.pause()
        for part, times in answer["times"].items():
            self.rounds.setdefault(part, []).append(times)
        self.seconds += answer["seconds"]
        self.processor_seconds += answer["processor_seconds"]

    def result(self) -> dict[str, Any]:
        """Plain data for JSON."""
        self.process.resume()
        memory = self.process.ask("memory")
        self.process.pause()
        parts = {part: Distribution.of(rounds) for part, rounds in self.rounds.items()}
        result: dict[str, Any] = {
            "title": memory["describe"].pop("title", self.process.peer.title),
            "ours": self.process.peer.ours,
            "engine": memory["describe"].pop("engine"),
            "details": memory["describe"],
            "parts": {part: found.to_dict() for part, found in parts.items()},
            "peak_mib": None if memory["peak_mib"] is None else round(memory["peak_mib"], 1),
            "cores_used": round(self.processor_seconds / self.seconds, 2),
            "open_seconds": round(self.open_seconds, 3),
            "first_call_seconds": round(self.first_seconds, 3),
        }
        if "whole" in parts:
            result["slices_per_second"] = round(1e3 / parts["whole"].mean_ms, 3)
        return result


def compare(
    peers: Sequence[Peer], place: Place, pace: Pace, expected: Array | None = None, tell: Tell = lambda text: None
) -> dict[str, Any]:
    """Measure peers against each other.

    Args:
        peers: who takes part; the first that is ours is what the others are compared with.
        place: the model, its inputs, the number of threads.
        pace: how long.
        expected: the restored image in float64, which accuracy is measured from.
        tell: told what happens.

    Returns:
        What `interleave` gives, and ``ratios``.
    """
    found = interleave([Entry(peer.name, peer, place) for peer in peers], pace, expected, tell)
    return found | {"ratios": ratios(found["peers"])}


def interleave(
    entries: Sequence[Entry], pace: Pace, expected: Array | None = None, tell: Tell = lambda text: None
) -> dict[str, Any]:
    """Measure in rounds in which every entry has its turn, in random order.

    Args:
        entries: names are unique.
        pace: how long.
        expected: see `compare`; for entries of one image.
        tell: told what happens.

    Returns:
        Plain data: ``rounds``, ``peers`` by name, ``failed`` (reason by name).
    """
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        running: dict[str, _Runner] = {}
        accuracy: dict[str, float | None] = {}
        for entry in entries:
            tell(f"opening {entry.peer.title}")
            try:
                if (free := free_memory_share()) < LEAST_FREE_MEMORY:
                    raise BackendError(f"not opened: only {free:.0%} of the memory are free")
                # A peer that fails here must not wait for the end, nor hold its memory until then.
                with ExitStack() as own:
                    process = own.enter_context(PeerProcess(entry.peer, entry.place))
                    running[entry.name], restored = _opened(process)
                    stack.push(own.pop_all())
            except BackendError as error:
                failed[entry.name] = str(error)
                continue
            accuracy[entry.name] = None if expected is None else relative_rms(restored, expected)
        done = _take_turns(running, failed, pace, tell)
        results = {name: runner.result() | {"relative_rms": accuracy[name]} for name, runner in running.items()}
    return {"rounds": done, "peers": results, "failed": failed}


def _opened(process: PeerProcess) -> tuple[_Runner, Array]:
    """Open and run once; the process is stopped afterwards."""
    opened = process.open()
    keep = process.place.work / f"{process.peer.name}.npy"
    seconds = process.ask("run", calls=1, keep=str(keep))["seconds"]
    # The first call may compile; how long a call takes shows the second.
    settled = process.ask("run", calls=1)["seconds"] if seconds < TURN_SECONDS * MOST_CALLS else seconds
    process.pause()
    restored: Array = np.load(keep)
    keep.unlink()
    calls = min(max(int(TURN_SECONDS / settled), 1), MOST_CALLS)
    return _Runner(process, calls, int(settled < SHORT_SECONDS), opened["seconds"], seconds), restored


def _take_turns(running: dict[str, _Runner], failed: dict[str, str], pace: Pace, tell: Tell) -> int:
    """All rounds; a peer that fails leaves them. Returns how many there were."""
    order, turns, started = list(running), random.Random(pace.seed), time.perf_counter()
    for number in range(pace.rounds):
        if number >= pace.least and time.perf_counter() - started > pace.seconds:
            return number
        tell(f"round {number + 1} of {pace.rounds}")
        turns.shuffle(order)
        for name in [name for name in order if name in running]:
            try:
                running[name].turn()
            except BackendError as error:
                failed[name] = str(error)
                del running[name]
    return pace.rounds


def ratios(results: dict[str, Any]) -> dict[str, Any]:
    """Of every peer to the first of ours: how many times longer its whole work takes than our whole, than our critical.

    Args:
        results: peers by name, as `compare` gives them.

    Returns:
        ``to`` names ours; ``whole`` and ``critical`` hold a ratio for each other peer that has a whole.
    """
    ours = next((name for name, result in results.items() if result["ours"] and "whole" in result["parts"]), None)
    if ours is None:
        return {}
    own = results[ours]["parts"]
    found: dict[str, Any] = {"to": ours}
    for part in ("whole", "critical"):
        if part in own:
            found[part] = {
                name: paired_ratio(
                    result["parts"]["whole"]["round_medians_ms"], own[part]["round_medians_ms"]
                ).to_dict()
                for name, result in results.items()
                if name != ours and "whole" in result["parts"]
            }
    return found
