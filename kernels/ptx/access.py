"""Loads and stores: ld and st of every space and vector width, and asynchronous copies to shared memory.

Hints to caches change nothing here. A generic address must mean the same space in all lanes that run together.
"""

from collections.abc import Sequence

import numpy as np

from minet_sdk.kernels.ptx.elementwise import Builder
from minet_sdk.kernels.ptx.errors import UnsupportedError
from minet_sdk.kernels.ptx.formats import FORMATS, RAW, Format
from minet_sdk.kernels.ptx.lanes import Lanes
from minet_sdk.kernels.ptx.memory import ELEMENTS, LOCAL_WINDOW, SHARED_WINDOW, Space
from minet_sdk.kernels.ptx.modifiers import Modifiers
from minet_sdk.kernels.ptx.operands import Decoder, Step, Writer
from minet_sdk.kernels.ptx.rounding import Value
from minet_sdk.kernels.ptx.syntax import Address, Instruction, Integer, Operand, Register, Symbol

_SPACES = ("param", "global", "shared", "shared::cta", "local", "const")
_PREFETCH = ("L2::64B", "L2::128B", "L2::256B")
_HINTS = (
    *("ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc", "weak", "volatile", "relaxed", "acquire", "release"),
    *("cta", "gpu", "sys", *_PREFETCH),
    *(f"L1::{name}" for name in ("evict_normal", "evict_unchanged", "evict_first", "evict_last", "no_allocate")),
)


def resolve(lanes: Lanes, space: str, address: Value) -> tuple[Space, Value]:
    """The memory that an address means, and the address within it.

    Raises:
        UnsupportedError: a generic address means different spaces in different lanes.
    """
    if space in ("global", "const"):
        return lanes.memory, address
    if space == "shared":
        return lanes.shared, address
    if space == "local":
        return lanes.local, address
    active = address if lanes.mask is None or not address.ndim else address[lanes.mask]
    low, high = int(active.min()), int(active.max())
    if high < SHARED_WINDOW:
        return lanes.memory, address
    if low >= SHARED_WINDOW and high < LOCAL_WINDOW:
        return lanes.shared, address - np.int64(SHARED_WINDOW)
    if low >= LOCAL_WINDOW:
        return lanes.local, address - np.int64(LOCAL_WINDOW)
    raise UnsupportedError("generic addresses in different spaces at once")


def _transfer(instruction: Instruction) -> tuple[str, int, Format]:
    """Space, vector length and type of a load or store."""
    modifiers = Modifiers(instruction)
    form = modifiers.form()
    space = modifiers.choice(_SPACES, "generic").partition("::")[0]
    count = int(modifiers.choice(("v2", "v4", "v8"), "v1")[1:])
    modifiers.flag(*_HINTS)
    modifiers.done()
    if form.bits < 8 or form.bits * count > 128:
        raise UnsupportedError(f"{form.bits * count} bits at once")
    if len(instruction.operands) != 2:
        raise UnsupportedError(f"{len(instruction.operands)} operands; expected 2")
    return space, count, form


def _registers(operands: Sequence[Operand], count: int) -> None:
    if len(operands) != count:
        raise UnsupportedError(f"{len(operands)} registers for a vector of {count}")


def load(decoder: Decoder, instruction: Instruction) -> Step:
    """``ld``."""
    space, count, form = _transfer(instruction)
    targets = decoder.elements(instruction.operands[0])
    _registers(targets, count)
    # Registers take the bits as they are; only a signed type says how to extend them.
    plain = form if form.is_signed else FORMATS[f"b{form.bits}"]
    writers = [decoder.target(target, plain) for target in targets]
    if space == "param":
        return _load_parameter(decoder, instruction.operands[1], writers, plain)
    pointer = decoder.pointer(instruction.operands[1])
    size = form.bits // 8 * count
    raw, decode = RAW[form.bits], plain.decode

    def step(lanes: Lanes) -> None:
        memory, address = resolve(lanes, space, pointer(lanes))
        value = memory.load(lanes, address, size)
        if count == 1:
            writers[0](lanes, decode(value))
            return
        parts = np.atleast_1d(value).view(raw).reshape(-1, count)
        for i, write in enumerate(writers):
            write(lanes, decode(np.ascontiguousarray(parts[:, i]) if value.ndim else parts[0, i]))

    return step


def _load_parameter(decoder: Decoder, operand: Operand, writers: list[Writer], form: Format) -> Step:
    if not isinstance(operand, Address) or not isinstance(operand.base, Symbol):
        raise UnsupportedError("a parameter is read by its name")
    start = decoder.layout.parameter(operand.base.name) + operand.offset
    size = form.bits // 8
    if start % size or start < 0 or start + size * len(writers) > decoder.layout.parameter_bytes:
        raise UnsupportedError(f"read at byte {start} of {decoder.layout.parameter_bytes} bytes of parameters")

    def step(lanes: Lanes) -> None:
        values = np.frombuffer(lanes.parameters, form.raw, count=len(writers), offset=start)
        for value, write in zip(values, writers, strict=True):
            write(lanes, form.decode(value))

    return step


def store(decoder: Decoder, instruction: Instruction) -> Step:
    """``st``."""
    space, count, form = _transfer(instruction)
    if space in ("param", "const"):
        raise UnsupportedError(f"st.{space}")
    pointer = decoder.pointer(instruction.operands[0])
    sources = decoder.elements(instruction.operands[1])
    _registers(sources, count)
    plain = FORMATS[f"b{form.bits}"]
    forms = [plain if isinstance(source, Register) else form for source in sources]
    readers = [(decoder.source(source, kind), kind.encode) for source, kind in zip(sources, forms, strict=True)]
    size = form.bits // 8 * count
    raw, element = RAW[form.bits], ELEMENTS[size]

    def step(lanes: Lanes) -> None:
        memory, address = resolve(lanes, space, pointer(lanes))
        if count == 1:
            read, encode = readers[0]
            memory.store(lanes, address, size, encode(read(lanes)))
            return
        parts = np.empty((lanes.count, count), raw)
        for i, (read, encode) in enumerate(readers):
            parts[:, i] = encode(read(lanes))
        memory.store(lanes, address, size, parts.view(element)[:, 0])

    return step


def copy_async(decoder: Decoder, instruction: Instruction) -> Step:
    """``cp.async``: global to shared memory; what is copied can be read only after a wait for it."""
    modifiers = Modifiers(instruction)
    modifiers.require("async")
    action = modifiers.choice(("commit_group", "wait_group", "wait_all"), "")
    if not action:
        return _start_copy(decoder, instruction, modifiers)
    modifiers.done()
    if action == "commit_group":
        return lambda lanes: lanes.copies.commit(lanes)
    if action == "wait_all":
        return lambda lanes: lanes.copies.wait_all(lanes)
    (operand,) = instruction.operands
    if not isinstance(operand, Integer):
        raise UnsupportedError("the number of groups is a constant")
    most = operand.value
    return lambda lanes: lanes.copies.wait_group(lanes, most)


def _start_copy(decoder: Decoder, instruction: Instruction, modifiers: Modifiers) -> Step:
    modifiers.choice(("ca", "cg"))
    modifiers.choice(("shared", "shared::cta"))
    modifiers.require("global")
    modifiers.flag(*_PREFETCH)
    modifiers.done()
    to, origin, size, *rest = instruction.operands
    if not isinstance(size, Integer) or size.value not in (4, 8, 16) or len(rest) > 1:
        raise UnsupportedError("expected a constant size of 4, 8 or 16 bytes and at most one amount")
    target, source = decoder.pointer(to), decoder.pointer(origin)
    amount = decoder.source(rest[0] if rest else size, FORMATS["u32"])

    def step(lanes: Lanes) -> None:
        addresses = lanes.full(target(lanes)), lanes.full(source(lanes))
        lanes.copies.start(lanes, *addresses, size.value, lanes.full(amount(lanes)))

    return step


ACCESS: dict[str, Builder] = {"ld": load, "st": store, "cp": copy_async}
