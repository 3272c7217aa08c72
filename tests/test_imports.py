"""What importing costs, what is packaged, and which way the packages depend on each other."""

import ast
import json
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
UPPER = ("kernels", "training", "export")
FOLDERS = {"minet_sdk": ROOT / "minet_sdk", **{f"minet_sdk.{name}": ROOT / name for name in UPPER}}
HEAVY = ("torch", "onnxruntime", "tensorrt", "onnx", "lightning", "SimpleITK", "nibabel", "matplotlib", "scipy")

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
    on_disk = {"minet_sdk", *(f"minet_sdk.{name}" for name in UPPER)}
    on_disk |= {".".join(init.parent.relative_to(ROOT).parts) for init in (ROOT / "minet_sdk").rglob("*/__init__.py")}
    assert set(setuptools["packages"]) == on_disk
    assert len(setuptools["packages"]) == len(on_disk)
    assert setuptools["package-dir"] == {"minet_sdk": "minet_sdk", **{f"minet_sdk.{name}": name for name in UPPER}}


@pytest.mark.parametrize("folder", FOLDERS.values(), ids=FOLDERS.keys())
def test_folders_with_modules_are_packages(folder: Path) -> None:
    """Also keeps the upper three flat, as the mapping in pyproject needs them."""
    holders = {module.parent for module in folder.rglob("*.py")}
    assert all((holder / "__init__.py").is_file() for holder in holders)
    if folder.parent == ROOT and folder.name in UPPER:
        assert holders == {folder}


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
    """Imports of a file that point up: minet_sdk <- kernels <- training <- export."""
    found = imports(source)
    if path.parts[0] == "minet_sdk":
        names = found.eager if path.parts[1] == "cli" else found.eager + found.lazy
        above = UPPER
    else:
        names, above = found.eager + found.lazy, UPPER[UPPER.index(path.parts[0]) + 1 :]
    return [name for name in names if any(name.startswith(f"minet_sdk.{layer}") for layer in above)]


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
