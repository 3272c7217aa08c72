"""OpenVINO on the CPU: every graph compiled for the size in use, in the very formats that stand in the graph.

A size that is new is compiled once, in a fraction of a second, because graphs for any size take a quarter more memory.
"""

import threading
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from minet_sdk.backends import openvino_graph
from minet_sdk.backends.base import Array, Runner
from minet_sdk.bundle import Bundle, Graph, Precision
from minet_sdk.errors import BackendError

MOST_SIZES = 4
"""Sizes that each graph is kept compiled for, the latest used; each holds its own workspace. Tiles have several."""

_NARROW: dict[Precision, tuple[str, ...]] = {"bf16": ("bf16",), "int8": ("i8", "u8")}
"""What a precision's convolutions run in, in OpenVINO's words; others may be widened to float32, which is exact."""

_INSTRUCTIONS: dict[Precision, tuple[str, str]] = {
    "bf16": ("BF16", "no bfloat16 instructions (AVX512-BF16, AMX or AVX-VNNI-2)"),
    "int8": ("INT8", "no 8-bit instructions (VNNI or AMX)"),
}
"""OpenVINO's name of what a precision needs, and what a processor without it has not."""


def lacking(precision: Precision | None) -> str:
    """Why this processor cannot run a precision as it is; empty if it can. OpenVINO would emulate it unasked."""
    ov = openvino_graph.openvino()
    if precision not in _INSTRUCTIONS:
        return ""
    capability, words = _INSTRUCTIONS[precision]
    found = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "" if capability in found else f"this processor has {words}: open a bundle in fp32"


class OpenVinoRunner(Runner):
    """Runs the prefetch graphs of a bundle, so that a call with a reference and one with its features are the same.

    Calls of several threads wait for each other inside OpenVINO; each then has all of the engine's threads.
    """

    _core: Any = None
    _models: dict[Graph, Any]
    _compiled: "OrderedDict[tuple[Graph, int, int], Any]"
    _computed: dict[str, dict[str, int]]
    _scale = 0
    _precision: Precision = "fp32"
    _folded = False
    _threads = 0

    def _activate_impl(self, model: Bundle | Path) -> Bundle:
        self._models, self._compiled, self._computed, self._folded = {}, OrderedDict(), {}, False
        self._compiling = threading.Lock()
        if not isinstance(model, Bundle):
            raise BackendError(
                f"{model}: openvino opens bundles only, not a lone .onnx file, which has no golden vector"
            )
        self._core = openvino_graph.openvino().Core()
        self._scale, self._precision = model.manifest.scale, model.manifest.precision
        graphs: tuple[Graph, ...] = ("reference", "target") if model.manifest.needs_reference else ("model",)
        for graph in graphs:
            self._models[graph] = openvino_graph.read(model.graph(graph))
            self._folded |= openvino_graph.fold_mixing(self._models[graph])
            if self._precision == "int8":
                openvino_graph.widen_fusions(self._models[graph])
        return model

    def _deactivate_impl(self) -> None:
        self._models, self._compiled = {}, OrderedDict()
        self._core = None

    def _encode_impl(self, reference: Array) -> Any:
        height, width = (size // self._scale for size in reference.shape[2:])
        features = tuple(
            self._run("reference", {"reference": one[None]}, "reference_features", height, width) for one in reference
        )
        # The target's graph is compiled off the critical path, while nothing waits for it.
        self._graph("target", height, width)
        return features

    def _restore_impl(self, target: Array, features: Any) -> Array:
        height, width = target.shape[2:]
        restored: list[Array] = []
        for index, one in enumerate(target):
            if features is None:
                restored.append(self._run("model", {"target": one[None]}, "restored", height, width))
            else:
                inputs = {"target": one[None], "reference_features": features[index]}
                restored.append(self._run("target", inputs, "restored", height, width))
        return np.concatenate(restored)

    @property
    def version(self) -> str:
        """Name and version of the engine."""
        return f"openvino {openvino_graph.openvino().get_version()}"

    def details(self) -> dict[str, Any]:
        """Threads, form of the integration, and the formats that convolutions and products are computed in."""
        return {"threads": self._threads, "folded": self._folded, "computed_in": self._computed}

    def _run(self, graph: Graph, inputs: dict[str, Array], output: str, height: int, width: int) -> Array:
        """One slice through a graph; arrays are read and written where they are."""
        tensor = openvino_graph.openvino().Tensor
        compiled = self._graph(graph, height, width)
        try:
            # One for each call costs 0.1 ms; kept ones would have to be shared by threads and would hold features.
            request = compiled.create_infer_request()
            result = np.empty(tuple(compiled.output(output).shape), np.float32)
            # In a variable of its own: the tensors only point into the arrays.
            arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in inputs.items()}
            for name, array in {**arrays, output: result}.items():
                request.set_tensor(name, tensor(array, shared_memory=True))
            request.infer(share_outputs=True)
        except RuntimeError as error:
            raise BackendError(f"openvino failed in {graph}.onnx: {openvino_graph.cause(error)}") from error
        return result

    def _graph(self, graph: Graph, height: int, width: int) -> Any:
        """A graph compiled for a low-resolution size."""
        key = (graph, height, width)
        with self._compiling:
            if graph not in self._models:
                raise BackendError("this runtime is closed: open a new one")
            if key not in self._compiled:
                same = [kept for kept in self._compiled if kept[0] == graph]
                if len(same) == MOST_SIZES:
                    del self._compiled[same[0]]
                self._compiled[key] = self._compile(graph, height, width)
            self._compiled.move_to_end(key)
            return self._compiled[key]

    def _compile(self, graph: Graph, height: int, width: int) -> Any:
        ov = openvino_graph.openvino()
        model = self._models[graph].clone()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            # bf16 here would also round the Gram matrix, the softmax and the image; the graph's own types say better
            # what may be narrow, and with float32 OpenVINO keeps to them.
            "INFERENCE_PRECISION_HINT": "f32",
            # Threads of two runtimes, or of two processes, would be bound to the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        if self.options.threads is not None:
            settings["INFERENCE_NUM_THREADS"] = self.options.threads
        try:
            model.reshape(
                {value.any_name: ov.PartialShape(self._shape(value, height, width)) for value in model.inputs}
            )
            compiled = self._core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            size = f"{height} x {width}"
            raise BackendError(f"openvino refuses {graph}.onnx at {size}: {openvino_graph.cause(error)}") from error
        self._threads = compiled.get_property("INFERENCE_NUM_THREADS")
        self._computed[graph] = computed_in(compiled)
        self._check_formats(graph)
        return compiled

    def _shape(self, value: Any, height: int, width: int) -> list[int]:
        """Of an input, for one slice; features have whatever shape the reference's graph gives them."""
        if value.any_name == "target":
            return [1, 1, height, width]
        reference = [1, 1, self._scale * height, self._scale * width]
        if value.any_name == "reference":
            return reference
        encoder = self._models["reference"].clone()
        encoder.reshape({"reference": openvino_graph.openvino().PartialShape(reference)})
        return list(encoder.output("reference_features").shape)

    def _check_formats(self, graph: Graph) -> None:
        """Refuse what was widened where the bundle asks for a narrow format: its user chose it for its speed.

        Raises:
            BackendError: no convolution runs in it.
        """
        wanted, found = _NARROW.get(self._precision), self._computed[graph]
        if wanted is not None and not set(wanted) & set(found):
            listed = ", ".join(f"{count} in {name}" for name, count in found.items())
            raise BackendError(
                f"openvino was asked for {self._precision} and runs the convolutions of {graph}.onnx {listed}: this "
                "processor lacks the instructions, open a bundle in fp32"
            )


def computed_in(compiled: Any) -> dict[str, int]:
    """How many convolutions and matrix products of a compiled graph run in which format, by OpenVINO's own account."""
    found: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ordered_ops():
        told = node.get_rt_info()
        if told["layerType"].astype(str) in ("Convolution", "MatMul"):
            found[told["runtimePrecision"].astype(str)] += 1
    return dict(sorted(found.items()))
