"""What a whole series costs, DICOM in and DICOM out, against the inference of the same slices alone.

    python benchmarks/series.py --output benchmarks/results/series.json

The bundled study, tiled to a longer and larger series on the fly. A round runs `minet-sdk run` on it (scan, open the
model, decode both series, restore, k-space consistency, encode, write), the same with one slice at a time in the engine
where it would have two, and then the network alone on the same slices: the bundled x2 model at several sizes, and
preset `paper` at one.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from latency_models import model_of
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from minet_sdk import Runtime
from minet_sdk.backends import BACKENDS, make_runner
from minet_sdk.backends.base import Runner, RunnerOptions
from minet_sdk.benchmark.distribution import paired_ratio
from minet_sdk.benchmark.machine import LoadWatch, environment
from minet_sdk.benchmark.suite import write_json
from minet_sdk.conditioning import Conditioning
from minet_sdk.demo import study_folder
from minet_sdk.dicom.derive import Derivation, derive
from minet_sdk.dicom.header import quietly
from minet_sdk.dicom.read import load
from minet_sdk.dicom.scan import scan
from minet_sdk.dicom.uids import hashed_uid
from minet_sdk.dicom.write import write_series
from minet_sdk.kspace import degrade
from minet_sdk.normalisation import Normalisation
from minet_sdk.pipeline import to_fft_grid
from minet_sdk.run import run_dicom

Array = npt.NDArray[np.float32]

ROOT = Path(__file__).resolve().parent.parent

MODEL = "minet-x2"
PRESET = "paper"
SCALE = 2
SIZES = (160, 256, 320)
"""Rows and columns of the restored slices."""

SLICES = 40
PRESET_SLICES = 20
PRESET_SIZE = 320
ROUNDS = 7
PRESET_ROUNDS = 3
CALLS = 15
"""Of one slice, to tell what the runtime adds to its engine."""

PASSES = 10
"""Over a series, of which the one that takes least processor time tells what the steps beside inference take."""


class OneAtATime(Runtime):
    """A runtime whose series never have two slices in the engine."""

    def slices_at_once(self, height: int, width: int) -> int:
        """See `Runtime`."""
        return 1


@dataclass(frozen=True)
class Study:
    """One made-up study on disk, and its slices in memory."""

    target: Path
    reference: Path
    pairs: tuple[tuple[Array, Array], ...]


def make_study(folder: Path, size: int, slices: int) -> Study:
    """The bundled pair as ``slices`` slices of ``size`` x ``size``, the T2 at half of that."""
    guides, truths = (load(scan(study_folder() / name).series[0]) for name in ("t1", "t2"))
    images = [[fitted(one, size) for one in volume.volume.values] for volume in (guides, truths)]
    fine, low = (np.stack([kind[i % len(kind)] for i in range(slices)]) for kind in images)
    low = degrade(low, SCALE, offset=(SCALE - 1) / 2)
    for name, header, values, step in (
        ("reference", guides.datasets[0], fine, 1),
        ("target", truths.datasets[0], low, SCALE),
    ):
        write_series((image(header, values[i], i, step) for i in range(slices)), folder / name)
    return Study(folder / "target", folder / "reference", tuple(zip(low, fine, strict=True)))


def fitted(values: Array, size: int) -> Array:
    """An image repeated or cropped to a square."""
    repeats = [-(-size // side) for side in values.shape]
    return np.tile(values, repeats)[:size, :size]


def image(header: Dataset, values: Array, index: int, step: int) -> Dataset:
    """One uncompressed image, as a scanner writes it, in pixels ``step`` times as large as the header's."""
    made = deepcopy(header)
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    row, column = np.array(header.ImageOrientationPatient, np.float64).reshape(2, 3)
    spacing = [float(one) for one in header.PixelSpacing]
    position = np.array(header.ImagePositionPatient, np.float64)
    position += (step - 1) / 2 * (row * spacing[1] + column * spacing[0])
    position += index * float(header.SliceThickness) * np.cross(row, column)
    stored = np.clip(np.rint(values), 0, 2**header.BitsStored - 1).astype("<u2")
    made.Rows, made.Columns = stored.shape
    made.PixelSpacing = [one * step for one in spacing]
    made.ImagePositionPatient = [round(float(one), 6) for one in position]
    made.InstanceNumber = index + 1
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = hashed_uid(header.SOPInstanceUID, f"{index}")
    made.PixelData = stored.tobytes()
    made["PixelData"].VR = "OW"
    return made


def timed(call: Callable[[], object]) -> float:
    """Seconds of a call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measure_series(
    model: str | Path, size: int, slices: int, rounds: int, options: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """The whole run against inference alone, in turns."""
    study = make_study(folder / f"{Path(model).name}-{size}", size, slices)
    whole: list[float] = []
    alone: list[float] = []
    parts: list[dict[str, float]] = []
    parts_of_one: list[dict[str, float]] = []

    def run(kind: type[Runtime], found: list[dict[str, float]]) -> None:
        summary = run_dicom(
            study.target, study.reference, folder / "out", lambda name: kind(model, **options), overwrite=True
        )
        assert not summary.fallbacks
        assert not summary.reference_resampled
        found.append(summary.seconds)

    with Runtime(model, **options) as runtime:
        name = runtime.info.model
        at_once = runtime.slices_at_once(*study.pairs[0][0].shape)

        def infer() -> None:
            for target, reference in study.pairs:
                runtime.infer(runtime.ready(target, reference))

        infer()
        for _ in range(rounds):
            whole.append(timed(lambda: run(Runtime, parts)))
            if at_once > 1:
                run(OneAtATime, parts_of_one)
            alone.append(timed(infer))
    return {
        "model": name,
        "size": size,
        "slices": slices,
        "run_seconds": [round(one, 4) for one in whole],
        "inference_seconds": [round(one, 4) for one in alone],
        "run_to_inference": paired_ratio(whole, alone).to_dict(),
        "run_parts": parts,
        "slices_at_once": at_once,
        "run_parts_one_at_a_time": parts_of_one,
    }


def measure_steps(size: int, slices: int, folder: Path) -> dict[str, Any]:
    """Processor time of what happens to a slice outside the runtime, step by step in one thread."""
    study = make_study(folder / f"steps-{size}", size, slices)
    passes = [steps_of(study, folder / "written") for _ in range(PASSES)]
    least = {step: min(one[step] for one in passes) for step in passes[0]}
    return {"size": size, "slices": slices, "cpu_ms": {step: round(1e3 * s / slices, 3) for step, s in least.items()}}


def steps_of(study: Study, output: Path) -> dict[str, float]:
    """Processor time in s of every step, over all slices."""
    seconds: dict[str, float] = {}

    @contextmanager
    def step(name: str) -> Generator[None]:
        started = time.thread_time()
        yield
        seconds[name] = time.thread_time() - started

    with step("scan both"):
        target, reference = (scan(one).series[0] for one in (study.target, study.reference))
    with step("read and decode both"):
        low, guide = load(target), load(reference, whole_headers=False)
    with step("move to the FFT grid"):
        for values in low.volume.values:
            to_fft_grid(values, SCALE)
    derivation = Derivation(scale=SCALE, model_name=MODEL, model_sha256="0" * 64)
    with quietly(), step("derive"):
        images = [
            derive(source, restored, derivation=derivation, references=[other]).dataset
            for source, (_, restored), other in zip(low.datasets, study.pairs, guide.datasets, strict=True)
        ]
    with quietly(), step("write"):
        write_series(images, output, overwrite=True)
    return seconds


def measure_slice(size: int, options: dict[str, Any]) -> dict[str, Any]:
    """One slice: the engine, what the runtime adds to it, and the k-space consistency, in turns."""
    rng = np.random.default_rng(0)
    low, fine = (rng.gamma(2, 100, (side, side)).astype(np.float32) for side in (size // SCALE, size))
    normalisation = Normalisation()
    normal, guide = (normalisation.apply(one)[None, None] for one in (low, fine))
    seconds: dict[str, list[float]] = {"engine": [], "runtime": [], "consistency": []}
    with Runtime(MODEL, **options) as runtime:
        spec = next(spec for spec in BACKENDS if spec.name == runtime.info.backend)
        runner = make_runner(spec, RunnerOptions(threads=options["threads"]))
        runner.activate(runtime.bundle)
        restored = runtime.infer(runtime.ready(low, fine)).values
        for _ in range(CALLS):
            seconds["engine"].append(timed(lambda: runner.restore(normal, runner.encode(guide))))
            seconds["runtime"].append(timed(lambda: runtime.infer(runtime.ready(low, fine))))
            seconds["consistency"].append(timed(lambda: runtime.finish(restored, low)))
        conditioning = measure_conditioning(runner, low, fine)
        runner.deactivate()
        overhead = measure_overhead(runtime, low, fine)
    medians = {name: 1e3 * float(np.median(values)) for name, values in seconds.items()}
    return {
        "size": size,
        "median_ms": {name: round(value, 3) for name, value in medians.items()},
        "runtime_without_engine_ms": round(overhead, 3),
        "conditioning_ms": conditioning,
        "overhead_share": round(overhead / medians["engine"], 5),
        "consistency_share": round(medians["consistency"] / medians["engine"], 5),
        "runtime_to_engine": paired_ratio(seconds["runtime"], seconds["engine"]).to_dict(),
    }


def measure_conditioning(runner: Runner, low: Array, fine: Array) -> dict[str, dict[str, float]]:
    """Median milliseconds of each step around the network, in the engine's form and in NumPy's, in turns."""
    normalisation = Normalisation()
    forms = {"engine": runner.conditioning(normalisation, SCALE), "numpy": Conditioning(normalisation, SCALE)}
    found: dict[str, dict[str, float]] = {}
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(10 * CALLS):
        for name, form in forms.items():
            seen = form.see(fine)
            steps: dict[str, Callable[[], object]] = {
                "normalise reference": partial(form.normalise, fine),
                "see reference": partial(form.see, fine),
                "trust": partial(form.trust, low, seen),
                "soft consistency": partial(form.consistent, fine, low, "soft"),
            }
            for step, call in steps.items():
                seconds[name, step].append(timed(call))
    for (name, step), values in seconds.items():
        found.setdefault(name, {})[step] = round(1e3 * float(np.median(values)), 4)
    return found


def measure_overhead(runtime: Runtime, low: Array, fine: Array) -> float:
    """Milliseconds of a call of the runtime in which no engine runs: the difference of two long times is mostly noise.

    The engine's two calls give what they gave the first time, everything else is as ever.
    """
    runner = runtime._runner  # pyright: ignore[reportPrivateUsage] # only here can the engine be taken out
    given: dict[str, Any] = {}
    copies: list[Array] = []  # every image of an engine is one of its own, which the runtime may overwrite
    real = runner.encode, runner.restore

    def encode(reference: Array) -> Any:
        if "features" not in given:
            given["features"] = real[0](reference)
        return given["features"]

    def restore(target: Array, features: Any) -> Array:
        if not copies:
            restored = real[1](target, features)
            copies.extend(restored.copy() for _ in range(10 * CALLS + 1))
        return copies.pop()

    runner.encode, runner.restore = encode, restore
    try:
        runtime.infer(runtime.ready(low, fine))
        return 1e3 * float(
            np.median([timed(lambda: runtime.infer(runtime.ready(low, fine))) for _ in range(10 * CALLS)])
        )
    finally:
        runner.encode, runner.restore = real


def main() -> None:
    """Measure all sizes and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--slices", type=int, default=SLICES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--work", type=Path, default=ROOT / "out" / "latency", help="folder for exported models")
    arguments = parser.parse_args()
    options: dict[str, Any] = {"backend": arguments.backend, "threads": arguments.threads}
    arguments.work.mkdir(parents=True, exist_ok=True)
    with Runtime(MODEL, **options) as runtime:
        info = runtime.info
    report: dict[str, Any] = {
        "what": "wall time of a whole run (scan, open the model, decode, restore, soft consistency, encode, write) "
        "over that of inference alone on the same slices (reference and target), in turns",
        "data": "the bundled study, tiled to the size and number of slices, uncompressed",
        "model": {"name": info.model, "sha256": info.model_sha256, "backend": info.backend, **info.execution},
        "environment": environment(),
    }
    with LoadWatch() as load_watch, tempfile.TemporaryDirectory() as folder:
        report["slices"] = [measure_slice(size, options) for size in arguments.sizes]
        report["steps"] = [measure_steps(size, arguments.slices, Path(folder)) for size in arguments.sizes]
        report["series"] = [
            measure_series(MODEL, size, arguments.slices, arguments.rounds, options, Path(folder))
            for size in arguments.sizes
        ]
        if PRESET_SIZE in arguments.sizes:
            preset = model_of(PRESET, SCALE, arguments.work).bundle.location
            report["series"].append(
                measure_series(preset, PRESET_SIZE, PRESET_SLICES, PRESET_ROUNDS, options, Path(folder))
            )
    report["load"] = load_watch.report
    for one in report["slices"]:
        print(f"slice {one['size']}: {one['median_ms']}, overhead {one['overhead_share']:.2%}")
    for one in report["steps"]:
        print(f"steps {one['size']}, processor time of a slice in ms: {one['cpu_ms']}")
    for one in report["series"]:
        ratio = one["run_to_inference"]["median"]
        print(f"series {one['model']} {one['size']}: run / inference {ratio:.3f}, {one['run_parts'][-1]}")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(report, arguments.output)


if __name__ == "__main__":
    main()
