"""Who runs when: order of the CTAs, how many of them at once, and whether warps take turns or run in lockstep.

A kernel that is right gives the same result in every order; one that lacks a barrier does not.
"""

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from minet_sdk.kernels.ptx.errors import ArgumentError

Index = npt.NDArray[np.int64]
Schedule = Literal["lockstep", "forward", "reverse"]
"""All warps together, or one after the other from barrier to barrier, first or last one first."""

CtaOrder = Literal["forward", "reverse"] | int
"""Order in which CTAs start; a number is the seed of a random one."""

LANES_AT_ONCE = 16384
"""Threads that run together: as many as keep their registers in a processor's cache."""

BYTES_AT_ONCE = 1 << 27
"""Bound on the shared and local memory of CTAs that run together."""


def warp_groups(schedule: Schedule, warps: int) -> list[range]:
    """Warps of a CTA that run together, in the order in which the groups take their turns.

    Raises:
        ArgumentError: no such schedule.
    """
    if schedule == "lockstep":
        return [range(warps)]
    if schedule not in get_args(Schedule):
        raise ArgumentError(f"schedule {schedule!r}; expected lockstep, forward or reverse")
    groups = [range(warp, warp + 1) for warp in range(warps)]
    return groups if schedule == "forward" else groups[::-1]


def ordered_ctas(order: CtaOrder, count: int) -> Index:
    """Numbers of the CTAs in the order in which they start.

    Raises:
        ArgumentError: no such order.
    """
    if order == "forward":
        return np.arange(count)
    if order == "reverse":
        return np.arange(count)[::-1]
    if isinstance(order, str):
        raise ArgumentError(f"CTA order {order!r}; expected forward, reverse or a seed")
    return np.random.default_rng(order).permutation(count)


def ctas_at_once(schedule: Schedule, warps: int, bytes_each: int) -> int:
    """How many CTAs run together."""
    lanes = 32 * (warps if schedule == "lockstep" else 1)
    return max(1, min(LANES_AT_ONCE // lanes, BYTES_AT_ONCE // max(bytes_each, 1)))
