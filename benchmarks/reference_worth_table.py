"""The table of docs/quality.md from the JSON of benchmarks/reference_worth.py alone."""

from typing import Any

from minet_sdk.training.evaluation import gain_text

_COLUMNS = {
    "fit_over_twin": "fit without reference over the twin",
    "reference_in_fit": "fit with reference over that without",
    "model_over_twin": "`minet` over the twin",
}


def reference_worth_table(report: dict[str, Any]) -> str:
    """Markdown: one row a set and scale."""
    lines = [f"| gain, dB | slices | {' | '.join(_COLUMNS.values())} |", "|---" * (len(_COLUMNS) + 2) + "|"]
    for row in report["rows"]:
        cells = [gain_text(row[column]) for column in _COLUMNS]
        lines.append(f"| {row['set']}, x{row['scale']} | {row['slices']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
