"""The wheel, installed into a bare environment as a new user would, runs the demonstration without torch."""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("minet_sdk", "export", "kernels", "training")
FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "THIRD_PARTY_NOTICES.md")

HELP = """
import sys
from typer.testing import CliRunner
from minet_sdk.cli import app
for command in sys.argv[1:]:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0, result.output
    assert command in result.output
"""


def run(*command: object, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONWARNINGS", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pip(binaries: Path, *arguments: object) -> str:
    """The pip of the tests' own environment, at work in another one."""
    return run(sys.executable, "-m", "pip", "--python", binaries / "python", *arguments, cwd=binaries)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the working tree stays as it is."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    # Isolated is how `make test` installs the working tree.
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", out, source, cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel, one engine and the picture's package."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / "venv", symlinks=True)
    binaries = folder / "venv" / "bin"
    pip(binaries, "install", "-q", "--no-compile", "-c", ROOT / "constraints.txt", f"{wheel}[demo]")
    return binaries


def test_wheel_holds_models_study_and_notices(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for name in (
        "minet_sdk/py.typed",
        "minet_sdk/models/minet-x2/manifest.json",
        "minet_sdk/models/minet-x4/weights.bin",
        "minet_sdk/study/NOTICE.txt",
        "minet_sdk/training/model.py",
        "minet_sdk/kernels/compiled/minet_sm80.ptx",
        "minet_sdk/kernels/native/libminet.so",
        "minet_sdk/kernels/native/include/minet.h",
    ):
        assert name in names
    assert sum("minet_sdk/study/t2/" in name for name in names) == len(list((ROOT / "minet_sdk/study/t2").iterdir()))
    assert any(name.endswith("licenses/THIRD_PARTY_NOTICES.md") for name in names)


def test_bare_environment_has_no_training_packages(bare: Path) -> None:
    listed = pip(bare, "list", "--format=freeze")
    assert "minet-sdk" in listed
    for absent in ("torch", "onnx", "SimpleITK", "nibabel", "scipy"):
        assert f"\n{absent}==" not in listed


def test_help_version_and_runtime_work_there(bare: Path, tmp_path: Path) -> None:
    assert "Research use only" in run(bare / "minet-sdk", "--help", cwd=tmp_path)
    commands = ("demo", "run", "models", "info", "verify", "export", "train", "evaluate", "bench")
    run(bare / "python", "-c", HELP, *commands, cwd=tmp_path)
    code = "from minet_sdk import Runtime; print(Runtime('minet-x2').info.backend)"
    assert run(bare / "python", "-c", code, cwd=tmp_path).strip() == "native"
    names = [model["name"] for model in json.loads(run(bare / "minet-sdk", "models", "--json", cwd=tmp_path))]
    assert names == ["minet-fast-x2", "minet-fast-x4", "minet-x2", "minet-x4"]
    engines = run(bare / "minet-sdk", "info", cwd=tmp_path)
    assert "native (cpu): available" in engines
    assert "onnxruntime (cpu): available" in engines
    assert "files match their SHA-256" in run(bare / "minet-sdk", "verify", "minet-x4", cwd=tmp_path)


@pytest.mark.parametrize("command", ["export", "train . -o run"])
def test_what_is_not_installed_is_named_with_its_remedy(bare: Path, tmp_path: Path, command: str) -> None:
    done = subprocess.run(
        [bare / "minet-sdk", *command.split()], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "pip install 'minet-sdk[" in done.stderr
    assert done.stderr.count("\n") == 1


def test_demo_beats_interpolation_on_a_pair_it_never_saw(bare: Path, tmp_path: Path) -> None:
    report = json.loads(run(bare / "minet-sdk", "demo", "-o", "out", "--json", cwd=tmp_path))
    gain = {
        scale: {
            method: values["measures"]["MINet"]["psnr"] - values["measures"][method]["psnr"]
            for method in ("bicubic", "zero-filled")
        }
        for scale, values in report["scales"].items()
    }
    assert gain["x4"]["zero-filled"] >= 2
    assert gain["x4"]["bicubic"] >= 3
    assert gain["x2"]["zero-filled"] >= 0
    assert gain["x2"]["bicubic"] >= 2
    assert all(values["fallbacks"] == 0 for values in report["scales"].values())
    for scale in ("x2", "x4"):
        assert len(list((tmp_path / "out" / scale / "restored").glob("*.dcm"))) == 20
        assert (tmp_path / "out" / f"comparison_{scale}.png").stat().st_size > 50_000
