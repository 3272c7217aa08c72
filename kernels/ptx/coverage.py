"""Which instructions of a kernel have been executed, over any number of launches."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from minet_sdk.kernels.ptx.syntax import Instruction, Kernel

Mask = npt.NDArray[np.bool_]


class Coverage:
    """Collects what `launch` executes; give the same one to several launches.

    An instruction counts if at least one thread executed it; one with a guard, if its guard held for one.
    """

    def __init__(self) -> None:
        self._executed: dict[Kernel, Mask] = {}

    def add(self, kernel: Kernel, executed: Mask) -> None:
        """Note what one launch executed: one bool per instruction."""
        self._executed[kernel] = self._executed.get(kernel, np.zeros(len(kernel.instructions), bool)) | executed

    def __iter__(self) -> Iterator[Kernel]:
        return iter(self._executed)

    def fraction(self, kernel: Kernel) -> float:
        """Part of the kernel's instructions that were executed, 0 to 1."""
        executed = self._executed.get(kernel)
        return 0.0 if executed is None or not executed.size else float(executed.mean())

    def missed(self, kernel: Kernel) -> list[Instruction]:
        """Instructions that no thread has executed, in the order of the text."""
        executed = self._executed.get(kernel, np.zeros(len(kernel.instructions), bool))
        return [instruction for instruction, seen in zip(kernel.instructions, executed, strict=True) if not seen]

    def report(self) -> str:
        """One line per kernel: executed of all instructions, then the lines of those that never were."""
        lines: list[str] = []
        for kernel in self._executed:
            missed = self.missed(kernel)
            total = len(kernel.instructions)
            text = f"{kernel.name}: {total - len(missed)} of {total} instructions executed"
            lines.append(text + (f"; never lines {_ranges([i.line for i in missed])}" if missed else ""))
        return "\n".join(lines)


def _ranges(lines: list[int]) -> str:
    """1, 2, 3, 7 -> ``1-3, 7``."""
    ranges: list[list[int]] = []
    for line in sorted(set(lines)):
        if ranges and line == ranges[-1][1] + 1:
            ranges[-1][1] = line
        else:
            ranges.append([line, line])
    return ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in ranges)
