"""Everything that only a GPU can tell, in at most ten minutes: one command, one JSON, one table.

    python benchmarks/gpu_check.py --output benchmarks/results/gpu_check.json
    python benchmarks/gpu_check.py --dry-run
    python benchmarks/gpu_check.py --prepare --work FOLDER     # before, on any machine: exports what will be built

Every step runs in a process of its own with its own time limit, so that a crash, a hang or a missing package costs that
step only. Results are written after every step. The SDK need not be installed. Exit code 0 if all went well, 1 if a
step did not, 2 if there is no GPU.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpu_steps.isolation import Outcome, run_isolated
from gpu_steps.registry import STEPS, Step
from gpu_steps.source_tree import make_importable, unpack_wheels

TOTAL_SECONDS = 600.0
LEAST_SECONDS = 8.0
"""Left for a step that is worth its start."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check; returns the exit code."""
    options = _parser().parse_args(arguments)
    make_importable()
    if options.run_step:
        from gpu_steps.child import run_step

        seconds = options.ends - time.time()
        return run_step(options.run_step, options.result, options.device, options.work, seconds)
    if options.prepare:
        if options.work is None:
            print("--prepare needs --work FOLDER, where the run will look for it", file=sys.stderr)
            return 1
        from gpu_steps.engines import prepare

        prepare(options.work)
        return 0
    with tempfile.TemporaryDirectory(prefix="gpu-check-", ignore_cleanup_errors=True) as folder:
        work = options.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        packages = _packages(options.packages, work)
        chosen = [step for step in STEPS if not options.steps or step.name in options.steps]
        if options.dry_run:
            _print_plan(chosen)
            return 0
        if options.device == "cuda" and (reason := _gpu_problem()):
            print(f"gpu_check needs an NVIDIA GPU: {reason}", file=sys.stderr)
            return 2
        return _run(options, chosen, work, packages)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="JSON to write; nothing is written without it")
    parser.add_argument("--dry-run", action="store_true", help="list the steps, what they need and what is missing")
    parser.add_argument(
        "--prepare", action="store_true", help="only export bundles into --work, so that the run need not; needs no GPU"
    )
    parser.add_argument("--steps", nargs="+", choices=[step.name for step in STEPS], help="only these")
    parser.add_argument("--seconds", type=float, default=TOTAL_SECONDS, help="for everything; what is left is not run")
    parser.add_argument(
        "--packages", type=Path, help="folder of wheels, or of packages, to use besides what is installed"
    )
    parser.add_argument("--work", type=Path, help="folder for bundles and engines, kept; a temporary one if left out")
    parser.add_argument(
        "--device",
        choices=("cuda", "cpu"),
        default="cuda",
        help="cpu proves that the steps work, at tiny sizes; its figures mean nothing",
    )
    parser.add_argument("--run-step", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--ends", type=float, help=argparse.SUPPRESS)
    return parser


def _packages(folder: Path | None, work: Path) -> Path | None:
    """Folder to import further packages from; wheels are unpacked first. This process imports from it too."""
    if folder is None:
        return None
    if any(folder.glob("*.whl")):
        unpacked = work / "packages"
        for name in unpack_wheels(folder, unpacked):
            print(f"{name} is not for this Python, left out", file=sys.stderr)
        folder = unpacked
    sys.path.insert(0, str(folder.resolve()))
    return folder.resolve()


def _gpu_problem() -> str:
    from minet_sdk.cuda.driver import gpu_problem, probe

    return gpu_problem(probe(), 0)


def _print_plan(steps: Sequence[Step]) -> None:
    """What each step finds out, needs, and lacks here."""
    reason = _gpu_problem()
    print(f"GPU: {reason or 'there is one'}")
    for step in steps:
        needed = [*step.needs, *([" or ".join(step.one_of)] if step.one_of else [])]
        missing = step.missing()
        state = f"missing {', '.join(missing)}" if missing else "all there"
        print(f"{step.name:12s} up to {step.limit_seconds:3.0f} s  {step.finds}")
        print(f"{'':12s} needs {', '.join(needed) or 'nothing'}: {state}")


def _run(options: argparse.Namespace, steps: Sequence[Step], work: Path, packages: Path | None) -> int:
    from gpu_steps.report import print_report, verdicts_of
    from gpu_steps.results import write_json

    started = time.monotonic()
    outcomes: dict[str, Outcome] = {}
    report: dict[str, Any] = {
        "what": "gpu_check: see benchmarks/gpu_check.py; times in ms, errors relative unless their name says otherwise",
        "device": options.device,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
    }

    def save() -> None:
        report["seconds"] = round(time.monotonic() - started, 1)
        report["steps"] = {name: outcome.to_dict() for name, outcome in outcomes.items()}
        report["verdicts"] = [vars(verdict) for verdict in verdicts_of(outcomes)]
        if options.output is not None:
            options.output.parent.mkdir(parents=True, exist_ok=True)
            write_json(options.output, report)

    for step in steps:
        left = options.seconds - (time.monotonic() - started)
        if left < LEAST_SECONDS:
            outcomes[step.name] = Outcome("not run", reason=f"{max(left, 0):.0f} s of {options.seconds:g} s are left")
        else:
            print(f"{step.name} ...", file=sys.stderr, flush=True)
            outcomes[step.name] = _run_one(step, options.device, work, packages, min(left, step.limit_seconds))
        save()
    print_report(outcomes, verdicts_of(outcomes), report["seconds"], options.device)
    return 0 if all(outcome.status in ("passed", "missing package") for outcome in outcomes.values()) else 1


def _run_one(step: Step, device: str, work: Path, packages: Path | None, limit: float) -> Outcome:
    result = work / f"{step.name}.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--run-step", step.name, "--result", str(result), "--device", device]
    command += ["--work", str(work), "--ends", f"{time.time() + limit:.1f}"]
    return run_isolated(command, result, limit, _environment(work, packages))


def _environment(work: Path, packages: Path | None) -> dict[str, str]:
    """The caller's, but caches go to the work folder: nothing measured here comes from an earlier run."""
    caches = {name: str(work / "cache") for name in ("XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")}
    paths = [str(packages)] if packages else []
    paths += [path] if (path := os.environ.get("PYTHONPATH")) else []
    return {**os.environ, **caches, "PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(paths)}


if __name__ == "__main__":
    sys.exit(main())
