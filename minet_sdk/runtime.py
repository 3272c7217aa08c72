"""The inference API: open a model once, then restore slices from any number of threads."""

import logging
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload

import numpy as np
import numpy.typing as npt

from minet_sdk import __version__
from minet_sdk.backends import AUTO, Need, choose, make_runner
from minet_sdk.backends.base import DeviceRunner, RunnerOptions
from minet_sdk.bundle import Bundle, locate, open_bundle
from minet_sdk.capacity import Capacity, TilingOption
from minet_sdk.conditioning import Judged
from minet_sdk.errors import BackendError, InputError
from minet_sdk.kspace import Consistency
from minet_sdk.memory import parsed_bytes, peak_memory_mib
from minet_sdk.reports import PreparedReference, RuntimeInfo, bytes_of
from minet_sdk.shapes import LARGEST_OUTPUT, ShapeRules
from minet_sdk.slices import Inferred, ReadySlice, SlicePath, as_slices
from minet_sdk.tally import Stats, Tally
from minet_sdk.tiling import Tiling
from minet_sdk.trust import LEAST_TRUST, distrust

if TYPE_CHECKING:
    from minet_sdk.cuda.arrays import CudaArray, DeviceArray, DlpackArray
    from minet_sdk.cuda.layer import LayerName
    from minet_sdk.cuda.slices import DevicePath

Array = npt.NDArray[np.float32]
AnyArray = npt.NDArray[Any]
ConsistencyOption = Literal["auto", "off", "soft", "hard"]

_log = logging.getLogger("minet_sdk")


class Runtime:
    """A loaded model.

    Same weights, same input, same backend and thread count: bitwise the same output, from any thread.

    Args:
        model: bundled name (`minet-sdk models`), bundle folder or .onnx file with this SDK's metadata.
        backend: a name from `minet_sdk.backends.names()`, or ``auto``.
        threads: CPU threads of the engine; None leaves it to the engine.
        consistency: what to do with the measured centre of k-space: ``off``, ``soft``, ``hard`` (see
            `minet_sdk.kspace.enforce_consistency`), or ``auto``: hard for complex targets, soft for magnitude.
        largest_output: restore slices of more pixels than this in tiles, or refuse them, see ``tiling``.
        max_memory: bytes (or text, such as "2GiB") that preparing and restoring one slice may take, weights included;
            None for no limit. Larger slices are treated like those above ``largest_output``. The native engine knows
            what it takes and keeps to it; for others it is estimated before they run, see
            `minet_sdk.memory.estimated`.
        trust: restore a slice as if it had no reference where the reference does not show what the target shows, see
            `minet_sdk.trust`; log, `stats` and what is made of the result say so. Only for models that were trained
            with references missing now and then, and for arrays in host memory; `info` says whether it is so.
        tiling: ``exact`` tiles what is too large where no part of the network takes in the whole image, and refuses it
            where one does; ``approximate`` tiles there too, every tile with a whole image of its own, and says so in
            `info`, in the log and in what is made of the result.
        device: ordinal of the GPU, for backends that use one.
        device_layer: library for GPU memory and streams of the TensorRT backends: ``cuda-core``, or ``pycuda`` for
            applications that live on it (the context that is current now, their streams and arrays; no CUDA graphs).
        cuda_graphs: capture and replay CUDA graphs where the backend can.

    Raises:
        BundleError: the model is missing, corrupt or was changed.
        BackendError: the engine is missing, or fails the golden-vector check.
        InputError: an option is none of its choices, or nothing says how much memory a slice takes.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = "minet-x2",
        *,
        backend: str = AUTO,
        threads: int | None = None,
        consistency: ConsistencyOption = "auto",
        largest_output: int = LARGEST_OUTPUT,
        max_memory: int | str | None = None,
        tiling: TilingOption = "exact",
        trust: bool = True,
        device: int = 0,
        device_layer: "LayerName" = "cuda-core",
        cuda_graphs: bool = True,
    ) -> None:
        if consistency not in ("auto", "off", "soft", "hard"):
            raise InputError(f"consistency is {consistency!r}; choose one of auto, off, soft, hard")
        if threads is not None and threads < 1:
            raise InputError(f"threads is {threads}; give at least 1, or None for the engine's choice")
        if device < 0:
            raise InputError(f"device is {device}; give the ordinal of a GPU, 0 or more")
        if device_layer not in ("cuda-core", "pycuda"):
            raise InputError(f"device_layer is {device_layer!r}; choose one of cuda-core, pycuda")
        limit = parsed_bytes(max_memory) if isinstance(max_memory, str) else max_memory
        options = RunnerOptions(threads, device, device_layer, cuda_graphs, memory_limit=limit)
        source, need = _source(model)
        self._choice = choose(backend, need, options)
        for name, reason in self._choice.passed_over.items():
            _log.info("backend %s passed over: %s", name, reason)
        self._consistency: ConsistencyOption = consistency
        self._runner = make_runner(self._choice.spec, options)
        self._device_path: DevicePath | None = None
        self._lock = threading.Lock()
        self._tally = Tally()
        self._bundle = self._runner.activate(source)
        manifest = self._bundle.manifest
        self._rules = ShapeRules(manifest.name, manifest.scale, manifest.needs_reference)
        try:
            self._capacity = Capacity(self._bundle, self._runner, largest_output, limit, tiling)
            self._trust = trust
            self._conditioning = self._runner.conditioning(manifest.normalisation, manifest.scale)
            judges = trust and manifest.without_reference
            self._path = SlicePath(self._runner, self._conditioning, self._capacity, judges)
            started = time.perf_counter()
            self._golden_error = self._check_golden()
            self._warm_up_seconds = time.perf_counter() - started
        except BaseException:
            self._runner.deactivate()
            raise

    @property
    def bundle(self) -> Bundle:
        """The opened model with its manifest."""
        return self._bundle

    @property
    def scale(self) -> int:
        """Magnification of the model."""
        return self._bundle.manifest.scale

    @property
    def info(self) -> RuntimeInfo:
        """Backend, model, precision, memory and versions."""
        spec, manifest = self._choice.spec, self._bundle.manifest
        return RuntimeInfo(
            model=manifest.name,
            model_sha256=self._bundle.sha256,
            scale=manifest.scale,
            needs_reference=manifest.needs_reference,
            precision=manifest.precision,
            backend=spec.name,
            provider=spec.provider,
            device=spec.device,
            passed_over=self._choice.passed_over,
            consistency=self._consistency,
            tiling=self._capacity.tiling,
            max_memory=self._capacity.max_memory,
            trust=self._trust_text(),
            memory_known_by=self._capacity.known_by,
            golden_error=self._golden_error,
            warm_up_seconds=self._warm_up_seconds,
            peak_memory_mib=peak_memory_mib(),
            versions={"minet-sdk": __version__, "engine": self._runner.version, "numpy": np.__version__},
            execution=self._runner.details(),
        )

    def consistency_for(self, target: AnyArray) -> Consistency:
        """What is done with the measured k-space of ``target``; settles ``auto``."""
        if self._consistency != "auto":
            return self._consistency
        return "hard" if np.iscomplexobj(target) else "soft"

    def stats(self) -> Stats:
        """Slices and latencies so far."""
        return self._tally.stats()

    def prepare(self, reference: Any, *, stream: Any = None) -> PreparedReference:
        """Compute what depends on the reference alone, before the target has arrived.

        On a TensorRT backend it returns before the work is done: a target that needs the features waits for them on
        the device.

        Args:
            reference: (H, W) or (slices, H, W), real, any intensity scale. On a TensorRT backend also an array in
                device memory, see `__call__`.
            stream: for device arrays, the caller's stream; None for a stream of the runtime's own.

        Returns:
            To be passed to a call in place of the reference. It holds the features of every slice in memory, see its
            ``nbytes`` (the native engine keeps 19 MiB a slice of 320 x 320 for `minet-x2`, others two thirds of that):
            prepare a long series slice by slice.

        Raises:
            InputError: wrong shape, dtype or values, a single-contrast model, or more than ``max_memory``.
        """
        if _is_on_device(reference):
            return self._on_device().prepare(reference, stream)
        _refuse_stream(stream)
        self._rules.check_takes_reference()
        slices = as_slices(reference, "reference", complex_allowed=False)
        self._rules.check_alone(slices.shape)
        features: list[Any] = []
        seen: list[Judged | None] = []
        for piece in slices:
            started = time.perf_counter()
            features.append(self._path.encode(piece))
            seen.append(self._path.seen(piece))
            self._tally.prepared(time.perf_counter() - started)
            self._capacity.check_prepared(bytes_of(tuple(features)))
        return PreparedReference(
            np.shape(reference), self._bundle.sha256, self._choice.spec.name, tuple(features), tuple(seen)
        )

    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload] # NumPy arrays speak DLPack too; the first one wins
        self, target: AnyArray, reference: AnyArray | PreparedReference | None = None, *, stream: None = None
    ) -> Array: ...

    @overload
    def __call__(
        self,
        target: "DlpackArray | CudaArray",
        reference: "DlpackArray | CudaArray | PreparedReference | None" = None,
        *,
        stream: Any = None,
    ) -> "DeviceArray": ...

    def __call__(self, target: Any, reference: Any = None, *, stream: Any = None) -> "Array | DeviceArray":
        """Restore one slice or a stack of slices.

        Args:
            target: (H, W) or (slices, H, W), real or complex, any intensity scale. On a TensorRT backend also an array
                in device memory: anything with DLPack or ``__cuda_array_interface__``, float32, C-contiguous, on the
                runtime's device. It is read where it is, the result stays on the device, nothing is synchronised, and
                values are not checked: what is not finite comes out as not finite.
            reference: (scale * H, scale * W) or (slices, scale * H, scale * W), aligned so that low-resolution sample
                i lies on high-resolution sample scale * i; or the result of `prepare`. None for single-contrast
                models only. In device memory if the target is.
            stream: for device arrays, the caller's CUDA stream, on which the inputs are ready and the result is made;
                None for a stream of the runtime's own, with which both protocols synchronise.

        Returns:
            float32 magnitude, (scale * H, scale * W) or (slices, scale * H, scale * W), in the target's intensity.
            For device arrays a `minet_sdk.cuda.arrays.DeviceArray`.

        Raises:
            InputError: wrong shapes, dtypes, sizes or values, or a missing or superfluous reference.
            BackendError: the engine failed, or the runtime is closed.
        """
        if _is_on_device(target) or _is_on_device(reference):
            return self._on_device().restore(target, reference, stream)
        _refuse_stream(stream)
        slices = as_slices(target, "target", complex_allowed=True)
        expected = self._rules.restored(np.shape(target))
        references = self._references(reference, expected)
        restored = np.empty((len(slices), *expected[-2:]), np.float32)
        for index, piece in enumerate(slices):
            started = time.perf_counter()
            ready = self._ready(piece, references, index)
            inferred = self._path.infer(ready)
            finished = self.finish(inferred.values, piece)
            if len(slices) == 1:
                restored = finished[None]  # a copy would be a third of what a call takes beside the engine
            else:
                restored[index] = finished
            preparing = ready.preparing + inferred.preparing
            self._tally.restored(time.perf_counter() - started - preparing, preparing)
            if self._unused(inferred):
                _log.warning("slice %d of %d: %s", index + 1, len(slices), distrust(inferred.trust or 0))
        return restored.reshape(expected)

    def ready(self, target: AnyArray, reference: AnyArray | PreparedReference | None = None) -> ReadySlice:
        """Check, judge and normalise one slice: the first of the three parts of a call, before `infer` and `finish`.

        A series runs the three beside each other.

        Args:
            target: (H, W), as in a call, in host memory.
            reference: likewise.

        Raises:
            InputError: see `__call__`.
        """
        slices = as_slices(target, "target", complex_allowed=True)
        expected = self._rules.restored(np.shape(target))
        if len(expected) != 2:
            raise InputError(f"target has shape {np.shape(target)}; ready takes one slice (H, W)")
        return self._ready(slices[0], self._references(reference, expected), 0)

    def infer(self, ready: ReadySlice) -> Inferred:
        """What the network makes of one slice: the engine's part of a call.

        In `stats` such slices count without what `ready` and `finish` take.

        Returns:
            Its ``values`` are for `finish`; it tells whether the reference was used.

        Raises:
            InputError: the slice does not fit at once, and cannot be cut.
            BackendError: the engine failed, or the runtime is closed.
        """
        started = time.perf_counter()
        inferred = self._path.infer(ready)
        took = time.perf_counter() - started - inferred.preparing
        self._tally.restored(took, ready.preparing + inferred.preparing)
        self._unused(inferred)
        return inferred

    def finish(self, restored: Array, target: AnyArray) -> Array:
        """Check one slice that `infer` gave, and put the measured k-space of its target back: the end of a call.

        Args:
            restored: float32 (scale * H, scale * W).
            target: (H, W), that it was inferred from.

        Raises:
            BackendError: values are not finite.
        """
        target = target.astype(np.complex64 if np.iscomplexobj(target) else np.float32, copy=False)
        finished = self._conditioning.consistent(restored, target, self.consistency_for(target))
        with np.errstate(all="ignore"):
            total = finished.sum()  # tells alone, unless it overflows
        if not (np.isfinite(total) or np.isfinite(finished).all()):
            raise BackendError(
                f"{self._choice.spec.name} gave values that are not finite for a finite input: do not use this engine"
            )
        return finished

    def tiling_for(self, height: int, width: int) -> Tiling:
        """How low-resolution slices of these rows and columns are cut.

        Raises:
            InputError: they do not fit at once, and cannot be cut.
        """
        return self._capacity.tiling_for(height, width)

    @property
    def restores_unguided(self) -> bool:
        """Whether the model was trained with references missing: all zeros stand for one that is not there."""
        return self._bundle.manifest.without_reference

    @property
    def prepares_beside(self) -> bool:
        """Whether it pays to prepare the next slice's reference while a target is restored."""
        return self._rules.needs_reference and self._runner.prepares_beside

    def slices_at_once(self, height: int, width: int) -> int:
        """How many low-resolution slices of this size a series best restores at the same time.

        Raises:
            InputError: they do not fit at once, and cannot be cut.
            BackendError: the runtime is closed.
        """
        return 2 if self._runner.restores_beside and self._capacity.fits_twice(height, width) else 1

    def close(self) -> None:
        """Free the engine; calls after it raise `BackendError`."""
        self._runner.deactivate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _references(
        self, reference: AnyArray | PreparedReference | None, expected: tuple[int, ...]
    ) -> AnyArray | PreparedReference | None:
        """The checked reference: prepared, as (slices, H, W), or None."""
        if reference is None:
            self._rules.check_reference(None, expected)
            return None
        prepared = isinstance(reference, PreparedReference)
        self._rules.check_reference(tuple(reference.shape if prepared else np.shape(reference)), expected)
        if not prepared:
            return as_slices(reference, "reference", complex_allowed=False)
        reference.check_origin(self._bundle.sha256, self._choice.spec.name)
        return reference

    def _on_device(self) -> "DevicePath":
        """The way of device arrays through this runtime.

        Raises:
            InputError: the backend takes host arrays only.
        """
        if not isinstance(self._runner, DeviceRunner):
            raise InputError(
                f"the image is in device memory and backend {self._choice.spec.name} takes host arrays: pass NumPy "
                "arrays, or choose tensorrt or tensorrt-rtx"
            )
        with self._lock:
            if self._device_path is None:
                from minet_sdk.cuda.slices import DevicePath

                rules = replace(self._rules, largest_output=self._capacity.largest_output)
                self._device_path = DevicePath(
                    self._runner, self._bundle, rules, self._consistency, self._choice.spec.name
                )
            return self._device_path

    def _ready(self, target: AnyArray, references: AnyArray | PreparedReference | None, index: int) -> ReadySlice:
        """One slice with the reference of this index."""
        if isinstance(references, PreparedReference):
            return self._path.ready(target, features=references.features[index], seen=references.seen[index])
        return self._path.ready(target, None if references is None else references[index])

    def _unused(self, inferred: Inferred) -> bool:
        """Whether a slice's reference was not used; counts it."""
        unused = inferred.trust is not None and not inferred.guided
        if unused:
            self._tally.unguided()
        return unused

    def _trust_text(self) -> str:
        """For `info`."""
        if not self._rules.needs_reference:
            return "none: the model is single-contrast"
        if not self.restores_unguided:
            return "any: the model was never trained without a reference"
        return f"at least {LEAST_TRUST:g}" if self._trust else "any: the runtime was opened with trust=False"

    def _check_golden(self) -> float | None:
        """Run the golden vector, which also warms the engine up; refuse an engine that is off."""
        golden = self._bundle.golden()
        if golden is None:
            return None
        if excess := self._capacity.excess_memory(*golden.target.shape[-2:]):
            raise InputError(f"not even the check at load fits: {excess}; raise the limit")
        features = None if golden.reference is None else self._runner.encode(golden.reference)
        error = golden.error(self._runner.restore(golden.target, features))
        tolerance = self._bundle.manifest.golden_tolerance
        if error > tolerance:
            raise BackendError(
                f"{self._choice.spec.name} fails the golden-vector check of {self._bundle.manifest.name}: relative "
                f"error {error:.2e}, at most {tolerance:.0e} is allowed; use another backend"
            )
        return error


def _source(model: str | os.PathLike[str]) -> tuple[Bundle | Path, Need]:
    """The opened bundle, or the bare .onnx file, and what it asks of an engine."""
    location = locate(model)
    if location.suffix == ".onnx":
        return location, Need(bare=True)
    bundle = open_bundle(model)
    return bundle, Need(precision=bundle.manifest.precision, files=frozenset(bundle.manifest.files))


def _is_on_device(image: Any) -> bool:
    """Whether this is an array in a GPU's memory; without the modules for it where it cannot be one."""
    if image is None or isinstance(image, (np.ndarray, PreparedReference)):
        return False
    from minet_sdk.cuda.arrays import is_on_device

    return is_on_device(image)


def _refuse_stream(stream: Any) -> None:
    if stream is not None:
        raise InputError("stream is for arrays in device memory; host arrays are restored before the call returns")
