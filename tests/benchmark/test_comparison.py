"""Real processes: a planted slow peer is seen as slower, and whatever a peer does costs that peer only."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minet_sdk.benchmark.cold_start import cold_starts, import_seconds
from minet_sdk.benchmark.comparison import Pace, compare
from minet_sdk.benchmark.inputs import Inputs, relative_rms
from minet_sdk.benchmark.process import Peer, PeerProcess, Place
from minet_sdk.errors import BackendError

pytestmark = pytest.mark.long

PLANTED = '''
import os, time
import numpy as np
from minet_sdk.benchmark.engines import Called

class Planted:
    """Sleeps, and misbehaves as its options say."""

    def __init__(self, task):
        self.options, self.task, self.calls = task.options, task, 0
        print("what libraries print to stdout is no answer", flush=True)
        if self.options.get("refuse"):
            raise ValueError("no such engine")
        self.ballast = np.ones(self.options.get("mib", 0) * 2**17)

    def describe(self):
        return {"engine": "planted 1.0", "omp": os.environ.get("OMP_NUM_THREADS")}

    def call(self):
        self.calls += 1
        if self.calls == self.options.get("exit_at"):
            os._exit(3)
        if self.calls == self.options.get("raise_at"):
            raise RuntimeError("overheated\\nin the second line")
        started = time.perf_counter()
        time.sleep(self.options["seconds"])
        seconds = time.perf_counter() - started
        parts = {"whole": [seconds], "prepare": [0.5 * seconds], "critical": [0.5 * seconds]}
        restored = np.full((1, 1, 4, 4), 1.0 + self.options.get("error", 0.0))
        return Called(parts if self.options.get("prefetch") else {"whole": [seconds]}, restored)
'''


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    (tmp_path / "planted.py").write_text(PLANTED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    image = np.ones((1, 1, 2, 2), np.float32)
    Inputs(image[0], image[0], image, image).save(tmp_path / "inputs.npz")
    return Place(tmp_path, tmp_path / "inputs.npz", 1, tmp_path)


def planted(name: str, seconds: float = 0.02, *, ours: bool = False, **options: Any) -> Peer:
    return Peer(name, name.title(), "planted:Planted", {"seconds": seconds, **options}, ours)


def test_a_planted_slow_peer_is_slower_and_failures_are_their_own(place: Place) -> None:
    peers = [
        planted("ours", ours=True, prefetch=True, mib=64, error=1e-6),
        planted("slow", 0.1),
        planted("refusing", refuse=True),
        planted("dying", exit_at=2),
        planted("failing later", raise_at=6),
        Peer("missing", "Missing", "nowhere:Nobody"),
    ]
    found = compare(peers, place, Pace(rounds=3), np.ones((1, 1, 4, 4)))
    assert found["rounds"] == 3
    assert list(found["peers"]) == ["ours", "slow"]
    ours, slow = found["peers"]["ours"], found["peers"]["slow"]
    # Half a second a turn: about twenty calls of 20 ms against five of 100.
    assert ours["parts"]["whole"]["calls"] > slow["parts"]["whole"]["calls"] >= 3
    assert set(ours["parts"]) == {"whole", "prepare", "critical"}
    assert 2 < found["ratios"]["whole"]["slow"]["median"] < 6
    assert found["ratios"]["critical"]["slow"]["median"] > 1.5 * found["ratios"]["whole"]["slow"]["median"]
    assert ours["relative_rms"] == pytest.approx(1e-6, rel=1e-3)
    assert slow["relative_rms"] == 0
    # Peak memory is each process's own, whatever this one holds.
    assert 60 < ours["peak_mib"] - slow["peak_mib"] < 80
    assert ours["details"] == {"omp": "1"}
    failed = found["failed"]
    assert "ValueError: no such engine" in failed["refusing"]
    assert "exit status 3" in failed["dying"]
    assert "overheated in the second line" in failed["failing later"]
    assert "nowhere" in failed["missing"]
    assert not any("\n" in reason for reason in failed.values())


def test_rounds_end_with_the_time_but_not_before_the_least(place: Place) -> None:
    found = compare([planted("ours", ours=True)], place, Pace(rounds=50, seconds=0.0, least=2))
    assert found["rounds"] == 2
    assert found["peers"]["ours"]["relative_rms"] is None


def test_a_peer_whose_turn_it_is_not_does_not_compute(place: Place) -> None:
    with PeerProcess(planted("spinning"), place) as process:
        process.open()
        process.ask("run", calls=1)
        process.pause()
        time.sleep(0.1)
        (state,) = [pid_state(child) for child in children() if "worker" in command(child)]
        assert state == "T"
        process.resume()
        assert process.ask("run", calls=2)["times"]["whole"][1] > 0


def children() -> list[str]:
    return Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()


def command(pid: str) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def pid_state(pid: str) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def test_a_peer_that_gives_no_answer_is_ended(place: Place) -> None:
    with PeerProcess(planted("stuck", 60.0), place, timeout=3.0) as process:
        process.open()
        with pytest.raises(BackendError, match="no answer to run in 3 s"):
            process.ask("run", calls=1)
    assert not [child for child in children() if "benchmark.worker" in command(child)]


def test_cold_start_counts_from_the_start_of_the_process(place: Place) -> None:
    found = cold_starts([planted("slow", 0.5), planted("refusing", refuse=True)], place, Pace(rounds=1))
    assert found["slow"]["parts"]["cold start"]["p50_ms"] > 500
    assert "no such engine" in found["refusing"]["failed"]
    assert 0 < import_seconds(1).p50_ms < 5000


def test_relative_rms() -> None:
    rng = np.random.default_rng(0)
    exact, noise = rng.standard_normal((2, 9, 11))
    assert relative_rms(exact + 1e-3 * noise, exact) == pytest.approx(
        1e-3 * np.linalg.norm(noise) / np.linalg.norm(exact)
    )
