"""The way of images in host memory through an engine: judge the reference, normalise; then cut, run, undo."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minet_sdk.backends.base import Runner
from minet_sdk.capacity import Capacity
from minet_sdk.conditioning import Conditioning, Judged
from minet_sdk.errors import InputError
from minet_sdk.normalisation import Statistics
from minet_sdk.reports import bytes_of
from minet_sdk.trust import LEAST_TRUST

Array = npt.NDArray[np.float32]
AnyArray = npt.NDArray[Any]


LARGEST_VALUE = 1e30
"""Of an input: sums over an image must stay within float32."""


@dataclass(frozen=True, eq=False)
class ReadySlice:
    """A slice as the engine takes it."""

    target: Array
    """(H, W), normalised."""

    statistics: Statistics
    """That undo it."""

    reference: Array | None
    """(scale * H, scale * W), normalised: what has not been prepared; all zeros if the slice goes without."""

    features: Any
    """Of the reference, where it has been prepared."""

    trust: float | None
    """How well the reference fits the target, see `trust.reference_trust`; None where it was not judged."""

    guided: bool
    """Whether the reference is used: not below `trust.LEAST_TRUST`. False for single-contrast models, too."""

    prepared_in_vain: bool
    """Whether it was prepared and is not used."""

    preparing: float
    """Seconds that the reference took here."""


@dataclass(frozen=True, eq=False)
class Inferred:
    """What the network made of one slice."""

    values: Array
    """(scale * H, scale * W), in the target's intensity."""

    preparing: float
    """Seconds that the engine took for the reference."""

    trust: float | None
    """See `ReadySlice`."""

    guided: bool
    """See `ReadySlice`."""


@dataclass(frozen=True, eq=False)
class TiledFeatures:
    """Features of a reference that was cut."""

    parts: tuple[Any, ...]
    """Of each tile, in the order of `Tiling.tiles`."""

    @property
    def nbytes(self) -> int | None:
        """Memory that they hold, None where the engine does not tell."""
        return bytes_of(self.parts)


class SlicePath:
    """Prepares and restores single slices. For any number of threads.

    Args:
        runner: the engine.
        conditioning: what is done to a slice before and after it.
        capacity: what is restored at once.
        judges: do without a reference that does not show what the target shows.
    """

    def __init__(self, runner: Runner, conditioning: Conditioning, capacity: Capacity, judges: bool) -> None:
        self._runner = runner
        self._conditioning = conditioning
        self._capacity = capacity
        self._scale = conditioning.scale
        self._judges = judges

    def seen(self, reference: Array) -> Judged | None:
        """What a reference will be judged by; None where nothing judges it."""
        return self._conditioning.see(reference) if self._judges else None

    def encode(self, reference: AnyArray) -> Any:
        """Features of a reference (scale * H, scale * W): the engine's own, or `TiledFeatures`.

        Raises:
            InputError: it does not fit at once, and cannot be cut.
            BackendError: the engine failed.
        """
        height, width = (side // self._scale for side in reference.shape)
        tiling = self._capacity.tiling_for(height, width)
        normal, _ = self._conditioning.normalise(reference)
        parts = tuple(self._runner.encode(_batch(tile.cut(normal, self._scale))) for tile in tiling.tiles)
        return parts[0] if tiling.whole else TiledFeatures(parts)

    def ready(
        self,
        target: AnyArray,
        reference: AnyArray | None = None,
        features: Any = None,
        seen: Judged | None = None,
    ) -> ReadySlice:
        """All that comes before the engine.

        Args:
            target: (H, W), float32 or complex64.
            reference: (scale * H, scale * W).
            features: what `encode` gave, instead.
            seen: what `seen` gave of the reference of these features.
        """
        preparing = 0.0
        magnitude = np.abs(target) if np.iscomplexobj(target) else target
        normal, statistics = self._conditioning.normalise(magnitude)
        if reference is not None:
            started = time.perf_counter()
            seen = self.seen(reference)
            preparing += time.perf_counter() - started
        trust = None if seen is None else self._conditioning.trust(magnitude, seen)
        guided = reference is not None or features is not None
        in_vain = False
        if trust is not None and trust < LEAST_TRUST:
            guided, in_vain = False, features is not None
            reference, features = np.zeros([self._scale * side for side in target.shape], np.float32), None
        guide = None
        if reference is not None:
            started = time.perf_counter()
            guide, _ = self._conditioning.normalise(reference)
            preparing += time.perf_counter() - started
        preparing = 0.0 if in_vain else preparing  # the target waited for it
        return ReadySlice(normal, statistics, guide, features, trust, guided, in_vain, preparing)

    def infer(self, ready: ReadySlice) -> Inferred:
        """What the network makes of a slice.

        Every tile prepares its own part of the reference, so that the features of one tile are held and no more.

        Raises:
            InputError: it does not fit at once, and cannot be cut.
            BackendError: the engine failed.
        """
        height, width = ready.target.shape
        tiling, preparing, prepared = self._capacity.tiling_for(height, width), 0.0, ready.features
        result = np.empty([0 if tiling.whole else self._scale * side for side in (height, width)], np.float32)
        for index, tile in enumerate(tiling.tiles):
            if isinstance(ready.features, TiledFeatures):
                prepared = ready.features.parts[index]
            elif ready.reference is not None:
                started = time.perf_counter()
                prepared = None  # those of the last tile go before there are new ones
                prepared = self._runner.encode(_batch(tile.cut(ready.reference, self._scale)))
                preparing += time.perf_counter() - started
            restored = self._runner.restore(_batch(tile.cut(ready.target)), prepared)[0, 0]
            if tiling.whole:
                result = restored
            else:
                tile.paste(restored, result, self._scale)
        preparing = 0.0 if ready.prepared_in_vain else preparing
        values = self._conditioning.undo(result, ready.statistics)
        return Inferred(values, preparing, ready.trust, ready.guided)


def as_slices(image: AnyArray, role: str, *, complex_allowed: bool) -> AnyArray:
    """An image as float32 or complex64 (slices, H, W), checked for dimensions, dtype and values.

    Raises:
        InputError: it is no image; ``role`` names it.
    """
    try:
        array = np.asarray(image)
    except ValueError as error:
        raise InputError(f"{role} is no array of numbers; expected (H, W) or (slices, H, W)") from error
    allowed = "fiu" + ("c" if complex_allowed else "")
    if array.dtype.kind not in allowed:
        kinds = "real or complex" if complex_allowed else "real"
        raise InputError(f"{role} has dtype {array.dtype}; expected {kinds} numbers")
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise InputError(f"{role} has shape {array.shape}; expected (H, W) or (slices, H, W)")
    with np.errstate(over="ignore"):
        array = array.astype(np.complex64 if array.dtype.kind == "c" else np.float32, copy=False)
    if not _within_limits(array):
        count = int(np.count_nonzero(~(np.abs(array) <= LARGEST_VALUE)))
        raise InputError(f"{role} has {count} values that are NaN, infinite or above {LARGEST_VALUE:g}; replace them")
    return array if array.ndim == 3 else array[None]


def _within_limits(array: AnyArray) -> bool:
    """Whether all magnitudes are `LARGEST_VALUE` at most; without an array of them where the values are real."""
    if array.dtype.kind == "c":
        return bool(np.abs(array).max() <= LARGEST_VALUE)
    return bool(array.max() <= LARGEST_VALUE) and bool(array.min() >= -LARGEST_VALUE)


def _batch(image: Array) -> Array:
    """(H, W), which may be a part of a larger image, as contiguous (1, 1, H, W)."""
    return np.ascontiguousarray(image)[None, None]
