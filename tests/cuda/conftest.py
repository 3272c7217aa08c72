"""Drivers that answer what a test wants, compiled from C."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("stub_driver.c")
ANSWERS = {"INIT": 0, "COUNT_STATUS": 0, "VERSION": 13000, "DEVICES": 1, "MAJOR": 8, "MINOR": 9, "HANG": 0, "CRASH": 0}


@pytest.fixture(scope="session")
def stub_driver(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Compile a `libcuda.so.1` with the given answers; gives its path, in a folder of its own."""

    def compile_driver(**answers: int) -> Path:
        library = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
        macros = [f"-D{name}={value}" for name, value in {**ANSWERS, **answers}.items()]
        subprocess.run(["gcc", "-shared", "-fPIC", "-w", *macros, "-o", library, SOURCE], check=True)
        return library

    return compile_driver
