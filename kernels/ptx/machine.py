"""Several CTAs from start to end: their lanes, their shared memory, their turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minet_sdk.kernels.ptx.barriers import Meeting
from minet_sdk.kernels.ptx.errors import PtxError
from minet_sdk.kernels.ptx.execution import Execution
from minet_sdk.kernels.ptx.global_memory import GlobalMemory
from minet_sdk.kernels.ptx.lanes import WARP, Lanes, Mask
from minet_sdk.kernels.ptx.memory import Slab
from minet_sdk.kernels.ptx.program import Program
from minet_sdk.kernels.ptx.races import stamps
from minet_sdk.kernels.ptx.rounding import Value

Index = npt.NDArray[np.int64]
Size = tuple[int, int, int]
"""Along x, y, z."""


@dataclass(frozen=True)
class Setting:
    """What all CTAs of a launch have in common.

    Attributes:
        program: what runs.
        grid: number of CTAs.
        block: number of threads of a CTA.
        parameters: the kernel's parameter memory.
        memory: global memory.
        dynamic_bytes: of ``extern .shared`` memory.
        groups: warps that run together, in the order of their turns.
        executed: instructions that some lane has executed; filled here.
        step_limit: instructions that a set of warps may take.
    """

    program: Program
    grid: Size
    block: Size
    parameters: bytes
    memory: GlobalMemory
    dynamic_bytes: int
    groups: list[range]
    executed: Mask
    step_limit: int

    @property
    def threads(self) -> int:
        """Of one CTA."""
        return self.block[0] * self.block[1] * self.block[2]


class Machine:
    """One batch of CTAs.

    Args:
        setting: of the launch.
        ctas: numbers of the CTAs, x fastest.
    """

    def __init__(self, setting: Setting, ctas: Index) -> None:
        self._setting = setting
        self._ctas = ctas
        layout, steps = setting.program.layout, len(setting.program.steps)
        pieces = layout.pieces("shared", setting.dynamic_bytes)
        self._shared = Slab("shared memory", ctas.size, pieces, layout.granules["shared"])
        self._epoch = np.zeros(ctas.size, np.int64)
        self._reached, self._taken = np.zeros(steps, bool), np.zeros(steps, bool)
        self._runs = [self._execution(group) for group in setting.groups]
        self._meeting = Meeting(setting.program, self._runs, ctas.size)

    def run(self) -> int:
        """Run all threads to their end.

        Returns:
            Instructions executed, summed over threads.

        Raises:
            PtxError: with line, CTA and thread.
        """
        try:
            while True:
                for run in self._runs:
                    self._turn(run)
                if all(run.finished for run in self._runs):
                    return sum(run.thread_instructions for run in self._runs)
                met = self._meeting.hold()
                if not met.any():
                    run, lane, error = self._meeting.stuck()
                    raise self._placed(error, run, lane)
                self._advance(met)
        finally:
            executed = self._setting.executed
            executed |= np.where(self._setting.program.guarded, self._taken, self._reached)

    def _execution(self, group: range) -> Execution:
        """A set of warps of all CTAs at their start."""
        setting, layout = self._setting, self._setting.program.layout
        threads = np.arange(group.start * WARP, group.stop * WARP)
        block = np.repeat(np.arange(self._ctas.size), threads.size)
        thread = np.tile(threads, self._ctas.size)
        pieces = layout.pieces("local")
        lanes = Lanes(
            widths=setting.program.widths,
            specials=self._specials(self._ctas[block], thread),
            block=block,
            parameters=setting.parameters,
            memory=setting.memory,
            shared=self._shared,
            local=Slab("local memory", thread.size if pieces else 1, pieces, None),
            taken=self._taken,
        )
        lanes.stamp = stamps(self._ctas[block], self._epoch[block], thread // WARP)
        alive = thread < setting.threads
        return Execution(setting.program, lanes, group, alive, self._reached, setting.step_limit)

    def _specials(self, cta: Index, thread: Index) -> dict[str, Value]:
        """Predefined registers; those that are the same everywhere as scalars."""
        setting = self._setting
        bit = np.uint32(1) << (thread % WARP).astype(np.uint32)
        below = bit - np.uint32(1)
        specials: dict[str, Value] = {
            "%laneid": (thread % WARP).astype(np.uint32),
            "%warpid": (thread // WARP).astype(np.uint32),
            "%nwarpid": np.uint32(-(-setting.threads // WARP)),
            "%lanemask_eq": bit,
            "%lanemask_lt": below,
            "%lanemask_le": below | bit,
            "%lanemask_gt": ~(below | bit),
            "%lanemask_ge": ~below,
            "%dynamic_smem_size": np.uint32(setting.dynamic_bytes),
            "%total_smem_size": np.uint32(setting.dynamic_bytes + setting.program.kernel.shared_bytes),
        }
        for name, number, size in (("tid", thread, setting.block), ("ctaid", cta, setting.grid)):
            for axis, index, extent in zip("xyz", _unravel(number, size), size, strict=True):
                specials[f"%{name}.{axis}"] = index.astype(np.uint32) if extent > 1 else np.uint32(0)
                specials[f"%n{name}.{axis}"] = np.uint32(extent)
        return specials

    def _turn(self, run: Execution) -> None:
        try:
            run.run()
        except PtxError as error:
            if error.lane is None:
                raise
            raise self._placed(error, run, error.lane) from None

    def _placed(self, error: PtxError, run: Execution, lane: int) -> PtxError:
        """The error with CTA and thread of the lane that caused it."""
        cta, thread = divmod(lane, len(run.group) * WARP)
        error.cta = _unravel(int(self._ctas[cta]), self._setting.grid)
        error.thread = _unravel(run.group.start * WARP + thread, self._setting.block)
        return error

    def _advance(self, ctas: Mask) -> None:
        """Accesses before and after a barrier are not in each other's way."""
        self._epoch += ctas
        for run in self._runs:
            block = run.lanes.block
            warp = run.group.start + np.arange(run.lanes.count) // WARP % len(run.group)
            run.lanes.stamp = stamps(self._ctas[block], self._epoch[block], warp)


def _unravel(number: Any, size: Size) -> tuple[Any, Any, Any]:
    return number % size[0], number // size[0] % size[1], number // (size[0] * size[1])
