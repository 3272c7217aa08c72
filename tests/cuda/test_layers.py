"""The device layers against the real packages, as far as they go without a device; streams of all libraries."""

import ast
import ctypes
import gc
import importlib
import inspect
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from minet_sdk.cuda import cuda_core_layer, pycuda_layer
from minet_sdk.cuda.layer import DeviceLayer, LayerName, Stream, make_layer, stream_handle
from minet_sdk.errors import BackendError, InputError

core = pytest.importorskip("cuda.core")

USED = {
    "Device": {
        "set_current": [],
        "compute_capability": None,
        "name": None,
        "create_stream": [],
        "allocate": ["size", "stream"],
    },
    "Stream": {"from_handle": ["handle"], "handle": None, "record": [], "wait": ["event_or_stream"],
               "create_graph_builder": []},
    "Buffer": {"from_handle": ["ptr", "size"], "copy_from": ["src", "stream"], "handle": None},
    "Event": {"sync": [], "is_done": None},
    "LegacyPinnedMemoryResource": {"allocate": ["size"]},
    "ObjectCode": {"from_ptx": ["module"], "get_kernel": ["name"]},
    "graph.GraphBuilder": {"begin_building": ["mode"], "end_building": [], "complete": [], "close": []},
    "graph.Graph": {"launch": ["stream"], "upload": ["stream"]},
    "": {"LEGACY_DEFAULT_STREAM": None, "PER_THREAD_DEFAULT_STREAM": None, "launch": ["stream", "config", "kernel"],
         "LaunchConfig": None, "__version__": None},
}  # fmt: skip
"""What `cuda_core_layer` uses of cuda-core: members by class, with the parameters it passes; None for a value."""


def resolve(path: str) -> Any:
    value: Any = core
    for name in filter(None, path.split(".")):
        value = getattr(value, name)
    return value


@pytest.mark.parametrize("kind", USED)
def test_cuda_core_has_what_the_layer_uses(kind: str) -> None:
    for name, parameters in USED[kind].items():
        member = inspect.getattr_static(resolve(kind), name)
        if parameters is None:
            continue
        member = getattr(resolve(kind), name)
        signature = (member.__doc__ or "").split("\n")[0]
        known = re.findall(r"\w+", signature) if "(" in signature else [*inspect.signature(member).parameters]
        missing = [parameter for parameter in parameters if parameter not in known]
        assert not missing, (kind, name, signature)


def test_the_table_of_cuda_core_is_complete() -> None:
    """Whatever the layer's source asks an object of cuda-core for stands in the table above."""
    receivers = {"self._core", "self._device", "stream.native", "builder", "graph", "self._graph", "event", "buffers",
                 "module", "self._pinned", "self._device.compute_capability"}  # fmt: skip
    known = {name for members in USED.values() for name in members} | set(USED) | {"major", "minor"}
    asked = {
        node.attr
        for node in ast.walk(ast.parse(Path(cuda_core_layer.__file__).read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in receivers
    }
    assert len(asked) > 15
    assert asked <= known


def test_kernel_arguments_reach_the_driver_as_they_should() -> None:
    """Addresses as 8 bytes, integers as 4: what cuda-core lays out for the driver, read back."""
    handler = importlib.import_module("cuda.core._kernel_arg_handler")
    holder = handler.ParamHolder((np.uint64(0x7F0012345678), np.int32(-3), np.uint64(2**63 + 5)))
    places = (ctypes.c_void_p * 3).from_address(holder.ptr)
    assert ctypes.c_uint64.from_address(places[0]).value == 0x7F0012345678
    assert ctypes.c_int32.from_address(places[1]).value == -3
    assert ctypes.c_uint64.from_address(places[2]).value == 2**63 + 5


def test_a_launch_is_configured_as_the_layer_does() -> None:
    config = core.LaunchConfig(grid=(1, 2, 3), block=256)
    assert (config.grid, config.block, config.shmem_size) == ((1, 2, 3), (256, 1, 1), 0)


def test_compute_capability_has_two_numbers() -> None:
    capability = importlib.import_module("cuda.core._device").ComputeCapability(8, 9)
    assert (capability.major, capability.minor) == (8, 9)


def test_graphs_are_captured_in_a_mode_that_cuda_core_knows() -> None:
    assert f"`{cuda_core_layer.CAPTURE_MODE}`" in resolve("graph.GraphBuilder").begin_building.__doc__


def test_without_a_driver_the_layer_says_so() -> None:
    """In a process of its own, with whatever driver there is hidden."""
    code = (
        "from minet_sdk.cuda.layer import make_layer\n"
        "from minet_sdk.errors import BackendError\n"
        "try: make_layer('cuda-core', 7, str)\n"
        "except BackendError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("the GPU failed to start device 7: ")
    assert done.stdout.count("\n") == 1


class Native:
    """A stream of another library, by the attribute that it has."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Protocol:
    def __cuda_stream__(self) -> tuple[int, int]:
        return (0, 4096)


@pytest.mark.parametrize(
    ("stream", "handle"),
    [
        (Protocol(), 4096),
        (Native(cuda_stream=64), 64),
        (Native(ptr=65), 65),
        (Native(handle=66), 66),
        (Native(handle=ctypes.c_void_p(67)), 67),
        (68, 68),
        (np.int64(69), 69),
        (0, 1),
        (1, 1),
        (2, 2),
        (Native(ptr=0), 1),
    ],
)
def test_streams_of_all_libraries(stream: Any, handle: int) -> None:
    assert stream_handle(stream) == handle


@pytest.mark.parametrize("stream", ["fast", True, 1.5, -4, Native(), Native(ptr=None)])
def test_what_is_no_stream(stream: Any) -> None:
    with pytest.raises(InputError, match="expected a CUDA stream"):
        stream_handle(stream)


def test_there_are_two_layers() -> None:
    assert get_args(LayerName) == ("cuda-core", "pycuda")
    with pytest.raises(InputError, match="choose one of cuda-core, pycuda"):
        make_layer("cupy", 0, str)  # type: ignore[arg-type]


def test_both_layers_are_whole() -> None:
    for layer in (cuda_core_layer.CudaCoreLayer, pycuda_layer.PycudaLayer):
        assert issubclass(layer, DeviceLayer)
        assert not layer.__abstractmethods__


class FakePycuda(types.ModuleType):
    """The part of pycuda.driver that needs no device, to drive the layer's own rules."""

    class Error(Exception):
        """Of the driver."""

    class Stream:
        """A stream."""

        count = 0

        def __init__(self) -> None:
            FakePycuda.Stream.count += 1
            self.handle = 1000 + FakePycuda.Stream.count

    class Context:
        """The current one is set by the test."""

        current: Any = None

        @staticmethod
        def get_current() -> Any:
            return FakePycuda.Context.current

        def get_device(self) -> Any:
            return types.SimpleNamespace(name=lambda: "Fake", compute_capability=lambda: (8, 6))

    def __init__(self) -> None:
        super().__init__("pycuda.driver")
        self.allocated = 0

    def mem_alloc(self, size: int) -> int:
        self.allocated += 1
        if size > 10**9:
            raise self.Error("cuMemAlloc failed: out of memory")
        return 4096 * self.allocated


@pytest.fixture
def pycuda(monkeypatch: pytest.MonkeyPatch) -> FakePycuda:
    driver, package = FakePycuda(), types.ModuleType("pycuda")
    package.VERSION_TEXT = "2026.1"  # type: ignore[attr-defined]
    package.driver = driver  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    monkeypatch.setattr(FakePycuda.Context, "current", FakePycuda.Context())
    return driver


def test_pycuda_takes_the_current_context_and_no_other(pycuda: FakePycuda, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = make_layer("pycuda", 0, str)
    assert layer.version == "pycuda 2026.1"
    assert layer.gpu.compute_capability == (8, 6)
    layer.enter()
    monkeypatch.setattr(FakePycuda.Context, "current", FakePycuda.Context())
    with pytest.raises(BackendError, match="not current in the calling thread: push it first"):
        layer.enter()
    monkeypatch.setattr(FakePycuda.Context, "current", None)
    with pytest.raises(BackendError, match="no context is current: make or push a pycuda context first"):
        make_layer("pycuda", 0, str)


def test_pycuda_takes_its_own_streams_only(pycuda: FakePycuda) -> None:
    layer = make_layer("pycuda", 0, str)
    stream = FakePycuda.Stream()
    assert layer.caller_stream(stream) == Stream(stream.handle, stream)
    for foreign in (stream.handle, Protocol()):
        with pytest.raises(InputError, match=r"it must be a pycuda\.driver\.Stream"):
            layer.caller_stream(foreign)


def test_pycuda_has_no_graphs(pycuda: FakePycuda) -> None:
    layer = make_layer("pycuda", 0, str)
    assert not layer.captures_graphs
    with pytest.raises(BackendError, match="pycuda has none"):
        layer.capture(lambda stream: None, layer.new_stream())


def test_pycuda_memory_is_used_again_on_the_same_stream_only(pycuda: FakePycuda) -> None:
    layer = make_layer("pycuda", 0, str)
    one, two = layer.new_stream(), layer.new_stream()
    first = layer.empty(100, one)
    address = first.address
    assert layer.empty(100, one).address != address
    del first
    gc.collect()
    pycuda.allocated = 10
    assert layer.empty(100, two).address == 4096 * 11
    assert layer.empty(101, one).address == 4096 * 12
    again = {layer.empty(100, one).address for _ in range(1)}
    assert again <= {address, 2 * 4096}
    with pytest.raises(BackendError, match="the GPU failed to allocate 2000000000 bytes: cuMemAlloc failed"):
        layer.empty(2 * 10**9, one)
