"""A run's folder: what lies in it, and whether a run may start, continue or is finished there."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from minet_sdk.atomic import replacing
from minet_sdk.errors import TrainingError

BEST = "best.safetensors"
LAST = "last.ckpt"
SETTINGS = "settings.json"
FINISHED = "finished.json"

Resume = Literal["no", "yes", "auto"]
"""`auto` continues a run if there is one, else starts it."""


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def best(self) -> Path:
        """The network with the highest validation gain, with its record."""
        return self.path / BEST

    @property
    def last(self) -> Path:
        """The state to resume from."""
        return self.path / LAST

    @property
    def settings(self) -> Path:
        """What the run was started with."""
        return self.path / SETTINGS

    @property
    def finished(self) -> Path:
        """Written when the run has ended."""
        return self.path / FINISHED

    def continues(self, resume: Resume) -> bool:
        """Whether a run in this folder is to be continued.

        Raises:
            TrainingError: the folder holds a run and ``resume`` is `no`, or it holds none and ``resume`` is `yes`.
        """
        if self.last.exists() and resume == "no":
            raise TrainingError(f"{self.path} holds a run already: give --resume to continue it, or another folder")
        if resume == "yes" and not self.last.exists():
            raise TrainingError(f"{self.path} holds no {LAST} to resume from: leave --resume out to start")
        return self.last.exists()

    def check_same_run(self, settings: dict[str, Any]) -> None:
        """A resumed run must be the run that was started: other settings would falsify its record.

        Raises:
            TrainingError: naming what was changed; or the run is of an older version of this SDK.
        """
        try:
            recorded = json.loads(self.settings.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TrainingError(f"{self.settings}: cannot be read; start the run anew in another folder") from error
        if not isinstance(recorded, dict) or "network" not in recorded:
            raise TrainingError(
                f"{self.path} holds a run of an older minet-sdk, which this one cannot continue;"
                f" start anew in another folder, with --initialise {self.best} to keep its weights"
            )
        before, now = _flat(recorded), _flat(json.loads(json.dumps(settings)))
        changed = [name for name in {**before, **now} if now.get(name) != before.get(name)]
        if changed:
            difference = "; ".join(f"{name} was {before.get(name)}, is now {now.get(name)}" for name in changed)
            raise TrainingError(f"{self.path} was started with other settings: {difference}; resume with the same")

    def begin(self, settings: dict[str, Any]) -> None:
        """Make the folder, record the settings, and remove what a killed process left half-written."""
        self.path.mkdir(parents=True, exist_ok=True)
        for name in (BEST, LAST, SETTINGS, FINISHED):
            for stray in self.path.glob(f".*-{name}"):
                stray.unlink()
        self.write(self.settings, settings)

    def write(self, path: Path, data: dict[str, Any]) -> None:
        """Write JSON whole or not at all."""
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(data, indent=2), encoding="utf-8")


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Nested settings by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": setting for inner, setting in _flat(value).items()}
        else:
            flat[name] = value
    return flat
