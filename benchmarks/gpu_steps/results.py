"""What a step hands back: values as they are found, problems, and what it had to leave out.

They are written to the step's file at once, so that a crash or the time limit costs only what was not measured yet.
"""

import json
import math
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from minet_sdk.atomic import replacing

Device = Literal["cuda", "cpu"]


@dataclass
class Context:
    """Where a step runs, and where its results go."""

    device: Device
    """`cpu` is the form of a step that needs no GPU, where it has one: it proves that the step works."""

    work: Path
    """Folder that all steps share, for what one makes and another uses."""

    seconds: float = math.inf
    """After which the step is ended from outside."""

    output: Path | None = None
    values: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    @property
    def tiny(self) -> bool:
        """Whether sizes are for a proof that the step works, and no figure means anything."""
        return self.device == "cpu"

    def remaining(self) -> float:
        """Seconds left."""
        return self.seconds - (time.monotonic() - self._started)

    def record(self, name: str, value: Any) -> None:
        """Keep a value; ``a/b`` goes under ``a``."""
        *above, last = name.split("/")
        place = self.values
        for key in above:
            place = place.setdefault(key, {})
        place[last] = value
        self.save()

    def problem(self, text: str) -> None:
        """Something that is not as it should be; the step goes on and counts as failed."""
        self.problems.append(text)
        self.save()

    def skip(self, text: str) -> None:
        """Something that was left out, and why."""
        self.skipped.append(text)
        self.save()

    def synchronised(self, call: Callable[[], object]) -> Callable[[], object]:
        """The call, and then the wait for the device."""
        if self.device == "cpu":
            return call
        import torch

        def both() -> object:
            result = call()
            torch.cuda.synchronize()
            return result

        return both

    @contextmanager
    def attempt(self, what: str) -> Generator[None]:
        """A part whose failure costs only that part: what it raises becomes a problem, a missing package a gap."""
        try:
            yield
        except ImportError as error:
            self.skip(f"{what}: {error}")
        except Exception as error:  # the next part may still work
            self.problem(f"{what}: {type(error).__name__}: {' '.join(str(error).split())[:400]}")

    def save(self) -> None:
        """Write what there is so far."""
        if self.output is not None:
            write_json(
                self.output, {"values": self.values, "problems": self.problems, "skipped": self.skipped}
            )  # fmt: skip


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all; NaN and infinities become null."""
    text = json.dumps(_plain(content), indent=2, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str | int | bool) or value is None:
        return value
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int | bool) else str(value)
