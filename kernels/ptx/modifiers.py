"""The parts of an instruction's name behind the opcode; each must be claimed, or the instruction is unsupported."""

from collections.abc import Iterable

from minet_sdk.kernels.ptx.errors import UnsupportedError
from minet_sdk.kernels.ptx.formats import FORMATS, Format
from minet_sdk.kernels.ptx.syntax import Instruction


class Modifiers:
    """What of an instruction's name is still to be understood.

    Args:
        instruction: whose modifiers these are.
    """

    def __init__(self, instruction: Instruction) -> None:
        self._left = list(instruction.modifiers)

    def flag(self, *names: str) -> bool:
        """Claim these modifiers if they are there; whether one was."""
        found = any(name in names for name in self._left)
        self._left = [name for name in self._left if name not in names]
        return found

    def choice(self, names: Iterable[str], default: str | None = None) -> str:
        """Claim the one of ``names`` that is there.

        Raises:
            UnsupportedError: none is, and there is no default.
        """
        names = tuple(names)
        for name in self._left:
            if name in names:
                self._left.remove(name)
                return name
        if default is None:
            raise UnsupportedError(f"expected one of .{', .'.join(names)}")
        return default

    def require(self, *names: str) -> None:
        """Claim modifiers that must all be there.

        Raises:
            UnsupportedError: one is not.
        """
        for name in names:
            self.choice((name,))

    def form(self) -> Format:
        """Claim the last part as a type.

        Raises:
            UnsupportedError: it is none.
        """
        if not self._left or self._left[-1] not in FORMATS:
            raise UnsupportedError("expected a type at the end of the instruction")
        return FORMATS[self._left.pop()]

    def done(self) -> None:
        """All must have been claimed.

        Raises:
            UnsupportedError: some are not.
        """
        if self._left:
            raise UnsupportedError(f".{'.'.join(self._left)} is not supported here")
