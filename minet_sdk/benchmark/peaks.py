"""What this machine can do at best: float32 multiplications and memory traffic, measured, not looked up.

Products of large matrices by NumPy's BLAS, and by PyTorch's where it is installed; the faster of the two counts.
"""

import argparse
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from minet_sdk.errors import BackendError

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""What the libraries behind NumPy and PyTorch read their number of threads from, once, when they are loaded."""

MATRIX = 2048
"""Edge of the matrices."""

TRIAD = 2**25
"""Floats in each vector of the triad, far more than any cache holds."""

_SECONDS = 1.0


def measure_peaks(threads: int, seconds: float = _SECONDS) -> dict[str, Any]:
    """Peaks with a number of threads, in a process of its own; about three times ``seconds``.

    Returns:
        ``gflops`` of the faster library and its name ``by``, all of them in ``libraries``, and ``gigabytes_per_second``
        of the triad.

    Raises:
        BackendError: the process failed.
    """
    command = [sys.executable, "-m", __name__, str(threads), "--seconds", str(seconds)]
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BackendError(f"the machine's peaks could not be measured: {' '.join(done.stderr.split())[-300:]}")
    return json.loads(done.stdout)


def _best(call: Callable[[], object], seconds: float) -> float:
    """Seconds of the fastest call: a peak is what nothing disturbed."""
    call()
    best, until = float("inf"), time.perf_counter() + seconds
    while True:
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
        if time.perf_counter() > until:
            return best


def _matrices(size: int) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((size, size), dtype=np.float32) for _ in range(2))
    return a, b, np.empty_like(a)


def sgemm_numpy(seconds: float, size: int = MATRIX) -> float:
    """GFLOP/s of a float32 matrix product by NumPy."""
    a, b, c = _matrices(size)
    return 2e-9 * size**3 / _best(lambda: np.matmul(a, b, out=c), seconds)


def sgemm_torch(seconds: float, threads: int, size: int = MATRIX) -> float:
    """GFLOP/s of a float32 matrix product by PyTorch."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    a, b, c = (torch.from_numpy(matrix) for matrix in _matrices(size))
    return 2e-9 * size**3 / _best(lambda: torch.mm(a, b, out=c), seconds)


def triad(seconds: float, threads: int, size: int = TRIAD) -> float:
    """GB/s of a = b + s c, after McCalpin's STREAM, as NumPy does it: a = s c, then a = a + b.

    Five vectors of traffic are counted; that a cache may read a line before it writes it is not.
    """
    a, b, c = (np.full(size, value, np.float32) for value in (0, 1, 2))
    edges = np.linspace(0, size, threads + 1).astype(int)
    scale = np.float32(3)

    def part(index: int) -> None:
        own = slice(edges[index], edges[index + 1])
        np.multiply(c[own], scale, out=a[own])
        np.add(a[own], b[own], out=a[own])

    with ThreadPoolExecutor(threads) as pool:
        return 5 * a.nbytes / 1e9 / _best(lambda: list(pool.map(part, range(threads))), seconds)


def _blas() -> str:
    found: Any = np.show_config(mode="dicts")
    blas = found.get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'unknown BLAS')} {blas.get('version', '')}".strip()


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("threads", type=int)
    parser.add_argument("--seconds", type=float, default=_SECONDS)
    arguments = parser.parse_args()
    threads, seconds = arguments.threads, arguments.seconds
    libraries = {f"NumPy ({_blas()})": sgemm_numpy(seconds)}
    if importlib.util.find_spec("torch") is not None:
        libraries["PyTorch"] = sgemm_torch(seconds, threads)
    by = max(libraries, key=libraries.__getitem__)
    print(
        json.dumps(
            {
                "threads": threads,
                "gflops": round(libraries[by], 1),
                "by": by,
                "libraries": {name: round(value, 1) for name, value in libraries.items()},
                "gigabytes_per_second": round(triad(seconds, threads), 1),
            }
        )
    )


if __name__ == "__main__":
    _main()
