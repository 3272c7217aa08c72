"""The GPU check without a GPU: its statistics, its isolation of steps with real processes, every step at tiny sizes."""

import hashlib
import importlib
import json
import math
import os
import shutil
import subprocess
import sys
import textwrap
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu_check.py"
STEPS = ("environment", "kernels", "bandwidth", "operator", "engines", "parity", "latency", "networks", "device_tests")


@pytest.fixture(scope="module", autouse=True)
def _importable() -> Any:  # pyright: ignore[reportUnusedFunction] # pytest finds it
    """The benchmarks are scripts, not a package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield


def module(name: str) -> Any:
    return importlib.import_module(f"gpu_steps.{name}")


# Statistics.


class Clock:
    """Time that passes only when a candidate works."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pace = 1.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> Callable[[], None]:
        def call() -> None:
            self.now += seconds * self.pace

        return call


@pytest.mark.parametrize("count", [1, 2, 7, 100, 1000])
def test_percentiles_are_those_of_numpy(count: int) -> None:
    values = np.random.default_rng(count).exponential(size=count)
    for share in (0.5, 0.95, 0.99, 1.0):
        expected = np.percentile(values, 100 * share, method="inverted_cdf")
        assert module("measuring").percentile(list(values), share) == expected


def test_latency_counts_every_call_but_the_first_of_a_turn() -> None:
    clock = Clock()
    found, failed = module("measuring").interleaved({"a": clock.work(0.002)}, rounds=3, calls=5, clock=clock)
    assert not failed
    assert found["a"].calls == 15
    assert found["a"].p50_ms == pytest.approx(2)
    assert len(found["a"].round_medians_ms) == 3


def test_a_clock_that_slows_down_does_not_change_the_ratio() -> None:
    """And timing one candidate after the other, the planted fault, would say twice the truth."""
    measuring, clock = module("measuring"), Clock()

    def slowing(seconds: float) -> Callable[[], None]:
        work = clock.work(seconds)

        def call() -> None:
            work()
            clock.pace *= 1.001

        return call

    candidates = {"slow": slowing(0.003), "fast": slowing(0.002)}
    found, _ = measuring.interleaved(candidates, rounds=40, calls=10, clock=clock)
    together = measuring.ratio(found["slow"], found["fast"])
    assert together.median == pytest.approx(1.5, rel=0.02)
    clock.pace = 1.0
    apart = [measuring.interleaved({n: c}, rounds=40, calls=10, clock=clock)[0][n] for n, c in candidates.items()]
    assert measuring.ratio(*apart).median < 1.2


def test_one_that_raises_costs_only_itself() -> None:
    def broken() -> None:
        raise RuntimeError("out of memory")

    clock = Clock()
    candidates = {"broken": broken, "good": clock.work(0.001)}
    found, failed = module("measuring").interleaved(candidates, rounds=2, calls=1, clock=clock)
    assert list(found) == ["good"]
    assert failed == {"broken": "RuntimeError: out of memory"}


def test_rounds_end_when_the_time_is_up() -> None:
    clock = Clock()
    found, _ = module("measuring").interleaved({"a": clock.work(1.0)}, rounds=100, calls=1, seconds=5, clock=clock)
    assert 1 < len(found["a"].round_medians_ms) < 6
    found, _ = module("measuring").interleaved({"a": clock.work(1.0)}, rounds=1, calls=100, seconds=5, clock=clock)
    assert 1 < found["a"].calls < 6


@pytest.mark.parametrize(
    ("least", "most", "rounds", "settled"),
    [(1.1, 1.3, 5, True), (0.7, 0.9, 5, True), (0.9, 1.1, 5, False), (1.01, 1.2, 5, False), (1.1, 1.3, 2, False)],
)
def test_a_ratio_is_settled_if_all_of_several_rounds_agree(
    least: float, most: float, rounds: int, settled: bool
) -> None:
    assert module("measuring").Ratio((least + most) / 2, least, most, rounds).settled == settled


# Isolation: real processes that misbehave.


def isolated(tmp_path: Path, code: str, limit: float = 20.0) -> Any:
    """Outcome of a step that is this Python code; ``result`` names its result file."""
    result = tmp_path / "result.json"
    program = f"import json, os, sys, time\nresult = {str(result)!r}\n{textwrap.dedent(code)}"
    return module("isolation").run_isolated([sys.executable, "-S", "-c", program], result, limit, dict(os.environ))


WRITE = "open(result, 'w').write(json.dumps({'values': {'a': 1}, 'problems': [], 'skipped': []}))\n"


def test_a_good_step_passes(tmp_path: Path) -> None:
    outcome = isolated(tmp_path, WRITE)
    assert (outcome.status, outcome.values, outcome.reason, outcome.output) == ("passed", {"a": 1}, "", "")


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("os.abort()", "crashed", "ended by SIGABRT"),
        ("os.kill(os.getpid(), 11)", "crashed", "ended by SIGSEGV"),
        ("sys.exit('no luck')", "failed", "exit code 1: no luck"),
        ("print('hello')", "failed", "the step wrote no result; its last words: hello"),
        ("open(result, 'w').write('garbage')", "failed", "the step's result is not JSON; its last words: it printed"),
        ("open(result, 'w').write('[1]')", "failed", "the step's result is no JSON object"),
        ("open(result, 'w').write(json.dumps({'problems': ['off by 3']}))", "failed", "off by 3"),
        ("open(result, 'w').write(json.dumps({'error': 'no torch'})); sys.exit(3)", "missing package", "no torch"),
    ],
)
def test_a_bad_step_is_reported(tmp_path: Path, code: str, status: str, reason: str) -> None:
    outcome = isolated(tmp_path, code)
    assert outcome.status == status
    assert outcome.reason.startswith(reason)


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_step_that_hangs_is_ended_with_its_children_and_keeps_what_it_found(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = f"""
        {WRITE.strip()}
        import subprocess
        child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
        open({str(pid)!r}, "w").write(str(child.pid))
        print("waiting", flush=True)
        time.sleep(60)
    """
    started = time.monotonic()
    outcome = isolated(tmp_path, code, limit=2.0)
    assert time.monotonic() - started < 20
    assert (outcome.status, outcome.values) == ("timed out", {"a": 1})
    assert outcome.reason == "did not end within 2 s"
    assert outcome.output.strip() == "waiting"
    while is_running(int(pid.read_text())):
        assert time.monotonic() - started < 20
        time.sleep(0.05)


def test_endless_binary_output_does_no_harm(tmp_path: Path) -> None:
    code = f"{WRITE}sys.stdout.buffer.write(bytes(range(256)) * 40000); sys.stdout.flush(); sys.exit('the end')"
    outcome = isolated(tmp_path, code)
    assert outcome.status == "failed"
    assert outcome.output.endswith("the end\n")
    assert len(outcome.output) <= 4000
    json.dumps(outcome.to_dict())


# Results and reports.


def test_values_that_json_has_not_become_null(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    context = module("results").Context("cpu", tmp_path, output=path)
    context.record("a/b", math.nan)
    context.record("a/c", [np.float32(1.5), np.int64(2), Path("x"), None])
    context.problem("p")
    context.skip("s")
    content = json.loads(path.read_text())
    assert content["values"] == {"a": {"b": None, "c": [1.5, 2, "x", None]}}
    assert (content["problems"], content["skipped"]) == (["p"], ["s"])
    assert [found.name for found in tmp_path.iterdir()] == ["result.json"]


def test_an_attempt_that_fails_is_noted(tmp_path: Path) -> None:
    context = module("results").Context("cpu", tmp_path)
    with context.attempt("first"):
        raise ValueError("two\nlines")
    with context.attempt("second"):
        raise ModuleNotFoundError("No module named 'tensorrt'")
    assert context.problems == ["first: ValueError: two lines"]
    assert context.skipped == ["second: No module named 'tensorrt'"]


def outcome_with(**values: Any) -> Any:
    return module("isolation").Outcome("passed", values=values)


def verdict(question: str, **outcomes: Any) -> Any:
    (found,) = [v for v in module("report").verdicts_of(outcomes) if v.question.startswith(question)]
    return found


@pytest.mark.parametrize(
    ("ratios", "answer"),
    [
        ([(1.2, 1.1, 1.3)], "fold"),
        ([(0.8, 0.7, 0.9)], "mix"),
        ([(1.01, 0.9, 1.1)], "no difference"),
        ([(1.2, 1.1, 1.3), (1.0, 0.9, 1.1)], "fold"),
        ([(1.2, 1.1, 1.3), (0.8, 0.7, 0.9)], "depends on the size"),
    ],
)
def test_verdicts_need_rounds_that_agree(ratios: list[tuple[float, float, float]], answer: str) -> None:
    keys = ("median", "least", "most")
    by_side = {
        str(i): {"fold over mix": {**dict(zip(keys, r, strict=True)), "rounds": 7}} for i, r in enumerate(ratios)
    }
    assert verdict("mix or fold", latency=outcome_with(ratios=by_side)).answer == answer


def test_few_rounds_decide_nothing_not_even_that_there_is_no_difference() -> None:
    ratio = {"median": 2.1, "least": 2.0, "most": 2.2, "rounds": 2}
    few = outcome_with(ratios={"0": {"fold over mix": ratio}})
    assert verdict("mix or fold", latency=few).answer == "too few rounds"
    operator = outcome_with(speedup={"12": {"operator": ratio}})
    assert verdict("is torch.ops.minet", operator=operator).answer == "too few rounds"


def test_other_verdicts() -> None:
    report = module("report")
    errors = {"1x(3*8)x5x3 f16 linear": {"gram": 1e-7, "mix": 2e-4}, "1x(3*8)x5x3 f32 linear": {"gram": 3e-8}}
    good = verdict("do the shipped", kernels=outcome_with(entries=30, entries_not_run=[], errors=errors))
    assert good.answer == "yes"
    assert "30 of 30" in good.evidence
    assert "gram f16 1e-07" in good.evidence
    shares = {"1x(12*64)x320x320 f16 linear": {"gram": {"share_of_copy": 0.8}, "mix": {"share_of_copy": 0.6}}}
    assert verdict("are the kernels", bandwidth=outcome_with(copy_gb_s=900.0, kernels=shares)).answer == "no"
    engines = {"tensorrt fp16": {"within": True, "loss_db": 0.01}, "tensorrt int8": {"within": False, "loss_db": -0.5}}
    assert verdict("which precisions", parity=outcome_with(engines=engines)).answer == "not tensorrt int8"
    latency = {"minet-x2 320": {"slow": {"p50_ms": 3.0}, "fast": {"p50_ms": 1.0}}}
    assert verdict("what is fastest", latency=outcome_with(latency=latency)).answer == "fast at minet-x2 320"
    assert {v.answer for v in report.verdicts_of({})} == {report.NOT_MEASURED}
    broken = module("isolation").Outcome("crashed", reason="ended by SIGSEGV")
    for name in STEPS:
        assert {v.answer for v in report.verdicts_of({name: broken})} == {report.NOT_MEASURED}


def test_report_is_plain_text_without_rich(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    report = module("report")
    outcomes = {"latency": outcome_with(latency={"320": {"a": {"p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0}}})}
    report.print_report(outcomes, report.verdicts_of(outcomes), 1.0, "cuda")
    with_rich = capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "rich.console", None)
    report.print_report(outcomes, report.verdicts_of(outcomes), 1.0, "cuda")
    plain = capsys.readouterr().out
    for text in (with_rich, plain):
        assert all(part in text for part in ("latency", "passed", "1.00", "2.00", "3.00", "Verdicts"))


# Where the SDK and its packages come from.


def test_the_sdk_need_not_be_installed(tmp_path: Path) -> None:
    """Without site-packages there is no installed copy, and the folders beside minet_sdk are found nevertheless."""
    code = """
        import sys, importlib.util
        sys.path.insert(0, sys.argv[1])
        assert importlib.util.find_spec("minet_sdk") is None
        from gpu_steps.source_tree import make_importable
        make_importable()
        make_importable()
        import minet_sdk.kernels.launches, minet_sdk.cuda.driver, minet_sdk.kernels.binaries
        from importlib.util import find_spec
        assert find_spec("minet_sdk.training") and find_spec("minet_sdk.export.graphs") is not None
        assert find_spec("kernels") is None and find_spec("training") is None
        print(minet_sdk.kernels.binaries.target_for((9, 0)))
    """
    command = [sys.executable, "-I", "-S", "-c", textwrap.dedent(code), str(SCRIPT.parent)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "sm80\n", done.stderr


def test_wheels_are_unpacked(tmp_path: Path) -> None:
    for name, files in {
        "one-1.0-py3-none-any.whl": {"one.py": "x = 1", "one-1.0.dist-info/METADATA": "Name: one"},
        "two-1.0-cp39-cp39-linux_x86_64.whl": {"two.py": ""},
        "three-1.0-cp38-abi3-linux_x86_64.whl": {"three-1.0.data/platlib/three.py": "", "three-1.0.data/scripts/x": ""},
        f"four-1.0-cp{sys.version_info[0]}{sys.version_info[1]}-none-linux_x86_64.whl": {"four.py": ""},
    }.items():  # fmt: skip
        with zipfile.ZipFile(tmp_path / name, "w") as wheel:
            for path, content in files.items():
                wheel.writestr(path, content)
    unusable = module("source_tree").unpack_wheels(tmp_path, tmp_path / "into")
    assert unusable == ["two-1.0-cp39-cp39-linux_x86_64.whl"]
    found = sorted(
        str(path.relative_to(tmp_path / "into")) for path in (tmp_path / "into").rglob("*") if path.is_file()
    )
    assert found == ["four.py", "one-1.0.dist-info/METADATA", "one.py", "three.py"]


# The command.


def run_script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", **environment},
    )


def test_without_a_gpu_it_says_so_in_one_line(tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    done = run_script("--output", str(output))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("gpu_check needs an NVIDIA GPU: ")
    assert done.stderr.count("\n") == 1
    assert not output.exists()


def test_dry_run_lists_what_each_step_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = module("registry")
    assert tuple(step.name for step in registry.STEPS) == STEPS
    monkeypatch.setattr(registry, "is_installed", lambda name: name not in ("cuda.core", "pytest"))  # pyright: ignore[reportUnknownLambdaType]
    assert importlib.import_module("gpu_check").main(["--dry-run"]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[0].startswith("GPU: ")
    for name in STEPS:
        index = next(i for i, line in enumerate(lines) if line.startswith(name))
        expected = {"kernels": "missing cuda.core", "device_tests": "missing pytest"}.get(name)
        if expected:
            assert lines[index + 1].endswith(expected)


def test_a_real_run_writes_after_every_step_and_stops_when_the_time_is_up(tmp_path: Path) -> None:
    """One step as a process of its own; a second one for which no time is left."""
    output = tmp_path / "results" / "check.json"
    done = run_script("--device", "cpu", "--steps", "environment", "--output", str(output))
    assert done.returncode == 0, done.stderr
    report = json.loads(output.read_text())
    assert report["steps"]["environment"]["status"] == "passed"
    assert report["steps"]["environment"]["values"]["packages"]["numpy"] == np.__version__
    assert report["verdicts"]
    assert "no figure here means anything" in done.stdout


def test_no_step_starts_when_the_time_is_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "check.json"
    check = importlib.import_module("gpu_check")
    assert check.main(["--device", "cpu", "--seconds", "3", "--output", str(output)]) == 1
    steps = json.loads(output.read_text())["steps"]
    assert {step["status"] for step in steps.values()} == {"not run"}
    assert tuple(steps) == STEPS
    assert "not run" in capsys.readouterr().out


def test_a_step_without_its_package_is_a_gap_and_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result, child = tmp_path / "result.json", module("child")
    monkeypatch.setattr(module("registry"), "is_installed", lambda name: name != "cuda.core")  # pyright: ignore[reportUnknownLambdaType]
    assert child.run_step("kernels", result, "cuda", tmp_path, 10.0) == 3
    assert json.loads(result.read_text())["error"] == "not installed: cuda.core"


def test_prepared_bundles_are_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engines = module("engines")
    bundled = ROOT / "minet_sdk" / "models" / "minet-x2"
    shutil.copytree(bundled, tmp_path / "prepared" / "fp16")
    bundle = engines._bundle(module("results").Context("cuda", tmp_path), "fp16")
    assert bundle.location == tmp_path / "bundles" / "fp16"
    assert bundle.sha256 == hashlib.sha256((bundled / "manifest.json").read_bytes()).hexdigest()
    assert importlib.import_module("gpu_check").main(["--prepare"]) == 1
    assert "--prepare needs --work" in capsys.readouterr().err


# Every step, at sizes that a CPU can do.


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared, as in a real run: the later steps use what `engines` built."""
    return tmp_path_factory.mktemp("work")


@pytest.mark.parametrize("name", [name for name in STEPS if name != "device_tests"])
def test_step_on_a_cpu(name: str, work: Path) -> None:
    output = work / f"{name}.json"
    context = module("results").Context("cpu", work, output=output)
    module(name).run(context)
    assert not context.problems
    assert json.loads(output.read_text())["values"]
    if name == "kernels":
        assert context.values["entries_not_run"] == []
    if name == "parity":
        assert all(values["within"] for values in context.values["engines"].values())
    if name in ("latency", "networks"):
        assert all(len(candidates) > 1 for candidates in context.values["latency"].values())


def test_a_wrong_kernel_shows_in_the_step(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: the kernels' step with the strides of the other layout."""
    launches, step = importlib.import_module("minet_sdk.kernels.launches"), module("kernels")
    right: Callable[..., tuple[int, int, int]] = launches._addressing

    def wrong(layout: str, stages: int, channels: int, elements: int) -> tuple[int, int, int]:
        return right("linear" if layout == "hwc8" else layout, stages, channels, elements)

    monkeypatch.setattr(launches, "_addressing", wrong)
    context = module("results").Context("cpu", work)
    launch = step.Recording(step.launcher_for(context))
    for layout in ("linear", "hwc8"):
        step._check_integration(context, launch, step.Size(3, 8, 3, 1), "f32", layout, False, 2)
    assert {problem.split("/")[0] for problem in context.problems} == {"1x(3*8)x3x1 f32 hwc8"}
    assert any("mix: error" in problem for problem in context.problems)


def test_gpu_tests_are_run_and_counted(tmp_path: Path) -> None:
    """A tree like this one, with tests that end in every way; in a process of its own, as in a real run."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "tests" / "test_some.py").write_text(
        textwrap.dedent("""
            import warnings
            import pytest
            gpu = pytest.mark.gpu
            @gpu
            def test_good(): warnings.warn("of another version")
            @gpu
            def test_bad(): assert 1 == 2, "off"
            @gpu
            def test_skipped(): pytest.skip("too old")
            def test_other(): assert False
        """),
        encoding="utf-8",
    )
    (tmp_path / "tests" / "test_missing.py").write_text("import no_such_package", encoding="utf-8")
    code = """
        import sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[1])
        from gpu_steps.source_tree import make_importable
        make_importable()
        from gpu_steps import device_tests
        from gpu_steps.results import Context
        device_tests.ROOT = Path(sys.argv[2])
        context = Context("cuda", device_tests.ROOT, output=device_tests.ROOT / "result.json")
        device_tests.run(context)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(SCRIPT.parent), str(tmp_path)]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["values"]["tests"] == {"passed": 1, "failed": 1, "skipped": 1}
    assert len(found["problems"]) == 1
    assert found["problems"][0].startswith("tests/test_some.py::test_bad: ")
    assert "No module named 'no_such_package'" in found["skipped"][0]
