"""ONNX Runtime as an engine, on the CPU or on CUDA; it never falls back from one to the other unasked."""

import os
from pathlib import Path
from typing import Any

from minet_sdk.backends.base import Array, Runner
from minet_sdk.bundle import Bundle, bare_bundle, locate, open_bundle
from minet_sdk.errors import BackendError, BundleError, first_line
from minet_sdk.requirements import require

_LOG_ERRORS_ONLY = 3


class OnnxRuntimeRunner(Runner):
    """Runs the prefetch graphs of a bundle, so that a call with a reference and one with its features are the same.

    A bare .onnx file has no prefetch graphs: its "features" are the reference itself.
    """

    _sessions: dict[str, Any]
    _bare = False

    def _activate_impl(self, model: str | os.PathLike[str]) -> Bundle:
        location = locate(model)
        self._sessions = {}
        if location.suffix == ".onnx":
            session = self._session(location)
            bundle = bare_bundle(location, session.get_modelmeta().custom_metadata_map)
            self._sessions["model"], self._bare = session, True
            return bundle
        bundle = open_bundle(model)
        for graph in ("reference", "target") if bundle.manifest.needs_reference else ("model",):
            self._sessions[graph] = self._session(bundle.graph(graph))
        return bundle

    def _deactivate_impl(self) -> None:
        self._sessions = {}

    def _encode_impl(self, reference: Array) -> Any:
        if self._bare:
            return reference
        return self._run("reference", {"reference": reference})

    def _restore_impl(self, target: Array, features: Any) -> Array:
        if features is None:
            return self._run("model", {"target": target})
        if self._bare:
            return self._run("model", {"target": target, "reference": features})
        return self._run("target", {"target": target, "reference_features": features})

    @property
    def version(self) -> str:
        """Name and version of the engine."""
        return f"onnxruntime {require('onnxruntime', 'the onnxruntime backend').__version__}"

    def _session(self, path: Path) -> Any:
        ort = require("onnxruntime", "the onnxruntime backend")
        options = ort.SessionOptions()
        options.log_severity_level = _LOG_ERRORS_ONLY
        options.use_deterministic_compute = True
        # Shapes are dynamic, and the pattern of one shape held for the next costs twice the memory.
        options.enable_mem_pattern = False
        if self.options.threads is not None:
            options.intra_op_num_threads = self.options.threads
        try:
            session = ort.InferenceSession(os.fspath(path), options, providers=[self.provider])
        except Exception as error:
            # onnxruntime's exceptions share no base class of their own.
            raise BundleError(f"{path} cannot be loaded by onnxruntime: {first_line(error)}") from error
        active = session.get_providers()
        if active[0] != self.provider:
            raise BackendError(f"onnxruntime was asked for {self.provider} and took {active[0]}: see `minet-sdk info`")
        return session

    def _run(self, graph: str, inputs: dict[str, Array]) -> Any:
        try:
            return self._sessions[graph].run(None, inputs)[0]
        except Exception as error:
            raise BackendError(f"onnxruntime failed in {graph}.onnx: {first_line(error)}") from error
