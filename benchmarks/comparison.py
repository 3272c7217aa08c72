"""The paper's comparison on this machine: every method trained under one recipe and budget, tested on the same slices.

    python benchmarks/comparison.py --labels FOLDER --work FOLDER [--minutes M] [--hours H] [--pair NAME REF TARGET ...]

Can be run over several sittings: what is trained or tested is not done again, an interrupted training goes on. Each
tested run is one JSON in benchmarks/results/comparison, and benchmarks/results/comparison.json sums them up.
"""

import argparse
import json
import os
import platform
from pathlib import Path

from comparison_steps.plan import SCALES, runs
from comparison_steps.report import summarise
from comparison_steps.sets import test_sets
from comparison_steps.test import test_run, test_smore, test_untrained
from comparison_steps.train import train_all

from minet_sdk import __version__
from minet_sdk.atomic import replacing

RESULTS = Path(__file__).parent / "results"
SMORE_STEPS = 300


def main() -> None:
    """Train, test, sum up."""
    options = _parser().parse_args()
    output: Path = options.output / "comparison"
    chosen = [run for run in runs() if not options.methods or run.method in options.methods]
    finished = train_all(chosen, options.labels, options.work, options.minutes, options.jobs, options.hours)
    sets = test_sets(options.labels, [tuple(pair) for pair in options.pair])
    for scale in SCALES:
        if not (output / f"zero-filled-x{scale}-seed0.json").exists():
            test_untrained(scale, sets, output)
        if options.smore and not (output / f"smore-2d-x{scale}-seed0.json").exists():
            test_smore(scale, sets, output, SMORE_STEPS)
    for run in finished:
        if not (output / f"{run.name}.json").exists():
            test_run(run, options.work / run.name / "best.safetensors", sets, output)
            print(f"{run.name}: tested", flush=True)
    report = {
        "what": (
            f"every method trained for {options.minutes:g} minutes of one core under one recipe; mean over volumes, "
            "gains over zero-filled k-space paired by slice, 95 % bootstrap interval by subject"
        ),
        "environment": {
            "minet-sdk": __version__,
            "python": platform.python_version(),
            "processor": _processor(),
            "cores": os.cpu_count(),
        },
        "missing": [run.name for run in runs() if not (output / f"{run.name}.json").exists()],
        "results": summarise(output),
    }
    with replacing(options.output / "comparison.json") as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"{len(report['missing'])} runs are missing")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, help="folder with the label maps")
    parser.add_argument("--work", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--minutes", type=float, default=12, help="of one core, for each training")
    parser.add_argument("--hours", type=float, default=24, help="start no training after so long")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, one thread each")
    parser.add_argument("--methods", nargs="*", help="only these")
    parser.add_argument("--smore", action=argparse.BooleanOptionalAction, default=True, help="test SMORE, which trains")
    parser.add_argument("--pair", nargs=3, action="append", default=[], metavar=("NAME", "REFERENCE", "TARGET"))
    return parser


if __name__ == "__main__":
    main()
