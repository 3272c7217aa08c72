"""Write the tables of the README, the docs and the model cards from committed JSON: no figure is typed by hand.

python benchmarks/readme.py
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from comparison_pictures import draw_gains, draw_restorations
from comparison_table import card, details, tables
from gpu_table import networks_table, verdict_table
from latency_table import draw, latency_table
from native_steps_table import native_steps_table
from reference_worth_table import reference_worth_table
from series_table import series_table, steps_table

from minet_sdk.bundle import models_folder

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
DOCS = ROOT / "docs"
QUALITY = DOCS / "quality.md"
BUNDLE = DOCS / "bundle.md"
RUNTIME = DOCS / "runtime.md"
NATIVE = DOCS / "native.md"


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


FORMATS = {
    "fp32": ("float32", 18),
    "fp16": ("float16", 18),
    "bf16": ("bfloat16", 22),
    "int8": ("int8 in the large convolutions, else float16", 19),
    "fp8": ("float8 e4m3 in the large convolutions, else float16", 19),
}
"""What weights and features are in each precision, and the opset that needs."""


def formats_table(report: dict[str, Any]) -> str:
    """Markdown for docs/bundle.md: what each precision is, what its weights take, and what it costs."""
    models: dict[str, dict[str, Any]] = report["results"]
    names = " / ".join(name.rpartition("-")[2] for name in models)
    first = next(iter(models))
    head = ("precision", "weights and features", "opset", f"weights of {first}", "against float32, at most")
    lines = ["| " + " | ".join((*head, f"measured, {names}")) + " |", "|---" * (len(head) + 1) + "|"]
    for precision, result in models[first].items():
        formats, opset = FORMATS[precision]
        size = f"{result['bytes']['weights.bin'] / 1e6:.2f} MB"
        found = (next(iter(one[precision]["executed_by"].values())) for one in models.values())
        measured = " / ".join(f"{one['change_db_mean']:+.3f}" for one in found)
        cells = (precision, formats, str(opset), size, f"{result['limit_db']:g} dB", f"{measured} dB")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


CARDS = sorted(models_folder().glob("*/MODEL_CARD.md"))
PAGES = (README, QUALITY, BUNDLE, RUNTIME, NATIVE, *CARDS)
TABLES: dict[str, tuple[tuple[Path, ...], str, Callable[[dict[str, Any], Path], str]]] = {
    "comparison": ((README,), "comparison", lambda report, page: tables(report)),
    "comparison-details": ((QUALITY,), "comparison", lambda report, page: details(report)),
    "reference-worth": ((QUALITY,), "reference_worth", lambda report, page: reference_worth_table(report)),
    "measures": (tuple(CARDS), "comparison", lambda report, page: card(report, page.parent.name)),
    "precision": ((README,), "precision", lambda report, page: precision_table(report)),
    "formats": ((BUNDLE,), "precision", lambda report, page: formats_table(report)),
    "latency": ((README,), "latency", lambda report, page: latency_table(report)),
    "latency-avx2": ((README,), "latency_avx2", lambda report, page: latency_table(report)),
    "series": ((RUNTIME,), "series", lambda report, page: series_table(report)),
    "series-steps": ((RUNTIME,), "series", lambda report, page: steps_table(report)),
    "native-steps": ((NATIVE,), "native_steps", lambda report, page: native_steps_table(report)),
    "gpu": ((README,), "gpu_check", lambda report, page: verdict_table(report)),
    "gpu-networks": ((README,), "gpu_check_networks", lambda report, page: networks_table(report)),
}
"""By the name of the markers: the pages that have them, the name of the JSON file, and what makes the text."""


def load(name: str) -> dict[str, Any]:
    """One of the committed reports."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def with_tables(page: Path) -> str:
    """A page with the text between all of its markers replaced; a report that is not there leaves its place alone."""
    text = page.read_text(encoding="utf-8")
    for name, (pages, report, table) in TABLES.items():
        if page not in pages or not (RESULTS / f"{report}.json").is_file():
            continue
        start, end = f"<!-- {name}: written by benchmarks/readme.py -->", f"<!-- end of {name} -->"
        before, rest = text.split(start)
        _, after = rest.split(end)
        text = f"{before}{start}\n{table(load(report), page)}{end}{after}"
    return text


def main() -> None:
    """Rewrite the pages, and the pictures that they show."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for page in PAGES:
        page.write_text(with_tables(page), encoding="utf-8")
    if (RESULTS / "latency.json").is_file():
        draw(load("latency"), DOCS / "latency.png")
    if (RESULTS / "comparison.json").is_file():
        draw_gains(load("comparison"), DOCS / "comparison_gains.png")
    draw_restorations(RESULTS / "comparison", DOCS)


if __name__ == "__main__":
    main()
