"""The table of instructions: opcode to the builder that turns an instruction into a step; all else is unsupported.

Branches, exits and barriers of a CTA belong to `program`, because they decide who runs next.
"""

from minet_sdk.kernels.ptx.access import ACCESS
from minet_sdk.kernels.ptx.arithmetic import ARITHMETIC
from minet_sdk.kernels.ptx.atomics import ATOMICS
from minet_sdk.kernels.ptx.bits import BITS
from minet_sdk.kernels.ptx.compare import COMPARE
from minet_sdk.kernels.ptx.convert import CONVERT
from minet_sdk.kernels.ptx.elementwise import Builder
from minet_sdk.kernels.ptx.errors import TrapError, UnsupportedError
from minet_sdk.kernels.ptx.lanes import Lanes
from minet_sdk.kernels.ptx.moves import MOVES
from minet_sdk.kernels.ptx.operands import Decoder, Step
from minet_sdk.kernels.ptx.syntax import Instruction
from minet_sdk.kernels.ptx.tensorcore import TENSOR_CORE
from minet_sdk.kernels.ptx.warp import WARP_WIDE


def _nothing(decoder: Decoder, instruction: Instruction) -> Step:
    """Fences and hints: memory is sequentially consistent here, and caches do not exist."""
    return lambda lanes: None


def _trap(decoder: Decoder, instruction: Instruction) -> Step:
    def step(lanes: Lanes) -> None:
        raise TrapError("the kernel gave up", lane=lanes.first())

    return step


INSTRUCTIONS: dict[str, Builder] = {
    **ARITHMETIC,
    **BITS,
    **MOVES,
    **COMPARE,
    **CONVERT,
    **ACCESS,
    **ATOMICS,
    **WARP_WIDE,
    **TENSOR_CORE,
    **dict.fromkeys(("membar", "fence", "nanosleep", "prefetch", "prefetchu"), _nothing),
    "trap": _trap,
}
"""Every instruction but those of `program`."""


def build(decoder: Decoder, instruction: Instruction) -> Step:
    """The step of an instruction.

    Raises:
        UnsupportedError: there is none.
    """
    if instruction.opcode not in INSTRUCTIONS:
        raise UnsupportedError("this instruction is not supported")
    try:
        return INSTRUCTIONS[instruction.opcode](decoder, instruction)
    except (ValueError, IndexError):
        raise UnsupportedError(f"{len(instruction.operands)} operands are not supported here") from None
