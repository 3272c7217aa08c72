"""Global memory: every array has an address window of its own, 64 GiB wide, with the array in its middle.

An address that leaves its array falls into empty space, never into another array.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from minet_sdk.kernels.ptx.errors import OutOfBoundsError, ReadOnlyError
from minet_sdk.kernels.ptx.memory import Mask, Space
from minet_sdk.kernels.ptx.races import Hazards
from minet_sdk.kernels.ptx.rounding import Value

if TYPE_CHECKING:
    from minet_sdk.kernels.ptx.lanes import Lanes

_WINDOW_BITS = 36
_ALIGNMENT = 256
"""Of the start of an array, as CUDA's allocator gives it."""


def window(number: int) -> int:
    """Address of the array with this number."""
    return ((number + 1) << _WINDOW_BITS) + (1 << (_WINDOW_BITS - 1))


@dataclass(frozen=True)
class Contents:
    """One array as a launch hands it over.

    Attributes:
        name: for messages.
        content: its bytes.
        writable: whether the kernel may write it.
        known: whether its content counts as written.
        offset: bytes by which its address is beyond a multiple of 256.
    """

    name: str
    content: npt.NDArray[np.uint8]
    writable: bool
    known: bool
    offset: int = 0


@dataclass(frozen=True)
class _Region:
    """Where an array lies: ``address`` for the kernel, ``start`` in the arena."""

    name: str
    address: int
    start: int
    size: int
    writable: bool
    complete: bool


class GlobalMemory(Space):
    """All arrays of a launch in one arena, writable ones first.

    Args:
        arrays: in the order of their `window` numbers.
        granule: smallest access of the kernel to global memory, in bytes.
    """

    def __init__(self, arrays: list[Contents], granule: int) -> None:
        starts: dict[int, int] = {}
        end = shared_end = 0
        for number in sorted(range(len(arrays)), key=lambda number: not arrays[number].writable):
            array = arrays[number]
            starts[number] = end + array.offset
            end = -(-(starts[number] + max(array.content.size, 1)) // _ALIGNMENT) * _ALIGNMENT
            shared_end = end if array.writable else shared_end
        super().__init__("global memory", end, Hazards(shared_end, granule, "global memory", between_ctas=True))
        self._regions: list[_Region] = []
        for number, array in enumerate(arrays):
            start, size = starts[number], array.content.size
            self.data[start : start + size] = array.content
            self.initialised[start : start + size] = array.known
            address = window(number) + array.offset
            complete = array.known and not array.writable
            self._regions.append(_Region(array.name, address, start, size, array.writable, complete))
        # Entry 0 stands for addresses that belong to no array.
        self._addresses = np.array([0, *(region.address for region in self._regions)], np.int64)
        self._starts = np.array([0, *(region.start for region in self._regions)], np.int64)
        self._sizes = np.array([0, *(region.size for region in self._regions)], np.int64)
        self._writable = np.array([False, *(region.writable for region in self._regions)])

    def content(self, number: int) -> tuple[npt.NDArray[np.uint8], Mask]:
        """Bytes of an array, and which of them are known."""
        region = self._regions[number]
        part = slice(region.start, region.start + region.size)
        return self.data[part], self.initialised[part]

    def _locate(self, lanes: Lanes, address: Value, size: int, *, write: bool) -> tuple[Value, bool, bool]:
        low, high = int(address.min()), int(address.max())
        number = (low >> _WINDOW_BITS) - 1
        if number == (high >> _WINDOW_BITS) - 1 and 0 <= number < len(self._regions):
            region = self._regions[number]
            inside = low >= region.address and high + size <= region.address + region.size
            if inside and (region.writable or not write):
                return address - np.int64(region.address - region.start), region.complete, region.writable
        return self._scattered(lanes, address, size, write=write)

    def _scattered(self, lanes: Lanes, address: Value, size: int, *, write: bool) -> tuple[Value, bool, bool]:
        """Lanes that access different arrays, or something that they must not."""
        number = address >> _WINDOW_BITS
        number = np.where((number < 1) | (number > len(self._regions)), 0, number)
        offset = address - self._addresses[number]
        outside = (number == 0) | (offset < 0) | (offset + size > self._sizes[number])
        if outside.any():
            lane = lanes.first(outside)
            raise OutOfBoundsError(self._describe(int(lanes.full(address)[lane]), size, write=write), lane=lane)
        writable = self._writable[number]
        if write and not writable.all():
            lane = lanes.first(~writable)
            name = self._regions[int(lanes.full(number)[lane]) - 1].name
            raise ReadOnlyError(f"write to {name}, which is an input", lane=lane)
        return offset + self._starts[number], False, bool(writable.any())

    def _describe(self, address: int, size: int, *, write: bool) -> str:
        access = f"{'write' if write else 'read'} of {size} bytes"
        number = (address >> _WINDOW_BITS) - 1
        if 0 <= number < len(self._regions):
            region = self._regions[number]
            return f"{access} at byte {address - region.address} of {region.name}, which has {region.size}"
        return f"{access} at address {address:#x}, where there is no array"

    def _called(self, index: int) -> str:
        inside = (region for region in self._regions if region.start <= index < region.start + region.size)
        return next(f"byte {index - region.start} of {region.name}" for region in inside)
