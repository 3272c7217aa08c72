"""Who holds what for how long, without any device."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from minet_sdk.cuda.bookkeeping import GraphCounts, InFlight, PerThread, Recent, Replayable
from minet_sdk.errors import BackendError, InputError


def in_thread(work: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


def test_each_thread_has_its_own_state() -> None:
    released: list[object] = []
    states = PerThread(object, released.append)
    mine = states.get()
    assert states.get() is mine
    theirs = in_thread(states.get)
    assert theirs is not mine
    assert len(states) == 2
    assert released == []
    # The next new thread finds that one has ended.
    in_thread(states.get)
    assert released == [theirs]
    assert states.get() is mine
    states.close()
    assert len(released) == 3
    assert len(states) == 0


def test_a_state_that_cannot_be_made_leaves_nothing() -> None:
    def fail() -> object:
        raise BackendError("no memory")

    states = PerThread(fail, lambda state: None)
    with pytest.raises(BackendError):
        states.get()
    assert len(states) == 0


def test_recent_keeps_what_was_used_last() -> None:
    released: list[str] = []
    made: list[str] = []

    def make(name: str) -> Callable[[], str]:
        return lambda: made.append(name) or name

    recent: Recent[str, str] = Recent(2, released.append)
    for name in ("a", "b", "a", "c"):
        assert recent.get(name, make(name)) == name
    assert (made, released) == (["a", "b", "c"], ["b"])
    recent.get("b", make("b"))
    assert released == ["b", "a"]
    recent.close()
    assert sorted(released) == ["a", "b", "b", "c"]
    assert len(recent) == 0


def test_recent_makes_room_before_it_makes() -> None:
    events: list[str] = []
    recent: Recent[int, int] = Recent(1, lambda value: events.append(f"release {value}"))
    for value in (1, 2):
        recent.get(value, lambda value=value: events.append(f"make {value}") or value)
    assert events == ["make 1", "release 1", "make 2"]
    with pytest.raises(InputError, match="at least 1"):
        Recent(0, events.append)


def test_objects_are_held_until_their_event() -> None:
    done: set[str] = set()
    finished: list[str] = []
    flight = InFlight(done.__contains__, finished.append)
    flight.keep("first", object())
    flight.keep("second", object())
    assert len(flight) == 2
    # Events of different streams come in any order.
    done.add("second")
    flight.keep("third", object())
    assert len(flight) == 2
    flight.close()
    assert finished == ["first", "third"]
    assert len(flight) == 0


def test_first_run_eager_then_captured_then_replayed() -> None:
    log: list[str] = []
    counts = GraphCounts()

    def capture() -> Callable[[str], None]:
        log.append("capture")
        return lambda stream: log.append(f"replay on {stream}")

    def run(stream: str) -> None:
        log.append(f"run on {stream}")

    def tell(error: BackendError) -> None:
        log.append(str(error))

    work: Replayable[str] = Replayable(run, capture, counts, tell)
    for stream in ("a", "b", "a"):
        work(stream)
    assert log == ["run on a", "capture", "replay on b", "replay on a"]
    assert counts.to_dict() == {"eager": 1, "captured": 1, "replayed": 2, "failed": 0}


def test_a_capture_that_fails_is_tried_once_and_told() -> None:
    told: list[BackendError] = []
    runs: list[str] = []
    counts = GraphCounts()

    def capture() -> Callable[[str], None]:
        raise BackendError("not permitted")

    work: Replayable[str] = Replayable(runs.append, capture, counts, told.append)
    for stream in "abc":
        work(stream)
    assert runs == ["a", "b", "c"]
    assert [str(error) for error in told] == ["not permitted"]
    assert counts.to_dict() == {"eager": 3, "captured": 0, "replayed": 0, "failed": 1, "last_failure": "not permitted"}


def test_nothing_is_captured_where_nothing_shall_be() -> None:
    runs: list[str] = []
    counts = GraphCounts()
    work: Replayable[str] = Replayable(runs.append, None, counts, lambda error: None)
    work("a")
    work("b")
    assert counts.to_dict() == {"eager": 2, "captured": 0, "replayed": 0, "failed": 0}
