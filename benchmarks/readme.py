"""Write the README's tables from committed JSON, so that no figure there is typed by hand.

python benchmarks/readme.py
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from latency_table import draw, latency_table

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
PICTURE = ROOT / "docs" / "latency.png"

METHODS = ("bicubic", "zero-filled", "single-contrast, off", "MINet, off", "MINet, soft", "MINet, hard")


def quality_table(report: dict[str, Any]) -> str:
    """Markdown of the quality report: one table a scale, one row a method, one column a test set."""
    lines: list[str] = []
    for scale, by_set in report["results"].items():
        names = list(by_set)
        counts = ", ".join(f"{report['slices'][name]} slices" for name in names)
        lines += [f"**{scale}** ({counts})", ""]
        lines.append("| | " + " | ".join(names) + " |")
        lines.append("|---" * (len(names) + 1) + "|")
        for method in METHODS:
            lines.append(f"| {method} | " + " | ".join(_cell(by_set[name][method], method) for name in names) + " |")
        guided = [by_set[name]["MINet over single-contrast"] for name in names]
        lines.append("| MINet over single-contrast, both soft | " + " | ".join(_gain(cell) for cell in guided) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(values: dict[str, Any], method: str) -> str:
    text = f"{values['psnr']:.2f} dB, SSIM {values['ssim']:.3f}"
    return text if method in ("bicubic", "zero-filled") else f"{text}, {_gain(values)}"


def _gain(values: dict[str, Any]) -> str:
    gain = f"{values['gain_db']:+.2f} dB"
    if values["gain_db_interval"] is None:
        return gain
    low, high = values["gain_db_interval"]
    return f"{gain} ({low:+.2f} to {high:+.2f})"


def precision_table(report: dict[str, Any]) -> str:
    """Markdown of the precision report: one row a precision, change in dB against float32 for each model."""
    models: dict[str, dict[str, Any]] = report["results"]
    lines = ["| | limit | " + " | ".join(f"{name} | weights" for name in models) + " |"]
    lines.append("|---" * (2 + 2 * len(models)) + "|")
    for precision, first in next(iter(models.values())).items():
        cells = [precision, f"{first['limit_db']:g} dB"]
        for results in models.values():
            by_execution: list[dict[str, Any]] = list(results[precision]["executed_by"].values())
            low, high = by_execution[0]["change_db_interval"]
            cells.append(f"{by_execution[0]['change_db_mean']:+.3f} dB ({low:+.3f} to {high:+.3f})")
            cells.append(f"{results[precision]['bytes']['weights.bin'] / 1e6:.2f} MB")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "quality": quality_table,
    "precision": precision_table,
    "latency": latency_table,
}
"""By the name of the JSON file, which is also that of the README's markers."""


def load(name: str) -> dict[str, Any]:
    """One of the committed reports."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def with_tables(readme: str) -> str:
    """The README with the text between all markers replaced; a report that is not there leaves its place alone."""
    for name, table in TABLES.items():
        if not (RESULTS / f"{name}.json").is_file():
            continue
        start, end = f"<!-- {name}: written by benchmarks/readme.py -->", f"<!-- end of {name} -->"
        before, rest = readme.split(start)
        _, after = rest.split(end)
        readme = f"{before}{start}\n{table(load(name))}{end}{after}"
    return readme


def main() -> None:
    """Rewrite README.md, and the picture that it shows."""
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
    if (RESULTS / "latency.json").is_file():
        draw(load("latency"), PICTURE)


if __name__ == "__main__":
    main()
