"""Whole kernels that nvcc has compiled from CUDA C++, against NumPy, in every schedule."""

import struct
from typing import Any

import numpy as np
import pytest

from minet_sdk.kernels.ptx import Coverage, DivergenceError, In, InOut, Out, launch, unsupported

SCHEDULES = ("lockstep", "forward", "reverse")
pytestmark = pytest.mark.parametrize("schedule", SCHEDULES)


def test_sum_of_blocks(compiled: Any, schedule: Any) -> None:
    for threads, size in ((32, 5), (96, 1000), (256, 3001)):
        x, sums = np.random.default_rng(size).standard_normal(size).astype(np.float32), np.zeros(3, np.float32)
        launch(compiled["block_sum"], 3, threads, (In(x), size, Out(sums)), schedule=schedule)
        assert abs(sums.astype(float).sum() - x.astype(float).sum()) < 1e-5 * np.abs(x).sum()


def collatz(value: int) -> int:
    count = 0
    while value != 1:
        value = 3 * value + 1 if value % 2 else value // 2
        count += 1
    return count


def test_loops_of_different_lengths(compiled: Any, schedule: Any) -> None:
    steps = np.zeros(300, np.int32)
    launch(compiled["collatz"], 3, 128, (In(np.arange(1, 301, dtype=np.uint32)), 300, Out(steps)), schedule=schedule)
    assert steps.tolist() == [collatz(value) for value in range(1, 301)]


def test_prefix_sums(compiled: Any, schedule: Any) -> None:
    for size in (1, 31, 33, 200):
        x, y = np.random.default_rng(size).integers(-99, 99, size).astype(np.int32), np.zeros(size, np.int32)
        launch(compiled["prefix_sum"], 1, size, (In(x), Out(y)), shared_bytes=4 * size, schedule=schedule)
        assert (y == np.cumsum(x)).all()


@pytest.mark.parametrize("name", ["tile_product", "tile_product_staged"])
def test_products_of_tiles(compiled: Any, schedule: Any, name: str) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((16, 16)).astype(np.float16), rng.standard_normal((16, 8)).astype(np.float16)
    d = np.zeros((16, 8), np.float32)
    launch(compiled[name], 1, 32, (In(a), In(b.T), Out(d)), schedule=schedule)
    exact = a.astype(float) @ b.astype(float)
    assert np.abs(d - exact).max() <= 2.0**-24 * np.abs(exact).max()


def test_mathematical_functions(compiled: Any, schedule: Any) -> None:
    x = np.random.default_rng(1).uniform(-20, 20, 300).astype(np.float32)
    e, l, r, q = (np.zeros(300, np.float32) for _ in range(4))  # noqa: E741
    s = np.zeros(300)
    launch(compiled["functions"], 3, 128, (In(x), 300, Out(e), Out(l), Out(r), Out(q), Out(s)), schedule=schedule)
    wide = x.astype(float)
    # CUDA's documented bounds: expf 1 unit in the last place, logf 1, rsqrtf 2, division and square root exact.
    for result, exact, units in ((e, np.exp(wide), 1), (r, 1 / np.sqrt(np.abs(wide) + 1), 2)):
        assert (np.abs(result - exact) <= (units + 0.5) * np.spacing(exact.astype(np.float32))).all()
    argument = (np.abs(x) + np.float32(1e-30)).astype(float)
    assert (np.abs(l - np.log(argument)) <= 1.5 * np.spacing(np.abs(np.log(argument)).astype(np.float32))).all()
    assert (q == (wide / 3).astype(np.float32)).all()
    assert (s == np.sqrt(wide * wide + 1)).all()


def test_divisions(compiled: Any, schedule: Any) -> None:
    rng = np.random.default_rng(2)
    x, y = rng.integers(-(2**62), 2**62, 300), rng.integers(-(2**33), 2**33, 300)
    x[::3] >>= 35
    y[y == 0] = 1
    q, r, seventh = np.zeros(300, np.int64), np.zeros(300, np.int64), np.zeros(300, np.int32)
    launch(compiled["divisions"], 3, 128, (In(x), In(y), 300, Out(q), Out(r), Out(seventh)), schedule=schedule)
    towards_zero = [abs(a) // abs(b) * (1 if a * b >= 0 else -1) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    assert q.tolist() == towards_zero
    assert (r == x - q * y).all()
    short = x.astype(np.int32).tolist()
    assert seventh.tolist() == [abs(a) // 7 * (1 if a >= 0 else -1) for a in short]


def test_structures_tables_and_local_arrays(compiled: Any, schedule: Any) -> None:
    x, y = np.random.default_rng(3).standard_normal(96).astype(np.float32), np.zeros(96, np.float32)
    launch(compiled["windowed"], 3, (8, 4), (In(x), struct.pack("<iif", 5, 90, 1.5), Out(y)), schedule=schedule)
    primes = np.array([2, 3, 5, 7, 11, 13, 17, 19], np.float32)
    i = np.arange(96)
    expected = np.where((i >= 5) & (i < 90), (x + primes[i * 5 % 8]) * np.float32(1.5), np.float32(-1))
    assert (y == expected).all()


def test_generic_pointers(compiled: Any, schedule: Any) -> None:
    x, y = np.arange(64, dtype=np.int32), np.zeros(64, np.int32)
    launch(compiled["through_generic"], 1, 64, (In(x), InOut(y)), schedule=schedule)
    assert (y == x[::-1]).all()


def test_divergent_shuffle(compiled: Any, schedule: Any) -> None:
    with pytest.raises(
        DivergenceError, match=r"divergent_shuffle, line \d+ \(shfl\.sync\.bfly\.b32\), CTA .* a part of it"
    ):
        launch(compiled["divergent_shuffle"], 1, 32, (Out(np.zeros(32, np.int32)),), schedule=schedule)


def test_everything_is_supported_and_runs(compiled: Any, schedule: Any) -> None:
    coverage = Coverage()
    for size in (70, 600):
        x, sums = np.ones(size, np.float32), np.zeros(2, np.float32)
        launch(compiled["block_sum"], 2, 64, (In(x), size, Out(sums)), schedule=schedule, coverage=coverage)
    assert coverage.missed(compiled["block_sum"]) == []
    assert all(unsupported(kernel) == [] for kernel in compiled.kernels.values())
