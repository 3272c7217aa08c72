"""Compiles the CUDA sources to the PTX that ships, the same bytes on every machine, and checks what is committed.

`python -m minet_sdk.kernels.build` writes `compiled/`; with ``--check`` it rebuilds in a temporary folder, compares,
and assembles the committed files for every architecture.
"""

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minet_sdk.errors import BackendError, MinetError
from minet_sdk.kernels.binaries import FOLDER, MANIFEST

COMPILER = "13.0.88"
"""The one version whose output is committed: another would write other PTX."""

SOURCES = Path(__file__).parent / "csrc"


@dataclass(frozen=True)
class TargetBuild:
    """A PTX file: what it is compiled for and what it must assemble for."""

    virtual: str
    architectures: tuple[str, ...]
    instruction_sets: tuple[str, ...]
    """PTX versions to try, oldest first. Drivers load what is not newer than themselves, and nvcc labels its output
    with its own version whether the code needs it or not."""


TARGETS = {
    "sm75": TargetBuild("compute_75", ("sm_75",), ("6.3", "6.4", "6.5", "7.0")),
    "sm80": TargetBuild("compute_80", ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"), ("7.0", "7.1", "7.4")),
}


@dataclass(frozen=True)
class Resources:
    """What the assembler gives an entry on one architecture."""

    registers: int
    spill_bytes: int
    shared_bytes: int


class Toolchain:
    """nvcc and ptxas of the pinned version."""

    def __init__(self) -> None:
        self.nvcc = _find("nvcc")
        self.ptxas = _find("ptxas")

    def compile(self, virtual: str, sources: Path = SOURCES) -> str:
        """PTX of all kernels, without anything that differs between machines.

        Args:
            virtual: architecture to compile for, such as ``compute_80``.
            sources: folder of ``minet.cu``.

        Raises:
            BackendError: the compiler refuses.
        """
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "minet.ptx"
            _run([self.nvcc, "--ptx", f"--gpu-architecture={virtual}", "-O3", "minet.cu", "-o", str(output)], sources)
            return _tidied(output.read_text(encoding="ascii"))

    def assemble(self, ptx: str, architecture: str) -> dict[str, Resources]:
        """Resources of every entry of a PTX text.

        Args:
            ptx: the text.
            architecture: such as ``sm_90``.

        Raises:
            BackendError: the assembler refuses.
        """
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "minet.ptx"
            source.write_text(ptx, encoding="ascii")
            command = [
                self.ptxas,
                f"--gpu-name={architecture}",
                "--verbose",
                source.name,
                "--output-file",
                "minet.cubin",
            ]
            return _resources(_run(command, Path(folder)))

    def oldest(self, ptx: str, target: TargetBuild) -> str:
        """The PTX relabelled with the oldest instruction set that the assembler accepts it as.

        Raises:
            BackendError: no instruction set serves.
        """
        for version in target.instruction_sets:
            relabelled = re.sub(r"^\.version .*$", f".version {version}", ptx, count=1, flags=re.MULTILINE)
            try:
                self.assemble(relabelled, target.architectures[0])
            except BackendError:
                continue
            return relabelled
        raise BackendError(f"PTX for {target.virtual} needs more than instruction set {target.instruction_sets[-1]}")


def build(folder: Path = FOLDER, sources: Path = SOURCES) -> None:
    """Write both PTX files and their manifest.

    Args:
        folder: where to.
        sources: folder of ``minet.cu``.

    Raises:
        BackendError: the toolchain is missing, of another version, or refuses.
    """
    tools = Toolchain()
    folder.mkdir(parents=True, exist_ok=True)
    targets: dict[str, Any] = {}
    for name, target in TARGETS.items():
        ptx = tools.oldest(tools.compile(target.virtual, sources), target)
        content = ptx.encode("ascii")
        (folder / f"minet_{name}.ptx").write_bytes(content)
        entries: dict[str, dict[str, Any]] = {}
        for architecture in target.architectures:
            for entry, resources in sorted(tools.assemble(ptx, architecture).items()):
                entries.setdefault(entry, {})[architecture] = {
                    "registers": resources.registers,
                    "spill_bytes": resources.spill_bytes,
                    "shared_bytes": resources.shared_bytes,
                }
        targets[name] = {
            "sha256": hashlib.sha256(content).hexdigest(),
            "instruction_set": _instruction_set(ptx),
            "entries": entries,
        }
    (folder / MANIFEST).write_text(_readable({"nvcc": COMPILER, "targets": targets}), encoding="ascii")


def differences(folder: Path = FOLDER, sources: Path = SOURCES) -> list[str]:
    """What a rebuild of the sources makes different from the files of a folder; empty if they are the same bytes.

    Args:
        folder: the committed files.
        sources: folder of ``minet.cu``.

    Raises:
        BackendError: the toolchain is missing, of another version, or refuses.
    """
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as fresh:
        build(Path(fresh), sources)
        for name in [*(f"minet_{target}.ptx" for target in TARGETS), MANIFEST]:
            expected, path = (Path(fresh) / name).read_bytes(), folder / name
            found = path.read_bytes() if path.exists() else b""
            if found != expected:
                line = first_difference(found, expected)
                failures.append(f"{name} is not what the sources build, from line {line} on: run `make kernels`")
    return failures


def faults(folder: Path = FOLDER) -> list[str]:
    """What is wrong with the files of a folder: bytes that the manifest does not vouch for, spills, too many registers.

    Args:
        folder: the committed files.

    Raises:
        BackendError: the toolchain is missing, of another version, or does not assemble a file.
    """
    tools = Toolchain()
    recorded = json.loads((folder / MANIFEST).read_text(encoding="ascii"))["targets"]
    failures: list[str] = []
    for name, target in TARGETS.items():
        content = (folder / f"minet_{name}.ptx").read_bytes()
        if hashlib.sha256(content).hexdigest() != recorded[name]["sha256"]:
            failures.append(f"minet_{name}.ptx has another SHA-256 than {MANIFEST} says: run `make kernels`")
        for architecture in target.architectures:
            found = tools.assemble(content.decode("ascii"), architecture)
            failures += resource_faults(found, recorded[name]["entries"], architecture)
    return failures


def resource_faults(
    found: dict[str, Resources], recorded: dict[str, dict[str, dict[str, int]]], architecture: str
) -> list[str]:
    """Entries that spill, need more registers than recorded, or are in only one of the two.

    Args:
        found: from `Toolchain.assemble`.
        recorded: ``entries`` of a target in the manifest.
        architecture: that ``found`` is of.
    """
    failures = [f"{entry} is recorded but not in the PTX" for entry in sorted(recorded.keys() - found.keys())]
    for entry, resources in sorted(found.items()):
        place = f"{entry} on {architecture}"
        bound = recorded.get(entry, {}).get(architecture)
        if resources.spill_bytes:
            failures.append(f"{place} spills {resources.spill_bytes} bytes of registers to memory; none may")
        if bound is None:
            failures.append(f"{place} has no recorded bound: run `make kernels`")
        elif resources.registers > bound["registers"]:
            failures.append(f"{place} uses {resources.registers} registers, recorded are {bound['registers']}")
    return failures


def main(arguments: Sequence[str] | None = None) -> int:
    """Build or check; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m minet_sdk.kernels.build", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--check", action="store_true", help="compare with the committed files instead of writing them")
    try:
        if not parser.parse_args(arguments).check:
            build()
            return 0
        failures = differences() + faults()
    except MinetError as error:
        failures = [str(error)]
    for failure in failures:
        print(f"kernels: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _find(tool: str) -> str:
    """The tool of the pinned version, from the environment's NVIDIA packages or else from PATH."""
    packaged = Path(sysconfig.get_paths()["purelib"]) / "nvidia" / "cu13" / "bin" / tool
    candidates = [str(packaged)] if packaged.exists() else []
    on_path = shutil.which(tool)
    candidates += [on_path] if on_path else []
    for candidate in candidates:
        if f"V{COMPILER}" in _run([candidate, "--version"], Path.cwd()):
            return candidate
    found = f"found {', '.join(candidates)} of another version" if candidates else "found none"
    raise BackendError(f"building kernels needs {tool} {COMPILER}; {found}: pip install nvidia-cuda-nvcc=={COMPILER}")


def _run(command: list[str], folder: Path) -> str:
    """Standard output and error of a command.

    Raises:
        BackendError: it cannot be started or fails, with the first error that it names.
    """
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BackendError(f"{command[0]} cannot be started: {error.strerror}") from error
    lines = (done.stdout + done.stderr).strip().splitlines()
    if done.returncode:
        named = [line for line in lines if "error" in line or "fatal" in line] or lines or ["no message"]
        raise BackendError(f"{Path(command[0]).name} failed with exit code {done.returncode}: {named[0].strip()}")
    return "\n".join(lines)


def _tidied(ptx: str) -> str:
    """PTX without comments, blank lines and indentation: a third of the bytes, and no trace of the machine."""
    lines = (re.sub(r"//.*", "", line).strip() for line in ptx.splitlines())
    return "\n".join([f"// MINet kernels, built by nvcc {COMPILER} from kernels/csrc", *filter(None, lines), ""])


def _instruction_set(ptx: str) -> str:
    found = re.search(r"^\.version (\S+)$", ptx, re.MULTILINE)
    return found[1] if found else "unknown"


_REPORT = re.compile(
    r"Compiling entry function '(?P<entry>\w+)' for '(?P<architecture>\w+)'"
    r".*?(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads"
    r".*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def _resources(report: str) -> dict[str, Resources]:
    """Entries of what `ptxas --verbose` says."""
    resources: dict[str, Resources] = {}
    for found in _REPORT.finditer(report):
        shared = re.search(r"(\d+) bytes smem", found["rest"])
        resources[found["entry"]] = Resources(
            registers=int(found["registers"]),
            spill_bytes=int(found["stores"]) + int(found["loads"]),
            shared_bytes=int(shared[1]) if shared else 0,
        )
    return resources


def _readable(manifest: dict[str, Any]) -> str:
    """JSON with one line per entry and architecture."""
    text = json.dumps(manifest, indent=1)
    return re.sub(r"\{\s*(\"registers\"[^}]*?)\s*\}", lambda found: "{" + " ".join(found[1].split()) + "}", text) + "\n"


def first_difference(found: bytes, expected: bytes) -> int:
    """Number of the first line that differs, from 1."""
    pairs = zip(found.splitlines(), expected.splitlines(), strict=False)
    same = next((index for index, (left, right) in enumerate(pairs) if left != right), None)
    return (min(len(found.splitlines()), len(expected.splitlines())) if same is None else same) + 1


if __name__ == "__main__":
    sys.exit(main())
