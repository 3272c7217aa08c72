"""The tables of docs/runtime.md from the JSON of benchmarks/series.py alone."""

from statistics import median
from typing import Any


def series_table(report: dict[str, Any]) -> str:
    """Markdown: one row a model and size, a whole run over inference alone."""
    lines = [
        "| model | size | slices | run / inference, median (range) | without scan and opening the model | "
        "inference of a slice, ms |",
        "|---" * 6 + "|",
    ]
    for one in report["series"]:
        ratio = one["run_to_inference"]
        ratios = [run / alone for run, alone in zip(one["run_seconds"], one["inference_seconds"], strict=True)]
        a_slice = 1e3 * sorted(one["inference_seconds"])[len(ratios) // 2] / one["slices"]
        found = f"{ratio['median']:.2f} ({min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} rounds)"
        parts = [
            part["restore"] / alone for part, alone in zip(one["run_parts"], one["inference_seconds"], strict=True)
        ]
        size = f"{one['size']} x {one['size']}"
        lines.append(f"| `{one['model']}` | {size} | {one['slices']} | {found} | {median(parts):.2f} | {a_slice:.0f} |")
    environment, execution = report["environment"], report["model"]
    words = f"{environment['cores']} cores of an {environment['processor']}, {execution['backend']} {execution['isa']}."
    return "\n".join([*lines, "", words]) + "\n"


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
