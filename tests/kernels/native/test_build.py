"""Where the engine cannot be compiled, the build says why and installs go on."""

import importlib.util
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "kernels" / "native" / "build.py"


@pytest.fixture(scope="module")
def build() -> ModuleType:
    specification = importlib.util.spec_from_file_location("native_build", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_missing_compiler_is_named(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(build.BuildError, match=r"no C\+\+ compiler found \(tried no-such-compiler\)"):
        build.compiler()


def test_other_processors_are_named(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(build.BuildError, match=f"for Linux on x86-64, this is {sys.platform} on aarch64"):
        build.compiler()


def test_failed_compilation_is_shown(build: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(build.BuildError, match="failed"):
        build.build_library(tmp_path / "libminet.so")
    assert not (tmp_path / "libminet.so").exists()


def test_header_is_plain_c(tmp_path: Path) -> None:
    """Scanner software in C includes it under strict rules."""
    source = tmp_path / "include.c"
    source.write_text("#include <minet.h>\nint main(void) { return (int)minet_abi() - MINET_ABI; }\n")
    if shutil.which("gcc") is None:
        pytest.skip("no compiler")
    command = ["gcc", "-std=c99", "-pedantic-errors", "-Wall", "-Wextra", "-Werror", "-c", source, "-o", tmp_path / "o"]
    subprocess.run([*command, f"-I{SCRIPT.parent / 'include'}"], check=True)
