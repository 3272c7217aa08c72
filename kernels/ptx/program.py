"""A kernel made ready to run: every instruction decoded once, control flow apart from what computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from minet_sdk.kernels.ptx.errors import DivergenceError, UnsupportedError
from minet_sdk.kernels.ptx.formats import FORMATS
from minet_sdk.kernels.ptx.instructions import build
from minet_sdk.kernels.ptx.lanes import IncompleteWarp, Lanes, Mask
from minet_sdk.kernels.ptx.layout import Layout
from minet_sdk.kernels.ptx.modifiers import Modifiers
from minet_sdk.kernels.ptx.operands import Decoder, Reader, Step, Writer
from minet_sdk.kernels.ptx.registers import unproven_reads
from minet_sdk.kernels.ptx.rounding import Value
from minet_sdk.kernels.ptx.syntax import Instruction, Kernel, Label

Guard = Callable[[Lanes], Value]


@dataclass(frozen=True)
class Branch:
    """``bra``; without a guard, every lane goes."""

    target: int
    guard: Guard | None


@dataclass(frozen=True)
class Exit:
    """``ret`` and ``exit``."""

    guard: Guard | None


@dataclass(frozen=True)
class Vote:
    """What ``bar.red`` adds to a barrier.

    Attributes:
        predicate: what each thread contributes.
        combine: ``and``, ``or`` or ``popc``.
        write: takes the result.
    """

    predicate: Reader
    combine: str
    write: Writer


@dataclass(frozen=True)
class Barrier:
    """``bar`` and ``barrier`` of a CTA.

    Attributes:
        number: which of the 16 barriers.
        count: threads to wait for, or None for the whole CTA.
        vote: of ``.red``.
    """

    number: Reader
    count: Reader | None
    vote: Vote | None


Control = Branch | Exit | Barrier


class Program:
    """A decoded kernel.

    Attributes:
        kernel: what this was made from.
        layout: of its memory.
        widths: bits of each register, by slot.
        steps: one per instruction; those of control flow never run.
        controls: instructions that decide who runs next.
        ends: for every instruction, the next one that is in ``controls``, or the end.
        unsupported: instructions that cannot be executed, and why; a thread that reaches one fails.
        guarded: instructions that count as executed only if their guard held for some lane.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.layout = Layout(kernel)
        self.controls: dict[int, Control] = {}
        self.unsupported: dict[int, str] = {}
        self._decoder = Decoder(kernel.registers, self.layout, unproven_reads(kernel))
        self.widths = self._decoder.widths
        self.steps = [self._step(index, instruction) for index, instruction in enumerate(kernel.instructions)]
        self.guarded: Mask = np.array([instruction.guard is not None for instruction in kernel.instructions], bool)
        self.guarded[list(self.controls)] = False
        self.ends: list[int] = []
        end = len(self.steps)
        for index in reversed(range(len(self.steps))):
            end = index if index in self.controls else end
            self.ends.append(end)
        self.ends.reverse()

    def _step(self, index: int, instruction: Instruction) -> Step:
        self._decoder.at(index, instruction)
        try:
            control = self._control(instruction)
            if control is None:
                return self._guarded(index, instruction, build(self._decoder, instruction))
            self.controls[index] = control
            return _refusal("control flow has no step")
        except UnsupportedError as error:
            self.unsupported[index] = error.message
            return self._guarded(index, instruction, _refusal(error.message))

    def _control(self, instruction: Instruction) -> Control | None:
        modifiers = Modifiers(instruction)
        if instruction.opcode in ("bar", "barrier") and "warp" not in instruction.modifiers:
            return self._barrier(instruction, modifiers)
        if instruction.opcode not in ("bra", "ret", "exit"):
            return None
        modifiers.flag("uni")
        modifiers.done()
        guard = self._guard(instruction)
        if instruction.opcode != "bra":
            return Exit(guard)
        if len(instruction.operands) != 1 or not isinstance(label := instruction.operands[0], Label):
            raise UnsupportedError("the target of a branch is a label")
        return Branch(label.index, guard)

    def _barrier(self, instruction: Instruction, modifiers: Modifiers) -> Barrier:
        if instruction.guard is not None:
            raise UnsupportedError("a barrier with a guard")
        modifiers.flag("cta", "aligned")
        u32, vote, operands = FORMATS["u32"], None, list(instruction.operands)
        if modifiers.choice(("sync", "red")) == "red":
            form = modifiers.form()
            combine = modifiers.choice(("and", "or", "popc"))
            target, *operands, predicate = operands
            vote = Vote(self._decoder.source(predicate, FORMATS["pred"]), combine, self._decoder.target(target, form))
        modifiers.done()
        if not 1 <= len(operands) <= 2:
            raise UnsupportedError("expected the number of the barrier and at most one count")
        number, *count = (self._decoder.source(operand, u32) for operand in operands)
        return Barrier(number, count[0] if count else None, vote)

    def _guard(self, instruction: Instruction) -> Guard | None:
        if instruction.guard is None:
            return None
        read = self._decoder.raw(instruction.guard)
        return (lambda lanes: ~read(lanes)) if instruction.negated else read

    def _guarded(self, index: int, instruction: Instruction, step: Step) -> Step:
        """The step, for those lanes only whose guard holds."""
        guard = self._guard(instruction)
        if guard is None:
            return step

        def guarded(lanes: Lanes) -> None:
            holds = guard(lanes)
            if not lanes.any(holds):
                return
            lanes.taken[index] = True
            if holds.all():
                step(lanes)
                return
            with lanes.only(holds):
                try:
                    step(lanes)
                except IncompleteWarp:
                    raise DivergenceError(
                        "the guard of an instruction of a whole warp holds for a part of it only", lane=lanes.first()
                    ) from None

        return guarded


def _refusal(message: str) -> Step:
    def refuse(lanes: Lanes) -> None:
        raise UnsupportedError(message, lane=lanes.first())

    return refuse


@lru_cache(maxsize=64)
def program_of(kernel: Kernel) -> Program:
    """The program of a kernel, decoded once."""
    return Program(kernel)


def unsupported(kernel: Kernel) -> list[tuple[Instruction, str]]:
    """Instructions of a kernel that cannot be executed, and why; a launch fails only if a thread reaches one."""
    return [(kernel.instructions[index], reason) for index, reason in program_of(kernel).unsupported.items()]
