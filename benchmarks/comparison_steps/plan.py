"""Which runs the comparison consists of, in the order in which they are made, and how long each may train."""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from minet_sdk.atomic import replacing
from minet_sdk.benchmark.machine import environment
from minet_sdk.training.methods import METHODS

SCALES = (2, 4)
ABLATIONS = ("minet-no-reference", "minet-reduction-only", "minet-no-h", "minet-no-attention")
RIVALS = ("zeng", "lyu-mse")
"""Of which one may be the best."""

REPEATED = ("minet", *ABLATIONS, *RIVALS)
"""Methods that are trained with two seeds."""

VALIDATIONS = 2
COMMON = (
    "--recipe", "small", "--patch", "64", "--batch-size", "4", "--threads", "1", "--validation-slices", "8",
    "--precision", "32-true", "--no-progress",
)  # fmt: skip
"""The one recipe for all methods."""

PLAIN = "contrast={misaligned: 0, wrong_reference: 0, missing_reference: 0}"
"""Training pairs whose references are always there and always right."""


ON_TARGET_GRID = Path(__file__).parent / "minet.yaml"
"""Settings of MINet and its variants: with all stages on the target's grid they cost what EDSR costs, and make about as
many steps in the same time. On the restored grid, as the paper has them, they would make a third."""

Variant = Literal["", "plain", "restored-grid"]


@dataclass(frozen=True)
class Run:
    """One training."""

    method: str
    scale: int
    seed: int
    variant: Variant = ""
    """`plain`: trained without the augmentations that make a wrong reference survivable. `restored-grid`: MINet
    `small`, with all stages on the restored grid."""

    @property
    def row(self) -> str:
        """Of the tables."""
        return f"{self.method}-{self.variant}" if self.variant else self.method

    @property
    def name(self) -> str:
        """Of its folder and of its result."""
        return f"{self.row}-x{self.scale}-seed{self.seed}"

    @property
    def budget(self) -> str:
        """Key of its number of steps."""
        return f"{self.method if self.variant == 'plain' else self.row}-x{self.scale}"

    def command(self, labels: Path, *more: str) -> list[str]:
        """What trains it."""
        own = ["--method", self.method, "--scale", str(self.scale), "--seed", str(self.seed)]
        if self.variant == "plain":
            own += ["--data-option", PLAIN]
        if self.method.startswith("minet") and self.method != "minet-fast" and self.variant != "restored-grid":
            own += ["--config", str(ON_TARGET_GRID)]
        return [sys.executable, "-m", "minet_sdk.cli", "train", str(labels), *COMMON, *own, *more]


@dataclass(frozen=True)
class Budget:
    """How long one method trains at one scale."""

    steps: int
    step_cpu_seconds: float


def trained_methods() -> list[str]:
    """Methods that are trained once, in the tables' order."""
    return [name for name, method in METHODS.items() if method.trained == "once"]


def runs() -> list[Run]:
    """All, the first seed of every method first, so that the tables are complete early."""
    order = ("minet", "edsr", *RIVALS, *ABLATIONS)
    others = [name for name in trained_methods() if name not in (*order, "minet-fast")]
    first = [Run(method, scale, 0) for method in (*order, *others) for scale in SCALES]
    first += [Run("minet-fast", 4, 0)]  # at x2 it is what MINet is here
    variants: tuple[Variant, ...] = ("plain", "restored-grid")
    first += [Run("minet", scale, 0, variant) for variant in variants for scale in SCALES]
    return first + [Run(method, scale, 1) for method in REPEATED for scale in SCALES]


def settle_budgets(chosen: list[Run], labels: Path, minutes: float, path: Path) -> dict[str, Budget]:
    """Steps of every method and scale that take the same processor time, from ``path`` where they are known.

    They are measured once and then belong to the comparison: a sitting on another machine makes the same steps.

    Raises:
        subprocess.CalledProcessError: a training does not work.
        ValueError: the steps that are known were measured for other minutes.
    """
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if known and known["minutes"] != minutes:
        raise ValueError(
            f"{path} holds the steps of {known['minutes']:g} minutes, not of {minutes:g}: another --output"
        )
    known = known or {"minutes": minutes, "machine": environment(), "budgets": {}}
    for run in chosen:
        if run.budget in known["budgets"]:
            continue
        command = run.command(labels, "--steps", "100", "--measure")
        measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        steps = max(1, int(60 * minutes / measured["step_cpu_s"] / VALIDATIONS)) * VALIDATIONS
        known["budgets"][run.budget] = asdict(Budget(steps, round(measured["step_cpu_s"], 4)))
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    return {key: Budget(**budget) for key, budget in known["budgets"].items()}
