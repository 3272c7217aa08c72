"""``mma.sync``: D = A B + C on 16 x 8 tiles; ``ldmatrix`` and ``stmatrix``, which spread 8 x 8 matrices over a warp.

Products and their sum with C are formed in float64 and rounded once. Hardware adds in an order of its own and
truncates low bits on the way, so that its last bits may differ; no test should ask for them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from minet_sdk.kernels.ptx.access import resolve
from minet_sdk.kernels.ptx.elementwise import Builder
from minet_sdk.kernels.ptx.errors import UnsupportedError
from minet_sdk.kernels.ptx.formats import FORMATS
from minet_sdk.kernels.ptx.lanes import WARP, Lanes
from minet_sdk.kernels.ptx.modifiers import Modifiers
from minet_sdk.kernels.ptx.operands import Decoder, Step
from minet_sdk.kernels.ptx.syntax import Instruction, Operand

Array = npt.NDArray[Any]

_B32 = FORMATS["b32"]
_DEPTHS = {"f16": (8, 16), "bf16": (8, 16), "tf32": (4, 8)}
"""Lengths of the inner dimension that exist for each type."""
_TF32_BITS = np.uint32(0xFFFFE000)
"""What tensor cores look at of a float32 that is used as tf32."""
_LANE = np.arange(WARP)
_ROW, _COLUMN = _LANE >> 2, 2 * (_LANE & 3)
"""The two neighbours of an 8 x 8 matrix that a lane holds."""


def multiply_tiles(decoder: Decoder, instruction: Instruction) -> Step:
    """``mma``."""
    modifiers = Modifiers(instruction)
    c_form, b_form, a_form, d_form = (modifiers.form().name for _ in range(4))
    modifiers.require("sync", "aligned", "row", "col")
    depth = int(modifiers.choice(("m16n8k4", "m16n8k8", "m16n8k16")).removeprefix("m16n8k"))
    modifiers.done()
    if a_form != b_form or depth not in _DEPTHS.get(a_form, ()):
        raise UnsupportedError(f"16 x 8 x {depth} tiles of .{a_form} and .{b_form}")
    if c_form != d_form or c_form not in ("f32", "f16") or (c_form == "f16" and a_form != "f16"):
        raise UnsupportedError(f"products of .{a_form} with .{c_form} added into .{d_form}")
    d, a, b, c = instruction.operands
    packed, packed_c = 1 if a_form == "tf32" else 2, 2 if c_form == "f16" else 1
    steps = depth // (4 * packed)
    a_read = _fragment(decoder, a, a_form, 2 * steps)
    b_read = _fragment(decoder, b, b_form, steps)
    c_read = _fragment(decoder, c, c_form, 4 // packed_c)
    writers = [decoder.target(part, _B32) for part in decoder.elements(d)]
    if len(writers) != 4 // packed_c:
        raise UnsupportedError(f"{len(writers)} registers where {4 // packed_c} are expected")
    kind = FORMATS[c_form].compute

    def step(lanes: Lanes) -> None:
        lanes.converge()
        # Lanes are 8 groups of 4; a register of A goes by step along k, then by half of the rows.
        left = a_read(lanes).reshape(-1, 8, 4, steps, 2, packed).transpose(0, 4, 1, 3, 2, 5).reshape(-1, 16, depth)
        right = b_read(lanes).reshape(-1, 8, 4, steps, packed).transpose(0, 3, 2, 4, 1).reshape(-1, depth, 8)
        product = left.astype(np.float64) @ right.astype(np.float64)
        spread = product.reshape(-1, 2, 8, 4, 2).transpose(0, 2, 3, 1, 4).reshape(-1, 4)
        result = (spread + c_read(lanes).reshape(-1, 4)).astype(kind).view(np.uint32)
        for i, write in enumerate(writers):
            write(lanes, np.ascontiguousarray(result[:, i]))

    return step


def _fragment(decoder: Decoder, operand: Operand, kind: str, count: int) -> Callable[[Lanes], Array]:
    """Registers of a fragment as float32, (lanes, registers) or (lanes, registers, 2)."""
    readers = [decoder.source(part, _B32) for part in decoder.elements(operand)]
    if len(readers) != count:
        raise UnsupportedError(f"{len(readers)} registers where {count} are expected")
    form = FORMATS[kind if kind in ("f32", "tf32") else f"{kind}x2"]

    def read(lanes: Lanes) -> Array:
        registers = np.empty((lanes.count, count), np.uint32)
        for i, source in enumerate(readers):
            registers[:, i] = source(lanes)
        if kind == "tf32":
            registers &= _TF32_BITS
        return form.decode(registers).astype(np.float32)

    return read


def _matrices(instruction: Instruction) -> tuple[int, bool, str]:
    """Number of 8 x 8 matrices, whether they are transposed, and the space they are in."""
    modifiers = Modifiers(instruction)
    modifiers.require("sync", "aligned", "m8n8", "b16")
    count = int(modifiers.choice(("x1", "x2", "x4"))[1:])
    transposed = modifiers.flag("trans")
    space = modifiers.choice(("shared", "shared::cta"), "generic").partition("::")[0]
    modifiers.done()
    return count, transposed, space


def load_matrix(decoder: Decoder, instruction: Instruction) -> Step:
    """``ldmatrix``: lanes 8 i to 8 i + 7 give the addresses of the rows of matrix i."""
    count, transposed, space = _matrices(instruction)
    writers = [decoder.target(part, _B32) for part in decoder.elements(instruction.operands[0])]
    if len(writers) != count:
        raise UnsupportedError(f"{len(writers)} registers for {count} matrices")
    pointer = decoder.pointer(instruction.operands[1])
    gives_address = 8 * count > _LANE

    def step(lanes: Lanes) -> None:
        lanes.converge()
        memory, address = resolve(lanes, space, lanes.full(pointer(lanes)))
        with lanes.only(np.tile(gives_address, lanes.count // WARP)):
            rows = memory.load(lanes, address, 16)
        matrices = np.ascontiguousarray(rows).view(np.uint16).reshape(-1, 4, 8, 8)
        if transposed:
            matrices = matrices.swapaxes(-1, -2)
        for i, write in enumerate(writers):
            low = matrices[:, i, _ROW, _COLUMN].astype(np.uint32)
            high = matrices[:, i, _ROW, _COLUMN + 1].astype(np.uint32)
            write(lanes, (low | high << np.uint32(16)).reshape(-1))

    return step


def store_matrix(decoder: Decoder, instruction: Instruction) -> Step:
    """``stmatrix``: the way back of `load_matrix`."""
    count, transposed, space = _matrices(instruction)
    pointer = decoder.pointer(instruction.operands[0])
    readers = [decoder.source(part, _B32) for part in decoder.elements(instruction.operands[1])]
    if len(readers) != count:
        raise UnsupportedError(f"{len(readers)} registers for {count} matrices")
    gives_address = 8 * count > _LANE

    def step(lanes: Lanes) -> None:
        lanes.converge()
        memory, address = resolve(lanes, space, lanes.full(pointer(lanes)))
        matrices = np.zeros((lanes.count // WARP, 4, 8, 8), np.uint16)
        for i, read in enumerate(readers):
            value = lanes.full(read(lanes)).reshape(-1, WARP)
            matrices[:, i, _ROW, _COLUMN] = value.astype(np.uint16)
            matrices[:, i, _ROW, _COLUMN + 1] = (value >> np.uint32(16)).astype(np.uint16)
        if transposed:
            matrices = matrices.swapaxes(-1, -2)
        rows = np.ascontiguousarray(matrices).reshape(-1, 8).view(np.complex128)[:, 0]
        with lanes.only(np.tile(gives_address, lanes.count // WARP)):
            memory.store(lanes, address, 16, rows)

    return step


TENSOR_CORE: dict[str, Builder] = {"mma": multiply_tiles, "ldmatrix": load_matrix, "stmatrix": store_matrix}
