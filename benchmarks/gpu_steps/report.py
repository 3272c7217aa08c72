"""What the figures decide, in a line each, and a table of what every step did.

A verdict needs rounds that agree; otherwise it says that there is no difference, too few rounds, or nothing measured.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gpu_steps.isolation import Outcome
from gpu_steps.measuring import FEWEST_ROUNDS, Ratio

NOT_MEASURED = "not measured"
GOOD_SHARE = 0.7
"""Of a copy's bandwidth: what a kernel that only moves memory should reach."""


@dataclass(frozen=True)
class Verdict:
    """One decision that the check is there for."""

    question: str
    answer: str
    evidence: str


def verdicts_of(outcomes: Mapping[str, Outcome]) -> list[Verdict]:
    """One for every question, answered or not."""
    return [
        _kernels(outcomes),
        _bandwidth(outcomes),
        _comparison(outcomes, "mix or fold?", "fold over mix", ("fold", "mix")),
        _comparison(outcomes, "own kernels in TensorRT?", "mix over inlined", ("mix", "inlined")),
        _comparison(outcomes, "stacked or separate stage features?", "separate over stacked", ("separate", "stacked")),
        _comparison(outcomes, "CUDA graphs?", "graphs over none", ("on", "off")),
        _comparison(outcomes, "prefetch of the reference?", "prefetch over none", ("worth it", "not worth it")),
        _precisions(outcomes),
        _operator(outcomes),
        _peers(outcomes),
    ]


def _kernels(outcomes: Mapping[str, Outcome]) -> Verdict:
    question = "do the shipped kernels work on this GPU?"
    outcome = outcomes.get("kernels")
    if outcome is None or "entries" not in outcome.values:
        return _unanswered(question, outcome)
    worst: dict[str, float] = {}
    for name, error in _leaves(outcome.values.get("errors", {})):
        problem, _, kernel = name.rpartition("/")
        element = next((e for e in ("f32", "f16", "bf16") if f" {e} " in f"{problem} "), "f32")
        worst[f"{kernel} {element}"] = max(worst.get(f"{kernel} {element}", 0.0), error)
    evidence = ", ".join(
        f"{kernel} {error:.0e}" for kernel, error in worst.items() if kernel.startswith(("gram", "mix"))
    )
    answer = "yes" if outcome.status == "passed" else "no"
    ran = outcome.values["entries"] - len(outcome.values.get("entries_not_run", []))
    reason = "" if answer == "yes" else f"; {len(outcome.problems)} problems, first: {outcome.reason}"
    return Verdict(
        question, answer, f"{ran} of {outcome.values['entries']} entries ran; largest errors: {evidence}{reason}"
    )


def _bandwidth(outcomes: Mapping[str, Outcome]) -> Verdict:
    question = "are the kernels as fast as memory?"
    outcome = outcomes.get("bandwidth")
    if outcome is None or not outcome.values.get("kernels"):
        return _unanswered(question, outcome)
    shares: dict[str, float] = {}
    for what, kernels in outcome.values["kernels"].items():
        for kernel in ("gram", "mix"):
            if kernel in kernels and " f16 " in f" {what} ":
                shares[kernel] = min(shares.get(kernel, 9.0), kernels[kernel]["share_of_copy"])
    evidence = ", ".join(f"{kernel} at least {share:.0%}" for kernel, share in shares.items())
    answer = "yes" if shares and min(shares.values()) >= GOOD_SHARE else "no"
    return Verdict(question, answer, f"of a copy's {outcome.values['copy_gb_s']:.0f} GB/s in float16: {evidence}")


def _comparison(outcomes: Mapping[str, Outcome], question: str, name: str, answers: tuple[str, str]) -> Verdict:
    """From the ratios of the step `latency`: how many times faster the first answer is than the second."""
    outcome = outcomes.get("latency")
    by_side: dict[str, Any] = outcome.values.get("ratios", {}) if outcome else {}
    found = {side: Ratio(**ratios[name]) for side, ratios in by_side.items() if name in ratios}
    if not found and by_side:
        return Verdict(question, NOT_MEASURED, f"{name}: not both are there")
    if not found:
        return _unanswered(question, outcome)
    evidence = ", ".join(f"{r.median:.2f}x at {side} ({r.least:.2f} to {r.most:.2f})" for side, r in found.items())
    settled = [ratio for ratio in found.values() if ratio.settled]
    if not settled:
        answer = _undecided(found.values())
    elif all(ratio.median > 1 for ratio in settled):
        answer = answers[0]
    elif all(ratio.median < 1 for ratio in settled):
        answer = answers[1]
    else:
        answer = "depends on the size"
    return Verdict(question, answer, f"{name}: {evidence}")


def _undecided(ratios: Iterable[Ratio]) -> str:
    """What ratios say of which none is settled."""
    return "no difference" if any(ratio.rounds >= FEWEST_ROUNDS for ratio in ratios) else "too few rounds"


def _precisions(outcomes: Mapping[str, Outcome]) -> Verdict:
    question = "which precisions keep their accuracy?"
    outcome = outcomes.get("parity")
    found: dict[str, Any] = outcome.values.get("engines", {}) if outcome else {}
    if not found:
        return _unanswered(question, outcome)
    good = [name for name, values in found.items() if values["within"]]
    bad = [name for name, values in found.items() if not values["within"]]
    evidence = ", ".join(f"{name} {values['loss_db']:+.3f} dB" for name, values in found.items())
    answer = "all" if not bad else f"not {', '.join(bad)}" if good else "none"
    return Verdict(question, answer, evidence)


def _operator(outcomes: Mapping[str, Outcome]) -> Verdict:
    question = "is torch.ops.minet faster than plain PyTorch?"
    outcome = outcomes.get("operator")
    by_side: dict[str, Any] = outcome.values.get("speedup", {}) if outcome else {}
    found = {f"{name} at {side}": Ratio(**ratio) for side, r in by_side.items() for name, ratio in r.items()}
    if not found:
        return _unanswered(question, outcome)
    evidence = ", ".join(f"{name} {ratio.median:.2f}x" for name, ratio in found.items())
    faster = sum(ratio.median > 1 for ratio in found.values() if ratio.settled)
    slower = sum(ratio.median < 1 for ratio in found.values() if ratio.settled)
    if not faster + slower:
        answer = _undecided(found.values())
    else:
        answer = "yes" if not slower else "no" if not faster else "sometimes"
    return Verdict(question, answer, evidence)


def _peers(outcomes: Mapping[str, Outcome]) -> Verdict:
    """The fastest of everything that restored the same slice, at each size."""
    question = "what is fastest?"
    outcome = outcomes.get("latency")
    by_side: dict[str, Any] = outcome.values.get("latency", {}) if outcome else {}
    if not by_side:
        return _unanswered(question, outcome)
    answers: list[str] = []
    evidence: list[str] = []
    for side, candidates in by_side.items():
        order = sorted(candidates, key=lambda name: candidates[name]["p50_ms"])
        answers.append(f"{order[0]} at {side}")
        evidence.append(f"{side}: " + ", ".join(f"{name} {candidates[name]['p50_ms']:.2f} ms" for name in order[:4]))
    return Verdict(question, ", ".join(answers), "; ".join(evidence))


def _unanswered(question: str, outcome: Outcome | None) -> Verdict:
    if outcome is None:
        return Verdict(question, NOT_MEASURED, "its step was not asked for")
    if outcome.status == "passed":
        return Verdict(question, NOT_MEASURED, "; ".join(outcome.skipped[:1]) or "what it compares is not there")
    return Verdict(question, NOT_MEASURED, f"{outcome.status}: {outcome.reason}")


def _leaves(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    """Numbers of nested dicts with their paths; a null was NaN."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{name}/")
        else:
            yield f"{above}{name}", float("inf") if value is None else float(value)


def print_report(outcomes: Mapping[str, Outcome], verdicts: list[Verdict], seconds: float, device: str) -> None:
    """Steps, latencies and verdicts on stdout; plain text where rich is not installed."""
    note = "" if device == "cuda" else " on the CPU, at tiny sizes: no figure here means anything"
    _table(
        f"Steps, {seconds:.0f} s{note}",
        ("step", "status", "s", "reason"),
        [(name, o.status, f"{o.seconds:.0f}", o.reason or "; ".join(o.skipped[:2])) for name, o in outcomes.items()],
    )
    rows = list(latency_rows(outcomes))
    if rows:
        _table("Latency, ms", ("size", "what", "p50", "p95", "p99"), rows)
    _table("Verdicts", ("question", "answer", "evidence"), [(v.question, v.answer, v.evidence) for v in verdicts])


def latency_rows(outcomes: Mapping[str, Outcome]) -> Iterator[tuple[str, ...]]:
    """Every measured candidate of the steps that compare latency, fastest first in each comparison."""
    for step in ("latency", "networks"):
        if step not in outcomes:
            continue
        for size, candidates in outcomes[step].values.get("latency", {}).items():
            for name in sorted(candidates, key=lambda name: candidates[name]["p50_ms"]):
                one = candidates[name]
                yield size, name, *(f"{one[key]:.2f}" for key in ("p50_ms", "p95_ms", "p99_ms"))


def _table(title: str, head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        print(f"\n{title}")
        for row in (head, *rows):
            print("  ".join(row))
        return
    table = Table(title=title, title_justify="left")
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
