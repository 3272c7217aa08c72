"""Make `minet_sdk` importable from this checkout, installed or not, and unpack a folder of wheels without pip.

The folders kernels, training and export stand beside minet_sdk and belong inside it. An installation says so to Python;
here the package's search path says it, and nothing else of the checkout becomes importable.
"""

import importlib.util
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_PACKAGE = ROOT / "minet_sdk"


def make_importable() -> None:
    """Import `minet_sdk` from this checkout, whatever version of it is installed.

    Raises:
        RuntimeError: another copy of it was imported before.
    """
    loaded = sys.modules.get("minet_sdk")
    if loaded is not None:
        if Path(str(loaded.__file__)).resolve().parent != _PACKAGE:
            raise RuntimeError(f"minet_sdk was already imported from {loaded.__file__}, not from {_PACKAGE}")
        if str(ROOT) not in loaded.__path__:
            loaded.__path__.append(str(ROOT))
        return
    spec = importlib.util.spec_from_file_location(
        "minet_sdk", _PACKAGE / "__init__.py", submodule_search_locations=[str(_PACKAGE), str(ROOT)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["minet_sdk"] = module
    spec.loader.exec_module(module)


def unpack_wheels(folder: Path, into: Path) -> list[str]:
    """Unpack every wheel of a folder that this Python can use; returns the names of those that it cannot.

    Args:
        folder: holds .whl files; nothing is downloaded, and what they depend on must lie there too.
        into: to be put on PYTHONPATH.
    """
    unusable: list[str] = []
    into.mkdir(parents=True, exist_ok=True)
    for wheel in sorted(folder.glob("*.whl")):
        if not _fits(wheel):
            unusable.append(wheel.name)
            continue
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                _unpack(archive, member, into)
    return unusable


def _fits(wheel: Path) -> bool:
    """Whether the Python tag of a wheel's name covers this interpreter."""
    python, abi = wheel.stem.split("-")[-3:-1]
    major, minor = sys.version_info[:2]
    this, tags = f"cp{major}{minor}", python.split(".")
    return this in tags or f"py{major}" in tags or (abi == "abi3" and any(tag.startswith("cp3") for tag in tags))


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, into: Path) -> None:
    """One file; what a wheel keeps apart as purelib or platlib belongs with the rest, scripts are not needed."""
    first, _, rest = member.filename.partition("/")
    if first.endswith(".data"):
        kind, _, rest = rest.partition("/")
        if kind not in ("purelib", "platlib") or not rest:
            return
        member.filename = rest
    archive.extract(member, into)
