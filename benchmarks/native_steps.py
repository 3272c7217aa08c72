"""What each change to the native engine's code gained: the engines of several revisions, in turns in one process.

    python benchmarks/native_steps.py main . --output FILE

Revisions are git's; a dot is the files as they are. Every revision's sources are compiled by its own build.py. A round
runs the same slice through each of them, whole (reference and target), beginning with another one each time; all of
them must give the same bits. Ratios are to the first.
"""

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from latency_models import model_of

from minet_sdk import __version__
from minet_sdk.backends.native_library import ISAS, Options, load
from minet_sdk.benchmark.distribution import Distribution, paired_ratio
from minet_sdk.benchmark.machine import LoadWatch, cores, environment
from minet_sdk.benchmark.suite import write_json

Array = npt.NDArray[np.float32]

ROOT = Path(__file__).resolve().parents[1]
HERE = "."

PRESETS = ("fast", "deep", "small", "paper")
SCALE = 2
SIZES = (160, 320)
"""Rows and columns of the restored slices."""

SECONDS = 6.0
"""Of calls of each revision, model, size, number of threads and instruction set; paper's take longer."""

FEWEST_ROUNDS, MOST_ROUNDS = 7, 60


@dataclass(frozen=True)
class Engine:
    """A loaded library with a model opened in it."""

    loaded: ctypes.CDLL
    plan: ctypes.c_void_p
    handle: ctypes.c_void_p

    def run(self, target: Array, reference: Array) -> Array:
        """The whole of one slice."""
        restored = np.empty_like(reference)
        images = target.ctypes.data, *target.shape, reference.ctypes.data, restored.ctypes.data
        _must(self.loaded.minet_run(self.handle, *images, None, 0))
        return restored

    def close(self) -> None:
        """Free its memory."""
        self.loaded.minet_engine_destroy(self.handle)
        self.loaded.minet_plan_close(self.plan)


def build(revision: str, folder: Path) -> Path:
    """Compile the engine of a revision of this repository, or of the files as they are."""
    folder.mkdir()
    sources = ROOT
    if revision != HERE:
        archive = ["git", "archive", revision, "kernels/native"]
        content = subprocess.run(archive, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=content, check=True)
        sources = folder
    library = folder / "libminet.so"
    subprocess.run([sys.executable, sources / "kernels" / "native" / "build.py", "--output", library], check=True)
    return library


def subject(revision: str) -> str:
    """What a revision's commit says that it does."""
    if revision == HERE:
        return "files as they are"
    show = ["git", "show", "--no-patch", "--format=%s", revision]
    return subprocess.run(show, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def open_engine(library: ctypes.CDLL, bundle: Path, threads: int, isa: str) -> Engine:
    """An engine for a bundle."""
    plan, handle = ctypes.c_void_p(), ctypes.c_void_p()
    _must(library.minet_plan_open(os.fsencode(bundle), ctypes.byref(plan)))
    options = Options(ctypes.sizeof(Options), threads, ISAS.index(isa), 0, 0)
    _must(library.minet_engine_create(plan, ctypes.byref(options), ctypes.byref(handle)))
    return Engine(library, plan, handle)


def _must(status: int) -> None:
    if status:
        raise SystemExit(f"the engine failed with status {status}")


def compare(engines: dict[str, Engine], size: int, seconds: float) -> dict[str, Any]:
    """One slice through every engine in turns.

    Raises:
        SystemExit: they do not give the same bits.
    """
    rng = np.random.default_rng(0)
    reference, target = (rng.normal(size=(side, side)).astype(np.float32) for side in (size, size // SCALE))
    restored = {name: engine.run(target, reference) for name, engine in engines.items()}
    first, *others = engines
    for name in others:
        if restored[name].tobytes() != restored[first].tobytes():
            raise SystemExit(f"{name} does not give the bits of {first}")
    names, times = list(engines), {name: list[float]() for name in engines}
    spent = 0.0
    for index in range(MOST_ROUNDS):
        if index >= FEWEST_ROUNDS and spent > seconds * len(names):
            break
        for offset in range(len(names)):
            name = names[(index + offset) % len(names)]
            started = time.perf_counter()
            engines[name].run(target, reference)
            times[name].append(time.perf_counter() - started)
            spent += times[name][-1]
    return {
        name: {
            "p50_ms": round(Distribution.of([times[name]]).p50_ms, 3),
            "of_the_first": paired_ratio(times[name], times[first]).to_dict(),
        }
        for name in names
    }


def measure(libraries: dict[str, Path], models: dict[str, Path], sizes: tuple[int, ...], seconds: float) -> list[Any]:
    """Every model, size, number of threads and instruction set of this processor."""
    loaded = {name: load(path) for name, path in libraries.items()}
    known = [isa for isa in ISAS[1:] if next(iter(loaded.values())).minet_supports(ISAS.index(isa))]
    found: list[dict[str, Any]] = []
    for preset, isa, threads in product(models, known, sorted({1, cores()})):
        engines = {name: open_engine(library, models[preset], threads, isa) for name, library in loaded.items()}
        for size in sizes:
            print(f"{preset} x{SCALE}, {size}, {isa}, {threads} threads", flush=True)
            what = {"preset": preset, "scale": SCALE, "size": size, "isa": isa, "threads": threads}
            found.append({**what, "revisions": compare(engines, size, seconds)})
        for engine in engines.values():
            engine.close()
    return found


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revisions", nargs="+", help="of git, or . for the files as they are; the oldest first")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--presets", default=",".join(PRESETS), help="comma-separated")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="comma-separated")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each revision in each comparison")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, LoadWatch() as watch:
        work = Path(folder)
        libraries = {one: build(one, work / f"engine-{index}") for index, one in enumerate(chosen.revisions)}
        models = {name: model_of(name, SCALE, work).bundle.location for name in chosen.presets.split(",")}
        sizes = tuple(map(int, chosen.sizes.split(",")))
        comparisons = measure(libraries, models, sizes, chosen.seconds)
    report: dict[str, Any] = {
        "what": "time of a whole slice in the native engine of several revisions, in turns; ratios to the first",
        "data": "normal random numbers, seed 0",
        "minet-sdk": __version__,
        "environment": environment(),
        "revisions": {one: subject(one) for one in chosen.revisions},
        "load": watch.report,
        "comparisons": comparisons,
    }
    write_json(report, chosen.output)


if __name__ == "__main__":
    main()
