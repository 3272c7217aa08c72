"""The device layer on NVIDIA's cuda-core: the primary context, memory in stream-ordered pools, CUDA graphs."""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from minet_sdk.cuda.driver import Gpu
from minet_sdk.cuda.layer import (
    LEGACY_STREAM,
    PER_THREAD_STREAM,
    Buffer,
    DeviceLayer,
    Graph,
    PinnedBuffer,
    Stream,
    failed,
    stream_handle,
)
from minet_sdk.errors import BackendError, first_line
from minet_sdk.requirements import require

CAPTURE_MODE = "thread_local"
"""Other threads may allocate meanwhile."""


class CudaCoreLayer(DeviceLayer):
    """A device by its ordinal, in its primary context, which PyTorch and CuPy use too."""

    captures_graphs = True

    def __init__(self, ordinal: int, ptx_for: Callable[[tuple[int, int]], str]) -> None:
        super().__init__(ptx_for)
        self._core = require("cuda.core", "running on a GPU")
        try:
            self._device = self._core.Device(ordinal)
            self._device.set_current()
            capability = self._device.compute_capability
            self._gpu = Gpu(ordinal, self._device.name, (capability.major, capability.minor))
            self._pinned = self._core.LegacyPinnedMemoryResource()
        except Exception as error:  # cuda-core's errors have no public base class
            raise failed(f"to start device {ordinal}", error) from error

    @property
    def version(self) -> str:
        """Name and version of the library."""
        return f"cuda-core {self._core.__version__}"

    @property
    def gpu(self) -> Gpu:
        """The device."""
        return self._gpu

    def enter(self) -> None:
        """Make the primary context current in the calling thread."""
        self._device.set_current()

    def new_stream(self) -> Stream:
        """A stream that does not wait for the default stream."""
        return self._wrapped(self._device.create_stream())

    def caller_stream(self, stream: Any) -> Stream:
        """Any library's stream, by its address."""
        handle = stream_handle(stream)
        if handle == LEGACY_STREAM:
            return Stream(handle, self._core.LEGACY_DEFAULT_STREAM)
        if handle == PER_THREAD_STREAM:
            return Stream(handle, self._core.PER_THREAD_DEFAULT_STREAM)
        return Stream(handle, self._core.Stream.from_handle(handle))

    def empty(self, size: int, stream: Stream) -> Buffer:
        """Memory from the device's pool."""
        try:
            buffer = self._device.allocate(size, stream=stream.native)
        except Exception as error:  # as above
            raise failed(f"to allocate {size} bytes", error) from error
        return Buffer(int(buffer.handle), size, buffer)

    def pinned(self, size: int) -> PinnedBuffer:
        """Page-locked host memory."""
        try:
            buffer = self._pinned.allocate(size)
        except Exception as error:  # as above
            raise failed(f"to allocate {size} bytes of pinned host memory", error) from error
        memory = (ctypes.c_uint8 * size).from_address(int(buffer.handle))
        return PinnedBuffer(np.ctypeslib.as_array(memory), buffer)

    def upload(self, target: int, source: npt.NDArray[Any], stream: Stream) -> None:
        """Pinned host array to a device address."""
        self.copy(target, source.ctypes.data, source.nbytes, stream)

    def download(self, target: npt.NDArray[Any], source: int, stream: Stream) -> None:
        """Device address to a pinned host array."""
        self.copy(target.ctypes.data, source, target.nbytes, stream)

    def copy(self, target: int, source: int, size: int, stream: Stream) -> None:
        """One address to another; the driver tells host from device."""
        buffers = self._core.Buffer
        try:
            buffers.from_handle(target, size).copy_from(buffers.from_handle(source, size), stream=stream.native)
        except Exception as error:  # as above
            raise failed(f"to copy {size} bytes", error) from error

    def record(self, stream: Stream) -> Any:
        """An event after what is on the stream."""
        return stream.native.record()

    def wait(self, stream: Stream, event: Any) -> None:
        """The stream goes on after the event."""
        stream.native.wait(event)

    def wait_for_producer(self, stream: Stream, handle: int) -> None:
        """The stream goes on after what is now on another."""
        if handle != stream.handle:
            stream.native.wait(self.caller_stream(handle).native)

    def make_consumer_wait(self, handle: int, event: Any) -> None:
        """Another stream goes on after the event."""
        self.wait(self.caller_stream(handle), event)

    def finish(self, event: Any) -> None:
        """Block until the event; what failed on the device before it shows here."""
        try:
            event.sync()
        except Exception as error:  # as above
            raise failed("while it worked", error) from error

    def is_done(self, event: Any) -> bool:
        """Whether the event has happened."""
        return event.is_done

    def capture(self, work: Callable[[Stream], None], stream: Stream) -> Graph:
        """Record ``work`` as a graph and upload it."""
        builder = stream.native.create_graph_builder()
        try:
            builder.begin_building(mode=CAPTURE_MODE)
            try:
                work(stream)
            finally:
                builder.end_building()
            graph = builder.complete()
            graph.upload(stream.native)
        except Exception as error:  # as above
            raise BackendError(f"the work cannot be captured as a CUDA graph: {first_line(error)}") from error
        finally:
            builder.close()
        return _CudaCoreGraph(graph)

    def _load(self, ptx: bytes) -> Any:
        try:
            return self._core.ObjectCode.from_ptx(ptx)
        except Exception as error:  # as above
            raise failed("to load the kernels; update the driver", error) from error

    def _find(self, module: Any, entry: str) -> Any:
        try:
            return module.get_kernel(entry)
        except Exception as error:  # as above
            raise failed(f"to load the kernel {entry}; update the driver", error) from error

    def _launch(
        self, kernel: Any, grid: tuple[int, int, int], block: int, arguments: list[Any], stream: Stream
    ) -> None:
        try:
            self._core.launch(stream.native, self._core.LaunchConfig(grid=grid, block=block), kernel, *arguments)
        except Exception as error:  # as above
            raise failed("to launch a kernel", error) from error

    def _wrapped(self, native: Any) -> Stream:
        return Stream(int(native.handle), native)


class _CudaCoreGraph:
    def __init__(self, graph: Any) -> None:
        self._graph = graph

    def launch(self, stream: Stream) -> None:
        try:
            self._graph.launch(stream.native)
        except Exception as error:  # cuda-core's errors have no public base class
            raise failed("to replay a CUDA graph", error) from error
