"""``mov`` and ``cvta``: copies, packing and unpacking of registers, addresses of variables."""

import numpy as np

from minet_sdk.kernels.ptx.elementwise import Builder, unary
from minet_sdk.kernels.ptx.errors import UnsupportedError
from minet_sdk.kernels.ptx.formats import FORMATS, RAW, Format
from minet_sdk.kernels.ptx.lanes import Lanes
from minet_sdk.kernels.ptx.layout import generic_window
from minet_sdk.kernels.ptx.modifiers import Modifiers
from minet_sdk.kernels.ptx.operands import Decoder, Step
from minet_sdk.kernels.ptx.syntax import Instruction, Operand, Vector


def move(decoder: Decoder, instruction: Instruction) -> Step:
    """``mov``."""
    modifiers = Modifiers(instruction)
    form = modifiers.form()
    modifiers.done()
    if len(instruction.operands) != 2:
        raise UnsupportedError(f"{len(instruction.operands)} operands; expected 2")
    target, source = instruction.operands
    if isinstance(target, Vector):
        return _unpack(decoder, target, source, form)
    if isinstance(source, Vector):
        return _pack(decoder, target, source, form)
    write, read = decoder.target(target, form), decoder.source(source, form)
    return lambda lanes: write(lanes, read(lanes))


def _part(form: Format, count: int) -> Format:
    """One of ``count`` equal parts of a register."""
    width = form.bits // count
    if width * count != form.bits or width not in RAW:
        raise UnsupportedError(f"{form.bits} bits in {count} parts")
    return FORMATS[f"b{width}"]


def _unpack(decoder: Decoder, target: Vector, source: Operand, form: Format) -> Step:
    part = _part(form, len(target.elements))
    whole = FORMATS[f"b{form.bits}"]
    read = decoder.source(source, whole)
    writers = [(decoder.target(element, part), whole.raw(i * part.bits)) for i, element in enumerate(target.elements)]

    def step(lanes: Lanes) -> None:
        value = read(lanes)
        for write, shift in writers:
            write(lanes, (value >> shift).astype(part.raw))

    return step


def _pack(decoder: Decoder, target: Operand, source: Vector, form: Format) -> Step:
    part = _part(form, len(source.elements))
    whole = FORMATS[f"b{form.bits}"]
    write = decoder.target(target, whole)
    readers = [(decoder.source(element, part), whole.raw(i * part.bits)) for i, element in enumerate(source.elements)]

    def step(lanes: Lanes) -> None:
        value = whole.raw(0)
        for read, shift in readers:
            value = value | (read(lanes).astype(whole.raw) << shift)
        write(lanes, value)

    return step


def convert_address(decoder: Decoder, instruction: Instruction) -> Step:
    """``cvta``: between generic addresses and those within a space."""
    modifiers = Modifiers(instruction)
    form = modifiers.form()
    to_space = modifiers.flag("to")
    window = generic_window(modifiers.choice(("global", "shared", "shared::cta", "local", "const")))
    modifiers.done()
    if form.bits != 64:
        raise UnsupportedError("only 64-bit addresses are supported")
    shift = np.uint64(-window % (1 << 64) if to_space else window)
    return unary(decoder, instruction, form, lambda address: address + shift, form)


MOVES: dict[str, Builder] = {"mov": move, "cvta": convert_address}
