"""Memory that checks every access: bounds, alignment, initialisation, races; here for shared and local memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from minet_sdk.kernels.ptx.errors import MisalignedError, OutOfBoundsError, RaceError, UninitialisedError
from minet_sdk.kernels.ptx.races import Hazards
from minet_sdk.kernels.ptx.rounding import Value

if TYPE_CHECKING:
    from minet_sdk.kernels.ptx.lanes import Lanes

Array = npt.NDArray[Any]
Index = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

SHARED_WINDOW = 1 << 60
"""Generic addresses of shared memory start here."""
LOCAL_WINDOW = 1 << 61
"""Generic addresses of local memory start here."""

ELEMENTS: dict[int, Any] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64, 16: np.complex128}
"""How an access of so many bytes is moved; complex128 stands for 16 bytes of anything."""

_KNOWN: dict[int, Any] = {size: np.ones(size, bool).view(kind)[0] for size, kind in ELEMENTS.items()}


def by_element(flags: Value, size: int) -> Mask:
    """Elements all of whose bytes are flagged; the flags are gathered like the elements themselves."""
    bits: Mask = np.ascontiguousarray(np.atleast_1d(flags)).view(np.bool_)
    return bits[:1] if bits.all() else np.all(bits.reshape(-1, size), axis=1)


class Space(ABC):
    """Bytes, and for each of them whether it has been written; subclasses say which byte an address means.

    Args:
        name: for messages.
        count: number of bytes.
        hazards: search for races, or None for memory that nobody shares.
    """

    def __init__(self, name: str, count: int, hazards: Hazards | None) -> None:
        count = -(-max(count, 1) // 16) * 16
        self.name = name
        self.data = np.zeros(count, np.uint8)
        self.initialised = np.zeros(count, bool)
        self._hazards = hazards
        self._elements = {size: self.data.view(kind) for size, kind in ELEMENTS.items()}
        self._known = {size: self.initialised.view(kind) for size, kind in ELEMENTS.items()}

    @abstractmethod
    def _locate(self, lanes: Lanes, address: Value, size: int, *, write: bool) -> tuple[Value, bool, bool]:
        """Byte index per lane; whether every byte there is known; whether races are possible."""

    @abstractmethod
    def _called(self, index: int) -> str:
        """What a message calls the byte at ``index``."""

    def load(self, lanes: Lanes, address: Value, size: int) -> Value:
        """Read ``size`` bytes per lane.

        Args:
            lanes: who reads.
            address: int64 per lane, or one for all.
            size: 1, 2, 4, 8 or 16.

        Returns:
            One element of `ELEMENTS` per lane, or one for all; in inactive lanes anything.

        Raises:
            PtxError: of the kind that the access deserves.
        """
        address = self._checked(lanes, address, size)
        index, known, hazardous = self._locate(lanes, address, size, write=False)
        element = index >> (size.bit_length() - 1)
        if not known:
            self._written(lanes, index, self._known[size][element], size)
        if hazardous and self._hazards is not None:
            where, stamp, number = self._active(lanes, index)
            self._hazards.read(where, size, stamp, number)
        return self._elements[size][element]

    def store(self, lanes: Lanes, address: Value, size: int, value: Value) -> None:
        """Write ``size`` bytes per active lane.

        Args:
            lanes: who writes.
            address: int64 per lane, or one for all.
            size: 1, 2, 4, 8 or 16.
            value: one element of `ELEMENTS` per lane, or one for all.

        Raises:
            PtxError: of the kind that the access deserves.
        """
        where, number = self._claim(lanes, address, size)
        written = lanes.full(value) if lanes.mask is None else lanes.full(value)[lanes.mask]
        element = where >> (size.bit_length() - 1)
        self._elements[size][element] = written
        self._known[size][element] = _KNOWN[size]
        stored = self._elements[size][element].view(np.uint8)
        if not np.array_equal(stored, written.view(np.uint8)):
            lost = (stored != written.view(np.uint8)).reshape(-1, size).any(axis=1)
            raise RaceError(
                f"two threads write different values to the same bytes of {self.name} at once",
                lane=int(number[int(np.argmax(lost))]),
            )

    def update(self, lanes: Lanes, address: Value, size: int, turn: Callable[[Value, Value], Value]) -> None:
        """Replace what lies at the addresses of the active lanes; those that meet at one take turns.

        Args:
            lanes: who updates.
            address: int64 per lane, or one for all.
            size: 4 or 8.
            turn: gets old elements and the numbers of their lanes, no two at the same address; gives the new elements.

        Raises:
            PtxError: of the kind that the access deserves.
        """
        address = self._checked(lanes, lanes.full(address), size)
        index, _, _ = self._locate(lanes, address, size, write=True)
        element = index >> (size.bit_length() - 1)
        self._written(lanes, index, self._known[size][element], size)
        number = np.flatnonzero(lanes.active())
        order = number[np.argsort(element[number], kind="stable")]
        place = element[order]
        first = np.flatnonzero(np.append(True, place[1:] != place[:-1]))
        rank = np.arange(order.size) - np.repeat(first, np.diff(np.append(first, order.size)))
        for round_number in range(int(rank.max()) + 1):
            now = rank == round_number
            self._elements[size][place[now]] = turn(self._elements[size][place[now]], order[now])

    def forget(self, lanes: Lanes, address: Value, size: int) -> None:
        """Make bytes unknown because something is about to arrive there."""
        where, _ = self._claim(lanes, address, size)
        self._known[size][where >> (size.bit_length() - 1)] = 0

    def _written(self, lanes: Lanes, index: Value, known: Value, size: int) -> None:
        written = by_element(known, size)
        # Lanes that are not active borrow an active one's address, and may not have written there.
        if lanes.any(~written):
            lane = lanes.first(~written)
            place = self._called(int(lanes.full(index)[lane]))
            raise UninitialisedError(f"{place} is read before anything is written there", lane=lane)

    def _claim(self, lanes: Lanes, address: Value, size: int) -> tuple[Index, Index]:
        """Check a write and record it: byte index and number of each active lane."""
        address = self._checked(lanes, lanes.full(address), size)
        index, _, _ = self._locate(lanes, address, size, write=True)
        where, stamp, number = self._active(lanes, index)
        if self._hazards is not None:
            self._hazards.write(where, size, stamp, number)
        return where, number

    def _checked(self, lanes: Lanes, address: Value, size: int) -> Value:
        """Addresses that are aligned; inactive lanes get that of an active one, so that no check need know of them."""
        if lanes.mask is not None and address.ndim:
            address = np.where(lanes.mask, address, address[int(np.argmax(lanes.mask))])
        if size > 1 and int(np.bitwise_or.reduce(np.atleast_1d(address))) & (size - 1):
            lane = lanes.first(address & (size - 1) != 0)
            beyond = int(lanes.full(address)[lane]) % size
            raise MisalignedError(
                f"{self.name} access of {size} bytes at an address {beyond} beyond a multiple of {size}", lane=lane
            )
        return address

    def _active(self, lanes: Lanes, index: Value) -> tuple[Index, Index, Index]:
        """Index, stamp and number of the active lanes."""
        full, numbers = lanes.full(index), np.arange(lanes.count)
        if lanes.mask is None:
            return full, lanes.stamp, numbers
        return full[lanes.mask], lanes.stamp[lanes.mask], numbers[lanes.mask]


@dataclass(frozen=True)
class Piece:
    """One variable in shared or local memory; start and size are in bytes."""

    name: str
    start: int
    size: int


def stride(pieces: list[Piece]) -> int:
    """Bytes that one CTA or thread takes."""
    return -(-max((piece.start + piece.size for piece in pieces), default=1) // 16) * 16


class Slab(Space):
    """Shared memory of several CTAs, or local memory of several threads: one piece of equal layout for each.

    Args:
        name: ``shared memory`` or ``local memory``.
        count: how many.
        pieces: variables of each; the bytes between them are guards.
        granule: smallest access, for the search for races; None for memory of single threads.
    """

    def __init__(self, name: str, count: int, pieces: list[Piece], granule: int | None) -> None:
        self._pieces = pieces
        self._stride = stride(pieces)
        usable = np.zeros(self._stride, bool)
        for piece in pieces:
            usable[piece.start : piece.start + piece.size] = True
        self._usable = {size: usable.view(kind) for size, kind in ELEMENTS.items()}
        self._per_cta = granule is not None
        total = count * self._stride
        super().__init__(name, total, None if granule is None else Hazards(total, granule, name, between_ctas=False))

    def _locate(self, lanes: Lanes, address: Value, size: int, *, write: bool) -> tuple[Value, bool, bool]:
        if int(address.min()) < 0 or int(address.max()) + size > self._stride:
            raise self._outside(lanes, address, size, (address < 0) | (address + size > self._stride))
        usable = by_element(self._usable[size][address >> (size.bit_length() - 1)], size)
        if not usable.all():
            raise self._outside(lanes, address, size, ~usable)
        piece = lanes.block if self._per_cta else np.arange(lanes.count)
        if lanes.mask is not None:
            # An inactive lane looks where an active one does; its own piece may never have been written.
            piece = np.where(lanes.mask, piece, piece[int(np.argmax(lanes.mask))])
        return address + piece * self._stride, False, True

    def _called(self, index: int) -> str:
        offset = index % self._stride
        inside = (piece for piece in self._pieces if piece.start <= offset < piece.start + piece.size)
        return next(f"{self.name} at byte {offset - piece.start} of {piece.name}" for piece in inside)

    def _outside(self, lanes: Lanes, address: Value, size: int, wrong: Value) -> OutOfBoundsError:
        lane = lanes.first(wrong)
        offset = int(lanes.full(address)[lane])
        before = [piece for piece in self._pieces if piece.start <= offset]
        where = "before the first variable"
        if before:
            where = f"at byte {offset - before[-1].start} of {before[-1].name}, which has {before[-1].size}"
        return OutOfBoundsError(f"{self.name} is accessed ({size} bytes) {where}", lane=lane)
