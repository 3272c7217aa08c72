"""The tables of docs/runtime.md from the JSON of benchmarks/series.py alone."""

from statistics import median
from typing import Any


def series_table(report: dict[str, Any]) -> str:
    """Markdown: one row a model and size, a whole run over inference alone."""
    lines = [
        "| model | size | slices | run / inference, median (range) | without scan and opening the model | "
        "one slice at a time | inference of a slice, ms |",
        "|---" * 7 + "|",
    ]
    for one in report["series"]:
        ratio = one["run_to_inference"]
        ratios = [run / alone for run, alone in zip(one["run_seconds"], one["inference_seconds"], strict=True)]
        a_slice = 1e3 * median(one["inference_seconds"]) / one["slices"]
        found = f"{ratio['median']:.2f} ({min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} rounds)"
        shared = _without_opening(one, one["run_parts"])
        by_one = _without_opening(one, one["run_parts_one_at_a_time"]) if one["slices_at_once"] > 1 else shared
        size = f"{one['size']} x {one['size']}"
        lines.append(
            f"| `{one['model']}` | {size} | {one['slices']} | {found} | {shared:.2f} | {by_one:.2f} | {a_slice:.0f} |"
        )
    environment, execution = report["environment"], report["model"]
    words = f"{environment['cores']} cores of an {environment['processor']}, {execution['backend']} {execution['isa']}."
    return "\n".join([*lines, "", words]) + "\n"


def _without_opening(one: dict[str, Any], parts: list[dict[str, float]]) -> float:
    """From the first slice's file to the last one's, over inference alone."""
    return median(part["restore"] / alone for part, alone in zip(parts, one["inference_seconds"], strict=True))


def steps_table(report: dict[str, Any]) -> str:
    """Markdown: what a slice takes outside inference, one column a size."""
    sizes = report["steps"]
    lines = [
        "| processor time, ms a slice | " + " | ".join(f"{one['size']} x {one['size']}" for one in sizes) + " |",
        "|---" * (len(sizes) + 1) + "|",
    ]
    inside = {one["size"]: one["runtime_without_engine_ms"] for one in report["slices"]}
    rows = {step: [one["cpu_ms"][step] for one in sizes] for step in sizes[0]["cpu_ms"]}
    rows["trust gate, normalisation, soft consistency (wall time)"] = [inside[one["size"]] for one in sizes]
    lines += [f"| {step} | {' | '.join(f'{ms:.1f}' for ms in found)} |" for step, found in rows.items()]
    return "\n".join(lines) + "\n"
