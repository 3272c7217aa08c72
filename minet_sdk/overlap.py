"""Stages that work at the same time: each takes items from the one before it, in order, a few ahead at most.

A stage is an ordinary generator; `ahead` runs it in a thread of its own, so that with or without it the items are the
same.
"""

import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


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
