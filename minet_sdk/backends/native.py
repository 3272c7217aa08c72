"""The native CPU engine as a runner: plans, features and engines of the C library behind `minet.h`.

Calls release the interpreter's lock; one engine serves any number of threads, and engines of one bundle share weights.
"""

import ctypes
import os
import platform
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from minet_sdk.backends.base import Array, Runner
from minet_sdk.backends.native_library import (
    ISAS,
    Information,
    Level,
    MemoryFigures,
    Options,
    check,
    library,
    library_path,
)
from minet_sdk.bundle import NATIVE_PLAN, Bundle
from minet_sdk.conditioning import Conditioning
from minet_sdk.errors import BackendError, InputError
from minet_sdk.kspace import Consistency
from minet_sdk.normalisation import Normalisation, Statistics

Isa = Literal["best", "avx2", "avx512"]
"""Instruction set; ``best`` is what the processor has."""


class Memory(NamedTuple):
    """Bytes that a low-resolution target of one size takes."""

    weights: int
    """Of the plan, shared by all its engines."""

    features: int
    """Of one prepared reference."""

    prepare: int
    """Of workspace while a reference is prepared."""

    restore: int
    """Of workspace while a target is restored."""

    run: int
    """Of workspace while both are done in one call, the features included."""


def probe() -> str:
    """Why the engine cannot run here; empty if it can."""
    if not sys.platform.startswith("linux") or platform.machine().lower() not in ("x86_64", "amd64"):
        return f"the native engine is for Linux on x86-64, this is {sys.platform} on {platform.machine()}"
    if not library_path().is_file():
        return "the native engine was not compiled: install a C++ compiler and then minet-sdk again"
    try:
        loaded = library()
    except BackendError as error:
        return str(error)
    if not loaded.minet_supports(0):
        return "this processor has no AVX2 with FMA"
    return ""


def _at_end(owner: object, free: Callable[[ctypes.c_void_p], None], handle: ctypes.c_void_p) -> None:
    """Free a handle with its owner; at the interpreter's end, when calls may still run, that is the system's task."""
    weakref.finalize(owner, free, handle).atexit = False


class NativePlan:
    """A bundle's program and its weights, transformed once; any number of engines share it."""

    def __init__(
        self, folder: str | os.PathLike[str] | None = None, *, program: bytes = b"", weights: bytes = b""
    ) -> None:
        loaded, handle = library(), ctypes.c_void_p()
        if folder is not None:
            check(loaded.minet_plan_open(os.fsencode(folder), ctypes.byref(handle)))
        else:
            check(loaded.minet_plan_from_memory(program, len(program), weights, len(weights), ctypes.byref(handle)))
        self.handle = handle
        _at_end(self, loaded.minet_plan_close, handle)
        found = Information(ctypes.sizeof(Information))
        check(loaded.minet_plan_query(handle, ctypes.byref(found)))
        self.scale: int = found.scale
        self.needs_reference = bool(found.needs_reference)
        self.channels: tuple[int, int, int] = (
            found.target_channels,
            found.reference_channels,
            found.restored_channels,
        )
        """Of target, reference and restored image; 1, 1 (0 without a reference) and 1 in every bundle."""

        self.operations: int = found.operations


class NativeFeatures:
    """What depends on a reference alone; usable by every engine of its plan, from any thread."""

    def __init__(self, handle: ctypes.c_void_p, plan: NativePlan, nbytes: int) -> None:
        self.handle = handle
        self.plan = plan
        self.nbytes = nbytes
        _at_end(self, library().minet_features_free, handle)


class NativeSeen:
    """What a reference is judged by, on the engine's side; usable from any thread."""

    def __init__(self, handle: ctypes.c_void_p) -> None:
        self.handle = handle
        self.nbytes: int = library().minet_seen_bytes(handle)
        _at_end(self, library().minet_seen_free, handle)


class NativeEngine:
    """Threads and memory to run a plan with.

    Args:
        plan: what to run.
        threads: a call uses, its own included; None for one per core that this process may use.
        isa: instruction set; ``best`` is what the processor has.
        memory_limit: bytes of weights, features and workspace that one call may take; None for no limit.

    Raises:
        BackendError: the processor lacks the instruction set, or the system gives no threads.
    """

    def __init__(
        self,
        plan: NativePlan,
        *,
        threads: int | None = None,
        isa: Isa = "best",
        memory_limit: int | None = None,
    ) -> None:
        loaded, handle = library(), ctypes.c_void_p()
        options = Options(ctypes.sizeof(Options), threads or 0, ISAS.index(isa), 0, memory_limit or 0)
        check(loaded.minet_engine_create(plan.handle, ctypes.byref(options), ctypes.byref(handle)))
        self.plan = plan
        self.handle = handle
        _at_end(self, loaded.minet_engine_destroy, handle)
        self.threads: int = loaded.minet_engine_threads(handle)
        self.isa: str = ISAS[loaded.minet_engine_isa(handle)]

    def memory(self, height: int, width: int) -> Memory:
        """What a low-resolution target of this size takes."""
        found = MemoryFigures(ctypes.sizeof(MemoryFigures))
        check(library().minet_engine_memory(self.handle, height, width, ctypes.byref(found)))
        return Memory(found.weights, found.features, found.prepare, found.restore, found.run)

    def prepare(self, reference: Array) -> NativeFeatures:
        """Features of a reference (scale * H, scale * W) or (scale * H, scale * W, channels)."""
        image = self._image(reference, self.plan.channels[1], "reference")
        handle = ctypes.c_void_p()
        check(library().minet_prepare(self.handle, image.ctypes.data, *image.shape[:2], None, 0, ctypes.byref(handle)))
        height, width = (side // self.plan.scale for side in image.shape[:2])
        return NativeFeatures(handle, self.plan, self.memory(height, width).features)

    def restore(self, target: Array, features: NativeFeatures | None = None) -> Array:
        """Restore a target (H, W) or (H, W, channels), with features exactly if the model needs a reference."""
        image, restored = self._images(target)
        given = features.handle if features is not None else None
        check(
            library().minet_restore(
                self.handle, image.ctypes.data, *image.shape[:2], given, restored.ctypes.data, None, 0
            )
        )
        return restored

    def run(self, target: Array, reference: Array | None = None) -> Array:
        """`prepare` and `restore` in one call, which needs less memory than the two."""
        image, restored = self._images(target)
        guide = None if reference is None else self._image(reference, self.plan.channels[1], "reference")
        expected = tuple(self.plan.scale * side for side in image.shape[:2])
        if guide is not None and guide.shape[:2] != expected:
            raise InputError(f"the reference is {guide.shape[:2]}, expected {expected}")
        check(
            library().minet_run(
                self.handle,
                image.ctypes.data,
                *image.shape[:2],
                None if guide is None else guide.ctypes.data,
                restored.ctypes.data,
                None,
                0,
            )
        )
        return restored

    def normalise(self, image: Array, epsilon: float) -> tuple[Array, float, float]:
        """An image (H, W) with mean 0 and standard deviation 1, and what they were; see `Normalisation`."""
        given = np.ascontiguousarray(image, dtype=np.float32)
        normal, level = np.empty_like(given), Level()
        check(
            library().minet_normalise(
                self.handle, given.ctypes.data, given.size, epsilon, normal.ctypes.data, ctypes.byref(level)
            )
        )
        return normal, level.mean, level.deviation

    def undo(self, normal: Array, mean: float, deviation: float) -> Array:
        """Undo `normalise` in place, for a contiguous image of the engine's own."""
        level = Level(mean, deviation)
        check(
            library().minet_undo(self.handle, normal.ctypes.data, normal.size, ctypes.byref(level), normal.ctypes.data)
        )
        return normal

    def see(self, reference: Array) -> NativeSeen:
        """What a reference (scale * H, scale * W) is judged by; see `trust.seen_by_target`."""
        image, handle = self._image(reference, 1, "reference"), ctypes.c_void_p()
        check(library().minet_see(self.handle, image.ctypes.data, *image.shape, ctypes.byref(handle)))
        return NativeSeen(handle)

    def trust(self, target: Array, seen: NativeSeen) -> float:
        """How well a reference fits a target (H, W); see `trust.reference_trust`."""
        image, found = self._image(target, 1, "target"), ctypes.c_double()
        check(library().minet_trust(self.handle, image.ctypes.data, *image.shape, seen.handle, ctypes.byref(found)))
        return found.value

    def put_back(self, restored: Array, target: Array) -> Array:
        """Soft consistency of a restored image (scale * H, scale * W) with its target (H, W), both real.

        See `kspace.enforce_consistency`.
        """
        image, measured = self._image(restored, 1, "restored image"), self._image(target, 1, "target")
        expected = tuple(self.plan.scale * side for side in measured.shape)
        if image.shape != expected:
            raise InputError(f"the restored image is {image.shape}, expected {expected}")
        output = np.empty_like(image)
        check(
            library().minet_put_back(
                self.handle, image.ctypes.data, measured.ctypes.data, *measured.shape, output.ctypes.data
            )
        )
        return output

    def _images(self, target: Array) -> tuple[Array, Array]:
        """The checked target, and room for the restored image: (sH, sW), or (sH, sW, channels) if there are several."""
        image = self._image(target, self.plan.channels[0], "target")
        size = [self.plan.scale * side for side in image.shape[:2]]
        channels = self.plan.channels[2]
        return image, np.empty(size if channels == 1 else [*size, channels], np.float32)

    def _image(self, image: Array, channels: int, role: str) -> Array:
        """Contiguous float32 (H, W) or (H, W, channels): the library sees only its address."""
        expected = "(H, W)" if channels == 1 else f"(H, W, {channels})"
        if image.ndim != 2 + (channels > 1) or (channels > 1 and image.shape[2] != channels) or 0 in image.shape:
            raise InputError(f"the {role} has shape {image.shape}, expected {expected}")
        return np.ascontiguousarray(image, dtype=np.float32)


_plans: "weakref.WeakValueDictionary[tuple[str, str], NativePlan]" = weakref.WeakValueDictionary()
_plans_lock = threading.Lock()


def shared_plan(bundle: Bundle) -> NativePlan:
    """The plan of a bundle; runtimes of one bundle get the same one for as long as any of them is open.

    Raises:
        BundleError: the plan is damaged.
    """
    key = (os.fspath(bundle.location.resolve()), bundle.sha256)
    with _plans_lock:
        plan = _plans.get(key)
        if plan is None:
            plan = _plans[key] = NativePlan(bundle.location)
        return plan


class NativeConditioning(Conditioning):
    """`Conditioning` in the engine's library, but for complex targets."""

    def __init__(self, normalisation: Normalisation, scale: int, runner: "NativeRunner") -> None:
        super().__init__(normalisation, scale)
        self._runner = runner

    def normalise(self, image: Array) -> tuple[Array, Statistics]:
        """See `Conditioning`."""
        normal, mean, deviation = self._runner.engine.normalise(image, self.normalisation.epsilon)
        clip = self.normalisation.clip
        if clip is not None:
            np.clip(normal, -clip, clip, out=normal)
        return normal, (np.full((1, 1), mean), np.full((1, 1), deviation))

    def undo(self, normal: Array, statistics: Statistics) -> Array:
        """See `Conditioning`; in place."""
        mean, deviation = (statistic.item() for statistic in statistics)
        return self._runner.engine.undo(normal, mean, deviation)

    def see(self, reference: Array) -> NativeSeen:
        """See `Conditioning`."""
        return self._runner.engine.see(reference)

    def trust(self, target: Array, seen: Any) -> float:
        """See `Conditioning`."""
        return self._runner.engine.trust(target, seen)

    def consistent(self, restored: Array, target: npt.NDArray[Any], mode: Consistency) -> Array:
        """See `Conditioning`."""
        if mode == "soft" and not np.iscomplexobj(target):
            return self._runner.engine.put_back(restored, target)
        return super().consistent(restored, target, mode)


class NativeRunner(Runner):
    """Runs a bundle's native.plan; features hold also what integration and fusions know of the reference."""

    _engine: NativeEngine | None = None

    def _activate_impl(self, model: Bundle | Path) -> Bundle:
        if not isinstance(model, Bundle):
            raise BackendError(f"{model}: {self.provider} opens bundles only, not a lone .onnx file")
        if NATIVE_PLAN not in model.manifest.files:
            raise BackendError(f"model {model.manifest.name} has no {NATIVE_PLAN}: export it again")
        self._engine = NativeEngine(
            shared_plan(model), threads=self.options.threads, memory_limit=self.options.memory_limit
        )
        return model

    def _deactivate_impl(self) -> None:
        self._engine = None

    def _encode_impl(self, reference: Array) -> Any:
        engine = self.engine
        return tuple(engine.prepare(piece) for piece in reference[:, 0])

    def _restore_impl(self, target: Array, features: Any) -> Array:
        engine = self.engine
        pieces = features or (None,) * len(target)
        restored = [engine.restore(piece, own) for piece, own in zip(target[:, 0], pieces, strict=True)]
        return (restored[0][None] if len(restored) == 1 else np.stack(restored))[:, None]

    def conditioning(self, normalisation: Normalisation, scale: int) -> Conditioning:
        """In the engine's library."""
        return NativeConditioning(normalisation, scale, self)

    def memory(self, height: int, width: int) -> int:
        """Exactly what the engine counts before it prepares or restores."""
        figures = self.engine.memory(height, width)
        return figures.weights + figures.features + max(figures.prepare, figures.restore)

    @property
    def restores_beside(self) -> bool:
        """With threads to share: a thread that lost its core to something else then keeps nobody waiting."""
        return self.engine.threads > 1

    @property
    def engine(self) -> NativeEngine:
        """The engine, while the runner is active."""
        engine = self._engine
        if engine is None:
            raise BackendError("this runtime is closed: open a new one")
        return engine

    @property
    def version(self) -> str:
        """Name and version of the engine."""
        return f"native {library().minet_version().decode()}"

    def details(self) -> dict[str, Any]:
        """Instruction set and threads."""
        return {"isa": self._engine.isa, "threads": self._engine.threads} if self._engine else {}
