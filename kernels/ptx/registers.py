"""Which registers may be read before they are written: proven over all paths, so that few need a check at run time."""

from collections.abc import Iterable

from minet_sdk.kernels.ptx.syntax import (
    Address,
    Instruction,
    Kernel,
    Label,
    Negated,
    Operand,
    Pair,
    Register,
    Vector,
)

_NO_RESULT = (
    *("st", "bra", "bar", "barrier", "red", "cp", "stmatrix", "membar", "fence", "nanosleep", "prefetch", "prefetchu"),
)


def unproven_reads(kernel: Kernel) -> set[tuple[int, str]]:
    """Reads of registers that some path through the kernel reaches without a write.

    Writes under a guard do not count as writes, so that what is named here may still be fine: it must be checked
    when it happens.

    Returns:
        Pairs of instruction index and register name.
    """
    instructions = kernel.instructions
    number = {name: bit for bit, name in enumerate(kernel.registers)}
    reads, writes = (
        zip(*(_uses(instruction) for instruction in instructions), strict=True) if instructions else ((), ())
    )
    starts = _leaders(instructions)
    block_of = {start: block for block, start in enumerate(starts)}
    ends = [*starts[1:], len(instructions)]
    written = [
        _bits(number, (name for i in range(start, end) if instructions[i].guard is None for name in writes[i]))
        for start, end in zip(starts, ends, strict=True)
    ]
    everything = (1 << len(number)) - 1
    known = [everything] * len(starts)
    if known:
        known[0] = 0
    work = list(range(len(starts)))
    while work:
        block = work.pop()
        after = known[block] | written[block]
        for following in _successors(instructions, ends[block]):
            if following in block_of:
                target = block_of[following]
                merged = known[target] & after
                if merged != known[target]:
                    known[target] = merged
                    work.append(target)
    unproven: set[tuple[int, str]] = set()
    for block, (start, end) in enumerate(zip(starts, ends, strict=True)):
        here = known[block]
        for i in range(start, end):
            unproven |= {(i, name) for name in reads[i] if not here >> number[name] & 1}
            if instructions[i].guard is None:
                here |= _bits(number, writes[i])
    return unproven


def _bits(number: dict[str, int], names: Iterable[str]) -> int:
    result = 0
    for name in names:
        result |= 1 << number[name]
    return result


def _leaders(instructions: tuple[Instruction, ...]) -> list[int]:
    """First instruction of every straight piece."""
    starts = {0} if instructions else set[int]()
    for index, instruction in enumerate(instructions):
        if instruction.opcode in ("bra", "ret", "exit"):
            starts |= {operand.index for operand in instruction.operands if isinstance(operand, Label)}
            starts.add(index + 1)
    return sorted(start for start in starts if start < len(instructions))


def _successors(instructions: tuple[Instruction, ...], end: int) -> list[int]:
    """Where control can go from the last instruction before ``end``."""
    last = instructions[end - 1]
    following = [operand.index for operand in last.operands if isinstance(operand, Label)]
    if last.opcode not in ("bra", "ret", "exit") or last.guard is not None:
        following.append(end)
    return following


def _uses(instruction: Instruction) -> tuple[list[str], list[str]]:
    """Registers that an instruction reads, and those that it writes."""
    reads: list[str] = [] if instruction.guard is None else [instruction.guard.name]
    if instruction.opcode in _NO_RESULT and "red" not in instruction.modifiers:
        return reads + _names(instruction.operands), []
    target, *sources = instruction.operands or (None,)
    writes = [] if target is None or isinstance(target, Address) else _names((target,))
    return reads + _names(sources), writes


def _names(operands: Iterable[Operand]) -> list[str]:
    names: list[str] = []
    for operand in operands:
        if isinstance(operand, Register):
            names.append(operand.name)
        elif isinstance(operand, Vector):
            names += _names(operand.elements)
        elif isinstance(operand, Pair):
            names += _names((operand.first, operand.second))
        elif isinstance(operand, Negated):
            names.append(operand.predicate.name)
        elif isinstance(operand, Address):
            names += _names((operand.base,))
    return names
