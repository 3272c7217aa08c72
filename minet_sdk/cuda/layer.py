"""What the runtime asks of a CUDA library: memory, streams, events, copies, launches, graphs; nothing more.

cuda-core answers by default; pycuda does in applications that live on it. Work is asynchronous, ordered by streams.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from minet_sdk.cuda.driver import Gpu
from minet_sdk.errors import BackendError, InputError, first_line

LayerName = Literal["cuda-core", "pycuda"]

LEGACY_STREAM = 1
PER_THREAD_STREAM = 2
"""Handles of CUDA's two default streams, as DLPack and the CUDA array interface number them."""


@dataclass(frozen=True)
class Stream:
    """A CUDA stream."""

    handle: int
    """Never 0, so that it says which of the default streams is meant."""

    native: Any = field(repr=False, compare=False)
    """The library's own object, which also keeps the stream alive."""


@dataclass(frozen=True)
class Buffer:
    """Device memory that goes back when nothing refers to it, in the order of the stream it was made for."""

    address: int
    size: int
    """Bytes."""

    native: Any = field(repr=False, compare=False)


@dataclass(frozen=True)
class PinnedBuffer:
    """Host memory that copies reach without the CPU."""

    array: npt.NDArray[np.uint8]
    native: Any = field(repr=False, compare=False)


class LaunchLike(Protocol):
    """A launch of `minet_sdk.kernels.launches`, with plain integers."""

    @property
    def entry(self) -> str:
        """Name of the kernel."""
        ...

    @property
    def grid(self) -> tuple[int, int, int]:
        """Blocks."""
        ...

    @property
    def block(self) -> int:
        """Threads of a block."""
        ...

    @property
    def integers(self) -> tuple[int, ...]:
        """32-bit arguments between inputs and outputs."""
        ...


class DeviceLayer(ABC):
    """One GPU through one CUDA library. Safe for many threads; each calls `enter` before anything else."""

    captures_graphs: bool
    """Whether `capture` exists."""

    def __init__(self, ptx_for: Callable[[tuple[int, int]], str]) -> None:
        """Args: ptx_for: the kernels' PTX for a compute capability; asked at the first launch."""
        self._ptx_for = ptx_for
        self._kernels: dict[str, Any] = {}
        self._module: Any = None
        self._lock = threading.Lock()

    @property
    @abstractmethod
    def version(self) -> str:
        """Name and version of the library."""

    @property
    @abstractmethod
    def gpu(self) -> Gpu:
        """The device."""

    @abstractmethod
    def enter(self) -> None:
        """Make the device's context current in the calling thread."""

    @abstractmethod
    def new_stream(self) -> Stream:
        """A stream that does not wait for the default stream."""

    @abstractmethod
    def caller_stream(self, stream: Any) -> Stream:
        """A stream that the caller owns and keeps alive.

        Raises:
            InputError: not a stream that this library can use.
        """

    @abstractmethod
    def empty(self, size: int, stream: Stream) -> Buffer:
        """Device memory of ``size`` bytes, aligned to 256, to be used on ``stream`` first."""

    @abstractmethod
    def pinned(self, size: int) -> PinnedBuffer:
        """Page-locked host memory of ``size`` bytes."""

    @abstractmethod
    def upload(self, target: int, source: npt.NDArray[Any], stream: Stream) -> None:
        """Pinned C-contiguous host array to a device address."""

    @abstractmethod
    def download(self, target: npt.NDArray[Any], source: int, stream: Stream) -> None:
        """Device address to a pinned C-contiguous host array."""

    @abstractmethod
    def copy(self, target: int, source: int, size: int, stream: Stream) -> None:
        """Device address to device address, ``size`` bytes."""

    @abstractmethod
    def record(self, stream: Stream) -> Any:
        """An event: everything that was enqueued on the stream before now."""

    @abstractmethod
    def wait(self, stream: Stream, event: Any) -> None:
        """What is enqueued on the stream from now on runs after the event."""

    @abstractmethod
    def wait_for_producer(self, stream: Stream, handle: int) -> None:
        """As `wait`, for what is now on somebody else's stream of that handle."""

    @abstractmethod
    def make_consumer_wait(self, handle: int, event: Any) -> None:
        """As `wait`, on somebody else's stream of that handle."""

    @abstractmethod
    def finish(self, event: Any) -> None:
        """Block the calling thread until the event has happened."""

    @abstractmethod
    def is_done(self, event: Any) -> bool:
        """Whether the event has happened."""

    @abstractmethod
    def capture(self, work: Callable[[Stream], None], stream: Stream) -> "Graph":
        """Record what ``work`` enqueues on ``stream``, without running it; ``stream`` must be one of `new_stream`.

        Raises:
            BackendError: it cannot be captured.
        """

    def launch(self, launch: LaunchLike, inputs: Sequence[int], outputs: Sequence[int], stream: Stream) -> None:
        """Enqueue one kernel of the shipped PTX; inputs and outputs are device addresses.

        Raises:
            BackendError: the driver takes neither the PTX nor the launch.
        """
        arguments = [*map(np.uint64, inputs), *map(np.int32, launch.integers), *map(np.uint64, outputs)]
        self._launch(self._kernel(launch.entry), launch.grid, launch.block, arguments, stream)

    def _kernel(self, entry: str) -> Any:
        with self._lock:
            if entry not in self._kernels:
                if self._module is None:
                    self._module = self._load(self._ptx_for(self.gpu.compute_capability).encode())
                self._kernels[entry] = self._find(self._module, entry)
            return self._kernels[entry]

    @abstractmethod
    def _load(self, ptx: bytes) -> Any: ...

    @abstractmethod
    def _find(self, module: Any, entry: str) -> Any: ...

    @abstractmethod
    def _launch(
        self, kernel: Any, grid: tuple[int, int, int], block: int, arguments: list[Any], stream: Stream
    ) -> None: ...


class Graph(Protocol):
    """Captured work."""

    def launch(self, stream: Stream) -> None:
        """Enqueue all of it."""
        ...


def make_layer(name: LayerName, ordinal: int, ptx_for: Callable[[tuple[int, int]], str]) -> DeviceLayer:
    """The layer of that name on a device; pycuda takes the device of the current context.

    Raises:
        InputError: no such layer.
        MissingPackageError: its package is not installed.
        BackendError: it does not work here.
    """
    if name == "cuda-core":
        from minet_sdk.cuda.cuda_core_layer import CudaCoreLayer

        return CudaCoreLayer(ordinal, ptx_for)
    if name == "pycuda":
        from minet_sdk.cuda.pycuda_layer import PycudaLayer

        return PycudaLayer(ptx_for)
    raise InputError(f"device_layer is {name!r}; choose one of {', '.join(get_args(LayerName))}")


def stream_handle(stream: Any) -> int:
    """Address of a stream that comes as a number or as another library's object.

    Understood are the ``__cuda_stream__`` protocol and the attributes that libraries without it have: PyTorch's
    ``cuda_stream``, CuPy's ``ptr``, pycuda's and Numba's ``handle``. 0 is the legacy default stream, given back as 1.

    Raises:
        InputError: none of these.
    """
    handle: Any = stream
    if hasattr(stream, "__cuda_stream__"):
        handle = stream.__cuda_stream__()[1]
    else:
        for name in ("cuda_stream", "ptr", "handle"):
            if hasattr(stream, name):
                handle = getattr(stream, name)
                break
        handle = getattr(handle, "value", handle)
    if isinstance(handle, bool) or not hasattr(handle, "__index__") or int(handle) < 0:
        raise InputError(
            f"stream is {stream!r}; expected a CUDA stream: an object with __cuda_stream__, of PyTorch, CuPy or "
            "pycuda, or its address as an int"
        )
    return int(handle) or LEGACY_STREAM


def failed(action: str, error: Exception) -> BackendError:
    """The error of a device call that failed."""
    return BackendError(f"the GPU failed {action}: {first_line(error)}")
