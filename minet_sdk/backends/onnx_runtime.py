"""ONNX Runtime as an engine, on the CPU, on CUDA or through TensorRT; it never falls back from one unasked."""

import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minet_sdk.backends.base import Array, Runner, RunnerOptions
from minet_sdk.bundle import Bundle, bare_bundle
from minet_sdk.engines import cache_folder
from minet_sdk.errors import BackendError, BundleError, first_line
from minet_sdk.requirements import require

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"

HEAVY_OPERATORS = frozenset({"Conv", "MatMul", "ConvTranspose", "Gemm"})
"""What must run where it was asked to; shapes and the like may stay on the CPU, where they belong."""

_LOG_ERRORS_ONLY = 3


@dataclass(frozen=True)
class KeptFeatures:
    """Reference features in the memory of the device that computed them."""

    value: Any
    """An OrtValue, float32."""

    @property
    def nbytes(self) -> int:
        """What they hold."""
        return math.prod(self.value.shape()) * np.dtype(np.float32).itemsize


class OnnxRuntimeRunner(Runner):
    """Runs the prefetch graphs of a bundle, so that a call with a reference and one with its features are the same.

    A bare .onnx file has no prefetch graphs: its "features" are the reference itself.
    """

    _sessions: dict[str, Any]
    _placement: dict[str, dict[str, int]]
    _bare = False

    def _activate_impl(self, model: Bundle | Path) -> Bundle:
        self._sessions, self._placement = {}, {}
        if isinstance(model, Bundle):
            for graph in ("reference", "target") if model.manifest.needs_reference else ("model",):
                self._sessions[graph] = self._session(model.graph(graph), model)
            return model
        session = self._session(model, None)
        self._sessions["model"], self._bare = session, True
        return bare_bundle(model, session.get_modelmeta().custom_metadata_map)

    def _deactivate_impl(self) -> None:
        self._sessions = {}

    def _encode_impl(self, reference: Array) -> Any:
        if self._bare:
            return reference
        # They stay where they were computed: on a GPU, the next graph would have to take them back from the host.
        return KeptFeatures(self._run("reference", {"reference": reference}, self._device_type))

    def _restore_impl(self, target: Array, features: Any) -> Array:
        if features is None:
            restored = self._run("model", {"target": target})
        elif self._bare:
            restored = self._run("model", {"target": target, "reference": features})
        else:
            restored = self._run("target", {"target": target, "reference_features": features.value})
        return restored.numpy()

    @property
    def _device_type(self) -> str:
        """Where the provider computes, by ONNX Runtime's name."""
        return "cpu" if self.provider == CPU else "cuda"

    @property
    def version(self) -> str:
        """Name and version of the engine."""
        return f"onnxruntime {require('onnxruntime', 'the onnxruntime backend').__version__}"

    def details(self) -> dict[str, Any]:
        """Options of the session, and graph nodes by the provider that runs them, where this version tells.

        ``threads`` is None where the choice is left to ONNX Runtime, which does not say what it takes.
        """
        options = {"threads": self.options.threads, "memory_pattern": False, "deterministic": True}
        return {**options, "nodes": self._placement} if self._placement else options

    def _session(self, path: Path, bundle: Bundle | None) -> Any:
        ort = require("onnxruntime", "the onnxruntime backend")
        options = ort.SessionOptions()
        options.log_severity_level = _LOG_ERRORS_ONLY
        options.use_deterministic_compute = True
        # It costs 40 % more memory (2644 for 1858 MiB, preset `paper` at 320^2, 884 for 617 the bundled one) and saves
        # no time. Without the arena, each call would ask the system for all of its memory.
        options.enable_mem_pattern = False
        if self.options.threads is not None:
            options.intra_op_num_threads = self.options.threads
        # The threads of one graph would look for work long after its run, on the cores that the next graph needs.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        providers = provider_options(self.provider, self.options, bundle)
        try:
            session = ort.InferenceSession(os.fspath(path), options, providers=providers)
        except Exception as error:
            # onnxruntime's exceptions share no base class of their own.
            raise BundleError(f"{path} cannot be loaded by onnxruntime: {first_line(error)}") from error
        # Without this a provider that fails later is replaced by the CPU, and only a line on stdout says so.
        session.disable_fallback()
        active = session.get_providers()
        if active[0] != self.provider:
            raise BackendError(f"onnxruntime was asked for {self.provider} and took {active[0]}: see `minet-sdk info`")
        if hasattr(session, "get_provider_graph_assignment_info"):
            self._placement[path.stem] = self._placed(session, path)
        return session

    def _placed(self, session: Any, path: Path) -> dict[str, int]:
        """Nodes by provider; refuses a session that computes elsewhere than it was asked to."""
        nodes: Counter[str] = Counter()
        stray: Counter[str] = Counter()
        allowed = {name for name, _ in provider_options(self.provider, self.options, None)}
        for part in session.get_provider_graph_assignment_info():
            for node in part.get_nodes():
                nodes[part.ep_name] += 1
                if part.ep_name not in allowed and node.op_type in HEAVY_OPERATORS:
                    stray[f"{node.op_type} on {part.ep_name}"] += 1
        if stray:
            listed = ", ".join(f"{count} {what}" for what, count in stray.items())
            raise BackendError(f"onnxruntime was asked for {self.provider} and put {listed} in {path.name}")
        return dict(nodes)

    def _run(self, graph: str, inputs: dict[str, Any], where: str = "cpu") -> Any:
        """The graph's one output as an OrtValue in the memory of ``where``; inputs are arrays or OrtValues."""
        session = self._sessions[graph]
        try:
            binding = session.io_binding()
            for name, value in inputs.items():
                if isinstance(value, np.ndarray):
                    binding.bind_cpu_input(name, np.ascontiguousarray(value))
                else:
                    binding.bind_ortvalue_input(name, value)
            binding.bind_output(session.get_outputs()[0].name, where, 0 if where == "cpu" else self.options.device)
            binding.synchronize_inputs()
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            return binding.get_outputs()[0]
        except Exception as error:
            raise BackendError(f"onnxruntime failed in {graph}.onnx: {first_line(error)}") from error


def provider_options(provider: str, options: RunnerOptions, bundle: Bundle | None) -> list[tuple[str, dict[str, str]]]:
    """The providers to ask for, the wanted one first, with their settings.

    Args:
        provider: ONNX Runtime's name of it.
        options: of the runner; they say which device.
        bundle: whose TensorRT engines may be cached; None for a bare file, whose engines are not kept.
    """
    device = {"device_id": str(options.device)}
    # The search times kernels, so that the choice, and with it the last bits, may differ from run to run. TF32 rounds
    # inputs to 10 bits, which no precision of this SDK means.
    cuda = (CUDA, {**device, "cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"})
    if provider == CUDA:
        return [cuda]
    if provider == TENSORRT:
        settings = dict(device)
        if bundle is not None:
            folder = str(cache_folder(bundle) / "onnxruntime")
            settings |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": folder}
            settings |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": folder}
            if bundle.manifest.precision == "fp16":
                settings["trt_fp16_enable"] = "1"
        # What TensorRT leaves over goes to CUDA, as ONNX Runtime wants it; both are the device that was asked for.
        return [(TENSORRT, settings), cuda]
    return [(provider, {})]
