"""Launching a kernel: the one call that takes a kernel, a grid, a block and arguments, and runs it to its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from minet_sdk.kernels.ptx.arguments import Argument, Arguments
from minet_sdk.kernels.ptx.coverage import Coverage
from minet_sdk.kernels.ptx.errors import ArgumentError, PtxError
from minet_sdk.kernels.ptx.lanes import WARP
from minet_sdk.kernels.ptx.machine import Machine, Setting, Size
from minet_sdk.kernels.ptx.memory import stride
from minet_sdk.kernels.ptx.program import program_of
from minet_sdk.kernels.ptx.schedule import CtaOrder, Schedule, ctas_at_once, ordered_ctas, warp_groups
from minet_sdk.kernels.ptx.syntax import Kernel

MOST_THREADS = 1024
MOST_BLOCK = (1024, 1024, 64)
MOST_GRID = (2**31 - 1, 65535, 65535)
STEP_LIMIT = 50_000_000
"""Instructions that threads which run together may take before a launch counts as hanging."""


@dataclass(frozen=True)
class Statistics:
    """What a launch did.

    Attributes:
        ctas: number of CTAs.
        thread_instructions: instructions executed, summed over threads.
        seconds: wall time.
    """

    ctas: int
    thread_instructions: int
    seconds: float


def launch(
    kernel: Kernel,
    grid: int | Sequence[int],
    block: int | Sequence[int],
    arguments: Sequence[Argument],
    *,
    shared_bytes: int = 0,
    schedule: Schedule = "lockstep",
    cta_order: CtaOrder = "forward",
    coverage: Coverage | None = None,
    step_limit: int = STEP_LIMIT,
) -> Statistics:
    """Run a kernel on all threads of a grid.

    Args:
        kernel: from `parse`.
        grid: number of CTAs, as one to three sizes x, y, z.
        block: number of threads of a CTA, likewise.
        arguments: one per kernel parameter; arrays as `In`, `Out` or `InOut`.
        shared_bytes: size of ``extern .shared`` memory.
        schedule: ``lockstep`` runs all warps together; ``forward`` and ``reverse`` run one warp after the other from
            barrier to barrier, the first or the last one first.
        cta_order: ``forward``, ``reverse``, or the seed of a random order in which CTAs start.
        coverage: takes the instructions that were executed, of a failed launch too.
        step_limit: instructions that threads which run together may take.

    Returns:
        Counts and time.

    Raises:
        ArgumentError: grid, block or arguments do not fit the kernel.
        PtxError: of the kind that says what a thread did wrong, with entry, line, CTA and thread.
    """
    started = time.perf_counter()
    try:
        grid_size, block_size = _size("grid", grid, MOST_GRID), _size("block", block, MOST_BLOCK)
        _check_block(kernel, block_size)
        program = program_of(kernel)
        laid_out = Arguments(kernel, program.layout, arguments)
        warps = -(-prod(block_size) // WARP)
        setting = Setting(
            program=program,
            grid=grid_size,
            block=block_size,
            parameters=laid_out.parameters,
            memory=laid_out.memory,
            dynamic_bytes=shared_bytes,
            groups=warp_groups(schedule, warps),
            executed=np.zeros(len(program.steps), bool),
            step_limit=step_limit,
        )
        shared, local = program.layout.pieces("shared", shared_bytes), program.layout.pieces("local")
        bytes_each = stride(shared) + (stride(local) * prod(block_size) if local else 0)
        together = ctas_at_once(schedule, warps, bytes_each)
        order = ordered_ctas(cta_order, prod(grid_size))
        executed = 0
        try:
            for start in range(0, order.size, together):
                executed += Machine(setting, order[start : start + together]).run()
        finally:
            if coverage is not None:
                coverage.add(kernel, setting.executed)
        laid_out.finish()
    except PtxError as error:
        error.entry = kernel.name
        raise
    return Statistics(order.size, executed, time.perf_counter() - started)


def _size(name: str, value: int | Sequence[int], most: Size) -> Size:
    given = (value,) if isinstance(value, int) else tuple(value)
    x, y, z = (*given, 1, 1, 1)[:3]
    if not 1 <= len(given) <= 3 or not all(1 <= size <= bound for size, bound in zip((x, y, z), most, strict=True)):
        raise ArgumentError(f"{name} is {value}; expected one to three sizes from 1 to {most}")
    return x, y, z


def _check_block(kernel: Kernel, block: Size) -> None:
    most = min(kernel.most_threads or MOST_THREADS, MOST_THREADS)
    if prod(block) > most:
        raise ArgumentError(f"block {block} has {prod(block)} threads; this kernel takes at most {most}")
    if kernel.exact_block not in (None, block):
        raise ArgumentError(f"block is {block}; this kernel takes {kernel.exact_block} only")
