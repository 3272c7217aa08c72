"""The regression guard: instructions, allocations and copies of the hot kernels against kernels/native/cost.json."""

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from minet_sdk.export.native_program import Code, Kind, Operation, Tensor

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[3]
NATIVE = ROOT / "kernels" / "native"


@pytest.fixture(scope="module")
def cost() -> ModuleType:
    """The benchmarks are scripts, not a package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        return importlib.import_module("native_cost")


@pytest.fixture(scope="module")
def record(cost: ModuleType) -> dict[str, Any]:
    return json.loads(cost.RECORD.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def measure(cost: ModuleType) -> Callable[..., dict[str, Any]]:
    def measured(*arguments: Any) -> dict[str, Any]:
        try:
            return cost.measure(*arguments)
        except cost.MissingToolError as missing:
            pytest.skip(str(missing))

    return measured


def test_nothing_costs_more_than_the_record_says(
    cost: ModuleType, measure: Callable[..., dict[str, Any]], record: dict[str, Any]
) -> None:
    assert set(record["cases"]) == set(cost.CASES)
    now = measure()
    assert cost.risen(record, now) == [], "python benchmarks/native_cost.py --record, if it must be so"
    if now["compilers"] != record["compilers"]:
        pytest.skip(f"only allocations and copies were compared: the record is of {record['compilers']}")


def test_a_superfluous_pass_over_an_image_is_seen(
    cost: ModuleType, measure: Callable[..., dict[str, Any]], record: dict[str, Any]
) -> None:
    case = cost.CASES["1x1 fusion"]()
    program = case.program
    output = Tensor(Kind.IMAGE, program.restored.channels)
    program.operations.append(Operation(Code.POINTWISE, [program.restored], output))
    program.restored = output
    now = measure(None, {"1x1 fusion": case})
    if now["compilers"] != record["compilers"]:
        pytest.skip("instructions of another compiler cannot be compared")
    (found,) = cost.risen({**record, "cases": {"1x1 fusion": record["cases"]["1x1 fusion"]}}, now)
    assert found.startswith("1x1 fusion, instructions: ")


def test_counts_may_fall_and_those_of_another_compiler_are_not_compared(
    cost: ModuleType, record: dict[str, Any]
) -> None:
    fallen: dict[str, Any] = json.loads(json.dumps(record))
    fallen["cases"]["3x3 convolution"]["instructions"] //= 2
    assert cost.risen(record, fallen) == []
    (found,) = cost.risen(fallen, record)
    assert found.startswith("3x3 convolution, instructions: ")
    fallen["compilers"] = ["another"]
    assert cost.risen(fallen, record) == []
    fallen["cases"]["1x1 fusion"]["copied"] = 0
    (found,) = cost.risen(fallen, record)
    assert found.startswith("1x1 fusion, copied: ")


@pytest.mark.slow
def test_a_build_with_superfluous_copies_and_spills_fails(
    cost: ModuleType, measure: Callable[..., dict[str, Any]], record: dict[str, Any], tmp_path: Path
) -> None:
    """Each output is copied once to and fro, and sums of an AVX-512 multiplication no longer fit the registers."""
    shutil.copytree(NATIVE, tmp_path / "native", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    tasks = "const Tasks tasks = tasks_of(plan_, op, layout_.height, layout_.width);"
    copies = """
    std::vector<char> copy(tensor_bytes(plan_.tensors[op.output], layout_.height, layout_.width));
    std::memcpy(copy.data(), at<char>(op.output), copy.size());
    std::memcpy(at<char>(op.output), copy.data(), copy.size());
    """
    for name, before, after in (
        ("execute.cpp", tasks, tasks + copies),
        ("kernels.cpp", "(J == 4 ? 6 : J == 3 ? 8 : 12)", "(J == 4 ? 9 : J == 3 ? 8 : 12)"),
    ):
        path = tmp_path / "native" / "src" / name
        source = path.read_text(encoding="utf-8")
        assert source.count(before) == 1
        path.write_text(source.replace(before, after), encoding="utf-8")
    library = tmp_path / "native" / "libminet.so"
    subprocess.run([sys.executable, tmp_path / "native" / "build.py"], check=True)
    found = {line.split(":")[0] for line in cost.risen(record, measure(library))}
    expected = {f"{case}, {name}" for case in cost.CASES for name in ("allocations", "allocated", "copied")}
    if cost.compilers(library) == record["compilers"]:
        expected |= {f"{case}, instructions" for case in cost.CASES} | {"AVX-512, stack moves"}
    assert expected <= found
