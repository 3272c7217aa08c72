"""What can be wrong with a PTX text, with its launch, or with what a thread does; each message says where.

A fault is raised where it is noticed, with the lane that caused it; the machine adds entry, line, CTA and thread.
"""

from minet_sdk.errors import MinetError


class PtxError(MinetError):
    """Base of all errors of the interpreter.

    Attributes:
        message: what was wrong, without the place.
        lane: which of the lanes that ran together caused it, until the machine has translated it into ``thread``.
        entry: name of the kernel.
        line: line of the PTX text, from 1.
        instruction: opcode with its modifiers.
        cta: (x, y, z) index of the block.
        thread: (x, y, z) index within the block.
    """

    def __init__(self, message: str, *, lane: int | None = None, line: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.lane = lane
        self.line = line
        self.entry: str | None = None
        self.instruction: str | None = None
        self.cta: tuple[int, int, int] | None = None
        self.thread: tuple[int, int, int] | None = None

    def __str__(self) -> str:
        places = [self.entry or ""]
        if self.line is not None:
            places.append(f"line {self.line}" + (f" ({self.instruction})" if self.instruction else ""))
        if self.cta is not None:
            places.append(f"CTA {self.cta}")
        if self.thread is not None:
            places.append(f"thread {self.thread}")
        where = ", ".join(place for place in places if place)
        return f"{where}: {self.message}" if where else self.message


class PtxSyntaxError(PtxError):
    """The text is not PTX that this parser understands."""


class UnsupportedError(PtxError):
    """A thread reached an instruction, or a form of one, that the interpreter does not have."""


class ArgumentError(PtxError):
    """A launch does not fit the kernel: grid, block, number or type of arguments."""


class OutOfBoundsError(PtxError):
    """An access outside of the array, of shared memory or of local memory."""


class MisalignedError(PtxError):
    """An address that is not a multiple of the size of the access."""


class UninitialisedError(PtxError):
    """A register or a byte was read before anything was written to it."""


class ReadOnlyError(PtxError):
    """A write to an input."""


class UnwrittenError(PtxError):
    """The kernel ended and left a part of an output unwritten."""


class BarrierError(PtxError):
    """The threads of a CTA wait at different barriers, or for a number of threads that never comes."""


class DivergenceError(PtxError):
    """An instruction that a whole warp must execute together was reached by a part of it only."""


class RaceError(PtxError):
    """Two warps, or two CTAs, accessed the same bytes with no barrier in between, and one of them wrote."""


class DivisionError(PtxError):
    """Integer division by zero, the result of which PTX leaves open."""


class HangError(PtxError):
    """The launch executed more steps than it was allowed: it waits for something that does not come."""


class TrapError(PtxError):
    """The kernel executed ``trap``."""
