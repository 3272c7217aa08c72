"""The device layer on pycuda, for applications that live on it: the context that is current, their streams and arrays.

pycuda has no CUDA graphs and cannot wait on another library's stream except by waiting for the whole context.
"""

import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from minet_sdk.cuda.driver import Gpu
from minet_sdk.cuda.layer import Buffer, DeviceLayer, PinnedBuffer, Stream, failed
from minet_sdk.errors import BackendError, InputError
from minet_sdk.requirements import require


class PycudaLayer(DeviceLayer):
    """The device of the pycuda context that is current when the layer is made; every calling thread must push it."""

    captures_graphs = False

    def __init__(self, ptx_for: Callable[[tuple[int, int]], str]) -> None:
        super().__init__(ptx_for)
        self._driver = require("pycuda.driver", "device_layer pycuda")
        self._version = require("pycuda", "device_layer pycuda").VERSION_TEXT
        self._context = self._current()
        if self._context is None:
            raise BackendError("device_layer is pycuda and no context is current: make or push a pycuda context first")
        device = self._context.get_device()
        self._gpu = Gpu(0, device.name(), device.compute_capability())
        self._pool = _Pool()

    @property
    def version(self) -> str:
        """Name and version of the library."""
        return f"pycuda {self._version}"

    @property
    def gpu(self) -> Gpu:
        """The device."""
        return self._gpu

    def enter(self) -> None:
        """Check that the calling thread has the context."""
        if self._current() != self._context:
            raise BackendError("the pycuda context of this runtime is not current in the calling thread: push it first")

    def new_stream(self) -> Stream:
        """A stream of pycuda; it does wait for the default stream."""
        return self.caller_stream(self._driver.Stream())

    def caller_stream(self, stream: Any) -> Stream:
        """A pycuda stream."""
        if not isinstance(stream, self._driver.Stream):
            raise InputError(f"stream is {stream!r}; with device_layer pycuda it must be a pycuda.driver.Stream")
        return Stream(int(stream.handle), stream)

    def empty(self, size: int, stream: Stream) -> Buffer:
        """Memory that was used on the same stream before, or new memory."""
        memory = self._pool.take(size, stream)
        if memory is None:
            try:
                memory = self._driver.mem_alloc(size)
            except self._driver.Error as error:
                raise failed(f"to allocate {size} bytes", error) from error
        buffer = Buffer(int(memory), size, memory)
        weakref.finalize(buffer, self._pool.give, size, memory, stream)
        return buffer

    def pinned(self, size: int) -> PinnedBuffer:
        """Page-locked host memory."""
        try:
            array = self._driver.pagelocked_empty(size, np.uint8)
        except self._driver.Error as error:
            raise failed(f"to allocate {size} bytes of pinned host memory", error) from error
        return PinnedBuffer(array, array.base)

    def upload(self, target: int, source: npt.NDArray[Any], stream: Stream) -> None:
        """Pinned host array to a device address."""
        self._driver.memcpy_htod_async(target, source, stream.native)

    def download(self, target: npt.NDArray[Any], source: int, stream: Stream) -> None:
        """Device address to a pinned host array."""
        self._driver.memcpy_dtoh_async(target, source, stream.native)

    def copy(self, target: int, source: int, size: int, stream: Stream) -> None:
        """Device address to device address."""
        self._driver.memcpy_dtod_async(target, source, size, stream.native)

    def record(self, stream: Stream) -> Any:
        """An event after what is on the stream."""
        event = self._driver.Event(self._driver.event_flags.DISABLE_TIMING)
        event.record(stream.native)
        return event

    def wait(self, stream: Stream, event: Any) -> None:
        """The stream goes on after the event."""
        stream.native.wait_for_event(event)

    def wait_for_producer(self, stream: Stream, handle: int) -> None:
        """Block until the context is idle, unless it is the same stream: pycuda cannot address another."""
        if handle != stream.handle:
            self._driver.Context.synchronize()

    def make_consumer_wait(self, handle: int, event: Any) -> None:
        """Block until the event: as above."""
        self.finish(event)

    def finish(self, event: Any) -> None:
        """Block until the event; what failed on the device before it shows here."""
        try:
            event.synchronize()
        except self._driver.Error as error:
            raise failed("while it worked", error) from error

    def is_done(self, event: Any) -> bool:
        """Whether the event has happened."""
        return event.query()

    def capture(self, work: Callable[[Stream], None], stream: Stream) -> NoReturn:
        """Not with pycuda."""
        raise BackendError("the work cannot be captured as a CUDA graph: pycuda has none")

    def _current(self) -> Any:
        """The context as pycuda sees it; None if there is none."""
        return self._driver.Context.get_current()

    def _load(self, ptx: bytes) -> Any:
        try:
            return self._driver.module_from_buffer(ptx)
        except self._driver.Error as error:
            raise failed("to load the kernels; update the driver", error) from error

    def _find(self, module: Any, entry: str) -> Any:
        try:
            return module.get_function(entry)
        except self._driver.Error as error:
            raise failed(f"to load the kernel {entry}; update the driver", error) from error

    def _launch(
        self, kernel: Any, grid: tuple[int, int, int], block: int, arguments: list[Any], stream: Stream
    ) -> None:
        try:
            kernel(*arguments, grid=grid, block=(block, 1, 1), stream=stream.native)
        except self._driver.Error as error:
            raise failed("to launch a kernel", error) from error


class _Pool:
    """Free device memory by size and stream: what one stream gave back, the same stream may take, in its own order."""

    def __init__(self) -> None:
        self._free: dict[tuple[int, int], list[tuple[Any, Stream]]] = {}
        self._lock = threading.Lock()
        # Memory comes back from the garbage collector, which may run in the middle of `take`.
        self._returned: queue.SimpleQueue[tuple[int, Any, Stream]] = queue.SimpleQueue()

    def take(self, size: int, stream: Stream) -> Any:
        """Memory of exactly that size, or None."""
        with self._lock:
            while not self._returned.empty():
                returned, memory, owner = self._returned.get()
                self._free.setdefault((returned, owner.handle), []).append((memory, owner))
            free = self._free.get((size, stream.handle))
            return free.pop()[0] if free else None

    def give(self, size: int, memory: Any, stream: Stream) -> None:
        """Keep memory for the next; it keeps the stream, whose address could otherwise become another's."""
        self._returned.put((size, memory, stream))
