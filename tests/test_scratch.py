"""Scratch arrays are kept, by name and shape, and never shared between threads."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np

from minet_sdk.scratch import Scratch


def test_an_array_is_kept_until_another_shape_is_asked_for() -> None:
    scratch = Scratch()
    first = scratch("image", (3, 4))
    assert (first.shape, first.dtype) == ((3, 4), np.float32)
    assert scratch("image", (3, 4)) is first
    assert not np.shares_memory(scratch("other", (3, 4)), first)
    assert scratch("image", (4, 3)).shape == (4, 3)


def test_no_two_threads_have_the_same_array() -> None:
    scratch, together = Scratch(), Barrier(4)

    def mine(number: int) -> bool:
        array = scratch("image", (100,))
        array[:] = number
        together.wait(timeout=60)  # all have written
        return bool((scratch("image", (100,)) == number).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(mine, range(4)))
