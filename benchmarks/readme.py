"""Write the README's tables from committed JSON, so that no figure there is typed by hand.

python benchmarks/readme.py
"""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
QUALITY = ROOT / "benchmarks" / "results" / "quality.json"

START, END = "<!-- quality: written by benchmarks/readme.py -->", "<!-- end of quality -->"
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


def with_table(readme: str, report: dict[str, Any]) -> str:
    """The README with the text between the markers replaced."""
    before, rest = readme.split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n{quality_table(report)}{END}{after}"


def main() -> None:
    """Rewrite README.md."""
    README.write_text(with_table(README.read_text(encoding="utf-8"), json.loads(QUALITY.read_text())), encoding="utf-8")


if __name__ == "__main__":
    main()
