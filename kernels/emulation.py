"""The shipped kernels on a machine without a GPU: a `Launch` run by the PTX interpreter over NumPy arrays.

Slow and strict, for tests and for looking into a kernel; `minet_sdk.kernels.reference` is the plain arithmetic.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from minet_sdk.kernels import launches
from minet_sdk.kernels.binaries import Target, ptx
from minet_sdk.kernels.launches import SLOTS, SPLITS, Element, Launch, Layout, Mode
from minet_sdk.kernels.ptx import Coverage, In, Module, Out, launch, parse

Array = npt.NDArray[Any]


@cache
def module(target: Target) -> Module:
    """The shipped PTX of a target, parsed once."""
    return parse(ptx(target))


def run(
    plan: Launch,
    inputs: Sequence[Array],
    output: Array,
    *,
    kernels: Module | None = None,
    schedule: Any = "lockstep",
    cta_order: Any = "forward",
    coverage: Coverage | None = None,
) -> None:
    """Run one launch.

    Args:
        plan: what to launch.
        inputs: arrays in the order of the kernel's arguments; bfloat16 as `ml_dtypes.bfloat16`.
        output: written completely.
        kernels: parsed PTX; without it the shipped one for sm80.
        schedule: of warps, see the interpreter.
        cta_order: of CTAs, see the interpreter.
        coverage: notes the instructions that ran.

    Raises:
        PtxError: the kernel did something that is wrong on a GPU.
    """
    kernel = (kernels or module("sm80"))[plan.entry]
    arguments = (*(In(array) for array in inputs), *plan.integers, Out(output))
    launch(
        kernel,
        grid=plan.grid,
        block=plan.block,
        arguments=arguments,
        schedule=schedule,
        cta_order=cta_order,
        coverage=coverage,
    )


def arranged(features: Array, layout: Layout, *, separate: bool = False) -> list[Array]:
    """Stage features as the arrays that the kernels take: one, or one for each of 32 pointers.

    Args:
        features: (N, M, C, H, W).
        layout: of the arrays.
        separate: one array per stage.
    """
    if not separate:
        moved = features if layout == "linear" else features.transpose(0, 3, 4, 1, 2)
        return [np.ascontiguousarray(moved)]
    moved = features if layout == "linear" else features.transpose(0, 1, 3, 4, 2)
    stages = [np.ascontiguousarray(moved[:, stage]) for stage in range(features.shape[1])]
    return stages + stages[:1] * (SLOTS - len(stages))


def restored(stacked: Array, layout: Layout) -> Array:
    """Inverse of `arranged` for one stacked array: (N, M, C, H, W)."""
    return stacked if layout == "linear" else np.ascontiguousarray(stacked.transpose(0, 3, 4, 1, 2))


def integrate(
    features: Array,
    element: Element,
    mode: Mode,
    *,
    layout: Layout = "linear",
    separate: bool = False,
    splits: int = SPLITS,
    temperature: float = 1.0,
    gain: float = 1.0,
    target: Target = "sm80",
) -> Array:
    """H = A F by the three kernels one after the other.

    Args:
        features: (N, M, C, H, W) in the element's type.
        element: format of the features.
        mode: of the affinity.
        layout: that the features are brought into.
        separate: hand the stages over one by one.
        splits: of the Gram sum; the product uses the default.
        temperature: of ``cosine``.
        gain: factor of the softmax.
        target: whose PTX.

    Returns:
        Shape and type of ``features``.

    Raises:
        InputError: a size that the kernels do not take.
        PtxError: a kernel did something that is wrong on a GPU.
    """
    batch, stages, channels, height, width = features.shape
    sizes = {"stages": stages, "batch": batch, "channels": channels, "pixels": height * width}
    arrays, kernels = arranged(features, layout, separate=separate), module(target)
    partials = np.empty((batch, splits, stages, stages), np.float32)
    run(launches.gram(element, layout, **sizes, splits=splits, separate=separate), arrays, partials, kernels=kernels)
    mixing = np.empty((batch, stages, stages), np.float32)
    plan = launches.affinity(mode, stages=stages, batch=batch, splits=splits, temperature=temperature, gain=gain)
    run(plan, [partials], mixing, kernels=kernels)
    mixed = np.empty_like(arranged(features, layout)[0])
    run(launches.mix(element, layout, **sizes, separate=separate), [*arrays, mixing], mixed, kernels=kernels)
    return restored(mixed, layout)
