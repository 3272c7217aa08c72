"""Where the parameters and variables of a kernel lie: aligned as declared but no better, with guards in between."""

from minet_sdk.kernels.ptx.errors import UnsupportedError
from minet_sdk.kernels.ptx.formats import WIDTHS
from minet_sdk.kernels.ptx.global_memory import window
from minet_sdk.kernels.ptx.memory import LOCAL_WINDOW, SHARED_WINDOW, Piece
from minet_sdk.kernels.ptx.syntax import Kernel, Variable

_GUARD = 128
"""Unused bytes around every shared or local variable; an access there is out of bounds."""
_WIDEST = 16
"""Bytes of the largest access; a better alignment cannot be told from this one."""
_ACCESSES = ("ld", "st", "cp")
_SPACES = {"shared", "global", "local", "param", "const"}


def generic_window(space: str) -> int:
    """What turns an address within a space into a generic one."""
    return {"shared": SHARED_WINDOW, "local": LOCAL_WINDOW}.get(space.partition("::")[0], 0)


class Layout:
    """Addresses of one kernel.

    Attributes:
        variables: constant and global variables; they become arrays of their own, numbered from 0.
        granules: smallest access to shared and to global memory, in bytes.
        parameter_bytes: size of the parameter memory.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.variables = [variable for variable in kernel.variables if variable.space in ("const", "global")]
        self._addresses = {variable.name: window(number) for number, variable in enumerate(self.variables)}
        self._parts = {space: self._place(kernel, space) for space in ("shared", "local")}
        self._parameters: dict[str, int] = {}
        end = 0
        for parameter in kernel.parameters:
            start = -(-end // parameter.alignment) * parameter.alignment
            self._parameters[parameter.name] = start
            end = start + parameter.size
        self.parameter_bytes = end
        self.granules = {space: _granule(kernel, space) for space in ("shared", "global")}

    def _place(self, kernel: Kernel, space: str) -> list[tuple[int, Variable]]:
        """Lay out the variables of a space; memory of a size that only the launch knows comes last, as in CUDA."""
        parts: list[tuple[int, Variable]] = []
        end = _GUARD
        for variable in sorted((v for v in kernel.variables if v.space == space), key=lambda v: v.size == 0):
            alignment = variable.alignment
            start = -(-end // (2 * alignment)) * 2 * alignment
            if alignment < _WIDEST:
                start += alignment
            self._addresses[variable.name] = start
            parts.append((start, variable))
            end = start + variable.size + (_GUARD if variable.size else 0)
        return parts

    def address(self, name: str) -> int:
        """Address of a variable within its space.

        Raises:
            UnsupportedError: it has none that a kernel could use.
        """
        if name not in self._addresses:
            raise UnsupportedError(f"the address of {name} cannot be taken")
        return self._addresses[name]

    def parameter(self, name: str) -> int:
        """Offset of a parameter in the parameter memory.

        Raises:
            UnsupportedError: the kernel has none of this name.
        """
        if name not in self._parameters:
            raise UnsupportedError(f"{name} is not a parameter of this kernel")
        return self._parameters[name]

    def pieces(self, space: str, dynamic: int = 0) -> list[Piece]:
        """What lies in shared or local memory.

        Args:
            space: ``shared`` or ``local``.
            dynamic: bytes that the launch gives to ``extern .shared`` memory.
        """
        return [Piece(variable.name, start, variable.size or dynamic) for start, variable in self._parts[space]]


def _granule(kernel: Kernel, space: str) -> int:
    """Smallest access of the instructions that name ``space``, or that name none and may mean it."""
    sizes = [_WIDEST]
    for instruction in kernel.instructions:
        named = {part.partition("::")[0] for part in instruction.modifiers} & _SPACES
        if instruction.opcode in _ACCESSES and (space in named or not named):
            widths = [WIDTHS[part] // 8 for part in instruction.modifiers if part in WIDTHS]
            sizes.append(widths[-1] if widths else 4)
    return max(min(sizes), 1)
