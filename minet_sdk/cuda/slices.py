"""The way of images in device memory through a runtime: what the host path does, as kernels on the caller's stream."""

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from minet_sdk.backends.base import DeviceRunner, Features, Shape
from minet_sdk.bundle import Bundle
from minet_sdk.cuda.arrays import DeviceArray, DeviceImage, import_image, is_on_device
from minet_sdk.cuda.bookkeeping import Recent
from minet_sdk.cuda.layer import Buffer, Stream
from minet_sdk.cuda.programs import launches
from minet_sdk.errors import InputError
from minet_sdk.kspace import soft_consistency_matrices
from minet_sdk.reports import PreparedReference
from minet_sdk.shapes import ShapeRules

FLOAT_BYTES = 4
DOUBLE_BYTES = 8

SHAPES_KEPT = 4
"""Target sizes whose consistency matrices stay on the device."""


@dataclass(frozen=True)
class _Matrices:
    """`soft_consistency_matrices` of both axes on the device, float32 row-major; addresses."""

    down_rows: int
    down_columns: int
    """Transposed."""

    up_rows: int
    up_columns: int
    """Transposed."""

    ready: Any
    memory: tuple[Any, ...]


class DevicePath:
    """Restores and prepares device arrays. For any number of threads."""

    def __init__(self, runner: DeviceRunner, bundle: Bundle, rules: ShapeRules, consistency: str, backend: str) -> None:
        self._runner = runner
        self._bundle = bundle
        self._rules = rules
        self._consistency = consistency
        self._backend = backend
        self._kernels: Any = launches()
        self._lock = threading.Lock()
        self._matrices: Recent[tuple[int, int], _Matrices] = Recent(SHAPES_KEPT, lambda _: None)

    def prepare(self, reference: Any, stream: Any) -> PreparedReference:
        """Features of a reference, see `Runtime.prepare`."""
        self._rules.check_takes_reference()
        layer = self._runner.enter()
        own = self._runner.prefetch_stream() if stream is None else layer.caller_stream(stream)
        image = import_image(reference, "reference", layer, own)
        self._rules.check_alone(image.shape)
        features = tuple(self._encode(image, index, own) for index in range(image.shape[0]))
        self._runner.keep(own, image)
        return PreparedReference(
            image.given_shape, self._bundle.sha256, self._backend, features, (None,) * len(features)
        )

    def restore(self, target: Any, reference: Any, stream: Any) -> DeviceArray:
        """The restored image, see `Runtime.__call__`."""
        self._check_places(target, reference)
        if self._consistency == "hard":
            raise InputError(
                "hard consistency of a device array is not possible: pass a host array, or choose soft or off"
            )
        layer = self._runner.enter()
        own = self._runner.own_stream() if stream is None else layer.caller_stream(stream)
        image = import_image(target, "target", layer, own)
        expected = self._rules.restored(image.given_shape)
        guide = self._guide(reference, expected, own)
        result = layer.empty(int(np.prod(expected)) * FLOAT_BYTES, own)
        slice_bytes = expected[-2] * expected[-1] * FLOAT_BYTES
        for index in range(image.shape[0]):
            features = None
            if isinstance(guide, PreparedReference):
                features = guide.features[index]
            elif guide is not None:
                features = self._encode(guide, index, own)
            self._restore(image, index, features, result.address + index * slice_bytes, own)
        self._runner.keep(own, image, guide)
        return DeviceArray(expected, result, layer, own)

    def _check_places(self, target: Any, reference: Any) -> None:
        """Target and reference come from the same memory; a prepared reference is on the device already."""
        if reference is None or isinstance(reference, PreparedReference):
            return
        places = {True: "device", False: "host"}
        if is_on_device(target) != is_on_device(reference):
            raise InputError(
                f"target is in {places[is_on_device(target)]} memory and reference in "
                f"{places[is_on_device(reference)]} memory: put both into the same"
            )

    def _guide(
        self, reference: Any, expected: tuple[int, ...], stream: Stream
    ) -> DeviceImage | PreparedReference | None:
        """The checked reference."""
        if reference is None:
            self._rules.check_reference(None, expected)
            return None
        if isinstance(reference, PreparedReference):
            self._rules.check_reference(reference.shape, expected)
            reference.check_origin(self._bundle.sha256, self._backend)
            return reference
        image = import_image(reference, "reference", self._runner.layer, stream)
        self._rules.check_reference(image.given_shape, expected)
        return image

    def _encode(self, reference: DeviceImage, index: int, stream: Stream) -> Features:
        """Features of one slice."""
        shape: Shape = (1, 1, *reference.shape[1:])
        with self._runner.work("reference", {"reference": shape}, stream) as work:
            self._normalise(reference, index, work.inputs["reference"].address, stream)
            work.run(stream)
            return self._runner.features_of(work, stream)

    def _restore(self, target: DeviceImage, index: int, features: Features | None, result: int, stream: Stream) -> None:
        """One slice to the address of its result."""
        shape: Shape = (1, 1, *target.shape[1:])
        with self._runner.restoring(shape, features, stream) as work:
            statistics = self._normalise(target, index, work.inputs["target"].address, stream)
            work.run(stream)
            pixels = target.shape[1] * target.shape[2] * self._rules.scale**2
            undo = self._kernels.denormalise(1, pixels, epsilon=self._bundle.manifest.normalisation.epsilon)
            normal = work.outputs["restored"].address
            self._runner.layer.launch(undo, [normal, statistics.address], [result], stream)
        if self._consistency != "off":
            self._project(target, index, result, stream)

    def _normalise(self, image: DeviceImage, index: int, normal: int, stream: Stream) -> Buffer:
        """Write a normalised slice; gives its mean and standard deviation on the device."""
        layer, normalisation = self._runner.layer, self._bundle.manifest.normalisation
        source, pixels = image.slice_address(index), image.shape[1] * image.shape[2]
        sums = layer.empty(self._kernels.MOMENT_PARTS * 2 * DOUBLE_BYTES, stream)
        statistics = layer.empty(2 * FLOAT_BYTES, stream)
        parts, whole = self._kernels.moments(1, pixels)
        layer.launch(parts, [source], [sums.address], stream)
        layer.launch(whole, [source, sums.address], [statistics.address], stream)
        apply = self._kernels.normalise(1, pixels, epsilon=normalisation.epsilon, clip=normalisation.clip)
        layer.launch(apply, [source, statistics.address], [normal], stream)
        return statistics

    def _project(self, target: DeviceImage, index: int, restored: int, stream: Stream) -> None:
        """Soft consistency in place: restored + up_rows (target - down_rows restored down_columns) up_columns."""
        layer, product = self._runner.layer, self._kernels.matmul
        height, width = target.shape[1:]
        large_height, large_width = self._rules.scale * height, self._rules.scale * width
        matrices = self._matrices_for(height, width, stream)
        rows = layer.empty(height * large_width * FLOAT_BYTES, stream)
        missing = layer.empty(height * width * FLOAT_BYTES, stream)
        raised = layer.empty(large_height * width * FLOAT_BYTES, stream)
        down = product(batch=1, rows=height, inner=large_height, columns=large_width)
        layer.launch(down, [matrices.down_rows, restored], [rows.address], stream)
        compare = product(batch=1, rows=height, inner=large_width, columns=width, scale=-1.0, addend_scale=1.0)
        source = target.slice_address(index)
        layer.launch(compare, [rows.address, matrices.down_columns, source], [missing.address], stream)
        up = product(batch=1, rows=large_height, inner=height, columns=width)
        layer.launch(up, [matrices.up_rows, missing.address], [raised.address], stream)
        add = product(batch=1, rows=large_height, inner=width, columns=large_width, addend_scale=1.0)
        layer.launch(add, [raised.address, matrices.up_columns, restored], [restored], stream)
        self._runner.keep(stream, matrices)

    def _matrices_for(self, height: int, width: int, stream: Stream) -> _Matrices:
        """The matrices of a target size, readable on ``stream``."""
        with self._lock:
            matrices = self._matrices.get((height, width), lambda: self._upload_matrices(height, width, stream))
        self._runner.layer.wait(stream, matrices.ready)
        return matrices

    def _upload_matrices(self, height: int, width: int, stream: Stream) -> _Matrices:
        layer = self._runner.layer
        (down_rows, up_rows), (down_columns, up_columns) = (
            soft_consistency_matrices(size, self._rules.scale) for size in (height, width)
        )
        parts = [m.astype(np.float32).ravel() for m in (down_rows, down_columns.T, up_rows, up_columns.T)]
        starts = np.cumsum([0, *(part.nbytes for part in parts)])
        pinned = layer.pinned(int(starts[-1]))
        pinned.array[:] = np.concatenate(parts).view(np.uint8)
        buffer = layer.empty(int(starts[-1]), stream)
        layer.upload(buffer.address, pinned.array, stream)
        addresses = [buffer.address + int(start) for start in starts[:-1]]
        return _Matrices(*addresses, ready=layer.record(stream), memory=(buffer, pinned))
