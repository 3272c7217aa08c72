"""The inside of a step's process: run the step's module, write down what it finds and how it ended."""

import importlib
import sys
import traceback
from pathlib import Path

from gpu_steps.isolation import EXIT_MISSING
from gpu_steps.registry import step_named
from gpu_steps.results import Context, Device, write_json


def run_step(name: str, result: Path, device: Device, work: Path, seconds: float) -> int:
    """Run one step in this process; returns its exit code.

    Args:
        name: of the step.
        result: file for what it finds.
        device: see `Context`.
        work: see `Context`.
        seconds: see `Context`.
    """
    context = Context(device, work, seconds, result)
    context.save()
    try:
        missing = step_named(name).missing() if device == "cuda" else []
        if missing:
            return _ended(context, f"not installed: {', '.join(missing)}", EXIT_MISSING)
        importlib.import_module(f"gpu_steps.{name}").run(context)
    except ImportError as error:
        return _ended(context, _one_line(error), EXIT_MISSING)
    except Exception as error:  # the step's end, not the check's
        traceback.print_exc(file=sys.stderr)
        return _ended(context, f"{type(error).__name__}: {_one_line(error)}", 1)
    context.save()
    return 0


def _ended(context: Context, error: str, code: int) -> int:
    assert context.output is not None
    content = {
        "values": context.values,
        "problems": context.problems,
        "skipped": context.skipped,
        "error": error,
    }
    write_json(context.output, content)
    return code


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
