"""Everything that the runtime calls on TensorRT exists in NVIDIA's own bindings, with as many arguments."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minet_sdk.backends import tensorrt_engine
from minet_sdk.backends.tensorrt_builder import engine_of

trt: Any = pytest.importorskip("tensorrt_rtx")
HERE = Path(__file__).parent
BACKENDS = HERE.parent.parent / "minet_sdk" / "backends"
SOURCES = [BACKENDS / "tensorrt.py", BACKENDS / "tensorrt_engine.py"]
VERSIONS = ("10.16.1.11", "11.4.0.106")
RTX = "tensorrt_rtx"


def outcome(stubs: Path, version: str, sources: list[Path], further: dict[str, list[str]]) -> dict[str, Any]:
    """What `members_of_tensorrt` finds in a process of its own."""
    folder = "-" if version == RTX else str(Path(sys.prefix) / "tensorrt" / version)
    module = RTX if version == RTX else "tensorrt_bindings"
    done = subprocess.run(
        [sys.executable, HERE / "members_of_tensorrt.py", folder, module, *sources],
        env={**os.environ, "LD_LIBRARY_PATH": str(stubs)},
        input=json.dumps(further),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def stand_in_members(stand_in: dict[str, type]) -> dict[str, list[str]]:
    """What the other tests' stand-in for TensorRT has, so that no test relies on what does not exist."""
    own = {"error"}
    return {
        kind: [name for name in vars(members) if not name.startswith("_") and name not in own]
        for kind, members in stand_in.items()
    }


@pytest.mark.parametrize("version", [*VERSIONS, RTX])
def test_every_member_exists(tensorrt_stubs: Path, version: str, stand_in: dict[str, type]) -> None:
    found = outcome(tensorrt_stubs, version, SOURCES, stand_in_members(stand_in))
    assert found["faults"] == []
    assert len(found["looked at"]) >= (30 if version == RTX else 20)
    assert "IExecutionContext.execute_async_v3" in found["looked at"]
    assert ("IRuntimeCache.serialize" in found["looked at"]) == (version == RTX)


@pytest.mark.parametrize(
    ("right", "wrong", "fault"),
    [
        ("execute_async_v3(", "execute_async_v4(", "IExecutionContext.execute_async_v4 does not exist"),
        ("set_tensor_address(name, buffer.address)", "set_tensor_address(buffer.address)", "set_tensor_address takes"),
        ("TensorIOMode.INPUT", "TensorIOMode.IN", "TensorIOMode.IN does not exist"),
        ("create_execution_context(settings)", "create_execution_context(settings, 1)", "not 2 arguments"),
    ],
)
@pytest.mark.parametrize("version", [VERSIONS[0], RTX])
def test_a_planted_fault_is_noticed(
    tensorrt_stubs: Path, tmp_path: Path, version: str, right: str, wrong: str, fault: str
) -> None:
    source = SOURCES[1].read_text()
    assert right in source
    changed = tmp_path / "changed.py"
    changed.write_text(source.replace(right, wrong))
    faults = outcome(tensorrt_stubs, version, [changed], {})["faults"]
    assert len(faults) == 1
    assert fault in faults[0]


def test_the_stand_in_is_held_against_them_too(tensorrt_stubs: Path) -> None:
    found = outcome(tensorrt_stubs, VERSIONS[1], [], {"IExecutionContext": ["execute_async_v3", "run_somehow"]})
    assert found["faults"] == ["IExecutionContext.run_somehow does not exist"]


def test_item_sizes_are_those_of_the_bindings() -> None:
    sizes: dict[str, int] = tensorrt_engine._ITEM_BYTES  # pyright: ignore[reportPrivateUsage] # its one consumer
    assert {name: getattr(trt.DataType, name).itemsize for name in sizes} == sizes


def test_names_of_the_two_engines() -> None:
    """A module named otherwise would never find its plans."""
    assert engine_of(trt) == "tensorrt-rtx"
