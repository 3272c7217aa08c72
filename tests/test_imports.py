"""What importing costs, what is packaged, and which way the packages depend on each other."""

import ast
import json
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
UPPER = ("kernels", "training", "export")
FOLDERS = {"minet_sdk": ROOT / "minet_sdk", **{f"minet_sdk.{name}": ROOT / name for name in UPPER}}
HEAVY = (
    "torch",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "tensorrt_rtx",
    "cuda",
    "pycuda",
    "onnx",
    "lightning",
    "SimpleITK",
    "nibabel",
    "matplotlib",
    "scipy",
)

IMPORT = """
import sys, time
start = time.perf_counter()
import minet_sdk
seconds = time.perf_counter() - start
import json
print(json.dumps({"seconds": seconds, "modules": sorted(sys.modules)}))
"""


def test_import_is_fast_and_brings_no_engine() -> None:
    runs = [
        json.loads(subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True).stdout)
        for _ in range(5)
    ]
    assert statistics.median(run["seconds"] for run in runs) < 0.3
    assert not [name for name in runs[0]["modules"] if name.split(".")[0] in HEAVY]


def test_every_package_on_disk_is_packaged() -> None:
    """A missing entry would only show in a wheel."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    on_disk = {
        ".".join((package, *init.parent.relative_to(folder).parts))
        for package, folder in FOLDERS.items()
        for init in folder.rglob("__init__.py")
    }
    assert set(setuptools["packages"]) == on_disk
    assert len(setuptools["packages"]) == len(on_disk)
    assert setuptools["package-dir"] == {"minet_sdk": "minet_sdk", **{f"minet_sdk.{name}": name for name in UPPER}}


@pytest.mark.parametrize("folder", FOLDERS.values(), ids=FOLDERS.keys())
def test_folders_with_modules_are_packages(folder: Path) -> None:
    holders = {module.parent for module in folder.rglob("*.py")}
    assert all((holder / "__init__.py").is_file() for holder in holders)


class _Imports(ast.NodeVisitor):
    """Modules that a file imports: those at import time, and those inside functions or for type checking only."""

    def __init__(self) -> None:
        self.eager: list[str] = []
        self.lazy: list[str] = []
        self._depth = 0

    def _note(self, names: list[str]) -> None:
        (self.lazy if self._depth else self.eager).extend(names)

    def _inside(self, node: ast.AST) -> None:
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1

    def visit_Import(self, node: ast.Import) -> None:
        self._note([alias.name for alias in node.names])

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.level == 0, "imports are absolute"
        module = node.module or ""
        self._note([module, *(f"{module}.{alias.name}" for alias in node.names)])

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._inside(node)

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) == "TYPE_CHECKING":
            self._inside(node)
        else:
            self.generic_visit(node)


def imports(source: str) -> _Imports:
    visitor = _Imports()
    visitor.visit(ast.parse(source))
    return visitor


def sources(package: str) -> dict[Path, str]:
    return {path.relative_to(ROOT): path.read_text() for path in sorted(FOLDERS[package].rglob("*.py"))}


def forbidden(path: Path, source: str) -> list[str]:
    """Imports of a file that point up: minet_sdk <- kernels <- training <- export.

    Where they are needed, inside a function: the command line reaches everything, the GPU layer its compiled kernels.
    """
    found = imports(source)
    above = UPPER if path.parts[0] == "minet_sdk" else UPPER[UPPER.index(path.parts[0]) + 1 :]
    lazily: tuple[str, ...] = ()
    if path.parts[:2] == ("minet_sdk", "cli"):
        lazily = UPPER
    elif path.as_posix() == "minet_sdk/cuda/programs.py":
        lazily = ("kernels",)

    def points_at(name: str, layers: Iterable[str]) -> bool:
        return any(name.startswith(f"minet_sdk.{layer}") for layer in layers)

    return [name for name in found.eager if points_at(name, above)] + [
        name for name in found.lazy if points_at(name, above) and not points_at(name, lazily)
    ]


@pytest.mark.parametrize("package", FOLDERS)
def test_dependencies_point_one_way(package: str) -> None:
    files = sources(package)
    assert files
    upwards = {str(path): names for path, source in files.items() if (names := forbidden(path, source))}
    assert not upwards


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("minet_sdk/cli/train.py", "from minet_sdk.training.fit import fit"),
        ("minet_sdk/cli/train.py", "try:\n    import minet_sdk.export.bundle\nexcept ImportError: pass"),
        ("minet_sdk/runtime.py", "def f():\n    from minet_sdk.kernels.reference import gram"),
        ("minet_sdk/cuda/programs.py", "from minet_sdk.kernels import binaries"),
        ("minet_sdk/cuda/programs.py", "def f():\n    from minet_sdk.export import engines"),
        ("kernels/reference.py", "from minet_sdk.training import config"),
        ("kernels/reference.py", "from minet_sdk import training"),
        ("training/model.py", "def f():\n    import minet_sdk.export"),
    ],
)
def test_a_planted_upward_import_is_noticed(path: str, source: str) -> None:
    assert forbidden(Path(path), source)


def test_engines_are_imported_on_use_only() -> None:
    """`minet_sdk` itself needs numpy and pydicom; every other package goes through `require`."""
    for path, source in sources("minet_sdk").items():
        eager = {name.split(".")[0] for name in imports(source).eager}
        assert not eager & set(HEAVY), path
