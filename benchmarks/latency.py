"""Latency of this SDK and of its peers on a CPU, side by side, by preset, size and number of threads.

    python benchmarks/latency.py --output benchmarks/results/latency.json [--only paper-320,linearity] [--tiny]

Sections are merged into the JSON, so that they can run one by one. At the end the goals are judged, pass or fail.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from latency_goals import by_pixel, comparisons, verdicts
from latency_models import Model, model_of
from latency_plans import COMPARISONS, LINEARITY, OVERHEAD, SECTIONS, SERIES, SIZES, Plan, Series

from minet_sdk.benchmark.cold_start import cold_starts, import_seconds
from minet_sdk.benchmark.comparison import Entry, Pace, interleave
from minet_sdk.benchmark.machine import LoadWatch, cores, environment
from minet_sdk.benchmark.peers import backend_peer, runtime_peer, scanner_peer
from minet_sdk.benchmark.process import Place
from minet_sdk.benchmark.study import real_inputs
from minet_sdk.benchmark.suite import (
    Subject,
    add_floors,
    add_peaks,
    measure,
    new_report,
    read_json,
    subject_of,
    write_json,
)
from minet_sdk.errors import InputError, MinetError
from minet_sdk.training.torch_peers import float64_peer, torch_peers

ROOT = Path(__file__).resolve().parent.parent
TINY = 32
FLOAT64_PIXELS = {"paper": 320 * 320}
"""Larger images of this preset are not computed in float64, which would take 7 GB and minutes."""

START_PRESET, START_SIZE = "deep", 320


@dataclass
class Bench:
    """What the sections share."""

    report: dict[str, Any]
    work: Path
    tiny: bool
    """Sizes and rounds as small as can be: shows that everything works, measures nothing."""

    def tell(self, text: str) -> None:
        """A line for the person at the terminal."""
        print(text, file=sys.stderr, flush=True)

    def edge(self, size: int) -> int:
        """Of the restored image; tiny ones keep their order."""
        return TINY + 16 * SIZES.index(size) if self.tiny else size

    def pace(self, rounds: int, seconds: float = 300.0) -> Pace:
        """How long to measure."""
        return Pace(1, 1.0, 1) if self.tiny else Pace(rounds, seconds)

    def model(self, preset: str, scale: int) -> Model:
        """The model of a preset; what it is goes into the report."""
        # The tiny run shall not wait for the export of a large network.
        model = model_of("small" if self.tiny else preset, scale, self.work)
        manifest = model.bundle.manifest
        self.report["models"][f"{preset}-x{scale}"] = {
            "name": manifest.name,
            "sha256": model.bundle.sha256,
            "weights": model.weights,
            "architecture": manifest.architecture,
        }
        return model

    def place(self, model: Model, size: int, folder: Path, slices: int = 1) -> Place:
        """A model with slices of a size, all cores."""
        manifest, edge = model.bundle.manifest, self.edge(size)
        path = folder / f"inputs-{manifest.name}-{edge}-{slices}.npz"
        real_inputs((edge, edge), manifest.scale, manifest.normalisation, slices=slices).save(path)
        return Place(model.bundle.location, path, cores(), self.work)


def restricted(subject: Subject, names: tuple[str, ...], section: str) -> Subject:
    """A subject with the peers that a plan names; those that it does not, and those that are not here, are absent."""
    here = {peer.name: peer for peer in subject.peers}
    absent = {
        name: subject.absent.get(name, "this version of the SDK has no such backend")
        for name in names
        if name not in here
    }
    absent |= {name: f"left out of section {section} to bound its time" for name in here if name not in names}
    return replace(subject, peers=[here[name] for name in names if name in here], absent=absent | subject.absent)


def compared(bench: Bench, section: str) -> dict[str, Any]:
    """The comparisons of a section."""
    plans = COMPARISONS[section][: 1 if bench.tiny else None]
    return {"comparisons": [_compared(bench, section, plan) for plan in plans]}


def _compared(bench: Bench, section: str, plan: Plan) -> dict[str, Any]:
    model = bench.model(plan.preset, plan.scale)
    edge, threads = bench.edge(plan.size), 1 if plan.one_thread else cores()
    bench.tell(f"{section}: {plan.preset} x{plan.scale}, {edge} x {edge}, {threads} threads")
    subject = subject_of(
        model.bundle,
        others=torch_peers(model.checkpoint),
        exact=float64_peer(model.checkpoint),
        float64_pixels=FLOAT64_PIXELS.get(plan.preset, 640 * 640),
    )
    subject = restricted(subject, plan.peers, section)
    pace = bench.pace(plan.rounds, plan.seconds)
    found = measure(subject, (edge, edge), threads, pace, bench.work, bench.tell)
    add_floors(found, add_peaks(bench.report, threads, bench.tell))
    return {"preset": plan.preset, **found, "size": [plan.size, plan.size], "measured_size": [edge, edge]}


def machine(bench: Bench) -> dict[str, Any]:
    """Peaks with one thread and with all."""
    bench.report["peaks"].clear()
    for threads in sorted({1, cores()}):
        add_peaks(bench.report, threads, bench.tell)
    return {}


def start(bench: Bench) -> dict[str, Any]:
    """Import, and from the start of a process to the first restored slice, with the bundled x2 model."""
    model = bench.model(START_PRESET, 2)
    subject = subject_of(model.bundle, others=torch_peers(model.checkpoint))
    # As a user has it: `Runtime`, which checks every file and the golden vector before the first slice.
    peers = [
        replace(runtime_peer(peer.name), name=peer.name, title=peer.title) if peer.ours else peer
        for peer in subject.peers
    ]
    with tempfile.TemporaryDirectory(dir=bench.work) as folder:
        place = bench.place(model, START_SIZE, Path(folder))
        starts = cold_starts(peers, place, replace(bench.pace(7, 90.0), least=1), bench.tell)
    imports = import_seconds(1 if bench.tiny else 15)
    return {
        "import": imports.to_dict(),
        "cold_starts": {
            "preset": START_PRESET,
            "scale": 2,
            "size": START_SIZE,
            "peers": starts,
            "absent": subject.absent,
        },
    }


def linearity(bench: Bench, section: str = "linearity") -> dict[str, Any]:
    """Time a pixel of the native engine at every size, in rounds that all sizes are in."""
    rows: list[dict[str, Any]] = []
    for preset, scale, rounds in LINEARITY:
        model = bench.model(preset, scale)
        bench.tell(f"{section}: {preset} x{scale}")
        with tempfile.TemporaryDirectory(dir=bench.work) as folder:
            # The largest first, while the memory is still free.
            entries = [
                Entry(str(size), backend_peer("native"), bench.place(model, size, Path(folder)))
                for size in reversed(SIZES)
            ]
            found = interleave(entries, bench.pace(rounds), tell=bench.tell)
        rows.append({"preset": preset, "scale": scale, "failed": found["failed"], **by_pixel(found["peers"], SIZES)})
    return {"linearity": rows}


def scanner(bench: Bench) -> dict[str, Any]:
    """Series in a scanner's order of events."""
    return {"series": [_series(bench, series) for series in SERIES]}


def _series(bench: Bench, series: Series) -> dict[str, Any]:
    model = bench.model(series.preset, series.scale)
    here = {peer.name for peer in subject_of(model.bundle).peers}
    slices = 2 if bench.tiny else series.slices
    bench.tell(f"scanner: {series.preset} x{series.scale}, {slices} slices")
    peers = [scanner_peer(name) for name in series.backends if name in here]
    peers += [scanner_peer(name, prefetch=False) for name in series.without_prefetch if name in here]
    with tempfile.TemporaryDirectory(dir=bench.work) as folder:
        place = bench.place(model, series.size, Path(folder), slices)
        found = interleave(
            [Entry(peer.name, peer, place) for peer in peers], bench.pace(series.rounds), tell=bench.tell
        )
    absent = {name: "not here, see `minet-sdk info`" for name in series.backends if name not in here}
    return {
        "preset": series.preset,
        "scale": series.scale,
        "size": series.size,
        "slices": slices,
        "threads": cores(),
        **found,
        "absent": absent,
    }


def overhead(bench: Bench) -> dict[str, Any]:
    """What `Runtime` adds to the network in the native engine, with k-space consistency and without."""
    rows: list[dict[str, Any]] = []
    for preset, scale, rounds in OVERHEAD:
        model = bench.model(preset, scale)
        bench.tell(f"overhead: {preset} x{scale}")
        with tempfile.TemporaryDirectory(dir=bench.work) as folder:
            place = bench.place(model, START_SIZE, Path(folder))
            peers = [runtime_peer("native", consistency) for consistency in ("auto", "off")]
            found = interleave([Entry(p.name, p, place) for p in peers], bench.pace(rounds), tell=bench.tell)
        for peer in found["peers"].values():
            medians = {part: times["p50_ms"] for part, times in peer["parts"].items()}
            peer["share"] = round(medians["difference"] / medians["engine"], 5)
            peer["glue_share"] = round(medians["glue"] / medians["engine"], 5)
        rows.append({"preset": preset, "scale": scale, "size": START_SIZE, "threads": cores(), **found})
    return {"overhead": rows}


_OTHERS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "machine": machine,
    "start": start,
    "linearity": linearity,
    "scanner": scanner,
    "overhead": overhead,
}


def run_section(bench: Bench, name: str) -> None:
    """Run one section and put it in the report."""
    before = environment()
    with LoadWatch() as watch:
        found = _OTHERS[name](bench) if name in _OTHERS else compared(bench, name)
    bench.report["sections"][name] = {"load": watch.report, "versions": before["versions"], "tiny": bench.tiny, **found}
    if watch.report["warning"]:
        bench.tell(f"warning: {name}: {watch.report['warning']}")


def opened(path: Path, *, afresh: bool, read_only: bool) -> dict[str, Any]:
    """The report to add to, or to read only.

    Raises:
        InputError: the file holds another machine's figures and is to be added to.
    """
    report = new_report("minet-sdk against its peers on a CPU; benchmarks/latency.py") | {"models": {}, "sections": {}}
    del report["comparisons"]
    if not path.exists() or (afresh and not read_only):
        return report
    earlier = read_json(path)
    if read_only:
        return earlier
    for name in ("processor", "cores", "instruction_sets"):
        here, there = report["environment"][name], earlier["environment"][name]
        if here != there:
            raise InputError(
                f"{path} is of another machine ({name} {there}, here {here}): --afresh, or another --output"
            )
    return earlier | {"environment": report["environment"], "minet-sdk": report["minet-sdk"]}


def main() -> int:
    """Run the sections and judge; 1 if a goal is missed, or not measured where all sections were to run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", help=f"sections, comma-separated: {', '.join(SECTIONS)}")
    parser.add_argument("--work", type=Path, default=ROOT / "out" / "latency", help="folder for exported models")
    parser.add_argument("--afresh", action="store_true", help="forget what the output holds")
    parser.add_argument("--tiny", action="store_true", help="try everything at sizes that measure nothing")
    parser.add_argument("--judge", action="store_true", help="only judge what the output holds")
    arguments = parser.parse_args()
    names = tuple(arguments.only.split(",")) if arguments.only else SECTIONS
    try:
        if unknown := [name for name in names if name not in SECTIONS]:
            raise InputError(f"no section {', '.join(unknown)}; choose from {', '.join(SECTIONS)}")
        arguments.work.mkdir(parents=True, exist_ok=True)
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        report = opened(arguments.output, afresh=arguments.afresh, read_only=arguments.judge)
        bench = Bench(report, arguments.work.resolve(), arguments.tiny)
        for name in () if arguments.judge else names:
            run_section(bench, name)
            # What took minutes is kept, whatever becomes of the next section.
            write_json(report, arguments.output)
    except MinetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    found = verdicts(report)
    for verdict in found:
        print(verdict)
    print(f"{sum(verdict.met for verdict in found)} of {len(found)} goals met, {len(comparisons(report))} comparisons")
    counting = [verdict for verdict in found if verdict.measured or not arguments.only]
    return 0 if all(verdict.met for verdict in counting) else 1


if __name__ == "__main__":
    sys.exit(main())
