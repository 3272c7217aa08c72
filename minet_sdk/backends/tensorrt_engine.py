"""One TensorRT or TensorRT-RTX engine in memory, and its execution: a context bound to one shape and fixed buffers.

A captured CUDA graph belongs to the state of its context, so that every shape has a context of its own. Its activation
memory is ours, as large as the shape needs rather than as large as the profile allows.
"""

import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minet_sdk.atomic import replacing
from minet_sdk.backends.base import Array, Shape
from minet_sdk.backends.tensorrt_log import logger_of
from minet_sdk.cuda.bookkeeping import GraphCounts, Replayable
from minet_sdk.cuda.layer import Buffer, DeviceLayer, PinnedBuffer, Stream
from minet_sdk.engines import Plan
from minet_sdk.errors import BackendError
from minet_sdk.profiles import Size, format_size

_LEAST_SCRATCH = 256
_ITEM_BYTES = {"FLOAT": 4, "HALF": 2, "BF16": 2}

_log = logging.getLogger("minet_sdk")


class LoadedEngine:
    """A deserialised plan, for any number of threads."""

    _engine: Any
    _config: Any = None

    def __init__(self, trt: Any, runtime: Any, plan: Plan, kernel_cache: Path, graphs: bool) -> None:
        """Load a plan.

        Args:
            trt: the module `tensorrt` or `tensorrt_rtx`.
            runtime: `trt.Runtime`.
            plan: to load.
            kernel_cache: file for what TensorRT-RTX compiles.
            graphs: whether CUDA graphs are wanted.

        Raises:
            BackendError: the engine refuses the plan, or it is damaged.
        """
        self._trt = trt
        self._log = logger_of(trt)
        self.plan = plan
        if "version-compatible" in plan.key.settings:
            # Such a plan carries code of the version that built it; its SHA-256 has been checked.
            runtime.engine_host_code_allowed = True
        self._engine = runtime.deserialize_cuda_engine(plan.read())
        if self._engine is None:
            raise BackendError(f"{plan.path} is refused by {trt.__name__} {trt.__version__}: {self.cause()}")
        self.inputs, self.outputs = self._tensors(trt.TensorIOMode.INPUT), self._tensors(trt.TensorIOMode.OUTPUT)
        self._kernel_cache = kernel_cache
        self._lock = threading.Lock()
        if hasattr(trt, "CudaGraphStrategy"):
            self._config = self._runtime_config(graphs)

    @property
    def captures_itself(self) -> bool:
        """Whether the engine has CUDA graphs of its own."""
        return self._config is not None

    def cause(self) -> str:
        """The last error that the engine told the calling thread."""
        return self._log.last_error or "its log gives no reason"

    def new_context(self) -> Any:
        """An execution context without memory.

        Raises:
            BackendError: the engine makes none.
        """
        settings = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED if self._config is None else self._config
        with self._lock:
            context = self._engine.create_execution_context(settings)
        if context is None:
            raise BackendError(f"{self.plan.path} gives no execution context: {self.cause()}")
        return context

    def close(self) -> None:
        """Keep what was compiled for the next start, and let go. All contexts must be gone."""
        cache = None if self._config is None else self._config.get_runtime_cache()
        if cache is not None:
            try:
                self._kernel_cache.parent.mkdir(parents=True, exist_ok=True)
                with replacing(self._kernel_cache) as temporary:
                    temporary.write_bytes(bytes(memoryview(cache.serialize())))
            except OSError as error:
                _log.warning("%s cannot be written (%s): the next start compiles again", self._kernel_cache, error)
        self._config = self._engine = None

    def _tensors(self, mode: Any) -> dict[str, int]:
        """Bytes of an element by tensor name."""
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        found: dict[str, int] = {}
        for name in names:
            if self._engine.get_tensor_mode(name) != mode:
                continue
            dtype = self._engine.get_tensor_dtype(name).name
            if dtype not in _ITEM_BYTES or (dtype != "FLOAT" and name != "reference_features"):
                raise BackendError(f"{self.plan.path}: tensor {name} is {dtype}; expected FLOAT: export it again")
            found[name] = _ITEM_BYTES[dtype]
        return found

    def _runtime_config(self, graphs: bool) -> Any:
        """TensorRT-RTX compiles kernels here and captures CUDA graphs itself."""
        config, trt = self._engine.create_runtime_config(), self._trt
        config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        strategies = trt.CudaGraphStrategy
        config.cuda_graph_strategy = strategies.WHOLE_GRAPH_CAPTURE if graphs else strategies.DISABLED
        # LAZY would run other kernels, with other last bits, until the ones for the shape are compiled.
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        cache = config.create_runtime_cache()
        if self._kernel_cache.is_file() and not cache.deserialize(self._kernel_cache.read_bytes()):
            _log.info("%s is not of this engine and driver: kernels are compiled again", self._kernel_cache)
        config.set_runtime_cache(cache)
        return config


class Execution:
    """A context for one shape, in the hands of one thread; its buffers stay where they are."""

    def __init__(
        self,
        engine: LoadedEngine,
        shapes: dict[str, Shape],
        target: Size,
        layer: DeviceLayer,
        stream: Stream,
        counts: GraphCounts,
        graphs: bool,
    ) -> None:
        """Bind a context.

        Args:
            engine: to execute.
            shapes: of all inputs.
            target: N, H, W of the low-resolution target that they belong to.
            layer: device.
            stream: of the runtime's own; set-up and capture happen on it.
            counts: where runs are counted.
            graphs: whether CUDA graphs are wanted.

        Raises:
            InputError: the plan does not cover the target.
            BackendError: the engine refuses a shape, or the device has no memory left.
        """
        self._loaded = engine
        self._layer = layer
        self._target = target
        profile = engine.plan.profile_for(target)
        self._context = engine.new_context()
        self._require(
            self._context.active_optimization_profile == profile
            or self._context.set_optimization_profile_async(profile, stream.handle)
        )
        for name, shape in shapes.items():
            self._require(self._context.set_input_shape(name, shape))
        missing = self._context.infer_shapes()
        if missing:
            raise BackendError(f"{engine.plan.path} lacks the shapes of {', '.join(missing)}: export it again")
        self.shapes: dict[str, Shape] = {
            name: tuple(self._context.get_tensor_shape(name)) for name in (*engine.inputs, *engine.outputs)
        }
        self.inputs = {name: self._buffer(name, size, stream) for name, size in engine.inputs.items()}
        self.outputs = {name: self._buffer(name, size, stream) for name, size in engine.outputs.items()}
        scratch_size = max(_LEAST_SCRATCH, self._context.update_device_memory_size_for_shapes())
        self._scratch = layer.empty(scratch_size, stream)
        self._context.set_device_memory(self._scratch.address, scratch_size)
        self._staging: dict[str, PinnedBuffer] = {}
        self.idle = layer.record(stream)
        self._sent: Any = None
        own_graphs = graphs and layer.captures_graphs and not engine.captures_itself
        self._run = Replayable(
            self._enqueue,
            (lambda: layer.capture(self._enqueue, stream).launch) if own_graphs else None,
            counts,
            lambda error: _log.warning("%s runs without a CUDA graph: %s", engine.plan.path.name, error),
        )

    def run(self, stream: Stream) -> None:
        """Enqueue the graph.

        Raises:
            BackendError: the engine refuses.
        """
        self._run(stream)

    def send(self, name: str, array: Array, stream: Stream) -> None:
        """Copy a host array into an input, through pinned memory."""
        if self._sent is not None:
            # The last copy out of the pinned memory; long done, unless references come faster than they are encoded.
            self._layer.finish(self._sent)
        pinned = self._pinned(name, self.inputs[name].size)
        pinned[:] = np.ascontiguousarray(array, np.float32).reshape(-1).view(np.uint8)
        self._layer.upload(self.inputs[name].address, pinned, stream)
        self._sent = self._layer.record(stream)

    def fetch(self, name: str, stream: Stream) -> Array:
        """A copy of an output in host memory, through pinned memory."""
        pinned = self._pinned(name, self.outputs[name].size)
        self._layer.download(pinned, self.outputs[name].address, stream)
        self._layer.finish(self._layer.record(stream))
        return pinned.view(np.float32).reshape(self.shapes[name]).copy()

    def close(self) -> None:
        """Wait for what is under way, then free context and buffers."""
        self._layer.finish(self.idle)
        del self._run, self._context
        self.inputs, self.outputs, self._staging = {}, {}, {}
        del self._scratch

    def _enqueue(self, stream: Stream) -> None:
        self._require(self._context.execute_async_v3(stream.handle))

    def _pinned(self, name: str, size: int) -> npt.NDArray[np.uint8]:
        """Pinned memory of an input or output."""
        if name not in self._staging:
            self._staging[name] = self._layer.pinned(size)
        return self._staging[name].array

    def _buffer(self, name: str, item_bytes: int, stream: Stream) -> Buffer:
        size = item_bytes
        for length in self.shapes[name]:
            size *= length
        buffer = self._layer.empty(size, stream)
        self._require(self._context.set_tensor_address(name, buffer.address))
        return buffer

    def _require(self, accepted: bool) -> None:
        if not accepted:
            raise BackendError(
                f"{self._loaded.plan.path.name} fails for a target of {format_size(self._target)}: "
                f"{self._loaded.cause()}"
            )
