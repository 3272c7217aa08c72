"""Step: the tests that are marked gpu, through pytest in this process, which knows where the SDK is."""

from typing import Any

import pytest

from gpu_steps.results import Context
from gpu_steps.source_tree import ROOT

MOST_REPORTED = 20


class _Counter:
    """Counts what pytest reports, and keeps why tests failed."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Called by pytest for setup, call and teardown of each test."""
        if report.when != "call" and report.passed:
            return
        outcome = "skipped" if report.skipped else "passed" if report.passed else "failed"
        self.counts[outcome] += 1
        self.context.record("tests", dict(self.counts))
        if outcome == "failed" and self.counts["failed"] <= MOST_REPORTED:
            crash = getattr(report.longrepr, "reprcrash", None)
            self.context.problem(f"{report.nodeid}: {' '.join(str(crash.message if crash else '').split())[:300]}")

    def pytest_collectreport(self, report: Any) -> None:
        """A file that cannot be imported, for a missing package mostly, costs that file only."""
        if report.failed:
            self.context.skip(f"{report.nodeid}: {str(report.longrepr).strip().splitlines()[-1][:300]}")


def run(context: Context) -> None:
    """Run them; on a machine without a GPU, only collect some of them."""
    tests = ROOT / "tests" / "kernels" / "test_torch_operator.py" if context.tiny else ROOT / "tests"
    arguments = ["--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), str(tests)]
    # The project's own options make every warning of every package version an error, which is not the question here.
    arguments += ["-o", "addopts=", "-o", "filterwarnings=default", "--import-mode=importlib", "-m", "gpu", "-q"]
    arguments += ["-p", "no:cacheprovider", "--continue-on-collection-errors"]
    if context.tiny:
        arguments.append("--collect-only")
    counter = _Counter(context)
    code = pytest.main(arguments, plugins=[counter])
    context.record("exit_code", int(code))
    if code in (pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR):
        context.problem(f"pytest ended with exit code {int(code)}")
