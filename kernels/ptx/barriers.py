"""Where the warps of a CTA meet: who may go on from a barrier, and who waits for something that never comes.

A barrier for all threads is one instruction that all threads come to that have not ended, as CUDA asks of
``__syncthreads``. A barrier for a number of threads has a number of its own, and its warps may come from anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from minet_sdk.kernels.ptx.errors import BarrierError
from minet_sdk.kernels.ptx.execution import Execution
from minet_sdk.kernels.ptx.lanes import WARP, Mask
from minet_sdk.kernels.ptx.program import Barrier, Program, Vote

Index = npt.NDArray[np.int64]


class Meeting:
    """The barriers of several CTAs that run together.

    Args:
        program: what they run.
        runs: all of their warps.
        ctas: how many.
    """

    def __init__(self, program: Program, runs: Sequence[Execution], ctas: int) -> None:
        self._program = program
        self._runs = runs
        self._ctas = ctas

    def hold(self) -> Mask:
        """Let everybody go on who may.

        Returns:
            The CTAs in which someone did.
        """
        index = self._common()
        if index is not None:
            self._release(index, [None for _ in self._runs], self._barrier(index).vote)
            return np.ones(self._ctas, bool)
        released = np.zeros(self._ctas, bool)
        places = [self._places(run) for run in self._runs]
        for index in sorted({index for run in self._runs for index in run.waiting}):
            if self._barrier(index).count is None:
                released |= self._meet_all(index, places)
        released |= self._meet_counted(places)
        return released

    def _common(self) -> int | None:
        """The one barrier that every thread of every CTA waits at, which is the usual case."""
        places = {index for run in self._runs for index in run.waiting}
        if len(places) != 1 or any(mask is not None for run in self._runs for mask in run.waiting.values()):
            return None
        index = places.pop()
        complete = all(run.waiting for run in self._runs) and self._barrier(index).count is None
        return index if complete else None

    def stuck(self) -> tuple[Execution, int, BarrierError]:
        """A set of warps, one of its lanes that waits in vain, and the error that says so."""
        places = [self._places(run) for run in self._runs]
        run, at = next((run, at) for run, at in zip(self._runs, places, strict=True) if (at >= 0).any())
        lane = int(np.argmax(at >= 0))
        cta = run.lanes.block[lane]
        lines = sorted(
            {
                self._program.kernel.instructions[int(index)].line
                for other, there in zip(self._runs, places, strict=True)
                for index in np.unique(there[(other.lanes.block == cta) & (there >= 0)])
            }
        )
        reason = "for more threads than ever come"
        if len(lines) > 1:
            reason = f"at different barriers, those of lines {', '.join(map(str, lines))}"
        error = BarrierError(f"the threads of this CTA wait {reason}", lane=lane)
        instruction = self._program.kernel.instructions[int(at[lane])]
        error.line, error.instruction = instruction.line, instruction.name
        return run, lane, error

    def _barrier(self, index: int) -> Barrier:
        control = self._program.controls[index]
        assert isinstance(control, Barrier)
        return control

    def _places(self, run: Execution) -> Index:
        """Barrier at which each lane waits, -1 for those that have ended."""
        at = np.full(run.lanes.count, -1)
        for index, mask in run.waiting.items():
            at[slice(None) if mask is None else mask] = index
        return at

    def _meet_all(self, index: int, places: list[Index]) -> Mask:
        """CTAs all of whose threads are at this barrier."""
        here, others = np.zeros(self._ctas, np.int64), np.zeros(self._ctas, np.int64)
        for run, at in zip(self._runs, places, strict=True):
            here += np.bincount(run.lanes.block[at == index], minlength=self._ctas)
            others += np.bincount(run.lanes.block[(at != index) & ~run.exited], minlength=self._ctas)
        complete = (here > 0) & (others == 0)
        if complete.any():
            masks = [(at == index) & complete[run.lanes.block] for run, at in zip(self._runs, places, strict=True)]
            self._release(index, masks, self._barrier(index).vote)
        return complete

    def _meet_counted(self, places: list[Index]) -> Mask:
        """CTAs with a barrier for a number of threads at which so many are."""
        counted = {index for run in self._runs for index in run.waiting if self._barrier(index).count is not None}
        released = np.zeros(self._ctas, bool)
        if not counted:
            return released
        numbers = [np.full(run.lanes.count, -1) for run in self._runs]
        expected = np.zeros(self._ctas, np.int64)
        for index in counted:
            barrier = self._barrier(index)
            assert barrier.count is not None
            for run, at, number in zip(self._runs, places, numbers, strict=True):
                number[at == index] = run.lanes.full(barrier.number(run.lanes))[at == index]
        for number in np.unique(np.concatenate(numbers)):
            if number < 0:
                continue
            expected[:] = 0
            present = np.zeros(self._ctas, np.int64)
            for run, at, which in zip(self._runs, places, numbers, strict=True):
                here = which == number
                whole = (here | run.exited).reshape(-1, WARP).all(axis=1) & here.reshape(-1, WARP).any(axis=1)
                present += WARP * np.bincount(run.lanes.block[::WARP][whole], minlength=self._ctas)
                for index in counted:
                    count: Any = self._barrier(index).count
                    mask = here & (at == index)
                    np.maximum.at(expected, run.lanes.block[mask], run.lanes.full(count(run.lanes))[mask])
            complete = (present > 0) & (present >= expected)
            for index in sorted(counted):
                masks = [
                    (which == number) & (at == index) & complete[run.lanes.block]
                    for run, at, which in zip(self._runs, places, numbers, strict=True)
                ]
                self._release(index, masks, self._barrier(index).vote)
            released |= complete
        return released

    def _release(self, index: int, masks: Sequence[Mask | None], vote: Vote | None) -> None:
        if vote is not None:
            self._count(
                vote, [np.ones(r.lanes.count, bool) if m is None else m for r, m in zip(self._runs, masks, strict=True)]
            )
        for run, mask in zip(self._runs, masks, strict=True):
            if mask is None or mask.any():
                run.release(index, mask)

    def _count(self, vote: Vote, masks: Sequence[Mask]) -> None:
        """Combine the predicates of each CTA and hand the result to its threads."""
        votes, present = np.zeros(self._ctas, np.int64), np.zeros(self._ctas, np.int64)
        for run, mask in zip(self._runs, masks, strict=True):
            run.lanes.mask = mask
            if mask.any():
                yes = run.lanes.full(vote.predicate(run.lanes)) & mask
                votes += np.bincount(run.lanes.block[yes], minlength=self._ctas)
                present += np.bincount(run.lanes.block[mask], minlength=self._ctas)
        result = {"popc": votes.astype(np.uint32), "and": votes == present, "or": votes > 0}[vote.combine]
        for run, mask in zip(self._runs, masks, strict=True):
            run.lanes.mask = mask
            vote.write(run.lanes, result[run.lanes.block])
