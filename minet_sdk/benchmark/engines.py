"""The inside of a peer: one engine with a model and one slice, to be called again and again.

`BackendEngine` is one of this SDK's runners. The others run the plain export as a user without this SDK would.
"""

import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy.typing as npt

from minet_sdk.backends import Need, choose, make_runner
from minet_sdk.backends.base import DeviceRunner, Features, RunnerOptions
from minet_sdk.benchmark.inputs import Inputs
from minet_sdk.benchmark.machine import cores
from minet_sdk.bundle import open_bundle
from minet_sdk.requirements import require

Array = npt.NDArray[Any]
Times = dict[str, list[float]]
"""Seconds by part of the work: ``whole``, ``prepare``, ``critical``."""


@dataclass(frozen=True)
class Task:
    """What an engine shall do."""

    bundle: Path
    inputs: Inputs
    threads: int | None
    """None leaves it to the engine."""

    work: Path
    """Folder for what the engine may want to keep."""

    options: dict[str, Any] = field(default_factory=dict[str, Any])
    """Of the peer; plain data."""


class Called(NamedTuple):
    """Outcome of one call."""

    times: Times
    restored: Array
    """(1, 1, scale * H, scale * W), or slices of a series."""


class Engine(Protocol):
    """An opened engine."""

    def describe(self) -> dict[str, Any]:
        """Name, version and options as the engine itself gives them; plain data."""
        ...

    def call(self) -> Called:
        """Restore."""
        ...


class BackendEngine:
    """A backend of this SDK; the reference is prepared first, so that a call gives whole and critical path alike."""

    def __init__(self, task: Task) -> None:
        bundle = open_bundle(task.bundle)
        options = RunnerOptions(task.threads)
        need = Need(bundle.manifest.precision, files=frozenset(bundle.manifest.files))
        spec = choose(task.options["backend"], need, options).spec
        self._runner = make_runner(spec, options)
        self._runner.activate(bundle)
        self._inputs = task.inputs

    def describe(self) -> dict[str, Any]:
        """See `Engine`."""
        return {"engine": self._runner.version, **self._runner.details()}

    def call(self) -> Called:
        """See `Engine`."""
        runner, features = self._runner, None
        started = prepared = time.perf_counter()
        if self._inputs.reference is not None:
            features = runner.encode(self._inputs.reference)
            # On a GPU the call returns before the work is done.
            if isinstance(runner, DeviceRunner) and isinstance(features, Features):
                runner.layer.finish(features.ready)
            prepared = time.perf_counter()
        restored = runner.restore(self._inputs.target, features)
        ended = time.perf_counter()
        times = {"whole": [ended - started]}
        if features is not None:
            times |= {"prepare": [prepared - started], "critical": [ended - prepared]}
        return Called(times, restored)


def _feed(inputs: Inputs) -> dict[str, Array]:
    return {"target": inputs.target, **({} if inputs.reference is None else {"reference": inputs.reference})}


class OnnxRuntimeEngine:
    """model.onnx in ONNX Runtime with the options that it has of itself; all cores are its own choice of threads."""

    def __init__(self, task: Task) -> None:
        ort = require("onnxruntime", "the ONNX Runtime peer")
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if task.threads not in (None, cores()):
            options.intra_op_num_threads = task.threads
        model = os.fspath(task.bundle / "model.onnx")
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._feed = _feed(task.inputs)
        self._version = ort.__version__

    def describe(self) -> dict[str, Any]:
        """See `Engine`."""
        return {"engine": f"onnxruntime {self._version}", "providers": self._session.get_providers()}

    def call(self) -> Called:
        """See `Engine`."""
        started = time.perf_counter()
        restored = self._session.run(None, self._feed)[0]
        return Called({"whole": [time.perf_counter() - started]}, restored)


class OpenVinoEngine:
    """model.onnx in OpenVINO, tuned for latency; the precision is its own choice unless option ``precision`` is given.

    OpenVINO knows no local functions of ONNX, so that they are inlined first.
    """

    def __init__(self, task: Task) -> None:
        openvino = require("openvino", "the OpenVINO peer")
        onnx, inliner = (require(name, "the OpenVINO peer") for name in ("onnx", "onnx.inliner"))
        settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if task.threads not in (None, cores()):
            settings["INFERENCE_NUM_THREADS"] = task.threads
        if "precision" in task.options:
            settings["INFERENCE_PRECISION_HINT"] = task.options["precision"]
        with tempfile.TemporaryDirectory(dir=task.work) as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(inliner.inline_local_functions(onnx.load(task.bundle / "model.onnx")), path)
            self._compiled = openvino.Core().compile_model(path, "CPU", settings)
        self._request = self._compiled.create_infer_request()
        self._feed = _feed(task.inputs)
        self._version = openvino.get_version()

    def describe(self) -> dict[str, Any]:
        """See `Engine`."""
        precision = self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        threads = self._compiled.get_property("INFERENCE_NUM_THREADS")
        return {
            "engine": f"openvino {self._version}",
            "title": f"OpenVINO, plain export, {precision}",
            "precision": precision,
            "threads": int(threads),
        }

    def call(self) -> Called:
        """See `Engine`."""
        started = time.perf_counter()
        restored = self._request.infer(self._feed)[0]
        return Called({"whole": [time.perf_counter() - started]}, restored)
