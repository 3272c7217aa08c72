"""The table of docs/quality.md from the JSON of benchmarks/reference_worth.py alone."""

from typing import Any

_COLUMNS = {
    "fit_over_twin": "fit without reference over the twin",
    "reference_in_fit": "fit with reference over that without",
    "model_over_twin": "`minet` over the twin",
}


def reference_worth_table(report: dict[str, Any]) -> str:
    """Markdown: one row a set and scale."""
    lines = [f"| gain, dB | slices | {' | '.join(_COLUMNS.values())} |", "|---" * (len(_COLUMNS) + 2) + "|"]
    for row in report["rows"]:
        cells = [_cell(row[column]) for column in _COLUMNS]
        lines.append(f"| {row['set']}, x{row['scale']} | {row['slices']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(found: dict[str, Any]) -> str:
    low, high = found["interval"]
    return f"{found['mean']:+.2f} ({low:+.2f} to {high:+.2f})"
