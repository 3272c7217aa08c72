"""A device without a GPU: memory is the host's, the shipped kernels run in the interpreter, ONNX Runtime is the engine.

What is asynchronous on a GPU happens at once here, so that a missing wait would not show in the values. The layer
therefore keeps the order that streams and events promise, and fails on any access that this order does not cover.
"""

import ctypes
import enum
import gc
import subprocess
import sys
import threading
import types
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from minet_sdk import Runtime
from minet_sdk.backends import tensorrt as backend
from minet_sdk.bundle import Bundle, Graph, open_bundle
from minet_sdk.cuda import dlpack
from minet_sdk.cuda.driver import Driver, Gpu
from minet_sdk.cuda.layer import Buffer, DeviceLayer, LaunchLike, PinnedBuffer, Stream, stream_handle
from minet_sdk.engines import EngineKey, bundle_folder, store
from minet_sdk.errors import BackendError
from minet_sdk.gpus import Gpu as PlanGpu
from minet_sdk.kernels.binaries import ptx, target_for
from minet_sdk.profiles import Profile

Array = npt.NDArray[np.float32]
Clock = Counter[int]
"""By stream: how many of its operations are known to have happened."""

HOST = 0
"""The host's own place in a clock."""


class RaceError(AssertionError):
    """An access that no wait orders after an earlier one."""


@dataclass
class Memory:
    """An allocation and who touched it last."""

    array: npt.NDArray[np.uint8]
    writer: tuple[int, int] = (HOST, 0)
    readers: dict[int, int] = field(default_factory=dict)

    @property
    def address(self) -> int:
        return self.array.ctypes.data


class HostLayer(DeviceLayer):
    """Runs everything at once, and checks that it could have run later."""

    captures_graphs = True

    def __init__(self, ptx_for: Callable[[tuple[int, int]], str] | None = None) -> None:
        super().__init__(ptx_for or (lambda capability: ptx(target_for(capability))))
        self.clocks: dict[int, Clock] = {}
        self.host: Clock = Counter()
        self.memories: dict[int, Memory] = {}
        self.entered = threading.local()
        self.counts: Counter[str] = Counter()
        self.capturing = False
        self.capture_error = ""
        self._next = 100
        self._guard = threading.RLock()

    @property
    def version(self) -> str:
        return "host 1.0"

    @property
    def gpu(self) -> Gpu:
        return Gpu(0, "Host", (8, 0))

    def enter(self) -> None:
        self.entered.yes = True

    def new_stream(self) -> Stream:
        with self._guard:
            self._next += 1
            return self.caller_stream(self._next)

    def caller_stream(self, stream: Any) -> Stream:
        assert getattr(self.entered, "yes", False), "a thread that did not enter"
        handle = stream_handle(stream)
        self.clocks.setdefault(handle, Counter())
        return Stream(handle, handle)

    def empty(self, size: int, stream: Stream) -> Buffer:
        memory = self.adopt(np.full(size + 256, 0xFF, np.uint8)[:size])
        with self._guard:
            self._touch(memory, stream, write=True)
        buffer = Buffer(memory.address, size, memory.array)
        weakref.finalize(buffer, self._free, memory, stream)
        return buffer

    def pinned(self, size: int) -> PinnedBuffer:
        memory = self.adopt(np.zeros(size, np.uint8))
        buffer = PinnedBuffer(memory.array, memory)
        weakref.finalize(buffer, self.memories.pop, memory.address, None)
        return buffer

    def upload(self, target: int, source: npt.NDArray[Any], stream: Stream) -> None:
        self.copy(target, source.ctypes.data, source.nbytes, stream)

    def download(self, target: npt.NDArray[Any], source: int, stream: Stream) -> None:
        self.copy(target.ctypes.data, source, target.nbytes, stream)

    def copy(self, target: int, source: int, size: int, stream: Stream) -> None:
        self.access(stream, reads=[source], writes=[target])
        assert size <= min(self._room(target), self._room(source))
        ctypes.memmove(target, source, size)

    def record(self, stream: Stream) -> Clock:
        with self._guard:
            return Counter(self.clocks[stream.handle])

    def wait(self, stream: Stream, event: Clock) -> None:
        with self._guard:
            self.clocks[stream.handle] |= event

    def wait_for_producer(self, stream: Stream, handle: int) -> None:
        self.wait(stream, self.record(self.caller_stream(handle)))

    def make_consumer_wait(self, handle: int, event: Clock) -> None:
        self.wait(self.caller_stream(handle), event)

    def finish(self, event: Clock) -> None:
        with self._guard:
            self.host |= event
            self.counts["host waits"] += 1

    def is_done(self, event: Clock) -> bool:
        return not event - self.host

    def capture(self, work: Callable[[Stream], None], stream: Stream) -> Any:
        if self.capture_error:
            raise BackendError(self.capture_error)
        self.capturing = True
        try:
            work(stream)
        finally:
            self.capturing = False
        with self._guard:
            self.counts["captures"] += 1
        return types.SimpleNamespace(launch=work)

    def launch(self, launch: LaunchLike, inputs: Sequence[int], outputs: Sequence[int], stream: Stream) -> None:
        self.access(stream, inputs, outputs)
        super().launch(launch, inputs, outputs, stream)

    def _load(self, ptx: bytes) -> Any:
        from minet_sdk.kernels.ptx import parse

        return parse(ptx.decode())

    def _find(self, module: Any, entry: str) -> Any:
        return module[entry]

    def _launch(
        self, kernel: Any, grid: tuple[int, int, int], block: int, arguments: list[Any], stream: Stream
    ) -> None:
        from minet_sdk.kernels.ptx import In, Out, launch

        addresses = [i for i, value in enumerate(arguments) if value.dtype == np.uint64]
        given: list[Any] = [
            (Out(self._view(int(value)), partial=True) if i == addresses[-1] else In(self._view(int(value))))
            if i in addresses
            else int(value)
            for i, value in enumerate(arguments)
        ]
        launch(kernel, grid, block, given)
        with self._guard:
            self.counts[kernel.name] += 1

    def adopt(self, array: npt.NDArray[Any]) -> Memory:
        """Take an array for device memory."""
        memory = Memory(array.reshape(-1).view(np.uint8))
        with self._guard:
            self.memories[memory.address] = memory
        return memory

    def access(self, stream: Stream, reads: Sequence[int], writes: Sequence[int]) -> None:
        """Note accesses of one operation and check that they are ordered after those before."""
        with self._guard:
            assert getattr(self.entered, "yes", False), "a thread that did not enter"
            for address in reads:
                self._touch(self._owner(address), stream, write=False)
            for address in writes:
                self._touch(self._owner(address), stream, write=True)

    def _touch(self, memory: Memory, stream: Stream, *, write: bool) -> None:
        clock = self.clocks[stream.handle]
        clock |= self.host
        earlier = [memory.writer, *(memory.readers.items() if write else ())]
        for other, count in earlier:
            if other not in (HOST, stream.handle) and clock[other] < count:
                kind = "writes" if write else "reads"
                raise RaceError(f"stream {stream.handle} {kind} what stream {other} may still be using")
        clock[stream.handle] += 1
        self.clocks[stream.handle] = clock
        if write:
            memory.writer, memory.readers = (stream.handle, clock[stream.handle]), {}
        else:
            memory.readers[stream.handle] = clock[stream.handle]

    def _free(self, memory: Memory, stream: Stream) -> None:
        """Memory goes back in the order of its stream, which is as good as another write on it."""
        with self._guard:
            try:
                self._touch(memory, stream, write=True)
            except RaceError as error:
                self.counts[f"freed too early: {error}"] += 1
            self.memories.pop(memory.address, None)

    def _owner(self, address: int) -> Memory:
        for memory in list(self.memories.values()):  # a copy: other threads allocate, and finalizers free, meanwhile
            if memory.address <= address < memory.address + memory.array.nbytes:
                return memory
        raise RaceError(f"{address:#x} is no device memory, or is free already")

    def _room(self, address: int) -> int:
        memory = self._owner(address)
        return memory.address + memory.array.nbytes - address

    def _view(self, address: int) -> npt.NDArray[np.uint8]:
        memory = self._owner(address)
        return memory.array[address - memory.address :]


class OnDevice:
    """A float32 array in the layer's memory, as another library would hand it over."""

    def __init__(self, layer: HostLayer, array: npt.NDArray[Any], stream: int = 7) -> None:
        self.layer, self.stream = layer, stream
        self.memory = layer.adopt(np.ascontiguousarray(array).copy())
        self.shape, self.dtype = array.shape, array.dtype
        self.asked: list[int | None] = []
        layer.enter()
        layer.access(layer.caller_stream(stream), [], [self.memory.address])

    def __dlpack_device__(self) -> tuple[int, int]:
        return (dlpack.CUDA, 0)

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        self.asked.append(stream)
        self.layer.wait_for_producer(self.layer.caller_stream(stream), self.stream)
        return dlpack.export(self.memory.address, self.shape, self.__dlpack_device__(), self)


class WithInterface:
    """The same array with the CUDA array interface only."""

    def __init__(self, array: OnDevice, **changes: Any) -> None:
        self.array = array
        self.__cuda_array_interface__: dict[str, Any] = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.memory.address, True),
            "strides": None,
            "stream": array.stream,
            "version": 3,
            **changes,
        }


GRAPHS: dict[bytes, Graph] = {b"reference": "reference", b"target": "target", b"model": "model"}


class StandIn(types.ModuleType):
    """As much of `tensorrt` as the runtime uses; `test_tensorrt_api` holds it against the real ones."""

    def __init__(self, name: str, bundle: Bundle, layer: HostLayer) -> None:
        super().__init__(name)
        self.__version__ = "1.0"
        self.bundle, self.layer = bundle, layer
        self.TensorIOMode = types.SimpleNamespace(INPUT="input", OUTPUT="output")
        self.ExecutionContextAllocationStrategy = types.SimpleNamespace(USER_MANAGED="user-managed")
        self.contexts: list[Context] = []
        self.refuse: Callable[[Graph], bool] = lambda graph: False
        self.Engine = Engine
        self.configs: list[Config] = []
        if name == "tensorrt_rtx":
            self.CudaGraphStrategy = types.SimpleNamespace(DISABLED="disabled", WHOLE_GRAPH_CAPTURE="whole")
            self.DynamicShapesKernelSpecializationStrategy = types.SimpleNamespace(EAGER="eager")

    def Runtime(self, log: Any) -> "Loader":  # noqa: N802 # TensorRT's name for it
        return Loader(self, log)

    class ILogger:
        """Base of loggers."""

        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = enum.Enum(
            "Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE"
        )


class Loader:
    def __init__(self, trt: StandIn, log: Any) -> None:
        self.trt, self.log = trt, log
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, data: bytes) -> "Engine | None":
        graph = GRAPHS[data]
        if self.trt.refuse(graph):
            self.log.log(StandIn.ILogger.ERROR, "the plan was made\n for another device")
            return None
        return Engine(self.trt, graph)


class Engine:
    error = np.float32(1)
    """Factor of every output; anything but 1 is a wrong engine."""

    def __init__(self, trt: StandIn, graph: Graph) -> None:
        self.trt = trt
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.use_deterministic_compute = True
        self.session = onnxruntime.InferenceSession(str(trt.bundle.graph(graph)), options)
        self.given = {tensor.name: tensor for tensor in self.session.get_inputs()}
        self.made = {tensor.name: tensor for tensor in self.session.get_outputs()}
        self.names = [*self.given, *self.made]

    @property
    def num_io_tensors(self) -> int:
        return len(self.names)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name in self.given else "output"

    def get_tensor_dtype(self, name: str) -> Any:
        return types.SimpleNamespace(name="FLOAT")

    def create_execution_context(self, settings: Any) -> "Context":
        strategy = settings.strategy if isinstance(settings, Config) else settings
        assert strategy == "user-managed"
        return Context(self)

    def create_runtime_config(self) -> "Config":
        assert hasattr(self.trt, "CudaGraphStrategy")
        self.trt.configs.append(Config())
        return self.trt.configs[-1]


class Cache:
    def __init__(self) -> None:
        self.content = b""

    def deserialize(self, blob: bytes) -> bool:
        self.content = blob
        return blob.startswith(b"kernels")

    def serialize(self) -> bytes:
        return b"kernels"


class Config:
    """Of TensorRT-RTX."""

    def __init__(self) -> None:
        self.strategy = self.cuda_graph_strategy = self.dynamic_shapes_kernel_specialization_strategy = "default"
        self.cache: Cache | None = None

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> Cache:
        return Cache()

    def set_runtime_cache(self, cache: Cache) -> bool:
        self.cache = cache
        return True

    def get_runtime_cache(self) -> Cache | None:
        return self.cache


class Context:
    """Refuses to run before everything is set, as the real one does; runs on the addresses that it was given."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.thread = engine, threading.get_ident()
        self.active_optimization_profile = 0
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.memory: tuple[int, int] | None = None
        self.runs = 0
        engine.trt.contexts.append(self)

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        assert not self.shapes, "the profile comes before the shapes"
        self.active_optimization_profile = profile_index
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return name in self.engine.given

    def infer_shapes(self) -> list[str]:
        return [name for name in self.engine.given if name not in self.shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self.shapes:
            return self.shapes[name]
        scale = self.engine.trt.bundle.manifest.scale
        if "target" in self.shapes:
            batch, _, height, width = self.shapes["target"]
            return (batch, 1, scale * height, scale * width)
        stages, channels = self.engine.made[name].shape[1:3]
        batch, _, height, width = self.shapes["reference"]
        return (batch, stages, channels, height, width)

    def update_device_memory_size_for_shapes(self) -> int:
        return 1000

    def set_device_memory(self, memory: int, size: int) -> None:
        self.memory = (memory, size)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        layer = self.engine.trt.layer
        assert self.thread == threading.get_ident(), "a context in the hands of two threads"
        assert self.memory is not None
        if layer.capturing:
            assert self.runs, "captured before the first run"
            return True
        self.runs += 1
        given = [self.addresses[name] for name in self.engine.given]
        made = [self.addresses[name] for name in self.engine.made]
        layer.access(layer.caller_stream(stream_handle), given, [*made, self.memory[0]])
        feed = {name: self._array(name) for name in self.engine.given}
        for name, value in zip(self.engine.made, self.engine.session.run(None, feed), strict=True):
            array: Array = np.asarray(value) * self.engine.error
            assert array.shape == self.get_tensor_shape(name)
            ctypes.memmove(self.addresses[name], array.ctypes.data, array.nbytes)
        return True

    def _array(self, name: str) -> Array:
        shape = self.shapes[name]
        memory = (ctypes.c_float * int(np.prod(shape))).from_address(self.addresses[name])
        return np.ctypeslib.as_array(memory).reshape(shape).copy()


PROFILES = (Profile((1, 16, 16), (1, 24, 20), (1, 32, 32)), Profile((1, 16, 16), (1, 40, 40), (1, 48, 48)))


@dataclass
class Bench:
    """A runtime on the stand-in, and what stands behind it."""

    layer: HostLayer
    trt: StandIn
    open: Callable[..., Runtime]

    def put(self, array: npt.NDArray[Any], stream: int = 7) -> OnDevice:
        return OnDevice(self.layer, array, stream)

    def interface(self, array: npt.NDArray[Any], made_on: int = 7, **changes: Any) -> WithInterface:
        """As `put`, with the CUDA array interface only, and with some of its entries changed."""
        return WithInterface(self.put(array, made_on), **changes)

    def leaks(self) -> list[str]:
        """Accesses that freed memory may still have seen."""
        gc.collect()
        return [text for text in self.layer.counts if text.startswith("freed too early")]


@pytest.fixture
def make_bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Bench]:
    """A bench for a bundle; its plans are stored where export puts them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def make(location: Path, engine: Literal["tensorrt", "tensorrt-rtx"] = "tensorrt") -> Bench:
        folder = tmp_path / "bundle"
        if not folder.exists():
            folder.mkdir()
            for file in location.iterdir():
                if file.is_file():
                    (folder / file.name).symlink_to(file)
        bundle = open_bundle(folder)
        layer = HostLayer()
        trt = StandIn(engine.replace("-", "_"), bundle, layer)
        gpu = PlanGpu("Host", (8, 0), "13.0")
        for data, graph in GRAPHS.items():
            key = EngineKey(engine, "1.0", graph, bundle.sha256, "fp32", PROFILES, gpu.label, "13.0", "inlined")
            store(bundle_folder(bundle), key, data)

        def no_problem(*_: Any) -> str:
            return ""

        def this_layer(*_: Any) -> HostLayer:
            return layer

        def this_driver() -> Driver:
            return Driver("", (13, 0), (layer.gpu,))

        def open_runtime(**options: Any) -> Runtime:
            return Runtime(folder, backend=engine, **options)

        monkeypatch.setitem(sys.modules, trt.__name__, trt)
        monkeypatch.setattr("minet_sdk.backends.probes.tensorrt", no_problem)
        monkeypatch.setattr(backend, "make_layer", this_layer)
        monkeypatch.setattr(backend, "probe", this_driver)
        return Bench(layer, trt, open_runtime)

    return make


@pytest.fixture(scope="session")
def stand_in() -> dict[str, type]:
    """The classes of the stand-in, by the names that the real ones have."""
    return {
        "ICudaEngine": Engine,
        "IExecutionContext": Context,
        "Runtime": Loader,
        "IRuntimeConfig": Config,
        "IRuntimeCache": Cache,
    }


@pytest.fixture(scope="session")
def tensorrt_stubs(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """Libraries that let NVIDIA's bindings of two versions load: they hold the few symbols and nothing behind them."""
    sources = Path(__file__).parent.parent / "kernels" / "stub_tensorrt"

    def compile_stubs(folder: Path) -> None:
        for major in (10, 11):
            for library, source in (("nvinfer", "infer"), ("nvonnxparser", "parser"), ("nvinfer_plugin", "plugin")):
                name = f"lib{library}.so.{major}"
                command = [
                    "gcc",
                    "-shared",
                    "-fPIC",
                    f"-Wl,-soname,{name}",
                    sources / f"{source}.c",
                    "-o",
                    folder / name,
                ]
                subprocess.run(command, check=True)

    return once("stubs of TensorRT", compile_stubs)
