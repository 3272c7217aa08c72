"""The paper's comparison on this machine: every method trained under one recipe and budget, tested on the same slices.

    python benchmarks/comparison.py --labels FOLDER --work FOLDER [--minutes M] [--hours H] [--pair NAME REF TARGET ...]

Can be run over several sittings: what is trained or tested is not done again, an interrupted training goes on. Each
tested network is one JSON in benchmarks/results/comparison, and benchmarks/results/comparison.json sums them up. The
bundled models are tested beside them, anew whenever they change.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from comparison_steps.calibration import test_calibration
from comparison_steps.plan import SCALES, Run, runs, settle_budgets
from comparison_steps.report import summarise
from comparison_steps.robustness import test_robustness
from comparison_steps.sets import complex_set, test_sets
from comparison_steps.testing import bundled, test_network, test_smore, test_untrained, trained
from comparison_steps.train import is_finished, train_all

from minet_sdk import __version__
from minet_sdk.atomic import replacing
from minet_sdk.benchmark.machine import environment
from minet_sdk.bundle import sha256

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Train, test, sum up."""
    options = _parser().parse_args()
    output: Path = options.output / "comparison"
    chosen = [run for run in runs() if not options.methods or run.method in options.methods]
    missing = [run for run in chosen if not (output / f"{run.name}.json").exists()]
    if options.train:
        budgets = settle_budgets(missing, options.labels, options.minutes, output / "budgets.json")
        train_all(missing, budgets, options.labels, options.work, options.jobs, options.hours)
    if options.test:
        _test(options, [run for run in chosen if is_finished(run, options.work)], output)
    absent = [run.name for run in runs() if not (output / f"{run.name}.json").exists()]
    report = {
        "what": (
            f"every method trained for {options.minutes:g} minutes of one core under one recipe; mean over volumes, "
            "gains paired by slice, 95 % bootstrap interval over subjects and slices, or over what `resampled` says"
        ),
        "minet-sdk": __version__,
        "environment": environment(),
        "missing": absent,
        **json.loads((output / "budgets.json").read_text()),
        "results": summarise(output),
    }
    with replacing(options.output / "comparison.json") as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"{len(absent)} of {len(runs())} runs are missing" + "".join(f"\n  {name}" for name in absent))


def _test(options: argparse.Namespace, finished: list[Run], output: Path) -> None:
    """Test whatever has no result yet."""
    sets = test_sets(options.labels, [tuple(pair) for pair in options.pair], options.atlas)

    def once(name: str, test: Callable[[], None], checkpoint: Path | None = None) -> None:
        path = output / f"{name}.json"
        known = json.loads(path.read_text()) if path.exists() else None
        if known is not None:
            tested = known.get("sha256") or known.get("about", {}).get("sha256")
            if checkpoint is None or tested == sha256(checkpoint):
                return
        test()
        print(f"{name}: tested", flush=True)

    for scale in SCALES:
        once(f"zero-filled-x{scale}-seed0", lambda scale=scale: test_untrained(scale, sets, output))
        once(f"smore-2d-x{scale}-seed0", lambda scale=scale: test_smore(scale, sets, output))
    complex_too = {**sets, **complex_set(options.labels)}
    for network in bundled():
        test = lambda network=network: test_network(network, complex_too, output)  # noqa: E731 # bound now
        once(network.name, test, network.checkpoint)
    for run in finished:
        network = trained(run, options.work)
        once(network.name, lambda network=network: test_network(network, sets, output))
    for network in bundled():
        test = lambda network=network: test_calibration(network, sets, output)  # noqa: E731 # bound now
        once(f"calibration-{network.name}", test, network.checkpoint)
    shipped = [network for network in bundled() if network.bundle is not None]
    augmented_or_not = [
        trained(run, options.work) for run in finished if run.row in ("minet", "minet-plain") and run.seed == 0
    ]
    for network in (*shipped, *augmented_or_not):
        test = lambda network=network: test_robustness(network, sets, output)  # noqa: E731 # bound now
        once(f"robustness-{network.name}", test, network.checkpoint)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, help="folder with the label maps")
    parser.add_argument("--work", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--minutes", type=float, default=6, help="of one core, for each training")
    parser.add_argument("--hours", type=float, default=24, help="start no training after so long")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, one thread each")
    parser.add_argument("--methods", nargs="*", help="only these")
    parser.add_argument("--train", action=argparse.BooleanOptionalAction, default=True, help="train what is missing")
    parser.add_argument("--test", action=argparse.BooleanOptionalAction, default=True, help="test what is missing")
    parser.add_argument("--atlas", type=Path, help="folder resources/CITI168 of the package hippunfold")
    parser.add_argument("--pair", nargs=3, action="append", default=[], metavar=("NAME", "REFERENCE", "TARGET"))
    return parser


if __name__ == "__main__":
    main()
