"""The inference API: open a model once, then restore slices from any number of threads."""

import importlib
import logging
import os
import sys
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from minet_sdk import __version__
from minet_sdk.backends import AUTO, choose, make_runner
from minet_sdk.backends.base import RunnerOptions
from minet_sdk.bundle import Bundle
from minet_sdk.errors import BackendError, InputError
from minet_sdk.kspace import Consistency, enforce_consistency

Array = npt.NDArray[np.float32]
AnyArray = npt.NDArray[Any]
ConsistencyOption = Literal["auto", "off", "soft", "hard"]

LEAST_SIZE = 16
"""Rows and columns that a low-resolution target must have."""

LARGEST_OUTPUT = 2048 * 2048
"""Pixels of a restored slice above which a call is refused unless the runtime was made with another limit."""

LATENCIES_KEPT = 10_000

_log = logging.getLogger("minet_sdk")


@dataclass(frozen=True)
class RuntimeInfo:
    """What a runtime is."""

    model: str
    model_sha256: str
    scale: int
    needs_reference: bool
    precision: str
    backend: str
    provider: str
    device: str
    passed_over: dict[str, str]
    """Backends that `auto` preferred but could not take, with the reason."""

    consistency: str
    golden_error: float | None
    """Relative rms difference from the golden vector at load; None for a bare .onnx file, which has none."""

    warm_up_seconds: float
    peak_memory_mib: float | None
    """Highest resident memory of this process so far; None where the system does not tell (Windows)."""

    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Stats:
    """Latency of restored slices since the runtime was made, without `prepare`."""

    slices: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    mean_ms: float | None
    prepared_slices: int
    prepare_p50_ms: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class PreparedReference:
    """Features of a reference, made by `Runtime.prepare`, reusable for any number of targets."""

    shape: tuple[int, ...]
    """Shape of the reference, (H, W) or (slices, H, W)."""

    model_sha256: str
    features: tuple[Any, ...]
    """One entry a slice, in the engine's own form."""


class Runtime:
    """A loaded model.

    Same weights, same input, same backend and thread count: bitwise the same output, from any thread.

    Args:
        model: bundled name (`minet-sdk models`), bundle folder or .onnx file with this SDK's metadata.
        backend: a name from `minet_sdk.backends.names()`, or ``auto``.
        threads: CPU threads of the engine; None leaves it to the engine.
        consistency: what to do with the measured centre of k-space: ``off``, ``soft``, ``hard`` (see
            `minet_sdk.kspace.enforce_consistency`), or ``auto``: hard for complex targets, soft for magnitude.
        largest_output: refuse restored slices of more pixels than this.

    Raises:
        BundleError: the model is missing, corrupt or was changed.
        BackendError: the engine is missing, or fails the golden-vector check.
        InputError: an option is none of its choices.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = "minet-x2",
        *,
        backend: str = AUTO,
        threads: int | None = None,
        consistency: ConsistencyOption = "auto",
        largest_output: int = LARGEST_OUTPUT,
    ) -> None:
        if consistency not in ("auto", "off", "soft", "hard"):
            raise InputError(f"consistency is {consistency!r}; choose one of auto, off, soft, hard")
        if threads is not None and threads < 1:
            raise InputError(f"threads is {threads}; give at least 1, or None for the engine's choice")
        self._choice = choose(backend)
        for name, reason in self._choice.passed_over.items():
            _log.info("backend %s passed over: %s", name, reason)
        self._consistency: ConsistencyOption = consistency
        self._largest_output = largest_output
        self._runner = make_runner(self._choice.spec, RunnerOptions(threads=threads))
        self._lock = threading.Lock()
        self._restore_times: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._prepare_times: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._restored = self._prepared = 0
        self._bundle = self._runner.activate(model)
        try:
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
            golden_error=self._golden_error,
            warm_up_seconds=self._warm_up_seconds,
            peak_memory_mib=_peak_memory_mib(),
            versions={"minet-sdk": __version__, "engine": self._runner.version, "numpy": np.__version__},
        )

    def consistency_for(self, target: AnyArray) -> Consistency:
        """What is done with the measured k-space of ``target``; settles ``auto``."""
        if self._consistency != "auto":
            return self._consistency
        return "hard" if np.iscomplexobj(target) else "soft"

    def stats(self) -> Stats:
        """Latencies so far (the last `LATENCIES_KEPT` slices)."""
        with self._lock:
            restore, prepare = np.array(self._restore_times) * 1e3, np.array(self._prepare_times) * 1e3
            restored, prepared = self._restored, self._prepared

        def percentile(values: npt.NDArray[np.float64], q: float) -> float | None:
            return float(np.percentile(values, q)) if len(values) else None

        return Stats(
            slices=restored,
            p50_ms=percentile(restore, 50),
            p95_ms=percentile(restore, 95),
            p99_ms=percentile(restore, 99),
            mean_ms=float(restore.mean()) if len(restore) else None,
            prepared_slices=prepared,
            prepare_p50_ms=percentile(prepare, 50),
        )

    def prepare(self, reference: AnyArray) -> PreparedReference:
        """Compute what depends on the reference alone, before the target has arrived.

        Args:
            reference: (H, W) or (slices, H, W), real, any intensity scale.

        Returns:
            To be passed to a call in place of the reference. It holds the features of every slice in memory (about
            50 MiB a slice of 320 x 320 for the bundled models): prepare a long series slice by slice.

        Raises:
            InputError: wrong shape, dtype or values, or a single-contrast model.
        """
        self._require_reference_model()
        slices = _as_slices(reference, "reference", complex_allowed=False)
        size = slices.shape[1:]
        if size[0] % self.scale or size[1] % self.scale or min(size) < LEAST_SIZE * self.scale:
            raise InputError(
                f"reference is {_by(size)}; for this x{self.scale} model both must be multiples of {self.scale} "
                f"and at least {LEAST_SIZE * self.scale}"
            )
        self._check_output_size(size)
        return PreparedReference(
            np.shape(reference), self._bundle.sha256, tuple(self._encode(piece) for piece in slices)
        )

    def __call__(self, target: AnyArray, reference: AnyArray | PreparedReference | None = None) -> Array:
        """Restore one slice or a stack of slices.

        Args:
            target: (H, W) or (slices, H, W), real or complex, any intensity scale.
            reference: (scale * H, scale * W) or (slices, scale * H, scale * W), aligned so that low-resolution sample
                i lies on high-resolution sample scale * i; or the result of `prepare`. None for single-contrast
                models only.

        Returns:
            float32 magnitude, (scale * H, scale * W) or (slices, scale * H, scale * W), in the target's intensity.

        Raises:
            InputError: wrong shapes, dtypes, sizes or values, or a missing or superfluous reference.
            BackendError: the engine failed, or the runtime is closed.
        """
        slices = _as_slices(target, "target", complex_allowed=True)
        size = slices.shape[1:]
        if min(size) < LEAST_SIZE:
            raise InputError(f"target is {_by(size)}; at least {LEAST_SIZE} x {LEAST_SIZE} is needed")
        expected = (*np.shape(target)[:-2], self.scale * size[0], self.scale * size[1])
        self._check_output_size(expected[-2:])
        references = self._references(reference, expected)
        restored = np.empty((len(slices), *expected[-2:]), np.float32)
        for index, piece in enumerate(slices):
            features = None
            if isinstance(references, PreparedReference):
                features = references.features[index]
            elif references is not None:
                features = self._encode(references[index])
            restored[index] = self._restore(piece, features)
        return restored.reshape(expected)

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
            if self._bundle.manifest.needs_reference:
                raise InputError(f"model {self._bundle.manifest.name} needs a reference of shape {expected}; got none")
            return None
        self._require_reference_model()
        shape = reference.shape if isinstance(reference, PreparedReference) else np.shape(reference)
        if tuple(shape) != expected:
            raise InputError(
                f"reference has shape {tuple(shape)}; model {self._bundle.manifest.name} magnifies by {self.scale}, so "
                f"this target needs {expected}"
            )
        if not isinstance(reference, PreparedReference):
            return _as_slices(reference, "reference", complex_allowed=False)
        if reference.model_sha256 != self._bundle.sha256:
            raise InputError("the prepared reference comes from another model: call prepare() of this runtime")
        return reference

    def _require_reference_model(self) -> None:
        if not self._bundle.manifest.needs_reference:
            raise InputError(f"model {self._bundle.manifest.name} is single-contrast and takes no reference")

    def _check_output_size(self, size: tuple[int, ...]) -> None:
        if size[-2] * size[-1] > self._largest_output:
            raise InputError(
                f"the restored slice would be {_by(size)}, over the limit of {self._largest_output} pixels; "
                "restore a part of it, or raise largest_output"
            )

    def _encode(self, reference: AnyArray) -> Any:
        started = time.perf_counter()
        normal = self._bundle.manifest.normalisation.apply(reference)
        features = self._runner.encode(normal[None, None])
        with self._lock:
            self._prepare_times.append(time.perf_counter() - started)
            self._prepared += 1
        return features

    def _restore(self, target: AnyArray, features: Any) -> Array:
        """One slice: normalise, run, undo, put the measured k-space back."""
        started = time.perf_counter()
        magnitude = np.abs(target) if np.iscomplexobj(target) else target
        normalisation = self._bundle.manifest.normalisation
        statistics = normalisation.statistics(magnitude)
        normal = normalisation.apply(magnitude, statistics)
        restored = normalisation.undo(self._runner.restore(normal[None, None], features)[0, 0], statistics)
        if not np.isfinite(restored).all():
            raise BackendError(
                f"{self._choice.spec.name} gave values that are not finite for a finite input: do not use this engine"
            )
        restored = enforce_consistency(restored, target, self.scale, self.consistency_for(target))
        with self._lock:
            self._restore_times.append(time.perf_counter() - started)
            self._restored += 1
        return restored

    def _check_golden(self) -> float | None:
        """Run the golden vector, which also warms the engine up; refuse an engine that is off."""
        golden = self._bundle.golden()
        if golden is None:
            return None
        features = None if golden.reference is None else self._runner.encode(golden.reference)
        error = golden.error(self._runner.restore(golden.target, features))
        tolerance = self._bundle.manifest.golden_tolerance
        if error > tolerance:
            raise BackendError(
                f"{self._choice.spec.name} fails the golden-vector check of {self._bundle.manifest.name}: relative "
                f"error {error:.2e}, at most {tolerance:.0e} is allowed; use another backend"
            )
        return error


def _peak_memory_mib() -> float | None:
    try:
        resource = importlib.import_module("resource")
    except ModuleNotFoundError:
        return None
    per_mib = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / per_mib


def _by(size: tuple[int, ...]) -> str:
    return f"{size[-2]} x {size[-1]}"


def _as_slices(image: AnyArray, role: str, *, complex_allowed: bool) -> AnyArray:
    """An image as float32 or complex64 (slices, H, W), checked for dimensions, dtype and values."""
    array = np.asarray(image)
    allowed = "fiu" + ("c" if complex_allowed else "")
    if array.dtype.kind not in allowed:
        kinds = "real or complex" if complex_allowed else "real"
        raise InputError(f"{role} has dtype {array.dtype}; expected {kinds} numbers")
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise InputError(f"{role} has shape {array.shape}; expected (H, W) or (slices, H, W)")
    if array.dtype.kind in "fc" and not np.isfinite(array).all():
        count = int(np.count_nonzero(~np.isfinite(array)))
        raise InputError(f"{role} has {count} values that are NaN or infinite; replace them before restoring")
    array = array.astype(np.complex64 if array.dtype.kind == "c" else np.float32, copy=False)
    return array if array.ndim == 3 else array[None]
