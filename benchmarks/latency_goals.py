"""What the benchmark must show, judged from its JSON alone; a goal that was not measured is not met."""

from dataclasses import dataclass
from typing import Any

from minet_sdk.benchmark.distribution import paired_ratio

SLACK = 0.8
"""Small networks may stay 20 % behind the ratios of `paper`."""

RATIOS = (
    ("whole", "onnxruntime-plain", 2.5),
    ("whole", "torch-eager", 3.3),
    ("critical", "onnxruntime-plain", 5.0),
    ("critical", "torch-eager", 6.6),
)
"""Part of ours, peer, how many times faster at least."""

RELATIVE_RMS = 1e-5
PEAK_MIB = 1024.0
OVERHEAD = 0.01
IMPORT_SECONDS = 0.3
COLD_START_SECONDS = 1.5
LINEARITY = 0.1
SIZE = 320


@dataclass(frozen=True)
class Verdict:
    """One goal."""

    goal: str
    found: str
    met: bool
    measured: bool = True

    def __str__(self) -> str:
        return f"{'pass' if self.met else 'FAIL'}  {self.goal}: {self.found}"


def verdicts(report: dict[str, Any]) -> list[Verdict]:
    """All goals in order; the tests, not the benchmark, hold instruction sets and threads to one result."""
    found: list[Verdict] = []
    for preset, scale in (("paper", 2), ("small", 2), ("fast", 2), ("deep", 2), ("small", 4), ("fast", 4)):
        found += _ratios(report, preset, scale)
        if preset == "paper":
            found += _accuracy_and_memory(report)
    return [*found, *_overhead(report), *_start(report), *_linearity(report)]


def comparisons(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Of all sections that measured anything."""
    return [one for name in report["sections"] for one in section(report, name).get("comparisons", ())]


def section(report: dict[str, Any], name: str) -> dict[str, Any]:
    """What a section found; empty if it has not run, or only been tried out."""
    found = report["sections"].get(name, {})
    return {} if found.get("tiny") else found


def most_threads(report: dict[str, Any]) -> int:
    """All cores of the machine."""
    return report["environment"]["cores"]


def _at(report: dict[str, Any], preset: str, scale: int, peer: str) -> dict[str, Any] | None:
    """The first comparison at 320 with all threads in which the native engine meets a peer."""
    for one in comparisons(report):
        same = (one["preset"], one["scale"], one["size"]) == (preset, scale, [SIZE, SIZE])
        if same and one["threads"] == most_threads(report) and {"native", peer} <= one["peers"].keys():
            return one
    return None


def _ratios(report: dict[str, Any], preset: str, scale: int) -> list[Verdict]:
    found: list[Verdict] = []
    for part, peer, least in RATIOS:
        least = least if preset == "paper" else SLACK * least
        goal = f"{preset} x{scale}, {SIZE}, native {part} at least {least:.3g}x faster than {peer}"
        one = _at(report, preset, scale, peer)
        ratio = one["ratios"].get(part, {}).get(peer) if one and one["ratios"].get("to") == "native" else None
        if one is None or ratio is None:
            found.append(_unmeasured(goal))
            continue
        own = one["peers"]["native"]["parts"][part]["p50_ms"]
        text = f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f}), {own:.4g} ms a slice"
        found.append(Verdict(goal, text, ratio["median"] >= least))
    return found


def _accuracy_and_memory(report: dict[str, Any]) -> list[Verdict]:
    one = _at(report, "paper", 2, "native")
    own = one["peers"]["native"] if one else None
    error = own["relative_rms"] if own and one and one["accuracy"].endswith("float64") else None
    memory = own["peak_mib"] if own else None
    return [
        _limit("paper x2, 320, native against float64, relative rms", error, RELATIVE_RMS),
        _limit("paper x2, 320, native, peak memory, MiB", memory, PEAK_MIB),
    ]


def _overhead(report: dict[str, Any]) -> list[Verdict]:
    rows = section(report, "overhead").get("overhead", [])
    goals = {
        "share": "Runtime call minus engine time, share of the engine's",
        "glue_share": "of this, what is neither normalisation nor trust nor consistency",
    }
    if not rows:
        return [_limit(goals["share"], None, OVERHEAD)]
    return [
        _limit(f"{goal}, {row['preset']} x{row['scale']}, {name}", peer[key], OVERHEAD)
        for key, goal in goals.items()
        for row in rows
        for name, peer in row["peers"].items()
        if key in peer
    ]


def _start(report: dict[str, Any]) -> list[Verdict]:
    start = section(report, "start")
    native = start.get("cold_starts", {}).get("peers", {}).get("native", {}).get("parts", {}).get("cold start", {})
    cold, load = native.get("p50_ms"), start.get("import", {}).get("p50_ms")
    return [
        _limit("import minet_sdk, s", None if load is None else load / 1e3, IMPORT_SECONDS),
        _limit("cold start of one slice, bundled model, s", None if cold is None else cold / 1e3, COLD_START_SECONDS),
    ]


def _linearity(report: dict[str, Any]) -> list[Verdict]:
    rows = section(report, "linearity").get("linearity", [])
    goal = f"time a pixel against that at {SIZE}, largest deviation over sizes"
    if not rows:
        return [_limit(goal, None, LINEARITY)]
    return [_limit(f"{goal}, {row['preset']} x{row['scale']}", row["largest_deviation"], LINEARITY) for row in rows]


def _limit(goal: str, value: float | None, most: float) -> Verdict:
    goal = f"{goal}, at most {most:g}"
    return _unmeasured(goal) if value is None else Verdict(goal, f"{value:.3g}", value <= most)


def _unmeasured(goal: str) -> Verdict:
    return Verdict(goal, "not measured", met=False, measured=False)


def by_pixel(peers: dict[str, Any], expected: tuple[int, ...]) -> dict[str, Any]:
    """Time a megapixel by size, and how far it is from that at 320, from ratios within rounds.

    Args:
        peers: the native engine's results, by size.
        expected: all sizes; without one of them there is no largest deviation.
    """
    sizes: dict[str, Any] = {}
    base = peers.get(str(SIZE))
    for size in sorted(map(int, peers)):
        whole = peers[str(size)]["parts"]["whole"]
        megapixels = size**2 / 1e6
        sizes[str(size)] = {
            "p50_ms": whole["p50_ms"],
            "ms_per_megapixel": round(whole["p50_ms"] / megapixels, 2),
            "peak_mib": peers[str(size)]["peak_mib"],
        }
        if base is not None:
            ratio = paired_ratio(whole["round_medians_ms"], base["parts"]["whole"]["round_medians_ms"])
            sizes[str(size)]["deviation"] = round(ratio.median * SIZE**2 / size**2 - 1, 4)
    deviations = [abs(found["deviation"]) for found in sizes.values() if "deviation" in found]
    complete = len(deviations) == len(expected)
    return {"sizes": sizes, "largest_deviation": max(deviations) if complete else None}
