"""From operands to closures: how an instruction reads its sources, writes its result and finds its address."""

from collections.abc import Callable, Iterable

import numpy as np

from minet_sdk.kernels.ptx.errors import UninitialisedError, UnsupportedError
from minet_sdk.kernels.ptx.formats import RAW, WIDTHS, Format
from minet_sdk.kernels.ptx.lanes import Lanes
from minet_sdk.kernels.ptx.layout import Layout
from minet_sdk.kernels.ptx.rounding import Value
from minet_sdk.kernels.ptx.syntax import (
    Address,
    Instruction,
    Integer,
    Negated,
    Operand,
    Real,
    Register,
    Sink,
    Special,
    Symbol,
    Vector,
)

Reader = Callable[[Lanes], Value]
Writer = Callable[[Lanes, Value], None]
Step = Callable[[Lanes], None]

_COPIES = ("mov", "selp")
"""Compilers copy unwritten registers on purpose (a value that no path will use); computing with one is an error."""


class Decoder:
    """Resolves the operands of one kernel.

    Args:
        registers: name -> type.
        layout: where variables and parameters lie.
        unproven: reads, as (instruction index, register), of registers that may be unwritten.

    Attributes:
        widths: bits of each register, by slot.
        layout: as given.
    """

    def __init__(self, registers: dict[str, str], layout: Layout, unproven: set[tuple[int, str]]) -> None:
        self.widths = [WIDTHS[kind] for kind in registers.values()]
        self.layout = layout
        self._slots = {name: slot for slot, name in enumerate(registers)}
        self._unproven = unproven
        self._tracked = {self._slots[name] for _, name in unproven}
        self._index = 0
        self._copies = False

    def at(self, index: int, instruction: Instruction) -> None:
        """Say which instruction the next operands belong to."""
        self._index, self._copies = index, instruction.opcode in _COPIES

    def raw(self, register: Register) -> Reader:
        """Bits of a register, checked if it may be unwritten."""
        slot = self._slots[register.name]
        if not self._is_checked(register):
            return lambda lanes: lanes.registers[slot]

        def checked(lanes: Lanes) -> Value:
            missing = ~lanes.written.get(slot, np.zeros(lanes.count, bool))
            if lanes.any(missing):
                message = f"register {register.name} is read before it is written"
                raise UninitialisedError(message, lane=lanes.first(missing))
            return lanes.registers[slot]

        return checked

    def source(self, operand: Operand, form: Format) -> Reader:
        """Reads an operand as ``form``.

        Raises:
            UnsupportedError: the operand cannot be of this type.
        """
        decode, raw = form.decode, form.raw
        if isinstance(operand, Register):
            read = self.raw(operand)
            width = self.widths[self._slots[operand.name]]
            if width == form.bits and form.is_view:
                return self._viewed(operand, form)
            if width == form.bits:
                return lambda lanes: decode(read(lanes))
            if width > form.bits > 1:
                return lambda lanes: decode(read(lanes).astype(raw))
            raise UnsupportedError(f"register {operand.name} of {width} bits does not hold a .{form.name}")
        if isinstance(operand, Negated):
            read = self.raw(operand.predicate)
            return lambda lanes: ~read(lanes)
        if isinstance(operand, Special):
            name = operand.name
            if form.bits < 16:
                raise UnsupportedError(f"{name} does not fit into .{form.name}")
            return lambda lanes: decode(lanes.specials[name].astype(raw))
        constant = decode(raw(self._constant(operand, form)))
        return lambda lanes: constant

    def _viewed(self, register: Register, form: Format) -> Reader:
        """Reads a register whose bits need no conversion: what nearly all instructions do."""
        read, slot, kind = self.raw(register), self._slots[register.name], form.compute
        if form.raw is kind:
            return read
        if self._is_checked(register):
            return lambda lanes: read(lanes).view(kind)
        return lambda lanes: lanes.registers[slot].view(kind)

    def _is_checked(self, register: Register) -> bool:
        return not self._copies and (self._index, register.name) in self._unproven

    def _constant(self, operand: Operand, form: Format) -> int:
        """Bits of a constant."""
        if isinstance(operand, Integer):
            if form.is_float and form.bits > 16 and not form.is_packed:
                raise UnsupportedError(f"integer {operand.value} where a .{form.name} is expected")
            return int(operand.value != 0) if form.bits == 1 else operand.value % (1 << form.bits)
        if isinstance(operand, Symbol):
            return (self.layout.address(operand.name) + operand.offset) % (1 << form.bits)
        if isinstance(operand, Real) and operand.width == form.bits:
            return operand.bits
        if isinstance(operand, Real) and operand.width == 64 and form.name == "f32":
            return int(np.uint64(operand.bits).view(np.float64).astype(np.float32).view(np.uint32))
        raise UnsupportedError(f"operand {operand} is not a .{form.name}")

    def sources(self, operands: Iterable[Operand], *forms: Format) -> list[Reader]:
        """One reader per operand.

        Raises:
            UnsupportedError: their number is not that of the forms.
        """
        operands = tuple(operands)
        if len(operands) != len(forms):
            raise UnsupportedError(f"{len(operands)} source operands; expected {len(forms)}")
        return [self.source(operand, form) for operand, form in zip(operands, forms, strict=True)]

    def target(self, operand: Operand, form: Format) -> Writer:
        """Writes a value of ``form``, in active lanes only; in a wider register it is extended.

        Raises:
            UnsupportedError: the operand is no register, or too narrow.
        """
        if isinstance(operand, Sink):
            return lambda lanes, value: None
        if not isinstance(operand, Register):
            raise UnsupportedError(f"result operand {operand} is not a register")
        slot = self._slots[operand.name]
        width = self.widths[slot]
        if width < form.bits or (width != form.bits and (form.is_float or form.bits == 1)):
            raise UnsupportedError(f"register {operand.name} of {width} bits cannot take a .{form.name}")
        encode = form.encode if width == form.bits else _extension(width)
        if slot in self._tracked:
            return lambda lanes, value: _write_tracked(lanes, slot, encode(value))

        def write(lanes: Lanes, value: Value) -> None:
            mask = lanes.mask
            bits = encode(value)
            lanes.registers[slot] = bits if mask is None else np.where(mask, bits, lanes.registers[slot])

        return write

    def elements(self, operand: Operand) -> tuple[Operand, ...]:
        """Elements of ``{a, b}``, or the operand alone."""
        return operand.elements if isinstance(operand, Vector) else (operand,)

    def pointer(self, operand: Operand) -> Reader:
        """Reads ``[base + offset]`` as int64.

        Raises:
            UnsupportedError: the operand is no address.
        """
        if not isinstance(operand, Address):
            raise UnsupportedError(f"operand {operand} is not an address")
        offset = np.int64(operand.offset)
        if isinstance(operand.base, Register):
            read = self.raw(operand.base)
            if self.widths[self._slots[operand.base.name]] == 64:
                return lambda lanes: read(lanes).view(np.int64) + offset
            return lambda lanes: read(lanes).astype(np.int64) + offset
        if isinstance(operand.base, Integer):
            constant = np.int64(operand.base.value) + offset
        else:
            constant = np.int64(self.layout.address(operand.base.name) + operand.base.offset) + offset
        return lambda lanes: constant


def _extension(width: int) -> Callable[[Value], Value]:
    """A shorter integer as bits of a register; the cast from a signed type repeats its sign."""
    raw = RAW[width]
    return lambda value: value.astype(raw)


def _write_tracked(lanes: Lanes, slot: int, bits: Value) -> None:
    mask = lanes.mask
    if mask is None:
        lanes.registers[slot] = bits
        lanes.written[slot] = np.ones(lanes.count, bool)
        return
    lanes.registers[slot] = np.where(mask, bits, lanes.registers[slot])
    lanes.written[slot] = lanes.written.get(slot, False) | mask
