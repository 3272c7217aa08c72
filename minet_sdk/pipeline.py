"""A target and a reference in, restored slices out: align, restore slice by slice, never lose one.

Reading and aligning, judging and normalising, the network, and what follows it (k-space consistency, writing) work at
the same time, each in a thread of its own (the network in two, where an engine shares its threads well) and a few
slices ahead of the next; slices come out in their order, with the bits that they have one after the other.

Geometry. The restored grid has the target's field of view, as a PACS expects, so its first pixel centre lies
(scale - 1) / 2 fine pixels before the target's. The network lives on the FFT grid, where first pixels coincide. The
target is therefore moved by that fraction of a pixel first, by a linear phase in k-space, where it is band-limited and
the move is exact; the reference, which is sharp, is left as it is wherever it already lies on the restored grid.
"""

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from minet_sdk.errors import BackendError, InputError
from minet_sdk.kspace import Consistency, bicubic, fourier_shift
from minet_sdk.overlap import ahead, spread
from minet_sdk.resample import resample
from minet_sdk.runtime import Runtime
from minet_sdk.slices import Inferred, ReadySlice
from minet_sdk.trust import distrust, median_trust
from minet_sdk.volume import Grid, Volume

Array = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]
"""Called with slices done and slices in all."""

LEAST_COVERAGE = 0.5
"""Part of a target slice that the reference must cover for it to guide the slice."""

INTERPOLATED = "bicubic interpolation instead of the model"
UNGUIDED = "restored without the reference"

_log = logging.getLogger("minet_sdk")


@dataclass(frozen=True)
class Fallback:
    """A slice that the model did not restore, or not with its reference."""

    slice: int
    """Index in the volume, from 0."""

    reason: str
    method: str = INTERPOLATED


@dataclass(frozen=True, eq=False)
class SlicePair:
    """What one slice is restored from."""

    target: Array
    """(H, W) on the FFT grid."""

    reference: Array | None
    """(scale * H, scale * W) on the restored grid; None for single-contrast models."""

    coverage: float
    """Part of the slice that the reference covers."""


Pair = TypeVar("Pair", bound=SlicePair)


@dataclass(frozen=True, eq=False)
class RestoredSlice(Generic[Pair]):
    """One slice of a restored series."""

    index: int
    pair: Pair
    values: Array
    """(scale * H, scale * W)."""

    fallback: Fallback | None
    """Why the model did not restore it, or not with its reference; None if it did."""

    trust: float | None
    """How well the reference fits the target, see `trust.reference_trust`; None where it was not judged."""

    seconds: float
    """That the engine took longer because of it: slices may be restored at the same time."""

    def note(self, *, resampled: bool) -> str:
        """What a reader must know; empty if the model restored the slice from a reference that was not resampled."""
        if self.fallback is not None:
            return f"{self.fallback.method}: {self.fallback.reason}"
        return "reference resampled onto the target's grid" if resampled else ""


@dataclass(frozen=True)
class RestoredVolume:
    """Result of `restore_volume`."""

    volume: Volume
    fallbacks: tuple[Fallback, ...]
    notes: tuple[str, ...]
    """What a reader of each slice must know, see `RestoredSlice.note`."""

    reference_resampled: bool
    """Whether the reference had to be brought onto the restored grid."""

    consistency: Consistency
    """What was done with the measured k-space."""

    tiling: str
    """How the slices were cut; empty if each was restored at once."""

    trust_p50: float | None
    """Median over slices of the trust in the reference; None where it was not judged."""

    seconds: float
    """That the engine took."""


@dataclass(frozen=True, eq=False)
class Guide:
    """A reference on the restored grid."""

    values: Array | None
    """(slices, scale * H, scale * W); None where there is none."""

    coverage: npt.NDArray[np.float64]
    """(slices,) part of each slice that it covers."""

    resampled: bool


def to_fft_grid(values: Array, scale: int) -> Array:
    """Move a low-resolution image so that its first pixel lies on the first pixel of the grid refined by ``scale``.

    Args:
        values: float32 (..., H, W).
        scale: magnification.

    Returns:
        float32, same shape; the content moves (scale - 1) / (2 * scale) pixels towards higher indices.
    """
    return fourier_shift(values, (scale - 1) / (2 * scale)).astype(np.float32, copy=False)


def check_roles(runtime: Runtime, *, has_reference: bool) -> None:
    """Refuse a reference for a single-contrast model, or none for another.

    Raises:
        InputError: so it is.
    """
    needs_reference = runtime.bundle.manifest.needs_reference
    if needs_reference != has_reference:
        wanted = "needs a reference" if needs_reference else "is single-contrast and takes no reference"
        raise InputError(f"model {runtime.bundle.manifest.name} {wanted}")


def guide_on(grid: Grid | None, reference: Volume | None, shape: tuple[int, int, int]) -> Guide:
    """Bring a reference onto the restored grid.

    Args:
        grid: of the restored volume; None for plain arrays.
        reference: the guiding contrast.
        shape: of the restored volume.

    Raises:
        InputError: it has another shape, or covers no slice.
    """
    values, coverage, resampled = (None if reference is None else reference.values), np.ones(shape[0]), False
    if grid is not None and reference is not None:
        moved = resample(reference, grid)
        values, coverage, resampled = moved.values, moved.coverage, moved.changed
    if coverage.max() < LEAST_COVERAGE:
        raise InputError(
            f"the reference covers at most {coverage.max():.0%} of any target slice: "
            "give two series of the same region and frame of reference"
        )
    if values is not None and values.shape != shape:
        raise InputError(f"reference has shape {values.shape}; this target and its model need {shape}")
    return Guide(values, coverage, resampled)


@contextmanager
def restoring(
    runtime: Runtime, pairs: Iterable[Pair], shape: tuple[int, int, int]
) -> Generator[Iterator[RestoredSlice[Pair]]]:
    """Restore slices while the next ones are read and the last one is used.

    Args:
        runtime: an open model.
        pairs: consumed in a thread of its own, a few ahead; what it raises is raised in the block.
        shape: of the target, (slices, H, W).

    Returns:
        The slices in order. None is lost: what the engine fails at is interpolated, what has no usable reference is
        restored without it, and either says so.

    Raises:
        BackendError: after the last slice, if the model has restored none of them: that is no result.
    """
    count, at_once = shape[0], runtime.slices_at_once(*shape[1:])
    with ExitStack() as stack:
        read = stack.enter_context(ahead(pairs))
        tasks = stack.enter_context(ahead(_tasks(runtime, read), most=1))
        inferred = stack.enter_context(ahead(_inferred(runtime, tasks, at_once)))
        yield _some_restored(_finished(runtime, index, count, one) for index, one in enumerate(inferred))


def restore_volume(
    runtime: Runtime, target: Volume, reference: Volume | None, progress: Progress = lambda done, total: None
) -> RestoredVolume:
    """Restore every slice of a volume.

    Args:
        runtime: an open model.
        target: low-resolution volume, float32 (slices, H, W).
        reference: the guiding contrast; with a grid it may have any geometry in the same frame of reference, without
            one (plain arrays) it must be (slices, scale * H, scale * W) on the FFT grid. None for single-contrast
            models.
        progress: told after each slice.

    Returns:
        float32 (slices, scale * H, scale * W). Slices that the reference does not cover, or whose reference does not
        show what the target shows, are restored without it; those at which the engine failed are interpolated. All
        of them are listed.

    Raises:
        InputError: the volumes do not go together, or are too large for the runtime's limits.
    """
    scale, low = runtime.scale, target.values
    check_roles(runtime, has_reference=reference is not None)
    if reference is not None and (target.grid is None) != (reference.grid is None):
        raise InputError("one of target and reference has a position in space and the other has not: give both or none")
    grid = None if target.grid is None else target.grid.refined(scale)
    restored = np.empty((len(low), scale * low.shape[1], scale * low.shape[2]), np.float32)
    guide = guide_on(grid, reference, restored.shape)
    tiling = runtime.tiling_for(*low.shape[1:])

    def pairs() -> Iterator[SlicePair]:
        for index, piece in enumerate(low):
            values = None if guide.values is None else guide.values[index]
            yield SlicePair(piece if grid is None else to_fft_grid(piece, scale), values, float(guide.coverage[index]))

    fallbacks: list[Fallback] = []
    notes: list[str] = []
    trusts: list[float | None] = []
    seconds = 0.0
    with restoring(runtime, pairs(), low.shape) as slices:
        for one in slices:
            restored[one.index] = one.values
            if one.fallback is not None:
                fallbacks.append(one.fallback)
            notes.append(one.note(resampled=guide.resampled))
            trusts.append(one.trust)
            seconds += one.seconds
            progress(one.index + 1, len(low))
    return RestoredVolume(
        volume=Volume(restored, grid),
        fallbacks=tuple(fallbacks),
        notes=tuple(notes),
        reference_resampled=guide.resampled,
        consistency=runtime.consistency_for(low),
        tiling=str(tiling),
        trust_p50=median_trust(trusts),
        seconds=seconds,
    )


@dataclass(frozen=True, eq=False)
class _Task(Generic[Pair]):
    """A slice for the engine."""

    pair: Pair
    ready: ReadySlice | None
    """None if the engine cannot have it."""

    reason: str
    """Why it goes without its reference, or not to the engine; empty if neither."""


@dataclass(frozen=True, eq=False)
class _Outcome(Generic[Pair]):
    """What the engine made of a slice."""

    pair: Pair
    inferred: Inferred | None
    reason: str
    """Why the model has not restored it, or not with its reference; empty if it has."""

    seconds: float


def _tasks(runtime: Runtime, pairs: Iterable[Pair]) -> Iterator[_Task[Pair]]:
    """Slices that the engine only has to compute.

    Beside it, since here Python needs its lock again and again, for which the engine would wait with idle cores.
    """
    for pair in pairs:
        if pair.coverage >= LEAST_COVERAGE:
            yield _task(runtime, pair)
            continue
        reason = f"the reference covers {pair.coverage:.0%} of this slice"
        if runtime.restores_unguided:
            nothing = np.zeros([runtime.scale * side for side in pair.target.shape], np.float32)
            yield _Task(pair, runtime.ready(pair.target, nothing), reason)
        else:
            yield _Task(pair, None, f"{reason}, and the model was never trained without one")


def _task(runtime: Runtime, pair: Pair) -> _Task[Pair]:
    """A slice with its reference, which is prepared here if that pays while the engine restores the slice before."""
    try:
        beside = runtime.prepares_beside and runtime.tiling_for(*pair.target.shape).whole
        ready = runtime.ready(pair.target, runtime.prepare(pair.reference) if beside else pair.reference)
    except BackendError as error:
        return _Task(pair, None, str(error))
    return _Task(pair, ready, distrust(ready.trust) if ready.trust is not None and not ready.guided else "")


def _inferred(runtime: Runtime, tasks: Iterable[_Task[Pair]], at_once: int) -> Iterator[_Outcome[Pair]]:
    """What the network makes of each slice.

    With ``at_once`` slices in work at the same time the engine's threads each have one of their own, and none waits
    with its part of a slice for another that lost its core to Python: what is read and written beside costs its share.
    """

    def infer(task: _Task[Pair]) -> tuple[_Task[Pair], Inferred | None, str, float, float]:
        started, inferred, reason = time.perf_counter(), None, task.reason
        if task.ready is not None:
            try:
                inferred = runtime.infer(task.ready)
            except BackendError as error:
                reason = str(error)
        return task, inferred, reason, started, time.perf_counter()

    done = 0.0
    for task, inferred, reason, started, ended in spread(infer, tasks, at_once):
        yield _Outcome(task.pair, inferred, reason, max(0.0, ended - max(started, done)))
        done = max(done, ended)


def _some_restored(slices: Iterable[RestoredSlice[Pair]]) -> Iterator[RestoredSlice[Pair]]:
    """The slices, and an error at their end if all of them were interpolated."""
    restored, last = False, None
    for last in slices:
        restored = restored or last.fallback is None or last.fallback.method != INTERPOLATED
        yield last
    if last is not None and last.fallback is not None and not restored:
        raise BackendError(f"the model has restored none of the slices: {last.fallback.reason}")


def _finished(runtime: Runtime, index: int, count: int, outcome: _Outcome[Pair]) -> RestoredSlice[Pair]:
    """A slice with its measured k-space, or interpolated where there is none to finish."""
    pair, inferred, reason = outcome.pair, outcome.inferred, outcome.reason
    values, fallback, trust = None, None, None
    if inferred is not None:
        try:
            values = runtime.finish(inferred.values, pair.target)
            trust = inferred.trust if pair.coverage >= LEAST_COVERAGE else None
            fallback = Fallback(index, reason, UNGUIDED) if reason else None
        except BackendError as error:
            reason = str(error)
    if values is None:
        values, fallback = bicubic(pair.target, runtime.scale), Fallback(index, reason)
    if fallback is not None:
        _log.warning("slice %d of %d: %s: %s", index + 1, count, fallback.method, fallback.reason)
    return RestoredSlice(index, pair, values, fallback, trust, outcome.seconds)
