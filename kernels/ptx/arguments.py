"""Kernel arguments: arrays to read, arrays to write, and numbers, checked against the kernel's parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minet_sdk.kernels.ptx.errors import ArgumentError, UnwrittenError
from minet_sdk.kernels.ptx.formats import WIDTHS
from minet_sdk.kernels.ptx.global_memory import Contents, GlobalMemory, window
from minet_sdk.kernels.ptx.layout import Layout
from minet_sdk.kernels.ptx.syntax import Kernel, Parameter

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class In:
    """An array that the kernel may only read.

    Attributes:
        array: any shape and type, seen in C order; bfloat16 as uint16 or as ml_dtypes.bfloat16.
        offset: bytes by which its address is beyond a multiple of 256, for a view into a larger array.
    """

    array: Array
    offset: int = 0


@dataclass(frozen=True, eq=False)
class Out:
    """An array that the kernel writes; its content is unknown before, and set only if the launch succeeds.

    Attributes:
        array: any shape and type.
        partial: whether the kernel may leave parts unwritten; they keep what the array holds.
        offset: see `In`.
    """

    array: Array
    partial: bool = False
    offset: int = 0


@dataclass(frozen=True, eq=False)
class InOut:
    """An array that the kernel may read and write; changed only if the launch succeeds.

    Attributes:
        array: any shape and type.
        offset: see `In`.
    """

    array: Array
    offset: int = 0


Argument = In | Out | InOut | int | float | bytes | np.number[Any]
"""Numbers are converted to the parameter's type; bytes are a structure that is passed by value."""


class Arguments:
    """The arguments of one launch, laid out in memory; the same array given twice is one array.

    Args:
        kernel: that takes them.
        layout: of its memory.
        arguments: one per parameter.

    Attributes:
        parameters: the kernel's parameter memory.
        memory: global memory with the arrays, and the kernel's constant and global variables.

    Raises:
        ArgumentError: they do not fit the parameters.
    """

    def __init__(self, kernel: Kernel, layout: Layout, arguments: Sequence[Argument]) -> None:
        if len(arguments) != len(kernel.parameters):
            raise ArgumentError(f"{len(arguments)} arguments; this kernel takes {len(kernel.parameters)}")
        arrays = [
            Contents(variable.name, np.frombuffer(variable.content, np.uint8), variable.space == "global", known=True)
            for variable in layout.variables
        ]
        places: dict[int, tuple[int, type]] = {}
        self._results: list[tuple[int, int, Out | InOut]] = []
        content = bytearray(layout.parameter_bytes)
        for position, (parameter, argument) in enumerate(zip(kernel.parameters, arguments, strict=True)):
            if isinstance(argument, In | Out | InOut):
                number, kind = places.setdefault(id(argument.array), (len(arrays), type(argument)))
                if kind is not type(argument):
                    raise ArgumentError(f"argument {position} is the array of another argument; give both as InOut")
                if number == len(arrays):
                    arrays.append(_contents(position, argument))
                    if not isinstance(argument, In):
                        self._results.append((number, position, argument))
                value = _pointer(position, parameter, window(number) + argument.offset)
            else:
                value = _value(position, parameter, argument)
            start = layout.parameter(parameter.name)
            content[start : start + parameter.size] = value
        self.parameters = bytes(content)
        self.memory = GlobalMemory(arrays, layout.granules["global"])

    def finish(self) -> None:
        """Hand the results to the caller's arrays.

        Raises:
            UnwrittenError: an output is incomplete.
        """
        for number, position, argument in self._results:
            _, known = self.memory.content(number)
            if isinstance(argument, Out) and not argument.partial and not known.all():
                missing = ~known.reshape(-1, argument.array.dtype.itemsize).all(axis=1)
                first = np.unravel_index(int(np.argmax(missing)), argument.array.shape)
                raise UnwrittenError(
                    f"{int(missing.sum())} of {missing.size} elements of argument {position} are unwritten, the first "
                    f"at index {tuple(map(int, first))}"
                )
        for number, _, argument in self._results:
            content, known = self.memory.content(number)
            if not known.all():
                content = np.where(known, content, np.frombuffer(argument.array.tobytes(), np.uint8))
            argument.array[...] = np.frombuffer(content.tobytes(), argument.array.dtype).reshape(argument.array.shape)


def _contents(position: int, argument: In | Out | InOut) -> Contents:
    content = np.frombuffer(argument.array.tobytes(), np.uint8)
    known = not isinstance(argument, Out)
    return Contents(f"argument {position}", content, not isinstance(argument, In), known, argument.offset)


def _pointer(position: int, parameter: Parameter, address: int) -> bytes:
    if WIDTHS[parameter.type] != 64 or parameter.type == "f64" or parameter.count > 1:
        raise ArgumentError(f"argument {position} is an array; {parameter.name} is a .{parameter.type}, not a pointer")
    return address.to_bytes(8, "little")


def _value(position: int, parameter: Parameter, argument: Any) -> bytes:
    where = f"argument {position} for .{parameter.type} {parameter.name}"
    if parameter.count > 1:
        if not isinstance(argument, bytes) or len(argument) != parameter.size:
            raise ArgumentError(f"{where} is {argument!r}; expected {parameter.size} bytes")
        return argument
    bits = WIDTHS[parameter.type]
    if parameter.type[0] == "f" and isinstance(argument, float | np.floating):
        return np.array(argument).astype(f"<f{bits // 8}").tobytes()
    if parameter.type[0] != "f" and isinstance(argument, int | np.integer):
        if not -(1 << (bits - 1)) <= int(argument) < 1 << bits:
            raise ArgumentError(f"{where} is {argument}, which {bits} bits do not hold")
        return (int(argument) % (1 << bits)).to_bytes(bits // 8, "little")
    raise ArgumentError(f"{where} is {argument!r} of type {type(argument).__name__}; expected another type")
