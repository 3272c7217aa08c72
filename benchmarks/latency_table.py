"""The README's latency table and picture, from the JSON of benchmarks/latency.py alone."""

from pathlib import Path
from typing import Any

from latency_goals import SIZE, comparisons, most_threads, section

from minet_sdk.benchmark.plot import draw_latency
from minet_sdk.benchmark.table import milliseconds

MODELS = (("paper", 2), ("small", 2), ("deep", 2), ("fast", 2))
CURVES = ("native", "onnxruntime-plain", "torch-eager")
"""Peers in the picture's lines; all of them would be too many to tell apart."""

OWN_CHOICE = {"openvino-default": ", its own choice"}
"""After the title, which names the precision that the peer chose."""


def together(report: dict[str, Any], preset: str, scale: int) -> dict[str, Any] | None:
    """All peers of a model at 320 x 320 with all threads, each from the first section that it is in."""
    here = [
        one
        for one in comparisons(report)
        if (one["preset"], one["scale"], one["size"]) == (preset, scale, [SIZE, SIZE])
        and one["threads"] == most_threads(report)
    ]
    if not here:
        return None
    peers: dict[str, Any] = {}
    for one in here:
        ratios = one["ratios"].get("whole", {}) if one["ratios"].get("to") == "native" else {}
        for name, peer in one["peers"].items():
            peers.setdefault(name, peer | {"ratio": ratios.get(name)})
    return here[0] | {"model": f"{preset} x{scale}", "peers": peers}


def latency_table(report: dict[str, Any]) -> str:
    """Markdown: one row an engine, one column a model, memory and accuracy of the largest model."""
    shown = {f"{p} x{s}": found for p, s in MODELS if (found := together(report, p, s)) is not None}
    if not shown:
        return "Not measured.\n"
    first_name, first = next(iter(shown.items()))
    titles = {
        name: peer["title"] + OWN_CHOICE.get(name, "")
        for found in reversed(shown.values())
        for name, peer in found["peers"].items()
    }
    order = sorted(titles, key=lambda name: _whole(shown, name))
    lines = [
        f"| | {' | '.join(shown)} | peak MiB, {first_name} | error, {first_name} |",
        "|---" * (len(shown) + 3) + "|",
    ]
    for name in order:
        cells = [_cell(found["peers"].get(name)) for found in shown.values()]
        peer = first["peers"].get(name)
        memory = f"{peer['peak_mib']:.0f}" if peer and peer["peak_mib"] is not None else ""
        error = f"{peer['relative_rms']:.0e}" if peer and peer["relative_rms"] is not None else ""
        lines.append(f"| {titles[name]} | {' | '.join(cells)} | {memory} | {error} |")
    return "\n".join([*lines, "", _words(report), ""])


def _whole(shown: dict[str, dict[str, Any]], name: str) -> float:
    """Of the first model that has the peer."""
    return next(found["peers"][name]["parts"]["whole"]["p50_ms"] for found in shown.values() if name in found["peers"])


def _cell(peer: dict[str, Any] | None) -> str:
    if peer is None:
        return ""
    text = milliseconds(peer["parts"]["whole"]["p50_ms"])
    if "critical" in peer["parts"]:
        text += f", prepared {milliseconds(peer['parts']['critical']['p50_ms'])}"
    ratio = peer["ratio"]
    return f"{text} ms" + (f" ({ratio['median']:.2f}x)" if ratio else "")


def _words(report: dict[str, Any]) -> str:
    """What the table has no column for."""
    machine = report["environment"]
    said = [f"{machine['processor']}, {machine['cores']} cores, {' '.join(machine['instruction_sets'])}."]
    if peaks := report["peaks"].get(str(most_threads(report))):
        traffic = f"{peaks['gigabytes_per_second']:.0f} GB/s"
        said.append(f"Measured peak {peaks['gflops']:.0f} GFLOP/s in float32, {traffic}.")
    for row in section(report, "scanner").get("series", ()):
        slices = row["peers"].get("native-prefetch", {}).get("parts", {}).get("slice")
        if slices:
            p50, p95, p99 = (milliseconds(slices[name]) for name in ("p50_ms", "p95_ms", "p99_ms"))
            said.append(
                f"A {row['preset']} series of {row['slices']} prepared slices in a scanner's order, through `Runtime`: "
                f"p50 {p50}, p95 {p95}, p99 {p99} ms a target slice."
            )
    added = [
        row["peers"]["native-consistency-auto"]["parts"]["difference"]["p50_ms"]
        for row in section(report, "overhead").get("overhead", ())
    ]
    if added:
        said.append(
            f"`Runtime` adds {milliseconds(min(added))} to {milliseconds(max(added))} ms to `native`: normalisation, "
            "judging the reference, soft consistency, Python."
        )
    start = section(report, "start")
    cold = start.get("cold_starts", {}).get("peers", {}).get("native", {}).get("parts", {}).get("cold start")
    if cold:
        loading, first = start["import"]["p50_ms"] / 1e3, cold["p50_ms"] / 1e3
        said.append(f"`import minet_sdk` {loading:.2f} s, process start to first slice {first:.2f} s.")
    unquiet = [name for name in report["sections"] if section(report, name).get("load", {}).get("warning")]
    if unquiet:
        said.append(f"The machine was not quiet during {', '.join(unquiet)}.")
    return " ".join(said)


def draw(report: dict[str, Any], path: Path) -> None:
    """Write the picture: bars at 320 x 320 for each model, lines against pixels.

    Raises:
        InputError: nothing was measured.
        MissingPackageError: matplotlib is not installed.
    """
    bars = [found for preset, scale in MODELS if (found := together(report, preset, scale)) is not None]
    draw_latency(_curves(report), path, bars)


def _curves(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Comparisons of the models with the few peers of the lines; the native engine at every size."""
    found = [
        {
            **one,
            "model": f"{one['preset']} x{one['scale']}",
            "peers": {name: peer for name, peer in one["peers"].items() if name in CURVES},
        }
        for one in comparisons(report)
        if (one["preset"], one["scale"]) in MODELS
    ]
    for row in section(report, "linearity").get("linearity", ()):
        for size, values in row["sizes"].items():
            peer = {"parts": {"whole": {"p50_ms": values["p50_ms"]}}}
            edge = int(size)
            found.append(
                {
                    "model": f"{row['preset']} x{row['scale']}",
                    "size": [edge, edge],
                    "threads": most_threads(report),
                    "peers": {"native": peer},
                }
            )
    return found
