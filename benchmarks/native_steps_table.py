"""The table of docs/native.md from the JSON of benchmarks/native_steps.py alone."""

from typing import Any

_ISAS = {"avx2": "AVX2", "avx512": "AVX-512"}


def native_steps_table(report: dict[str, Any]) -> str:
    """Markdown: one row a revision, instruction set and number of threads, its time over the first revision's."""
    comparisons: list[dict[str, Any]] = report["comparisons"]
    columns = list(dict.fromkeys((one["preset"], one["scale"], one["size"]) for one in comparisons))
    found = {(one["isa"], one["threads"], *_column(one)): one["revisions"] for one in comparisons}
    names = [f"`{preset}` x{scale}, {size}" for preset, scale, size in columns]
    lines = [f"| of the time of the first | | {' | '.join(names)} |", "|---" * (len(columns) + 2) + "|"]
    _, *later = report["revisions"].items()
    for revision, subject in later:
        for isa, threads in dict.fromkeys((one["isa"], one["threads"]) for one in comparisons):
            ratios = [found[isa, threads, *column][revision]["of_the_first"]["median"] for column in columns]
            machine = f"{_ISAS[isa]}, {threads} thread{'s' * (threads > 1)}"
            what = subject.removeprefix("Native engine: ")
            lines.append(f"| {what} | {machine} | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |")
    environment = report["environment"]
    first = next(iter(report["revisions"]))
    warning = f" {report['load']['warning']}." if report["load"]["warning"] else ""
    words = f"{environment['cores']} cores of an {environment['processor']}; the first is {first}.{warning}"
    return "\n".join([*lines, "", words]) + "\n"


def _column(one: dict[str, Any]) -> tuple[str, int, int]:
    return one["preset"], one["scale"], one["size"]
