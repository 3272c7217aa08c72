"""What a runtime has done so far: how many slices, and how long each took."""

import threading
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

LATENCIES_KEPT = 10_000


@dataclass(frozen=True)
class Stats:
    """Latency of restored slices since the runtime was made, without `prepare`.

    In a series what comes before the engine and after it runs beside other slices, and is not counted.
    Device arrays are not counted: their calls return before the work is done. For the same reason the time of
    `prepare` is that of the call alone on a TensorRT backend.
    """

    slices: int
    unguided: int
    """Of these, restored without their reference, which did not show what the target shows."""

    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    mean_ms: float | None
    prepared_slices: int
    prepare_p50_ms: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


class Tally:
    """Counts, from any number of threads; of the latencies the last `LATENCIES_KEPT`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._restoring: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._preparing: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._restored = self._prepared = self._unguided = 0

    def restored(self, seconds: float, preparing: float) -> None:
        """Note a slice and how long it took beside preparing its reference; 0 for one that came prepared or without."""
        with self._lock:
            self._restoring.append(seconds)
            self._restored += 1
        if preparing:
            self.prepared(preparing)

    def prepared(self, seconds: float) -> None:
        """Note a reference."""
        with self._lock:
            self._preparing.append(seconds)
            self._prepared += 1

    def unguided(self) -> None:
        """Note that a slice was restored without its reference."""
        with self._lock:
            self._unguided += 1

    def stats(self) -> Stats:
        """The counts, and percentiles of the latencies; None where there are none."""
        with self._lock:
            restoring, preparing = np.array(self._restoring) * 1e3, np.array(self._preparing) * 1e3
            restored, prepared, unguided = self._restored, self._prepared, self._unguided
        low, high, highest = np.percentile(restoring, (50, 95, 99)).tolist() if len(restoring) else [None] * 3
        return Stats(
            slices=restored,
            unguided=unguided,
            p50_ms=low,
            p95_ms=high,
            p99_ms=highest,
            mean_ms=float(restoring.mean()) if len(restoring) else None,
            prepared_slices=prepared,
            prepare_p50_ms=float(np.percentile(preparing, 50)) if len(preparing) else None,
        )
