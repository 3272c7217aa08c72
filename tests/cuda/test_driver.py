"""Every message about a driver, provoked: none, damaged, refusing, old, empty, hanging, crashing; then a good one."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from minet_sdk.cuda.driver import Driver, Gpu, gpu_problem, probe

StubDriver = Callable[..., Path]


def test_a_good_driver_tells_version_and_devices(stub_driver: StubDriver) -> None:
    driver = probe(str(stub_driver(VERSION=12040, DEVICES=2, MAJOR=12, MINOR=0)))
    assert driver == Driver("", (12, 4), (Gpu(0, "Stub A", (12, 0)), Gpu(1, "Stub B", (12, 0))))
    assert gpu_problem(driver, 1, (12, 0)) == ""
    assert str(driver.gpus[1]) == "Stub B (compute capability 12.0)"


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"INIT": 100}, "the NVIDIA driver finds no GPU"),
        ({"DEVICES": 0}, "the NVIDIA driver finds no GPU"),
        ({"INIT": 34}, "is the CUDA toolkit's stub and no driver"),
        ({"INIT": 803}, "does not start: cuInit gives error 803 (CUDA_ERROR_STUBBED: nobody is at home)"),
        ({"INIT": 7777}, "does not start: cuInit gives error 7777"),
        ({"COUNT_STATUS": 3}, "the NVIDIA driver fails with error 3 (CUDA_ERROR_STUBBED"),
        ({"CRASH": 1}, "crashed with exit code -11"),
        ({"VERSION": 12080}, "the NVIDIA driver supports CUDA 12.8 and 13.0 is needed: update the driver"),
        ({"MAJOR": 7, "MINOR": 0}, "GPU 0 is Stub A (compute capability 7.0); 7.5 (Turing) or newer is needed"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(stub_driver: StubDriver, answers: dict[str, int], message: str) -> None:
    problem = gpu_problem(probe(str(stub_driver(**answers))), 0, (13, 0))
    assert message in problem
    assert "\n" not in problem


def test_a_driver_that_hangs_costs_the_timeout(stub_driver: StubDriver) -> None:
    library = str(stub_driver(HANG=30))
    started = time.perf_counter()
    driver = probe(library, timeout_seconds=0.5)
    assert time.perf_counter() - started < 5
    assert driver.reason == f"the NVIDIA driver ({library}) did not answer within 0.5 s: check `nvidia-smi`"


def test_no_driver_and_a_damaged_one(tmp_path: Path) -> None:
    assert probe("libcuda-of-nobody.so.1").reason == "no NVIDIA driver: libcuda-of-nobody.so.1 is not found"
    damaged = tmp_path / "libcuda.so.1"
    damaged.write_bytes(b"no ELF file at all")
    assert probe(str(damaged)).reason.startswith(f"the NVIDIA driver cannot be loaded: {damaged}")


def test_a_device_that_is_not_there(stub_driver: StubDriver) -> None:
    driver = probe(str(stub_driver()))
    assert gpu_problem(driver, 3) == "device 3 is asked for and there is 1 GPU"


def test_a_hidden_gpu_is_explained(stub_driver: StubDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert probe(str(stub_driver(INIT=100))).reason.endswith("finds no GPU (CUDA_VISIBLE_DEVICES is '')")


def test_another_program_with_python_inside_is_not_started(
    stub_driver: StubDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/usr/bin/scanner-console")
    assert probe(str(stub_driver(VERSION=13020))).version == (13, 2)


def test_the_probe_leaves_the_driver_of_its_caller_alone(stub_driver: StubDriver) -> None:
    """cuInit in a process would break every fork of it; the crashing driver shows that it runs elsewhere."""
    assert "crashed" in probe(str(stub_driver(CRASH=1))).reason


INFO = [sys.executable, "-m", "minet_sdk.cli", "info", "--json"]


def info(library: Path | None) -> dict[str, str]:
    """Reasons by backend of a real `minet-sdk info` over a driver."""
    environment = {k: v for k, v in os.environ.items() if k not in ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")}
    if library is not None:
        environment["LD_LIBRARY_PATH"] = str(library.parent)
    done = subprocess.run(INFO, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    return {name: found["reason"] for name, found in json.loads(done.stdout)["backends"].items()}


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({}, ""),
        ({"VERSION": 12080}, "the NVIDIA driver supports CUDA 12.8 and 13.0 is needed: update the driver"),
        ({"INIT": 100}, "the NVIDIA driver finds no GPU"),
    ],
)
def test_info_passes_it_on(stub_driver: StubDriver, answers: dict[str, int], reason: str) -> None:
    reasons = info(stub_driver(**answers))
    assert reasons["tensorrt-rtx"] == reason
    assert "package tensorrt is not installed: pip install 'minet-sdk[tensorrt]'" in reasons["tensorrt"]
    assert "CUDAExecutionProvider" in reasons["onnxruntime-cuda"]
    assert reasons["onnxruntime"] == ""
