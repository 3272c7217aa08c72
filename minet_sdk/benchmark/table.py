"""A comparison as rows of text, for the terminal and for documents."""

from typing import Any

HEADINGS = (
    "engine",
    "p50 ms",
    "p95",
    "p99",
    "prepared",
    "times ours",
    "slices/s",
    "MiB",
    "error",
    "floor",
)


def rows(comparison: dict[str, Any]) -> list[tuple[str, ...]]:
    """One row a peer, fastest first: p50, p95 and p99 of the whole, p50 with a prepared reference, and so on.

    ``times ours`` is the median over rounds of the peer's whole against our first backend's whole, with its interval.
    ``floor`` is p50 over the time of direct convolutions at the machine's peak; the native engine may go below 1.
    """
    peers = sorted(comparison["peers"].items(), key=lambda item: item[1]["parts"]["whole"]["p50_ms"])
    return [_row(name, peer, comparison["ratios"]) for name, peer in peers]


def _row(name: str, peer: dict[str, Any], ratios: dict[str, Any]) -> tuple[str, ...]:
    whole, critical = peer["parts"]["whole"], peer["parts"].get("critical")
    floor = peer.get("floor_ratio", {}).get("whole", {}).get("direct")
    return (
        name,
        milliseconds(whole["p50_ms"]),
        milliseconds(whole["p95_ms"]),
        milliseconds(whole["p99_ms"]),
        milliseconds(critical["p50_ms"]) if critical else "",
        times(ratios.get("whole", {}).get(name)) or ("1" if ratios.get("to") == name else ""),
        f"{peer['slices_per_second']:.3g}",
        "" if peer["peak_mib"] is None else f"{peer['peak_mib']:.0f}",
        "" if peer["relative_rms"] is None else f"{peer['relative_rms']:.0e}",
        "" if floor is None else f"{floor:.2f}",
    )


def milliseconds(value: float) -> str:
    """Three digits, never an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def times(ratio: dict[str, Any] | None) -> str:
    """A ratio with its interval; empty for None."""
    return "" if ratio is None else f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
