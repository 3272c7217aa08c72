"""TensorRT and TensorRT-RTX as engines of the runtime: plans, one set of execution contexts a thread, streams.

Host arrays go through pinned memory; device arrays never leave the device. A plan is checked against the golden vector
when the runtime opens, before anything else runs on it: builders have made wrong engines without a word.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minet_sdk.backends.base import DeviceRunner, Features, Shape, Work
from minet_sdk.backends.tensorrt_engine import Execution, LoadedEngine
from minet_sdk.backends.tensorrt_log import logger_of
from minet_sdk.backends.tensorrt_plans import kernel_cache, obtain
from minet_sdk.bundle import Bundle, Graph
from minet_sdk.cuda.bookkeeping import GraphCounts, InFlight, PerThread, Recent
from minet_sdk.cuda.driver import probe
from minet_sdk.cuda.layer import DeviceLayer, Stream, make_layer
from minet_sdk.cuda.programs import ptx_for
from minet_sdk.errors import BackendError
from minet_sdk.gpus import Gpu
from minet_sdk.requirements import require

SHAPES_KEPT = 4
"""Target sizes for which a thread keeps context, buffers and CUDA graph of each graph of the bundle."""


@dataclass
class _Lane:
    """What one thread has to itself."""

    stream: Stream
    prefetch: Stream
    executions: dict[Graph, Recent[tuple[tuple[str, Shape], ...], Execution]]
    in_flight: InFlight


class TensorRtRunner(DeviceRunner):
    """A bundle in TensorRT or TensorRT-RTX, whichever the provider names."""

    _bundle: Bundle
    _layer: DeviceLayer | None = None
    _lanes: PerThread[_Lane] | None = None
    _engines: dict[Graph, LoadedEngine]
    _origins: dict[str, str]

    def _activate_impl(self, model: Bundle | Path) -> Bundle:
        if not isinstance(model, Bundle):
            raise BackendError(f"{model}: {self.provider} opens bundles only, not a lone .onnx file")
        trt = self._module()
        self._bundle, self._engines, self._origins = model, {}, {}
        self._counts = GraphCounts()
        self._layer = make_layer(self.options.device_layer, self.options.device, ptx_for)
        self._lanes = PerThread(self._new_lane, self._close_lane)
        self._runtime = trt.Runtime(logger_of(trt))
        gpu = self._gpu()
        for graph in self._graphs():
            plan, self._origins[graph] = obtain(trt, model, graph, gpu)
            self._engines[graph] = LoadedEngine(
                trt, self._runtime, plan, kernel_cache(model, plan, gpu), self.options.cuda_graphs
            )
        self._check_features()
        return model

    def _deactivate_impl(self) -> None:
        if self._layer is None:
            return
        self._layer.enter()
        if self._lanes is not None:
            self._lanes.close()
        for engine in self._engines.values():
            engine.close()
        self._engines, self._runtime = {}, None
        self._lanes = self._layer = None

    @property
    def version(self) -> str:
        """Name and version of the engine."""
        return f"{self.provider} {self._module().__version__}"

    def details(self) -> dict[str, Any]:
        """Device, device layer, origin of the plans, CUDA graphs."""
        if self._layer is None:
            return {}
        itself = any(engine.captures_itself for engine in self._engines.values())
        if not self.options.cuda_graphs:
            graphs = "off"
        elif itself:
            graphs = "by the engine itself"
        else:
            graphs = "by the runtime" if self._layer.captures_graphs else f"none: {self._layer.version} has none"
        return {
            "gpu": str(self._layer.gpu),
            "device_layer": self._layer.version,
            "plans": dict(self._origins),
            "cuda_graphs": graphs,
            "runs": self._counts.to_dict(),
        }

    @property
    def layer(self) -> DeviceLayer:
        """The device."""
        if self._layer is None:
            raise BackendError("this runtime is closed: open a new one")
        return self._layer

    def own_stream(self) -> Stream:
        """The calling thread's stream for targets."""
        return self._lane().stream

    def prefetch_stream(self) -> Stream:
        """The calling thread's stream for references."""
        return self._lane().prefetch

    @contextmanager
    def work(self, graph: Graph, shapes: dict[str, Shape], stream: Stream) -> Generator[Execution]:
        """The calling thread's execution of a graph for these shapes."""
        lane = self._lane()
        execution = lane.executions[graph].get(tuple(shapes.items()), lambda: self._bind(graph, shapes, lane))
        self.layer.wait(stream, execution.idle)
        try:
            yield execution
        finally:
            execution.idle = self.layer.record(stream)

    def features_of(self, work: Work, stream: Stream) -> Features:
        """A copy of the reference graph's output, which the next reference overwrites."""
        inside = work.outputs["reference_features"]
        buffer = self.layer.empty(inside.size, stream)
        self.layer.copy(buffer.address, inside.address, inside.size, stream)
        return Features(buffer, work.shapes["reference_features"], self.layer.record(stream))

    def keep(self, stream: Stream, *objects: Any) -> None:
        """Hold objects until everything that is now on the stream is done."""
        self._lane().in_flight.keep(self.layer.record(stream), *objects)

    def _module(self) -> Any:
        return require(self.provider, f"backend {self.provider}")

    def _graphs(self) -> tuple[Graph, ...]:
        return ("reference", "target") if self._bundle.manifest.needs_reference else ("model",)

    def _gpu(self) -> Gpu:
        """The device as plans name it."""
        device = self.layer.gpu
        return Gpu(device.name, device.compute_capability, probe().supports)

    def _check_features(self) -> None:
        """Both plans were built from one bundle, yet maybe not on one day."""
        if not self._bundle.manifest.needs_reference:
            return
        given = self._engines["reference"].outputs.get("reference_features")
        taken = self._engines["target"].inputs.get("reference_features")
        if given is None or given != taken:
            raise BackendError(
                f"the plans of {self._bundle.location} pass reference features of {given} and {taken} bytes an "
                "element: export the bundle again"
            )

    def _lane(self) -> _Lane:
        if self._lanes is None:
            raise BackendError("this runtime is closed: open a new one")
        return self._lanes.get()

    def _new_lane(self) -> _Lane:
        layer = self.layer
        executions: dict[Graph, Recent[tuple[tuple[str, Shape], ...], Execution]] = {
            graph: Recent(SHAPES_KEPT, Execution.close) for graph in self._graphs()
        }
        return _Lane(layer.new_stream(), layer.new_stream(), executions, InFlight(layer.is_done, layer.finish))

    def _close_lane(self, lane: _Lane) -> None:
        lane.in_flight.close()
        for recent in lane.executions.values():
            recent.close()

    def _bind(self, graph: Graph, shapes: dict[str, Shape], lane: _Lane) -> Execution:
        """A new execution; the low-resolution size of a reference graph is that of the target it belongs to."""
        batch, _, height, width = shapes["target" if "target" in shapes else "reference"]
        if graph == "reference":
            scale = self._bundle.manifest.scale
            height, width = height // scale, width // scale
        stream = lane.prefetch if graph == "reference" else lane.stream
        size, graphs = (batch, height, width), self.options.cuda_graphs
        return Execution(self._engines[graph], shapes, size, self.layer, stream, self._counts, graphs)
