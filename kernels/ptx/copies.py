"""``cp.async``: copies to shared memory that have happened only once a thread has waited for their group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from minet_sdk.kernels.ptx.errors import UnsupportedError
from minet_sdk.kernels.ptx.memory import ELEMENTS

if TYPE_CHECKING:
    from minet_sdk.kernels.ptx.lanes import Lanes

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


@dataclass
class _Copy:
    """Copies of one instruction that are on their way."""

    lanes: Mask
    group: npt.NDArray[np.int64]
    target: Array
    size: int
    content: Array


class AsyncCopies:
    """The copies of a set of lanes.

    Args:
        count: number of lanes.
    """

    def __init__(self, count: int) -> None:
        self._groups = np.zeros(count, np.int64)
        self._under_way: list[_Copy] = []

    def start(self, lanes: Lanes, target: Array, source: Array, size: int, amount: Array) -> None:
        """Fetch ``amount`` bytes per lane, all or none, the rest being zero; the target becomes unknown.

        Raises:
            UnsupportedError: an amount in between.
        """
        active = lanes.active()
        if (active & (amount != size) & (amount != 0)).any():
            raise UnsupportedError("a copy of a part of its size", lane=lanes.first((amount != size) & (amount != 0)))
        content = np.zeros(lanes.count, ELEMENTS[size])
        fetched = active & (amount != 0)
        if fetched.any():
            with lanes.only(fetched):
                content = np.where(fetched, lanes.memory.load(lanes, source, size), content)
        lanes.shared.forget(lanes, target, size)
        self._under_way.append(_Copy(active.copy(), self._groups, target, size, content))

    def commit(self, lanes: Lanes) -> None:
        """What was started so far is one group."""
        self._groups = self._groups + lanes.active()

    def wait_group(self, lanes: Lanes, most: int) -> None:
        """Complete all groups but the last ``most``."""
        for copy in self._under_way:
            self._complete(lanes, copy, copy.group < self._groups - most)

    def wait_all(self, lanes: Lanes) -> None:
        """Complete all copies, in groups or not."""
        for copy in self._under_way:
            self._complete(lanes, copy, copy.lanes)

    def _complete(self, lanes: Lanes, copy: _Copy, due: Mask) -> None:
        arriving = copy.lanes & due & lanes.active()
        if arriving.any():
            with lanes.only(arriving):
                lanes.shared.store(lanes, copy.target, copy.size, copy.content)
            copy.lanes = copy.lanes & ~arriving
        self._under_way = [other for other in self._under_way if other.lanes.any()]
