"""Arithmetic by type: one opcode means an instruction of integers or one of floating-point numbers."""

from minet_sdk.kernels.ptx.elementwise import Builder
from minet_sdk.kernels.ptx.errors import UnsupportedError
from minet_sdk.kernels.ptx.floats import FLOATS
from minet_sdk.kernels.ptx.integers import INTEGERS
from minet_sdk.kernels.ptx.modifiers import Modifiers
from minet_sdk.kernels.ptx.operands import Decoder, Step
from minet_sdk.kernels.ptx.syntax import Instruction


def _by_type(opcode: str) -> Builder:
    def build(decoder: Decoder, instruction: Instruction) -> Step:
        form = Modifiers(instruction).form()
        table = FLOATS if form.is_float else INTEGERS
        if opcode not in table:
            raise UnsupportedError(f"{opcode} of .{form.name}")
        return table[opcode](decoder, instruction)

    return build


ARITHMETIC: dict[str, Builder] = {opcode: _by_type(opcode) for opcode in {**INTEGERS, **FLOATS}}
