"""Which runs the comparison consists of, in the order in which they are made, and how long each may train."""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from minet_sdk.atomic import replacing
from minet_sdk.training.methods import METHODS

SCALES = (2, 4)
REPEATED = (
    "minet",
    "edsr",
    "zeng",
    "lyu-mse",
    "minet-no-reference",
    "minet-reduction-only",
    "minet-no-h",
    "minet-no-attention",
)
"""Methods that are trained with two seeds: MINet, its ablations, and the rivals of which one may be the best."""

VALIDATIONS = 5
COMMON = (
    "--recipe", "small", "--patch", "64", "--batch-size", "4", "--threads", "1", "--validation-slices", "12",
    "--no-progress",
)  # fmt: skip
"""The one recipe for all methods."""


@dataclass(frozen=True)
class Run:
    """One training."""

    method: str
    scale: int
    seed: int

    @property
    def name(self) -> str:
        """Of its folder and of its result."""
        return f"{self.method}-x{self.scale}-seed{self.seed}"

    def command(self, labels: Path, *more: str) -> list[str]:
        """What trains it."""
        own = ("--method", self.method, "--scale", str(self.scale), "--seed", str(self.seed))
        return [sys.executable, "-m", "minet_sdk.cli", "train", str(labels), *COMMON, *own, *more]


@dataclass(frozen=True)
class Budget:
    """How long one method trains, the same for all in processor time of one core."""

    minutes: float
    step_cpu_seconds: float
    validation_seconds: float
    steps: int


def trained_methods() -> list[str]:
    """Methods that are trained once, in the tables' order."""
    return [name for name, method in METHODS.items() if method.trained == "once"]


def runs() -> list[Run]:
    """All, the first seed of every method first, so that the tables are complete early."""
    order = sorted(trained_methods(), key=lambda name: name not in REPEATED)
    first = [Run(method, scale, 0) for method in order for scale in SCALES]
    return first + [Run(method, scale, 1) for method in REPEATED for scale in SCALES]


def budget_of(run: Run, labels: Path, minutes: float, kept: Path) -> Budget:
    """Steps that fit into the budget; measured once for each method and scale, then read from ``kept``.

    Raises:
        subprocess.CalledProcessError: the training does not work.
    """
    known = json.loads(kept.read_text()) if kept.exists() else {}
    key = f"{run.method}-x{run.scale}"
    if key not in known or known[key]["minutes"] != minutes:
        command = run.command(labels, "--steps", "100", "--measure")
        measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        seconds = 60 * minutes - VALIDATIONS * measured["validation_s"]
        steps = max(1, int(seconds / measured["step_cpu_s"] / VALIDATIONS)) * VALIDATIONS
        budget = Budget(minutes, round(measured["step_cpu_s"], 4), round(measured["validation_s"], 2), steps)
        known = json.loads(kept.read_text()) if kept.exists() else {}
        known[key] = asdict(budget)
        with replacing(kept) as temporary:
            temporary.write_text(json.dumps(dict(sorted(known.items())), indent=2) + "\n")
    return Budget(**known[key])
