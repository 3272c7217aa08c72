"""Who touched which bytes last: finds two warps at the same bytes with no barrier in between, one of them writing.

Between CTAs there is no barrier at all, so in global memory any two of them are in each other's way.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from minet_sdk.kernels.ptx.errors import RaceError

Index = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_WARP_BITS = 6
_EPOCH_BITS = 30
_CTA = _WARP_BITS + _EPOCH_BITS
_MANY = np.int64((1 << _WARP_BITS) - 1)
_MANY_CTAS = np.int64((1 << 62) | int(_MANY))


def stamps(cta: npt.NDArray[Any], epoch: npt.NDArray[Any], warp: npt.NDArray[Any]) -> Index:
    """Who accesses: number of the CTA, barriers it has passed, warp within it; never 0."""
    return ((cta.astype(np.int64) + 1) << _CTA) | (epoch.astype(np.int64) << _WARP_BITS) | warp.astype(np.int64)


class Hazards:
    """Last writer and last reader of every granule of a memory.

    Args:
        count: bytes.
        granule: smallest access of the kernel, in bytes; larger ones are multiples of it.
        place: name of the memory, for messages.
        between_ctas: whether several CTAs can access the same bytes.
    """

    def __init__(self, count: int, granule: int, place: str, *, between_ctas: bool) -> None:
        self._between_ctas = between_ctas
        self._count = count
        self._granule = granule
        self._writer = np.zeros(-(-count // granule), np.int64)
        self._reader = np.zeros(-(-count // granule), np.int64)
        self._place = place

    def _granules(self, index: Index, size: int, stamp: Index, lanes: Index) -> tuple[Index, Index, Index]:
        first = index // self._granule
        parts = size // self._granule
        if parts == 1:
            return first, stamp, lanes
        spread = (first[:, None] + np.arange(parts)).reshape(-1)
        return spread, np.repeat(stamp, parts), np.repeat(lanes, parts)

    def read(self, index: Index, size: int, stamp: Index, lanes: Index) -> None:
        """Record a read.

        Args:
            index: byte index per active lane; those beyond the end of what may be written are not recorded.
            size: bytes per lane.
            stamp: of each of these lanes.
            lanes: their numbers, for messages.

        Raises:
            RaceError: another warp wrote there since the last barrier.
        """
        if index.size and int(index.max()) >= self._count:
            kept = index < self._count
            index, stamp, lanes = index[kept], stamp[kept], lanes[kept]
        at, stamp, lanes = self._granules(index, size, stamp, lanes)
        self._refuse(self._writer[at], stamp, lanes, "read", "written")
        before = self._reader[at]
        if not np.count_nonzero(before != stamp):
            return
        mine = self._joined(before, stamp)
        self._reader[at] = mine
        after = self._reader[at]
        shared = after != mine
        if np.count_nonzero(shared):
            self._reader[at[shared]] = self._joined(after[shared], mine[shared])

    def write(self, index: Index, size: int, stamp: Index, lanes: Index) -> None:
        """Record a write; arguments as in `read`.

        Raises:
            RaceError: another warp read or wrote there since the last barrier, or writes in this very instruction.
        """
        at, stamp, lanes = self._granules(index, size, stamp, lanes)
        self._refuse(self._writer[at], stamp, lanes, "written", "written")
        self._refuse(self._reader[at], stamp, lanes, "written", "read")
        self._writer[at] = stamp
        self._refuse(self._writer[at], stamp, lanes, "written", "written")

    def _joined(self, before: Index, stamp: Index) -> Index:
        """Stamp of a granule that has had one reader and gets another."""
        both = np.where(_foreign(before, stamp), stamp | _MANY, stamp)
        return np.where(_elsewhere(before, stamp), _MANY_CTAS, both) if self._between_ctas else both

    def _refuse(self, before: Index, stamp: Index, lanes: Index, now: str, then: str) -> None:
        wrong = _foreign(before, stamp)
        if self._between_ctas:
            wrong |= _elsewhere(before, stamp)
        if np.count_nonzero(wrong):
            first = int(np.argmax(wrong))
            other = int(before[first])
            who = f"warp {other & int(_MANY)}" if other & int(_MANY) != int(_MANY) else "several warps"
            if _elsewhere(before[first], stamp[first]):
                who = "another CTA"
            raise RaceError(
                f"{self._place} {now} where {who} has {then} it with no barrier in between", lane=int(lanes[first])
            )


def _foreign(before: Index, stamp: Index) -> Mask:
    """Same CTA, same time between barriers, another warp."""
    return (before != stamp) & ((before >> _WARP_BITS) == (stamp >> _WARP_BITS))


def _elsewhere(before: Index, stamp: Index) -> Mask:
    """Another CTA."""
    return (before != 0) & ((before >> _CTA) != (stamp >> _CTA))
