"""Train what is not trained yet: a run that was interrupted goes on, a finished one is left alone."""

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from comparison_steps.plan import VALIDATIONS, Run, budget_of
from minet_sdk.training.folder import FINISHED


def train_all(runs: list[Run], labels: Path, work: Path, minutes: float, jobs: int, hours: float) -> list[Run]:
    """Train in order, some at a time, and start nothing after so many hours; returns those that are finished.

    Args:
        runs: in order.
        labels: folder of label maps.
        work: folder of the runs' folders.
        minutes: budget of each.
        jobs: how many at a time, one thread each.
        hours: how long to go on starting runs.
    """
    ends = time.monotonic() + 3600 * hours
    work.mkdir(parents=True, exist_ok=True)
    budgets = work / "budgets.json"

    def one(run: Run) -> None:
        folder = work / run.name
        if (folder / FINISHED).exists() or time.monotonic() > ends:
            return
        steps = budget_of(run, labels, minutes, budgets).steps
        more = ["--steps", str(steps), "--validate-every", str(steps // VALIDATIONS), "-o", str(folder)]
        if (folder / "last.ckpt").exists():
            more.append("--resume")
        print(f"{run.name}: {steps} steps", flush=True)
        with (work / f"{run.name}.log").open("a") as log:
            done = subprocess.run(run.command(labels, *more), stdout=log, stderr=log, check=False)
        print(f"{run.name}: {'finished' if done.returncode == 0 else f'failed, see {run.name}.log'}", flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, runs))
    return [run for run in runs if (work / run.name / FINISHED).exists()]
