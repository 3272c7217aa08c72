"""One comparison from bundle to plain data: inputs, the float64 reference, the peers, what there is to multiply."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minet_sdk import __version__
from minet_sdk.atomic import replacing
from minet_sdk.benchmark.comparison import Array, Pace, Tell, compare
from minet_sdk.benchmark.machine import LoadWatch, environment
from minet_sdk.benchmark.operations import Operations, count
from minet_sdk.benchmark.peaks import measure_peaks
from minet_sdk.benchmark.peers import ONNX_RUNTIME, present
from minet_sdk.benchmark.process import Peer, PeerProcess, Place
from minet_sdk.benchmark.study import DATA, real_inputs
from minet_sdk.bundle import Bundle
from minet_sdk.errors import BackendError, BundleError, InputError, MissingPackageError

FORMAT = 1

FLOAT64_PIXELS = 640 * 640
"""Restored images with more are not computed in float64, which takes twice the memory and several times as long."""


@dataclass(frozen=True)
class Subject:
    """A model with everybody who can run it."""

    bundle: Bundle
    peers: Sequence[Peer]
    absent: dict[str, str] = field(default_factory=dict[str, str])
    """Reason by name of a peer."""

    exact: Peer | None = None
    """Computes in float64; None where PyTorch or the checkpoint is not there."""

    float64_pixels: int = FLOAT64_PIXELS


def subject_of(
    bundle: Bundle,
    backends: Sequence[str] = (),
    others: tuple[Sequence[Peer], dict[str, str]] = ((), {}),
    exact: Peer | None = None,
    float64_pixels: int = FLOAT64_PIXELS,
) -> Subject:
    """A bundle with the peers that are here.

    Args:
        bundle: the model.
        backends: of this SDK; all if empty.
        others: further peers, and those that are absent with the reason.
        exact: computes in float64.
        float64_pixels: no float64 for images with more.

    Raises:
        InputError: no such backend.
        BackendError: a backend that was asked for by name cannot run here.
    """
    peers, absent = present(bundle, backends)
    return Subject(bundle, [*peers, *others[0]], absent | others[1], exact, float64_pixels)


def measure(
    subject: Subject, size: tuple[int, int], threads: int, pace: Pace, work: Path, tell: Tell = lambda text: None
) -> dict[str, Any]:
    """Compare all peers of a model at one size.

    Args:
        subject: the model and the peers.
        size: rows and columns of the restored image.
        threads: of every peer.
        pace: how long.
        work: existing folder for files between processes; float64 results stay there for the next comparison.
        tell: told what happens.

    Returns:
        What `compare` gives, and ``model``, ``size``, ``threads``, ``absent``, ``accuracy``, ``operations``, ``load``.

    Raises:
        InputError: the size is not a multiple of the model's scale.
    """
    manifest = subject.bundle.manifest
    inputs = real_inputs(size, manifest.scale, manifest.normalisation, needs_reference=manifest.needs_reference)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        path = Path(folder) / "inputs.npz"
        inputs.save(path)
        place = Place(subject.bundle.location, path, threads, work)
        expected, accuracy = _expected(subject, place, size, tell)
        with LoadWatch() as watch:
            found = compare(subject.peers, place, pace, expected, tell)
    try:
        operations: dict[str, Any] = {name: asdict(part) for name, part in operations_of(subject.bundle, size).items()}
    except (MissingPackageError, BundleError) as error:
        operations = {"absent": str(error)}
    return {
        "model": manifest.name,
        "scale": manifest.scale,
        "size": list(size),
        "threads": threads,
        "accuracy": accuracy,
        "operations": operations,
        "load": watch.report,
        **found,
        "absent": subject.absent,
    }


def operations_of(bundle: Bundle, size: tuple[int, int]) -> dict[str, Operations]:
    """Multiplications by part of the work.

    Raises:
        MissingPackageError: the package onnx is not installed.
        BundleError: a graph cannot be followed.
    """
    scale, reference = bundle.manifest.scale, (1, 1, *size)
    target = (1, 1, size[0] // scale, size[1] // scale)
    if not bundle.manifest.needs_reference:
        return {"whole": count(bundle.graph("model"), {"target": target})}
    whole = count(bundle.graph("model"), {"target": target, "reference": reference})
    prepare = count(bundle.graph("reference"), {"reference": reference})
    # Everything that does not depend on the reference alone.
    critical = Operations(*(a - b for a, b in zip(asdict(whole).values(), asdict(prepare).values(), strict=True)))
    return {"whole": whole, "prepare": prepare, "critical": critical}


def add_floors(comparison: dict[str, Any], gflops: float) -> None:
    """Put down what each part must take at least at the machine's peak, and how far each peer is from that.

    Args:
        comparison: of `measure`; gets ``floor_ms``, and each peer ``floor_ratio`` by part, to the direct convolution
            and, for the engine that uses it, to Winograd's.
        gflops: peak with the comparison's threads.
    """
    parts = {name: part for name, part in comparison["operations"].items() if name != "absent"}
    floors = {
        name: {
            "direct": round(1e3 * Operations(**part).floor_seconds(gflops), 4),
            "winograd": round(1e3 * Operations(**part).floor_seconds(gflops, winograd=True), 4),
        }
        for name, part in parts.items()
    }
    comparison["floor_ms"] = floors
    for name, peer in comparison["peers"].items():
        kinds = ("direct", "winograd") if name == "native" else ("direct",)
        peer["floor_ratio"] = {
            part: {kind: round(peer["parts"][part]["p50_ms"] / floors[part][kind], 2) for kind in kinds}
            for part in floors
            if part in peer["parts"]
        }


def _expected(subject: Subject, place: Place, size: tuple[int, int], tell: Tell) -> tuple[Array | None, str]:
    """What all results are compared with, and what that is, in words."""
    exact, why = subject.exact, "PyTorch or the checkpoint is not here"
    if exact is not None and size[0] * size[1] > subject.float64_pixels:
        exact, why = None, f"float64 is skipped above {subject.float64_pixels} pixels"
    stand_in = next((peer for peer in subject.peers if peer.name == ONNX_RUNTIME.name), None)
    peer = exact or stand_in
    if peer is None:
        return None, f"not measured: {why}, nor is ONNX Runtime"
    keep = place.work / f"expected-{subject.bundle.sha256[:16]}-{peer.name}-{size[0]}x{size[1]}.npy"
    if not keep.exists():
        tell(f"computing with {peer.title} what the others are compared with")
        try:
            with PeerProcess(peer, place) as process, replacing(keep) as temporary:
                process.open()
                # NumPy adds the ending to other names.
                written = temporary.with_suffix(".npy")
                process.ask("run", calls=1, keep=str(written))
                written.replace(temporary)
        except BackendError as error:
            return None, f"not measured: {error}"
    what = f"against {peer.title}" + ("" if exact else f", not float64: {why}")
    expected: Array = np.load(keep)
    return expected, what


def new_report(what: str) -> dict[str, Any]:
    """The head of a result."""
    return {
        "format": FORMAT,
        "what": what,
        "data": DATA,
        "minet-sdk": __version__,
        "environment": environment(),
        "peaks": {},
        "comparisons": [],
    }


def add_peaks(report: dict[str, Any], threads: int, tell: Tell = lambda text: None) -> float:
    """Peak in GFLOP/s with a number of threads; measured once for each report."""
    peaks: dict[str, Any] = report["peaks"]
    if str(threads) not in peaks:
        tell(f"measuring the machine's peaks with {threads} threads")
        with LoadWatch() as watch:
            found = measure_peaks(threads)
        peaks[str(threads)] = found | {"load": watch.report}
    return peaks[str(threads)]["gflops"]


def write_json(report: dict[str, Any], path: Path) -> None:
    """Write a result (temporary name, then rename)."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Inverse of `write_json`.

    Raises:
        InputError: not such a result.
    """
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}): give the file of an earlier run, or a new one") from error
    if report.get("format") != FORMAT:
        raise InputError(f"{path} has format {report.get('format')}, this version writes {FORMAT}: give a new file")
    return report
