"""How long a program that has just been started waits for its first restored slice; every time in a fresh process."""

import random
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from minet_sdk.benchmark.comparison import Pace, Tell
from minet_sdk.benchmark.distribution import Distribution
from minet_sdk.benchmark.process import Peer, PeerProcess, Place
from minet_sdk.errors import BackendError


def cold_starts(
    peers: Sequence[Peer], place: Place, pace: Pace, tell: Tell = lambda text: None
) -> dict[str, dict[str, Any]]:
    """Start each peer anew in every round.

    The time runs from the start of the Python process to the first restored slice, imports and loading the model
    included. Files have been read before, so that the system has them in memory.

    Args:
        peers: whom.
        place: the model and its inputs.
        pace: how often.
        tell: told what happens.

    Returns:
        By name: the distribution, or ``failed`` with the reason.
    """
    order, turns, started = list(peers), random.Random(pace.seed), time.perf_counter()
    seconds: dict[str, list[list[float]]] = {peer.name: [] for peer in peers}
    failed: dict[str, str] = {}
    for number in range(pace.rounds):
        if number >= pace.least and time.perf_counter() - started > pace.seconds:
            break
        tell(f"cold start {number + 1} of {pace.rounds}")
        turns.shuffle(order)
        for peer in [peer for peer in order if peer.name not in failed]:
            try:
                seconds[peer.name].append([_cold_start(peer, place)])
            except BackendError as error:
                failed[peer.name] = str(error)
    return {
        peer.name: {"title": peer.title, "ours": peer.ours}
        | (
            {"failed": failed[peer.name]}
            if peer.name in failed
            else {"parts": {"cold start": Distribution.of(seconds[peer.name]).to_dict()}}
        )
        for peer in peers
    }


def import_seconds(runs: int = 9) -> Distribution:
    """Of `import minet_sdk`, each time in a fresh interpreter."""
    code = "import time; t = time.perf_counter(); import minet_sdk; print(time.perf_counter() - t)"
    command = [sys.executable, "-c", code]
    return Distribution.of(
        [[float(subprocess.run(command, capture_output=True, check=True).stdout)] for _ in range(runs)]
    )


def _cold_start(peer: Peer, place: Place) -> float:
    with PeerProcess(peer, place) as process:
        process.open()
        process.ask("run", calls=1)
        return time.perf_counter() - process.started
