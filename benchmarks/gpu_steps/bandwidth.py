"""Step: how close each kernel comes to the speed at which this GPU copies memory, which is what bounds it."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, get_args

import torch
from torch import Tensor

from gpu_steps import exact
from gpu_steps.kernels import DTYPES, REAL, TINY, Size, launcher_for
from gpu_steps.results import Context
from minet_sdk.kernels import launches
from minet_sdk.kernels.launches import Element, Launch, Layout
from minet_sdk.kernels.torch_launch import Launcher

COPY_BYTES = 1 << 30
ROTATED_BYTES = 1 << 29
"""Memory that launches rotate over, several times what any cache holds."""

REPEATS = 30
HEAD_START_BYTES = 1 << 28
HEAD_START_COPIES = 40
"""That keep the device busy while launches queue up: a launch takes longer than some of the kernels."""


@dataclass(frozen=True)
class Work:
    """One launch over several copies of its memory."""

    launch: Launch
    inputs: Sequence[Sequence[Tensor]]
    outputs: Sequence[Tensor]
    moved_bytes: int
    """Each input read once, the output written once."""


def run(context: Context) -> None:
    """Copy first, then every kernel that touches features or weights."""
    launch = launcher_for(context)
    copy_rate = _copy_rate(context)
    context.record("copy_gb_s", copy_rate / 1e9)
    sizes = TINY[:1] if context.tiny else REAL
    for size, element, layout in product(sizes, get_args(Element), get_args(Layout)):
        if size != REAL[0] and element != "f16" and not context.tiny:
            continue
        what = f"{size} {element} {layout}"
        with context.attempt(what):
            for name, work in _works(context, size, element, layout).items():
                seconds = _seconds(context, _calls(launch, work))
                rate = work.moved_bytes / seconds
                measured = {"microseconds": 1e6 * seconds, "gb_s": rate / 1e9, "share_of_copy": rate / copy_rate}
                context.record(f"kernels/{what}/{name}", measured)


def _copy_rate(context: Context) -> float:
    """Bytes read and written a second."""
    source = torch.ones((1 << 12 if context.tiny else COPY_BYTES) // 4, device=context.device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _seconds(context, [lambda: target.copy_(source)])


def _works(context: Context, size: Size, element: Element, layout: Layout) -> dict[str, Work]:
    """The four kernels on one problem."""
    splits = 2 if context.tiny else launches.SPLITS
    shape = (size.batch, size.stages * size.channels, size.height, size.width)
    one = exact.random_features(shape, DTYPES[element], context.device, layout)
    copies = 1 if context.tiny else max(2, -(-ROTATED_BYTES // one.nbytes))
    features = [one, *(one.clone() for _ in range(copies - 1))]
    partials = torch.rand((size.batch, splits, size.stages, size.stages), device=context.device)
    mixing = torch.rand((size.batch, size.stages, size.stages), device=context.device)
    weight = exact.random_features((size.channels, shape[1], 3, 3), DTYPES[element], context.device, "linear")
    sizes: dict[str, Any] = {"stages": size.stages, "batch": size.batch, "channels": size.channels}
    sizes["pixels"] = size.height * size.width
    affinity = launches.affinity("cosine", stages=size.stages, batch=size.batch, splits=splits)
    fold = launches.fold(
        element, stages=size.stages, batch=size.batch, outputs=size.channels, inner=size.channels * 9
    )  # fmt: skip
    mixed = torch.empty_like(one)
    folded = weight.new_empty((size.batch, *weight.shape))
    return {
        "gram": Work(
            launches.gram(element, layout, splits=splits, **sizes),
            [[f] for f in features],
            [partials],
            one.nbytes + partials.nbytes,
        ),
        "affinity": Work(affinity, [[partials]], [mixing], partials.nbytes + mixing.nbytes),
        "mix": Work(launches.mix(element, layout, **sizes), [[f, mixing] for f in features], [mixed], 2 * one.nbytes),
        "fold": Work(fold, [[weight, mixing]], [folded], weight.nbytes + folded.nbytes),
    }


def _calls(launch: Launcher, work: Work) -> list[Callable[[], object]]:
    return [lambda inputs=inputs: launch(work.launch, inputs, work.outputs) for inputs in work.inputs]


def _seconds(context: Context, calls: Sequence[Callable[[], object]]) -> float:
    """Median device time of one call; the calls take turns, and the first round does not count."""
    if context.tiny:
        started = time.perf_counter()
        calls[0]()
        return time.perf_counter() - started
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(REPEATS)]
    for call in calls:
        call()
    torch.cuda.synchronize()
    waiting = torch.empty(HEAD_START_BYTES, dtype=torch.uint8, device=context.device)
    for _ in range(HEAD_START_COPIES):
        waiting.clone()
    for number, (before, after) in enumerate(events):
        before.record()
        calls[number % len(calls)]()
        after.record()
    torch.cuda.synchronize()
    return 1e-3 * statistics.median(before.elapsed_time(after) for before, after in events)
