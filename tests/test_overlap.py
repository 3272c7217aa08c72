"""Stages beside each other: in order, bounded, really at the same time, and gone after any error."""

import threading
from collections.abc import Iterator

import pytest

from minet_sdk.overlap import ahead, spread

PATIENCE = 10.0


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_items_come_in_order_and_end() -> None:
    with ahead(range(50)) as numbers, ahead(2 * number for number in numbers) as doubled:
        assert list(doubled) == [2 * number for number in range(50)]
    assert not names()


def test_two_stages_work_at_the_same_time() -> None:
    """Each waits for the other inside its work: one after the other they would wait for ever."""
    working, using = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        yield 0
        working.set()
        assert using.wait(PATIENCE)
        yield 1

    with ahead(items()) as results:
        assert next(results) == 0
        assert working.wait(PATIENCE)
        using.set()
        assert next(results) == 1


def test_without_a_thread_of_its_own_it_would_not() -> None:
    """Planted fault: the same stages, but nothing works ahead."""
    working = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        working.set()
        yield 1

    results = items()
    next(results)
    assert not working.is_set()


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_is_made_than_asked_for(most: int) -> None:
    made = threading.Semaphore(0)
    count = 0

    def items() -> Iterator[int]:
        nonlocal count
        for number in range(10):
            count += 1
            made.release()
            yield number

    with ahead(items(), most) as results:
        for _ in range(most):
            assert made.acquire(timeout=PATIENCE)
        assert not made.acquire(timeout=0.05)
        assert next(results) == 0
        assert made.acquire(timeout=PATIENCE)
        assert not made.acquire(timeout=0.05)
    assert count == most + 1


def test_an_error_comes_where_its_item_would_have_come() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("the second one")

    seen: list[int] = []
    with pytest.raises(ValueError, match="the second one"), ahead(items()) as first, ahead(first) as results:
        seen.extend(results)
    assert seen == [1]
    assert not names()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_in_the_block_ends_every_stage(error: type[BaseException]) -> None:
    ended = threading.Event()

    def items() -> Iterator[int]:
        number = 0
        try:
            while True:
                yield number
                number += 1
        finally:
            ended.set()

    def block() -> None:
        with ahead(items()) as first, ahead(first) as results:
            next(results)
            raise error

    with pytest.raises(error):
        block()
    assert ended.wait(PATIENCE)
    assert not names()


@pytest.mark.parametrize("at_once", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_spread_gives_results_in_order(at_once: int, count: int) -> None:
    assert list(spread(lambda number: 2 * number, range(count), at_once)) == [2 * number for number in range(count)]


def test_spread_works_on_two_items_at_the_same_time_and_no_more() -> None:
    """Each pair waits for one another inside its work: one after the other they would wait for ever."""
    meeting = threading.Barrier(2, timeout=PATIENCE)
    working, most, lock = 0, 0, threading.Lock()

    def meet(number: int) -> int:
        nonlocal working, most
        with lock:
            working += 1
            most = max(most, working)
        meeting.wait()
        with lock:
            working -= 1
        return number

    assert list(spread(meet, range(8), 2)) == list(range(8))
    assert most == 2
    with pytest.raises(threading.BrokenBarrierError):
        list(spread(lambda _: threading.Barrier(2).wait(0.05), range(2), 1))


def test_spread_raises_where_the_result_would_have_been_and_ends_what_it_began() -> None:
    done: list[int] = []

    def work(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        done.append(number)
        return number

    results = spread(work, range(10), 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)
    assert sorted(done) == [0, 1, 3] or sorted(done) == [0, 1]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPool")]
