"""PTX after parsing: modules, kernels, instructions and operands as plain frozen data.

Names within a kernel are unique: a register of an inner ``{ }`` scope carries its scope in its name.
"""

from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Register:
    """A declared register; its type is in `Kernel.registers`."""

    name: str


@dataclass(frozen=True, slots=True)
class Special:
    """A predefined read-only register such as ``%tid.x``."""

    name: str


@dataclass(frozen=True, slots=True)
class Integer:
    """An integer constant, as written."""

    value: int


@dataclass(frozen=True, slots=True)
class Real:
    """A floating-point constant by its bits: ``0f`` has 32, ``0d`` and decimal notation have 64."""

    bits: int
    width: int


@dataclass(frozen=True, slots=True)
class Symbol:
    """The address of a variable or parameter, plus an offset in bytes."""

    name: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Address:
    """``[base + offset]``; base is a register, a symbol or a constant."""

    base: "Register | Symbol | Integer"
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Vector:
    """``{a, b, ...}``."""

    elements: "tuple[Operand, ...]"


@dataclass(frozen=True, slots=True)
class Pair:
    """``d|p``: two results."""

    first: "Operand"
    second: "Operand"


@dataclass(frozen=True, slots=True)
class Negated:
    """``!p``."""

    predicate: Register


@dataclass(frozen=True, slots=True)
class Sink:
    """``_``: a result that nobody wants."""


@dataclass(frozen=True, slots=True)
class Label:
    """The target of a branch: index into `Kernel.instructions`."""

    name: str
    index: int


Operand: TypeAlias = Register | Special | Integer | Real | Symbol | Address | Vector | Pair | Negated | Sink | Label


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction.

    Attributes:
        opcode: first part of the name, ``mad`` of ``mad.lo.s32``.
        modifiers: the other parts, in order: ``("lo", "s32")``.
        operands: destinations first, as written.
        guard: predicate register, or None.
        negated: whether the guard is ``@!p``.
        line: of the PTX text, from 1.
    """

    opcode: str
    modifiers: tuple[str, ...]
    operands: tuple[Operand, ...]
    guard: Register | None
    negated: bool
    line: int

    @property
    def name(self) -> str:
        """The opcode with its modifiers."""
        return ".".join((self.opcode, *self.modifiers))


@dataclass(frozen=True, slots=True)
class Parameter:
    """One kernel parameter.

    Attributes:
        name: as the kernel calls it.
        type: ``u64``, ``f32``, ``b8`` or another.
        count: elements; 1 unless the parameter is a structure that is passed by value as ``.b8 name[count]``.
        size: in bytes.
        alignment: in bytes.
    """

    name: str
    type: str
    count: int
    size: int
    alignment: int


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable in memory.

    Attributes:
        name: unique within the kernel.
        space: ``shared``, ``local``, ``const`` or ``global``.
        size: in bytes; 0 for ``extern .shared`` memory, the size of which the launch gives.
        alignment: in bytes.
        content: initial bytes, empty if the variable has no initialiser.
    """

    name: str
    space: str
    size: int
    alignment: int
    content: bytes = b""


@dataclass(frozen=True, eq=False)
class Kernel:
    """One ``.entry``, compared by identity.

    Attributes:
        name: of the entry.
        parameters: in order.
        registers: name -> type of every declared register, ``pred``, ``b16``, ``f32`` or another.
        variables: shared, local, constant and global memory that it can see.
        instructions: in the order of the text.
        most_threads: ``.maxntid`` as a number of threads, or None.
        exact_block: ``.reqntid``, or None.
        line: where the entry starts.
    """

    name: str
    parameters: tuple[Parameter, ...]
    registers: dict[str, str]
    variables: tuple[Variable, ...]
    instructions: tuple[Instruction, ...]
    most_threads: int | None
    exact_block: tuple[int, int, int] | None
    line: int

    @property
    def shared_bytes(self) -> int:
        """Static shared memory, each variable at its alignment, in the order of declaration."""
        end = 0
        for variable in self.variables:
            if variable.space == "shared":
                end = -(-end // variable.alignment) * variable.alignment + variable.size
        return end


@dataclass(frozen=True, eq=False)
class Module:
    """One PTX text.

    Attributes:
        version: of the instruction set, such as ``7.0``.
        target: such as ``sm_80``.
        kernels: by name, in the order of the text.
    """

    version: str
    target: str
    kernels: dict[str, Kernel] = field(repr=False)

    @property
    def entries(self) -> tuple[str, ...]:
        """Names of all kernels."""
        return tuple(self.kernels)

    def __getitem__(self, name: str) -> Kernel:
        try:
            return self.kernels[name]
        except KeyError:
            raise KeyError(f"no entry {name!r}; this module has {', '.join(self.kernels) or 'none'}") from None
