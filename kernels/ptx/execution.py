"""Running a set of lanes through a program: diverged lanes wait at their instruction, the lowest one goes first.

Lanes that reach the same instruction run together again. A set runs until all of its lanes wait at a barrier or have
ended.
"""

from __future__ import annotations

import numpy as np

from minet_sdk.kernels.ptx.errors import DivergenceError, HangError, PtxError
from minet_sdk.kernels.ptx.lanes import IncompleteWarp, Lanes, Mask
from minet_sdk.kernels.ptx.program import Barrier, Branch, Exit, Guard, Program


class Execution:
    """The way of a set of lanes through a program; wherever a mask is None, it stands for all lanes.

    Args:
        program: what runs.
        lanes: who runs.
        group: which warps of each CTA these are.
        alive: lanes that exist; those beyond the end of a block do not.
        reached: instructions that were reached; filled here.
        limit: instructions that the set may take.

    Attributes:
        waiting: index of a barrier -> lanes that wait there.
        exited: lanes that have ended.
        thread_instructions: instructions executed, summed over lanes.
    """

    def __init__(self, program: Program, lanes: Lanes, group: range, alive: Mask, reached: Mask, limit: int) -> None:
        self.lanes = lanes
        self.group = group
        self.exited = ~alive
        self.waiting: dict[int, Mask | None] = {}
        self.thread_instructions = 0
        self._program = program
        self._reached = reached
        self._left = limit
        self._pending: dict[int, Mask | None] = {0: None if alive.all() else alive}
        self._parked: dict[int, Mask] = {}

    @property
    def finished(self) -> bool:
        """Whether every lane has ended."""
        return not self._pending and not self.waiting

    def release(self, index: int, mask: Mask | None) -> None:
        """Let lanes that wait at the barrier at ``index`` go on behind it."""
        waiting = self.waiting.pop(index)
        if mask is None:
            self._add(index + 1, waiting)
            return
        staying = ~mask if waiting is None else waiting & ~mask
        if staying.any():
            self.waiting[index] = staying
        self._add(index + 1, mask if waiting is None else waiting & mask)

    def run(self) -> None:
        """Run until nobody can go on.

        Raises:
            PtxError: a thread did something wrong; the error carries the lane and the instruction.
        """
        with np.errstate(all="ignore"):
            while self._pending:
                index = min(self._pending)
                mask = self._pending.pop(index)
                if mask is not None and index in self._parked:
                    mask = mask | self._parked.pop(index)
                self._run_from(index, mask)
        if self._parked:
            index = min(self._parked)
            message = "an instruction of a whole warp is reached by a part of it only"
            raise self._blamed(DivergenceError(message, lane=int(np.argmax(self._parked[index]))), index)

    def _add(self, index: int, mask: Mask | None) -> None:
        """Lanes that are to run from ``index``."""
        if mask is not None:
            other = self._pending.get(index)
            mask = mask if other is None else mask | other
            mask = None if mask.all() else mask
        self._pending[index] = mask

    def _run_from(self, index: int, mask: Mask | None) -> None:
        """Run lanes until they part, wait, end, or come to where others are."""
        lanes, steps, ends = self.lanes, self._program.steps, self._program.ends
        lanes.mask = mask
        active = lanes.count if mask is None else int(np.count_nonzero(mask))
        while index < len(steps):
            stop = min((at for at in (*self._pending, *self._parked) if at > index), default=len(steps))
            end = min(ends[index], stop)
            at = index
            try:
                for at in range(index, end):
                    steps[at](lanes)
            except IncompleteWarp as incomplete:
                self._account(index, at, active)
                self._park(at, lanes.active(), incomplete.ready)
                return
            except PtxError as error:
                self._account(index, at, active)
                raise self._blamed(error, at) from None
            self._account(index, end, active)
            if end == stop < len(steps):
                self._add(end, mask)
                return
            if end == len(steps):
                break
            self._account(end, end + 1, active)
            following = self._control(end, mask, active)
            if following is None:
                return
            index = following
            if index in self._parked or (self._pending and min(self._pending) <= index):
                self._add(index, mask)
                return
        self._exit(mask)

    def _account(self, start: int, end: int, active: int) -> None:
        """Note what was executed."""
        self._reached[start:end] = True
        self.thread_instructions += active * (end - start)
        self._left -= end - start
        if self._left < 0:
            message = "step_limit is exceeded: the kernel waits for what never comes, or the limit is too small for it"
            raise self._blamed(HangError(message, lane=self.lanes.first()), start)

    def _park(self, index: int, mask: Mask, ready: Mask) -> None:
        """Lanes whose warp is not complete wait here; the others execute the instruction."""
        waiting = mask & ~ready
        self._parked[index] = self._parked[index] | waiting if index in self._parked else waiting
        if not ready.any():
            return
        self.lanes.mask = ready
        try:
            self._program.steps[index](self.lanes)
        except PtxError as error:
            raise self._blamed(error, index) from None
        self._account(index, index + 1, int(np.count_nonzero(ready)))
        self._add(index + 1, ready)

    def _control(self, index: int, mask: Mask | None, active: int) -> int | None:
        """Where the running lanes all go on; None if they part, wait or end."""
        control = self._program.controls[index]
        if isinstance(control, Barrier):
            other = self.waiting.get(index)
            self.waiting[index] = mask if mask is None or other is None else mask | other
            return None
        taken = self._taken(index, control.guard)
        number = active if taken is None else int(np.count_nonzero(taken))
        if number == 0:
            return index + 1
        if number == active:
            if isinstance(control, Branch):
                return control.target
            self._exit(mask)
            return None
        assert taken is not None
        self._add(index + 1, ~taken if mask is None else mask & ~taken)
        if isinstance(control, Exit):
            self._exit(taken)
        else:
            self._add(control.target, taken)
        return None

    def _taken(self, index: int, guard: Guard | None) -> Mask | None:
        """Lanes for which the guard of a branch or exit holds; None if for all that run."""
        if guard is None:
            return None
        try:
            holds = guard(self.lanes)
        except PtxError as error:
            raise self._blamed(error, index) from None
        if holds.ndim == 0:
            return None if holds else np.zeros(self.lanes.count, bool)
        return holds if self.lanes.mask is None else holds & self.lanes.mask

    def _exit(self, mask: Mask | None) -> None:
        self.exited = np.ones_like(self.exited) if mask is None else self.exited | mask

    def _blamed(self, error: PtxError, index: int) -> PtxError:
        """The error with the instruction that caused it."""
        instruction = self._program.kernel.instructions[index]
        error.line, error.instruction = instruction.line, instruction.name
        return error
