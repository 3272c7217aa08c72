"""The README's tables of what a GPU has shown, from the JSON of benchmarks/gpu_check.py alone."""

from typing import Any

from gpu_steps.report import NOT_MEASURED


def verdict_table(report: dict[str, Any]) -> str:
    """Markdown: every question that the check answered, and which it did not."""
    answered = [one for one in report["verdicts"] if one["answer"] != NOT_MEASURED]
    lines = ["| question | answer | evidence |", "|---|---|---|"]
    lines += [f"| {one['question']} | {one['answer']} | {one['evidence']} |" for one in answered]
    open_questions = [one["question"] for one in report["verdicts"] if one["answer"] == NOT_MEASURED]
    if open_questions:
        lines += ["", f"Not measured: {' '.join(open_questions)}"]
    return "\n".join([*lines, "", _words(report)]) + "\n"


def networks_table(report: dict[str, Any]) -> str:
    """Markdown of the step `networks`: one row a way to run it in PyTorch, one column a network and size, medians."""
    latencies: dict[str, dict[str, Any]] = report["steps"]["networks"]["values"]["latency"]
    variants = dict.fromkeys(variant for of_size in latencies.values() for variant in of_size)
    lines = [f"| PyTorch, ms | {' | '.join(f'{size}^2' for size in latencies)} |", "|---" * (len(latencies) + 1) + "|"]
    for variant in variants:
        cells = [f"{of_size[variant]['p50_ms']:.1f}" if variant in of_size else "" for of_size in latencies.values()]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _words(report: dict[str, Any]) -> str:
    """On what: card, driver, packages."""
    environment = report["steps"]["environment"]["values"]
    packages = environment["packages"]
    named = [f"{name} {packages[name]}" for name in ("torch", "onnxruntime-gpu", "tensorrt") if name in packages]
    smi = environment["nvidia_smi"]
    return f"{smi['name']}, driver {smi['driver_version']}, {', '.join(named)}."
