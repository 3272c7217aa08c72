"""The tables of the comparison, from its JSON alone."""

from collections.abc import Callable, Iterable
from typing import Any

from comparison_steps.report import AFFINITIES, BUNDLED, PARTS, ROWS
from comparison_steps.sets import COMPLEX, SHOWN

from minet_sdk.training.evaluation import gain_text
from minet_sdk.training.methods import METHODS

Entry = tuple[str, str, str]
"""Title of a line, row of the results, kind of k-space consistency."""

TABLE_1 = ("zero-filled", "bicubic", "edsr", "edsr-large", "smore-2d", "zeng", "lyu-mse", "lyu", "minet")
TABLE_2 = (*PARTS, "minet")
PAPER = {"Table 1: methods": TABLE_1, "Table 2: parts of MINet": TABLE_2}
SHIPPED = {"bundled-minet": "minet", "bundled-minet-fast": "minet-fast"}
PLAIN = "MINet, trained with right references only"
ON_RESTORED_GRID = "MINet `small`, stages on the restored grid"
TWIN = "MINet `deep` without reference"
SMALL = "MINet `small`, bundled before"


def title(row: str, scale: str = "") -> str:
    """Of a row, as tables show it."""
    if row in SHIPPED:
        return f"`{SHIPPED[row]}-{scale}`, bundled"
    others = {"minet-plain": PLAIN, "minet-restored-grid": ON_RESTORED_GRID, "twin": TWIN, "small": SMALL}
    return others.get(row) or METHODS[row].title


def tables(report: dict[str, Any]) -> str:
    """For the README: gains of the paper's two tables, and of the bundled models."""
    shown: list[str] = []
    for scale in report["results"]:
        shipped = [entry for entry in _shipped(scale) if entry[2] != "hard"]
        entries = [(title("zero-filled"), "zero-filled", "off"), *shipped]
        shown += _part(f"**Bundled models, {scale}**", _table(report, scale, entries, _gain_cell))
    over: list[str] = []
    for scale in report["results"]:
        over += _part(f"**Bundled models against others, {scale}**", _over(report, scale))
    paper: list[str] = []
    for heading, rows in PAPER.items():
        for scale in report["results"]:
            entries = [(title(row), row, "off") for row in dict.fromkeys(("zero-filled", *rows))]
            paper += _part(f"**{heading}, {scale}**", _table(report, scale, entries, _gain_cell))
    return "\n".join(
        [
            *shown,
            *_folded("Bundled models against the best single-contrast and the best guided method", over),
            *_folded("The paper's Table 1 and Table 2: every method, trained for the same few minutes", paper),
            *_missing(report),
        ]
    )


def _folded(summary: str, body: list[str]) -> list[str]:
    """Tables that a reader opens with a click."""
    return ["<details>", f"<summary>{summary}</summary>", "", *body, "</details>", ""] if body else []


def _part(heading: str, body: list[str]) -> list[str]:
    """A table under its heading; nothing where there is nothing to show."""
    return [heading, "", *body] if body else []


def _missing(report: dict[str, Any]) -> list[str]:
    """What is not there yet, named."""
    if not report["missing"]:
        return []
    named: list[str] = []
    for seed, which in enumerate(("first", "second")):
        rows = {title(name.rpartition("-x")[0]): None for name in report["missing"] if name.endswith(f"-seed{seed}")}
        named += [f"{which} seed of {', '.join(rows)}"] if rows else []
    return [f"**{len(report['missing'])} trainings of the comparison are still to be made**: {'; '.join(named)}.", ""]


def details(report: dict[str, Any]) -> str:
    """For docs/quality.md: all measures, what goes beyond the paper, seeds and robustness."""
    lines: list[str] = []
    for heading, rows in PAPER.items():
        for scale in report["results"]:
            entries = [(title(row), row, "off") for row in rows]
            lines += _part(f"### {heading}, {scale}", _table(report, scale, entries))
    for scale in report["results"]:
        lines += _part(f"### Bundled models, {scale}", _table(report, scale, _shipped(scale)))
    for scale in report["results"]:
        affinity = ["minet-no-h", *AFFINITIES, "minet"]
        lines += _part(f"### Affinity, {scale}", _table(report, scale, [(title(row), row, "off") for row in affinity]))
    for scale in report["results"]:
        grids = [(title(row), row, "off") for row in ("minet-restored-grid", "minet", "minet-fast")]
        lines += _part(f"### Grid and width at the same training time, {scale}", _table(report, scale, grids))
    for scale in report["results"]:
        complex_table = _table(report, scale, _shipped(scale), is_complex=True)
        lines += _part(f"### Consistency of the complex image, {scale}", complex_table)
    for scale in report["results"]:
        lines += _part(f"### Strength of the detail, {scale}", _calibration(report, scale))
    for scale in report["results"]:
        lines += _part(f"### References, {scale}", _robustness(report["results"][scale]["robustness"], scale))
    for scale in report["results"]:
        lines += _part(f"### MINet against each, {scale}", _differences(report, scale))
    for scale in report["results"]:
        lines += _part(f"### Seeds and size, {scale}", _seeds(report, scale))
    return "\n".join(lines)


def card(report: dict[str, Any], model: str) -> str:
    """For the model card of a bundled model: measures, what it gains over others, what wrong references do."""
    name, _, scale = model.rpartition("-")
    row = next(row for row, shipped in SHIPPED.items() if shipped == name)
    entries = [(f"{title(row, scale)}, {mode}", row, mode) for mode in ("off", "soft", "hard")]
    robust = {row: report["results"][scale]["robustness"].get(row, {})}
    return "\n".join(
        [
            *_table(report, scale, entries),
            *_over(report, scale, (row,)),
            *_robustness(robust if robust[row] else {}, scale),
        ]
    )


def _shipped(scale: str) -> list[Entry]:
    entries: list[Entry] = [(title(row), row, "off") for row in ("twin", "small")]
    return entries + [
        (f"{title(row, scale)}, {mode}", row, mode) for row in BUNDLED for mode in ("off", "soft", "hard")
    ]


def sets_of(report: dict[str, Any], scale: str, is_complex: bool = False) -> dict[str, Any]:
    """Results by test set: those of complex images, or the others."""
    sets: dict[str, Any] = report["results"][scale]["sets"]
    return {name: found for name, found in sets.items() if (name == COMPLEX) == is_complex}


def _table(
    report: dict[str, Any],
    scale: str,
    entries: list[Entry],
    cell: Callable[[dict[str, Any]], str] | None = None,
    is_complex: bool = False,
) -> list[str]:
    """One line an entry, one column a test set."""
    sets = sets_of(report, scale, is_complex)

    def text_of(by_row: dict[str, Any], row: str, mode: str) -> str:
        found = by_row.get(row)
        if found is None or mode not in found:
            return ""
        return cell(found[mode]) if cell else _full_cell(found[mode]) + _fewer(found, by_row)

    rows = [(text, [text_of(found["rows"], row, mode) for found in sets.values()]) for text, row, mode in entries]
    return _lines("", sets, rows)


def _lines(corner: str, columns: Iterable[str], rows: list[tuple[str, list[str]]]) -> list[str]:
    """Markdown of a table without the rows that say nothing; no table where none says anything."""
    kept = [f"| {text} | {' | '.join(cells)} |" for text, cells in rows if any(cells)]
    head = [corner, *columns]
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *kept, ""] if kept else []


def _full_cell(values: dict[str, Any]) -> str:
    text = f"{values['psnr']:.2f} dB, {values['ssim']:.3f}"
    return text if values["gain_db"] is None else f"{text}, {gain_text(values['gain_db'])}"


def _fewer(found: dict[str, Any], by_row: dict[str, Any]) -> str:
    """The slices of a row that was tested on fewer than others of its set, whose PSNR is of other images then."""
    most = max(one["slices"] for one in by_row.values())
    return f" ({found['slices']} of {most} slices)" if found["slices"] < most else ""


def _gain_cell(values: dict[str, Any]) -> str:
    """The gain alone; PSNR and SSIM of that over which the others gain."""
    gain = values["gain_db"]
    return gain_text(gain) if gain is not None and gain["mean"] else f"{values['psnr']:.2f} dB, {values['ssim']:.3f}"


def _over(report: dict[str, Any], scale: str, shipped: tuple[str, ...] = BUNDLED) -> list[str]:
    """What the bundled models gain over others."""
    sets = sets_of(report, scale)
    return _lines(
        "gain, dB", sets, [row for ours in shipped for row in _gains(sets, ours, scale, f"{title(ours, scale)} ")]
    )


def _differences(report: dict[str, Any], scale: str) -> list[str]:
    """MINet of the comparison over every other row of it."""
    sets = sets_of(report, scale)
    return _lines("gain of MINet, dB", sets, _gains(sets, "minet", scale, ""))


def _gains(sets: dict[str, Any], ours: str, scale: str, start: str) -> list[tuple[str, list[str]]]:
    """One line a rival, or a kind of rival, and then which it was."""
    rows: list[tuple[str, list[str]]] = []
    for what in dict.fromkeys(what for found in sets.values() for what in found["over"].get(ours, {})):
        there = [found["over"].get(ours, {}).get(what) for found in sets.values()]
        rivals = list(dict.fromkeys(title(one["rival"], scale) for one in there if one is not None))
        text = f"{start}over {rivals[0]}" if what in ROWS else f"{start}over the {what}"
        several = len(rivals) > 1
        if what not in ROWS and not several:
            text += f" ({rivals[0]})"
        cells = [
            "" if one is None else gain_text(one["gain_db"]) + (f" {title(one['rival'], scale)}" if several else "")
            for one in there
        ]
        if cells not in (known for _, known in rows):  # the best may be one that has a line of its own
            rows.append((text, cells))
    return rows


def _calibration(report: dict[str, Any], scale: str) -> list[str]:
    """One line a network; each cell: the best factor on what it adds, the gain without it and with it."""
    calibrated: dict[str, Any] = report["results"][scale]["calibration"]

    def cell(found: dict[str, float]) -> str:
        return f"{found['factor']:.2f}: {found['gain_db']:+.2f} to {found['gain_at_factor_db']:+.2f}"

    sets = sets_of(report, scale)
    rows = [row for row in ROWS if row in calibrated]
    lines = [(title(row, scale), [cell(calibrated[row][name]) for name in sets]) for row in rows]
    return _lines("best factor: gain over zero-filled, dB", sets, lines)


def _robustness(robustness: dict[str, Any], scale: str) -> list[str]:
    """One line a way to spoil the reference; each cell: over a right reference, over none, refused."""
    lines: list[str] = []
    for row, by_set in robustness.items():
        gates = ("gate", "no gate") if row in BUNDLED else ("no gate",)
        columns = [(set_name, gate) for set_name in by_set for gate in gates]
        lines += [f"**{title(row, scale)}**", ""]
        lines.append("| reference | " + " | ".join(f"{name}; {gate}" for name, gate in columns) + " |")
        lines.append("|---" * (len(columns) + 1) + "|")
        for kind in next(iter(by_set.values()))["no gate"]:
            cells: list[str] = []
            for set_name, gate in columns:
                one = by_set[set_name][gate][kind]
                refused = f", {one['refused']:.0%} refused" if gate == "gate" else ""
                cells.append(f"{gain_text(one['over_right'])}; {gain_text(one['over_missing'])}{refused}")
            lines.append(f"| {kind} | " + " | ".join(cells) + " |")
        lines.append("")
    return lines


def _seeds(report: dict[str, Any], scale: str) -> list[str]:
    about: dict[str, dict[str, Any]] = report["results"][scale]["about"]
    lines = [
        f"| | parameters | GMAC at 320 x 320 | steps | minutes it took | PSNR by seed, {SHOWN} | NMSE |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = sets_of(report, scale).get(SHOWN, {}).get("rows", {})
    for row, found in rows.items():
        one = about[row]
        size = f"{one['parameters']:,} | {one['gmac_320']:.1f} | {one['steps']}" if one else " | | "
        minutes = f"{one['training_seconds'] / 60:.1f}" if "training_seconds" in one else ""
        by_seed = ", ".join(f"{value:.2f}" for value in found["psnr_by_seed"])
        lines.append(f"| {title(row, scale)} | {size} | {minutes} | {by_seed} | {found['off']['nmse']:.5f} |")
    return [*lines, ""]
