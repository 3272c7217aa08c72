"""Train what is not trained yet: a run that was interrupted goes on, a finished one is left alone."""

import subprocess
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from comparison_steps.plan import VALIDATIONS, Budget, Run
from minet_sdk.training.folder import FINISHED


def train_all(
    runs: list[Run], budgets: Mapping[str, Budget], labels: Path, work: Path, jobs: int, hours: float
) -> None:
    """Train in order, some at a time, and start nothing after so many hours.

    Args:
        runs: in order.
        budgets: by method and scale.
        labels: folder of label maps.
        work: folder of the runs' folders.
        jobs: how many at a time, one thread each.
        hours: how long to go on starting runs.
    """
    ends = time.monotonic() + 3600 * hours
    work.mkdir(parents=True, exist_ok=True)

    def one(run: Run) -> None:
        folder = work / run.name
        if is_finished(run, work) or time.monotonic() > ends:
            return
        steps = budgets[run.budget].steps
        more = ["--steps", str(steps), "--validate-every", str(steps // VALIDATIONS), "-o", str(folder)]
        if (folder / "last.ckpt").exists():
            more.append("--resume")
        print(f"{run.name}: {steps} steps", flush=True)
        with (work / f"{run.name}.log").open("a") as log:
            done = subprocess.run(run.command(labels, *more), stdout=log, stderr=log, check=False)
        print(f"{run.name}: {'finished' if done.returncode == 0 else f'failed, see {run.name}.log'}", flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, runs))


def is_finished(run: Run, work: Path) -> bool:
    """Whether a run has been trained to its end."""
    return (work / run.name / FINISHED).exists()
