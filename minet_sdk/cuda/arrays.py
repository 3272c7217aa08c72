"""Images that lie on a GPU: other libraries' arrays coming in, results going out, without a copy either way.

Both protocols are spoken: DLPack, which is asked first, and the CUDA array interface (version 3).
"""

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from minet_sdk.cuda import dlpack
from minet_sdk.cuda.layer import LEGACY_STREAM, PER_THREAD_STREAM, Buffer, DeviceLayer, Stream
from minet_sdk.errors import InputError, first_line

_CUDA_DEVICES = (dlpack.CUDA, dlpack.CUDA_MANAGED)


@runtime_checkable
class DlpackArray(Protocol):
    """An array that can leave its library, as PyTorch, CuPy, JAX and cuda-core have them."""

    def __dlpack__(self, *, stream: int | None = None) -> Any: ...

    def __dlpack_device__(self) -> tuple[Any, int]: ...


@runtime_checkable
class CudaArray(Protocol):
    """An array with the CUDA array interface, such as pycuda's GPUArray."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...


def is_on_device(image: Any) -> bool:
    """Whether this is an array on a CUDA device, rather than something that NumPy reads."""
    if isinstance(image, np.ndarray):
        return False
    if hasattr(image, "__dlpack_device__"):
        return int(image.__dlpack_device__()[0]) in _CUDA_DEVICES
    return hasattr(image, "__cuda_array_interface__")


@dataclass(frozen=True)
class DeviceImage:
    """float32 (slices, H, W) in device memory, readable on the stream that it was imported for."""

    address: int
    shape: tuple[int, int, int]
    given_shape: tuple[int, ...]
    """(H, W) or (slices, H, W), as the caller gave it."""

    owner: Any = field(repr=False, compare=False)
    """Keeps the memory until what reads it is done."""

    def slice_address(self, index: int) -> int:
        """Address of one slice."""
        return self.address + index * self.shape[1] * self.shape[2] * 4


def import_image(image: Any, role: str, layer: DeviceLayer, stream: Stream) -> DeviceImage:
    """Somebody else's array, ordered so that work on ``stream`` may read it.

    Args:
        image: float32 (H, W) or (slices, H, W), C-contiguous, on the layer's device.
        role: what it is, for the error.
        layer: of the runtime.
        stream: that will read it.

    Raises:
        InputError: another dtype, shape, layout or device.
    """
    if hasattr(image, "__dlpack_device__"):
        return _from_dlpack(image, role, layer, stream)
    return _from_cuda_array(image, role, layer, stream)


def _from_dlpack(image: Any, role: str, layer: DeviceLayer, stream: Stream) -> DeviceImage:
    ordinal = int(image.__dlpack_device__()[1])
    if ordinal != layer.gpu.ordinal:
        raise InputError(f"{role} is on CUDA device {ordinal}; this runtime is on device {layer.gpu.ordinal}")
    try:
        capsule = image.__dlpack__(stream=stream.handle)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{role} cannot be read through DLPack: {first_line(error)}") from error
    content = dlpack.read(capsule, role)
    return _checked(content.address, content.shape, content.strides, content.dtype, role, (capsule, image))


def _from_cuda_array(image: Any, role: str, layer: DeviceLayer, stream: Stream) -> DeviceImage:
    interface = image.__cuda_array_interface__
    dtype = np.dtype(interface["typestr"])
    strides = interface.get("strides")
    if strides is not None:
        strides = tuple(stride // dtype.itemsize if stride % dtype.itemsize == 0 else -1 for stride in strides)
    name = dtype.name if dtype.isnative else f"{dtype.name} in foreign byte order"
    if interface.get("mask") is not None:
        raise InputError(f"{role} has a mask; give an array without one")
    found = _checked(interface["data"][0], tuple(interface["shape"]), strides, name, role, image)
    producer = producer_stream(interface, role)
    if producer is not None:
        layer.wait_for_producer(stream, producer)
    return found


def producer_stream(interface: dict[str, Any], role: str) -> int | None:
    """The stream whose work must be done before the array is read; None if the producer says that nothing is pending.

    Raises:
        InputError: the number 0, which the protocol forbids since it does not say which default stream.
    """
    stream = interface.get("stream") if interface.get("version", 0) >= 3 else None
    if stream is None:
        return None
    if stream == 0:
        raise InputError(f"{role}: the stream of its __cuda_array_interface__ is 0, which version 3 does not allow")
    return int(stream)


def _checked(
    address: int, shape: tuple[int, ...], strides: tuple[int, ...] | None, dtype: str, role: str, owner: Any
) -> DeviceImage:
    if dtype != "float32":
        raise InputError(f"{role} on the device has dtype {dtype}; expected float32, or pass a host array")
    if len(shape) not in (2, 3) or 0 in shape:
        raise InputError(f"{role} has shape {shape}; expected (H, W) or (slices, H, W)")
    if strides is not None and not _is_contiguous(shape, strides):
        raise InputError(f"{role} on the device has strides {strides} (elements); expected C-contiguous memory")
    if address % 4:
        raise InputError(f"{role} on the device is not aligned to 4 bytes: copy it")
    slices = shape if len(shape) == 3 else (1, *shape)
    return DeviceImage(address, (slices[0], slices[1], slices[2]), tuple(shape), owner)


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether the strides are those of C order; the stride of an axis of one element means nothing."""
    expected = 1
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length != 1 and stride != expected:
            return False
        expected *= length
    return True


class DeviceArray:
    """A restored image in device memory, float32; work on it may still be under way on its stream.

    It speaks DLPack and the CUDA array interface, so that PyTorch, CuPy and others take it without a copy. Its memory
    goes back in the order of its stream: a consumer on another stream keeps it until its own work is done.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, shape: tuple[int, ...], buffer: Buffer, layer: DeviceLayer, stream: Stream) -> None:
        self._shape = shape
        self._buffer = buffer
        self._layer = layer
        self._stream = stream
        self._ready = layer.record(stream)

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W) or (slices, H, W)."""
        return self._shape

    @property
    def stream(self) -> int:
        """Handle of the stream that the image is made on."""
        return self._stream.handle

    def synchronise(self) -> None:
        """Block until the image is there.

        Raises:
            BackendError: the device failed on the way.
        """
        self._layer.enter()
        self._layer.finish(self._ready)

    def to_host(self) -> npt.NDArray[np.float32]:
        """A copy in host memory; blocks until it is there.

        Raises:
            BackendError: the device failed on the way.
        """
        self._layer.enter()
        pinned = self._layer.pinned(self._buffer.size)
        self._layer.download(pinned.array, self._buffer.address, self._stream)
        self._layer.finish(self._layer.record(self._stream))
        return pinned.array.view(np.float32).reshape(self._shape).copy()

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self._shape,
            "typestr": self.dtype.str,
            "data": (self._buffer.address, False),
            "strides": None,
            "stream": self._stream.handle,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return (dlpack.CUDA, self._layer.gpu.ordinal)

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule of this memory; the consumer's stream waits for the image.

        Args:
            stream: None or 1 the legacy default stream, 2 the calling thread's, -1 no waiting, else a handle.
            max_version: any; the form that every version understands is given.
            dl_device: this device, or None.
            copy: not True.

        Raises:
            BufferError: a copy or another device is asked for.
        """
        del max_version
        if dl_device is not None and (int(dl_device[0]), int(dl_device[1])) != self.__dlpack_device__():
            raise BufferError("a restored image is exported on its own device only: use to_host() for the host")
        if copy:
            raise BufferError("a restored image is exported without a copy: copy it in the consuming library")
        if (consumer := consumer_stream(stream)) is not None:
            self._layer.enter()
            self._layer.make_consumer_wait(consumer, self._ready)
        return dlpack.export(self._buffer.address, self._shape, self.__dlpack_device__(), self)

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self._shape}, dtype=float32, device={self._layer.gpu.name!r})"


def consumer_stream(stream: int | None) -> int | None:
    """The stream that must wait, from what a consumer passes to ``__dlpack__``; None if none need.

    Raises:
        BufferError: 0, which does not say which default stream, or no stream at all.
    """
    if stream is None:
        return LEGACY_STREAM
    if stream == -1:
        return None
    if stream in (LEGACY_STREAM, PER_THREAD_STREAM) or stream > PER_THREAD_STREAM:
        return stream
    raise BufferError(f"stream is {stream}; DLPack allows -1, 1, 2, the address of a CUDA stream, or None")
