"""Who holds what for how long: state of each thread, the most recent shapes, memory that pending work still reads."""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from minet_sdk.errors import BackendError, InputError

State = TypeVar("State")
Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class PerThread(Generic[State]):
    """One state for each thread, made when the thread first asks.

    States of threads that have ended are released when the next new thread asks, and at `close`.
    """

    def __init__(self, make: Callable[[], State], release: Callable[[State], None]) -> None:
        self._make = make
        self._release = release
        self._states: dict[threading.Thread, State] = {}
        self._lock = threading.Lock()

    def get(self) -> State:
        """The calling thread's state."""
        thread = threading.current_thread()
        with self._lock:
            if thread in self._states:
                return self._states[thread]
            ended = [self._states.pop(other) for other in list(self._states) if not other.is_alive()]
        for state in ended:
            self._release(state)
        state = self._make()
        with self._lock:
            self._states[thread] = state
        return state

    def __len__(self) -> int:
        return len(self._states)

    def close(self) -> None:
        """Release all states; no thread may be using one."""
        with self._lock:
            states, self._states = list(self._states.values()), {}
        for state in states:
            self._release(state)


class Recent(Generic[Key, Value]):
    """The values of the keys that were asked for last; the oldest one makes room. For one thread."""

    def __init__(self, capacity: int, release: Callable[[Value], None]) -> None:
        if capacity < 1:
            raise InputError(f"capacity is {capacity}; expected at least 1")
        self._capacity = capacity
        self._release = release
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value of the key, made if it is not there."""
        if key not in self._values:
            # Room first: two values at once may not fit into the device's memory.
            while len(self._values) >= self._capacity:
                self._release(self._values.popitem(last=False)[1])
            self._values[key] = make()
        self._values.move_to_end(key)
        return self._values[key]

    def __len__(self) -> int:
        return len(self._values)

    def close(self) -> None:
        """Release all values."""
        while self._values:
            self._release(self._values.popitem(last=False)[1])


class InFlight:
    """Objects that work on the device still reads, kept until an event after that work. For one thread."""

    def __init__(self, is_done: Callable[[Any], bool], finish: Callable[[Any], None]) -> None:
        self._is_done = is_done
        self._finish = finish
        self._kept: deque[tuple[Any, tuple[Any, ...]]] = deque()

    def keep(self, event: Any, *objects: Any) -> None:
        """Hold objects until the event has happened; lets go of earlier ones whose event has."""
        self._kept = deque(entry for entry in self._kept if not self._is_done(entry[0]))
        self._kept.append((event, objects))

    def __len__(self) -> int:
        return len(self._kept)

    def close(self) -> None:
        """Wait for all events, then let go."""
        while self._kept:
            self._finish(self._kept[0][0])
            self._kept.popleft()


class GraphCounts:
    """How often work ran in each way, over all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = {"eager": 0, "captured": 0, "replayed": 0, "failed": 0}
        self._failure = ""

    def add(self, kind: str, failure: str = "") -> None:
        """One more of ``eager``, ``captured``, ``replayed`` or ``failed``."""
        with self._lock:
            self._counts[kind] += 1
            self._failure = failure or self._failure

    def to_dict(self) -> dict[str, Any]:
        """Plain data: counts, and the reason of the last capture that failed."""
        with self._lock:
            return {**self._counts, **({"last_failure": self._failure} if self._failure else {})}


class Replayable(Generic[Value]):
    """Work of one shape: the first run is eager, then it is captured, and from the second run on the graph is replayed.

    The engine wants an eager run after its shapes were set before anything is captured. If capturing fails, all runs
    are eager; that is counted and told, never hidden.
    """

    def __init__(
        self,
        run: Callable[[Value], None],
        capture: Callable[[], Callable[[Value], None]] | None,
        counts: GraphCounts,
        on_failure: Callable[[BackendError], None],
    ) -> None:
        """Work that can be replayed.

        Args:
            run: enqueue the work on a stream.
            capture: give a function that replays it on a stream; None if nothing shall be captured.
            counts: where runs are counted.
            on_failure: told when capturing fails.
        """
        self._run = run
        self._capture = capture
        self._replay: Callable[[Value], None] | None = None
        self._counts = counts
        self._on_failure = on_failure

    def __call__(self, stream: Value) -> None:
        """Enqueue the work once."""
        if self._replay is not None:
            self._replay(stream)
            self._counts.add("replayed")
            return
        self._run(stream)
        self._counts.add("eager")
        if self._capture is None:
            return
        capture, self._capture = self._capture, None
        try:
            self._replay = capture()
        except BackendError as error:
            self._counts.add("failed", str(error))
            self._on_failure(error)
        else:
            self._counts.add("captured")
