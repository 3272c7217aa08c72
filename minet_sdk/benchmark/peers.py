"""Which peers there are for a bundle, and why the others are absent: this SDK's backends, and engines by themselves."""

import importlib.util
from collections.abc import Sequence

from minet_sdk.backends import BACKENDS, Need, availability, choose, names
from minet_sdk.backends.base import RunnerOptions
from minet_sdk.benchmark.process import Peer
from minet_sdk.bundle import Bundle

_ENGINES = "minet_sdk.benchmark.engines"
_RUNTIMES = "minet_sdk.benchmark.runtime_engines"

ONNX_RUNTIME = Peer("onnxruntime-plain", "ONNX Runtime, plain export", f"{_ENGINES}:OnnxRuntimeEngine")

OPENVINO = Peer("openvino-plain", "OpenVINO, plain export, float32", f"{_ENGINES}:OpenVinoEngine", {"precision": "f32"})

OPENVINO_DEFAULT = Peer("openvino-default", "OpenVINO, plain export, its own precision", f"{_ENGINES}:OpenVinoEngine")

_NEEDS = {"onnxruntime-plain": ("onnxruntime",), "openvino-plain": ("openvino", "onnx")}
"""Modules by peer."""

_NEEDS["openvino-default"] = _NEEDS["openvino-plain"]


def backend_peer(backend: str) -> Peer:
    """A backend of this SDK as a peer."""
    return Peer(backend, f"minet-sdk, {backend}", f"{_ENGINES}:BackendEngine", {"backend": backend}, ours=True)


def runtime_peer(backend: str, consistency: str = "auto") -> Peer:
    """`Runtime` on a backend, with the time of the engine beneath it."""
    options = {"backend": backend, "consistency": consistency}
    title = f"Runtime, {backend}, consistency {consistency}"
    return Peer(f"{backend}-consistency-{consistency}", title, f"{_RUNTIMES}:RuntimeEngine", options, ours=True)


def scanner_peer(backend: str, prefetch: bool = True) -> Peer:
    """A series in a scanner's order of events, with or without prefetch."""
    form = "prefetch" if prefetch else "no-prefetch"
    title = f"Runtime, {backend}, {'prepared' if prefetch else 'plain'} references"
    options = {"backend": backend, "prefetch": prefetch}
    return Peer(f"{backend}-{form}", title, f"{_RUNTIMES}:ScannerEngine", options, ours=True)


def present(bundle: Bundle, backends: Sequence[str] = ()) -> tuple[list[Peer], dict[str, str]]:
    """Peers that can run a bundle here, and the reasons of those that cannot, by name.

    Args:
        bundle: the model.
        backends: of this SDK; all if empty. ``auto`` is the one that a runtime would take.

    Raises:
        InputError: no such backend.
        BackendError: a backend that was asked for by name cannot run here.
    """
    need = Need(bundle.manifest.precision, files=frozenset(bundle.manifest.files))
    chosen = dict.fromkeys(choose(name, need).spec.name for name in backends)
    peers = [backend_peer(name) for name in chosen]
    absent = {name: "not asked for" for name in names() if backends and name not in chosen}
    for spec in BACKENDS if not backends else ():
        found = availability(spec, need, RunnerOptions())
        if found.available:
            peers.append(backend_peer(spec.name))
        else:
            absent[spec.name] = found.reason
    for peer in (ONNX_RUNTIME, OPENVINO, OPENVINO_DEFAULT):
        missing = [name for name in _NEEDS[peer.name] if importlib.util.find_spec(name) is None]
        if missing:
            absent[peer.name] = f"not installed: {', '.join(missing)}"
        else:
            peers.append(peer)
    return peers, absent
