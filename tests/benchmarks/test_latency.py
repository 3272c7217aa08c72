"""The latency benchmark's plans, goals, table and picture; its sections at tiny sizes are among the slow tests."""

import importlib
import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from minet_sdk.backends import names
from minet_sdk.benchmark.comparison import ratios
from minet_sdk.benchmark.distribution import Distribution
from minet_sdk.errors import InputError

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "latency.py"
OVERHEAD = ("peers", "native-consistency-auto")
PLAIN = {"onnxruntime-plain", "openvino-plain", "openvino-default", "torch-eager", "torch-channels-last"}


@pytest.fixture(scope="module", autouse=True)
def _importable() -> Generator[None]:  # pyright: ignore[reportUnusedFunction] # pytest finds it
    """The benchmarks are scripts, not a package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield


def module(name: str) -> Any:
    return importlib.import_module(name)


def peer(name: str, seconds: float, critical: float | None = None) -> dict[str, Any]:
    """Five rounds of one call."""
    parts = {"whole": Distribution.of([[seconds]] * 5).to_dict()}
    if critical is not None:
        parts["critical"] = Distribution.of([[critical]] * 5).to_dict()
    return {
        "title": name,
        "ours": critical is not None,
        "parts": parts,
        "peak_mib": 900.0,
        "relative_rms": 2e-6,
        "cores_used": 2.0,
    }


def report() -> dict[str, Any]:
    """Of a machine where every goal is met, but only just."""
    comparisons: list[dict[str, Any]] = []
    models = (
        ("paper", 2, 3.0),
        ("small", 2, 0.2),
        ("small", 4, 0.2),
        ("fast", 2, 0.05),
        ("fast", 4, 0.05),
        ("deep", 2, 0.1),
    )
    for preset, scale, seconds in models:
        slack = 1.001 if preset == "paper" else 0.801
        peers = {
            "native": peer("minet-sdk, native", seconds, seconds / 2),
            "onnxruntime-plain": peer("ONNX Runtime", 2.5 * seconds * slack),
            "torch-eager": peer("PyTorch", 3.3 * seconds * slack),
        }
        common = {"preset": preset, "scale": scale, "model": preset, "accuracy": "against PyTorch, float64"}
        for size, threads in ((320, 2), (320, 1), (160, 2)):
            place = {"size": [size, size], "threads": threads}
            comparisons.append({**common, **place, "peers": peers, "ratios": ratios(peers)})
    goals = module("latency_goals")
    factors = {160: 1.0, 320: 1.0, 1024: 1.09}
    whole = {str(size): peer("native", 1e-6 * size**2 * factor) for size, factor in factors.items()}
    linear = goals.by_pixel(whole, (160, 320, 1024))
    native = {"native": {"parts": {"cold start": {"p50_ms": 1499.0}}}}
    overhead = {"share": 0.0099, "glue_share": 0.0098, "parts": {"difference": {"p50_ms": 1.5}}}
    return {
        "environment": {"processor": "Model 1", "cores": 2, "instruction_sets": ["avx2"]},
        "peaks": {"2": {"gflops": 220.0, "gigabytes_per_second": 27.0}},
        "sections": {
            "paper-320": {"comparisons": comparisons, "load": {"warning": ""}},
            "start": {"import": {"p50_ms": 299.0}, "cold_starts": {"peers": native}, "load": {"warning": "noise"}},
            "overhead": {"overhead": [{"preset": "paper", "scale": 2, "peers": {"native-consistency-auto": overhead}}]},
            "linearity": {"linearity": [{"preset": "paper", "scale": 2, **linear}]},
        },
    }


def test_goals_that_are_met_pass() -> None:
    found = module("latency_goals").verdicts(report())
    assert len(found) == 6 * 4 + 2 + 2 + 2 + 1
    assert [str(verdict) for verdict in found if not verdict.met] == []


@pytest.mark.parametrize(
    ("path", "value", "goal"),
    [
        (("sections", "start", "import", "p50_ms"), 301.0, "import"),
        (("sections", "start", "cold_starts", "peers", "native", "parts", "cold start", "p50_ms"), 1501.0, "cold"),
        (("sections", "overhead", "overhead", 0, *OVERHEAD, "share"), 0.011, "Runtime call"),
        (("sections", "overhead", "overhead", 0, *OVERHEAD, "glue_share"), 0.011, "of this"),
        (("sections", "linearity", "linearity", 0, "largest_deviation"), 0.11, "time a pixel"),
        (("sections", "paper-320", "comparisons", 0, "ratios", "whole", "torch-eager", "median"), 3.29, "whole"),
        (("sections", "paper-320", "comparisons", 0, "ratios", "critical", "torch-eager", "median"), 6.5, "critical"),
        (("sections", "paper-320", "comparisons", 0, "peers", "native", "relative_rms"), 1.1e-5, "float64"),
        (("sections", "paper-320", "comparisons", 0, "peers", "native", "peak_mib"), 1025.0, "memory"),
        (("sections", "paper-320", "comparisons", 0, "accuracy"), "against ONNX Runtime, not float64: no", "float64"),
        (("sections", "paper-320", "tiny"), True, "not measured"),
    ],
)
def test_a_planted_miss_fails(path: tuple[Any, ...], value: Any, goal: str) -> None:
    changed: Any = json.loads(json.dumps(report()))
    place = changed
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    missed = [str(verdict) for verdict in module("latency_goals").verdicts(changed) if not verdict.met]
    assert missed
    assert all(text.startswith("FAIL") for text in missed)
    assert any(goal in text for text in missed)


def test_what_was_not_measured_is_not_met() -> None:
    empty = {"environment": {"cores": 2}, "sections": {}}
    assert not any(verdict.met for verdict in module("latency_goals").verdicts(empty))


def test_time_by_pixel_needs_every_size() -> None:
    by_pixel = module("latency_goals").by_pixel
    peers = {"160": peer("native", 0.16**2), "320": peer("native", 0.32**2 / 1.25)}
    found = by_pixel(peers, (160, 320))
    assert found["sizes"]["160"]["ms_per_megapixel"] == pytest.approx(1000)
    assert found["largest_deviation"] == pytest.approx(0.25)
    assert by_pixel(peers, (160, 320, 512))["largest_deviation"] is None


def test_table_and_picture_come_from_the_json(tmp_path: Path) -> None:
    made = module("latency_table")
    text = made.latency_table(report())
    assert "| | paper x2 | small x2 | deep x2 | fast x2 | peak MiB, paper x2 | error, paper x2 |" in text
    assert "| minet-sdk, native | 3000, prepared 1500 ms | 200, prepared 100 ms |" in text
    assert "| PyTorch | 9910 ms (3.30x) |" in text
    assert "not quiet during start" in text
    assert "`Runtime` adds 1.50 to 1.50 ms" in text
    assert "process start to first slice 1.50 s" in text
    made.draw(report(), tmp_path / "latency.png")
    assert (tmp_path / "latency.png").read_bytes().startswith(b"\x89PNG")


def test_plans_name_peers_and_presets_that_exist() -> None:
    plans = module("latency_plans")
    known = {*names(), "openvino", *PLAIN, "torch-compile"}
    for comparisons in plans.COMPARISONS.values():
        for plan in comparisons:
            assert set(plan.peers) <= known
            assert plan.peers[0] == "native"
            assert plan.size in plans.SIZES
    assert len(set(plans.SECTIONS)) == len(plans.SECTIONS)
    at_320 = {n for name, found in plans.COMPARISONS.items() if name.startswith("paper-320") for n in found[0].peers}
    assert at_320 == known & set(plans.ALL)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_another_machines_figures_are_not_added_to(tmp_path: Path) -> None:
    output = tmp_path / "latency.json"
    environment = {"processor": "Another 1", "cores": 1, "instruction_sets": []}
    output.write_text(json.dumps({"format": 1, "environment": environment, "sections": {}}))
    opened = module("latency").opened
    with pytest.raises(InputError, match=r"another machine \(processor Another 1"):
        opened(output, afresh=False, read_only=False)
    assert opened(output, afresh=True, read_only=False)["environment"]["processor"] != "Another 1"
    assert opened(output, afresh=False, read_only=True)["environment"]["processor"] == "Another 1"


def test_goals_count_as_far_as_they_were_to_be_measured(tmp_path: Path) -> None:
    """Figures of any machine can be judged; without the sections that a call leaves out, a part of them is enough."""
    output = tmp_path / "latency.json"
    some = report()
    del some["sections"]["linearity"]
    output.write_text(json.dumps({"format": 1, **some}))
    judged = run("--output", output, "--judge")
    assert (judged.returncode, judged.stderr) == (1, "")
    assert "30 of 31 goals met" in judged.stdout
    assert run("--output", output, "--judge", "--only", "start").returncode == 0
    some["sections"]["start"]["import"]["p50_ms"] = 301.0
    output.write_text(json.dumps({"format": 1, **some}))
    assert run("--output", output, "--judge", "--only", "start").returncode == 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_sections_of_every_kind_run_and_merge(tmp_path: Path) -> None:
    output = tmp_path / "latency.json"
    common = ("--output", output, "--work", tmp_path / "work", "--tiny")
    for sections in ("paper-160,machine", "paper-640,fast-x4,start,linearity,scanner,overhead"):
        done = run(*common, "--only", sections)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        assert "not measured" in done.stdout
    found = json.loads(output.read_text())["sections"]
    assert len(found) == 8
    assert all(section["tiny"] for section in found.values())
    for section in found.values():
        for comparison in section.get("comparisons", ()):
            assert not comparison["failed"]
            assert {"native", "onnxruntime-plain"} <= set(comparison["peers"])
            assert set(comparison["peers"]).isdisjoint(comparison["absent"])
        for row in (*section.get("linearity", ()), *section.get("series", ()), *section.get("overhead", ())):
            assert not row["failed"]
