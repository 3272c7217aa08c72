"""The threads that run together: one NumPy array per register, one element per thread, and a mask of who is active.

A value that all threads share stays a scalar, so that loop counters and uniform addresses cost nothing per thread.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from minet_sdk.kernels.ptx.copies import AsyncCopies
from minet_sdk.kernels.ptx.errors import DivergenceError
from minet_sdk.kernels.ptx.formats import RAW
from minet_sdk.kernels.ptx.global_memory import GlobalMemory
from minet_sdk.kernels.ptx.memory import Slab
from minet_sdk.kernels.ptx.rounding import Value

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.int64]

WARP = 32

_UNWRITTEN = {1: 0, 8: 0xFF, 16: 0xFFAD, 32: 0xFFADBAD1, 64: 0xFFFADBADADBADBAD}
"""What an unwritten register holds where compilers copy one on purpose: NaN in every floating-point type."""


class IncompleteWarp(Exception):  # noqa: N818 # not an error: the lanes wait for the others
    """A collective instruction must wait; ``ready`` are the active lanes whose warp is complete."""

    def __init__(self, ready: Mask) -> None:
        super().__init__()
        self.ready = ready


class Lanes:
    """A set of whole warps; lane i of warp w is element 32 w + i, and lanes beyond the end of a block never run.

    Args:
        widths: bits of each register.
        specials: ``%tid.x`` and its like, uint32.
        block: index of each lane's CTA among those that run together.
        parameters: the kernel's parameter memory.
        memory: global memory.
        shared: shared memory of these CTAs.
        local: local memory of these lanes.
        taken: guarded instructions whose guard held for some lane; filled here.

    Attributes:
        count: number of lanes, a multiple of 32.
        registers: raw bits by slot.
        written: lanes that have written a slot, for the slots that `registers.unproven_reads` names.
        mask: active lanes, or None if every lane is active.
        stamp: who accesses memory, for `races.Hazards`.
        copies: asynchronous copies under way.
    """

    def __init__(
        self,
        widths: list[int],
        specials: dict[str, Value],
        block: Index,
        parameters: bytes,
        memory: GlobalMemory,
        shared: Slab,
        local: Slab,
        taken: Mask,
    ) -> None:
        self.count = block.size
        self.registers: list[Value] = [RAW[width](_UNWRITTEN[width]) for width in widths]
        self.written: dict[int, Mask] = {}
        self.mask: Mask | None = None
        self.specials = specials
        self.block = block
        self.stamp: Index = np.zeros(block.size, np.int64)
        self.parameters = parameters
        self.memory = memory
        self.shared = shared
        self.local = local
        self.copies = AsyncCopies(block.size)
        self.taken = taken

    def full(self, value: Value) -> Array:
        """One element per lane, contiguous; possibly ``value`` itself."""
        return np.ascontiguousarray(value) if value.ndim else np.full(self.count, value)

    def active(self) -> Mask:
        """The mask, also where every lane is active."""
        return np.ones(self.count, bool) if self.mask is None else self.mask

    def first(self, wrong: Value = True) -> int:
        """The first active lane for which ``wrong`` holds."""
        return int(np.argmax(wrong & self.active()))

    def any(self, wrong: Value) -> bool:
        """Whether ``wrong`` holds for an active lane."""
        return bool(np.count_nonzero(wrong if self.mask is None else wrong & self.mask))

    @contextmanager
    def only(self, mask: Mask) -> Generator[None]:
        """Let only these of the active lanes take part for a while."""
        outer = self.mask
        self.mask = mask if outer is None else mask & outer
        try:
            yield
        finally:
            self.mask = outer

    def converge(self, members: Value = None) -> None:
        """Make sure that all member lanes of every warp that takes part are here.

        Args:
            members: uint32 mask per lane, or None for the whole warp.

        Raises:
            IncompleteWarp: some are still elsewhere.
            DivergenceError: an active lane is not a member.
        """
        everybody = members is None or (members.ndim == 0 and members == np.uint32(0xFFFFFFFF))
        if everybody and self.mask is None:
            return
        here = self.active().reshape(-1, WARP)
        if everybody:
            expected = np.ones_like(here)
        else:
            named = np.where(here, self.full(members).reshape(-1, WARP), np.uint32(0)).max(axis=1, keepdims=True)
            expected = (named >> np.arange(WARP, dtype=np.uint32)) & 1 == 1
            if (here & ~expected).any():
                lane = int(np.argmax(here & ~expected))
                raise DivergenceError("this thread is not in the member mask of its instruction", lane=lane)
        missing: Mask = np.any(expected & ~here, axis=1) & np.any(here, axis=1)
        if missing.any():
            raise IncompleteWarp((here & ~missing[:, None]).reshape(-1))
