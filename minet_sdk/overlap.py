"""Stages that work at the same time: each takes items from the one before it, in order, a few ahead at most.

A stage is an ordinary generator; `ahead` runs it in a thread of its own, and `spread` works on several items of one
stage, so that with or without them the items are the same.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")
Item = TypeVar("Item")


@dataclass(frozen=True)
class _End:
    """After the last item."""

    error: BaseException | None = None


@contextmanager
def ahead(items: Iterable[T], most: int = 2) -> Generator[Iterator[T]]:
    """Work on the next items while the block uses the last one.

    What ``items`` raises is raised where its result would have been taken. At the end of the block, also after an
    error in it, the item that is being worked on is finished and no other one begun.

    Args:
        items: what to iterate over in a thread of its own.
        most: items that may be done, or in work, before they are asked for; this bounds the memory.
    """
    done: SimpleQueue[T | _End] = SimpleQueue()
    room = threading.Semaphore(most)
    stopped = threading.Event()

    def work() -> None:
        try:
            source = iter(items)
            while room.acquire() and not stopped.is_set():
                done.put(next(source))
        except StopIteration:
            done.put(_End())
        except BaseException as error:
            done.put(_End(error))

    def results() -> Iterator[T]:
        while True:
            item = done.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            room.release()
            yield item

    thread = threading.Thread(target=work, name=f"ahead of {threading.current_thread().name}")
    thread.start()
    try:
        yield results()
    finally:
        stopped.set()
        room.release()
        thread.join()


def spread(work: Callable[[Item], T], items: Iterable[Item], at_once: int) -> Iterator[T]:
    """Results in the order of their items, of which several are worked on at the same time.

    Args:
        work: what to do with an item; what it raises is raised where its result would have been taken.
        items: taken as their turn comes.
        at_once: how many; one needs no threads.
    """
    if at_once == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(at_once) as pool:
        pending: deque[Future[T]] = deque()
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) == at_once:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
