"""Compile the native engine: every source once, kernels once for each instruction set, then one shared library.

Needs nothing but a C++17 compiler. `setup.py` builds the installed library with it, `make sanitize` the programs that
sanitizers watch.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SOURCES = FOLDER / "src"
LIBRARY = "libminet.so"

_KERNELS = ("kernels", "slice_kernels")
_ISA_FLAGS = {
    # Processors that do not know prefetchw skip it.
    "avx2": ("-mavx2", "-mfma", "-mprfchw"),
    # GCC 12 takes the undefined registers of its own AVX-512 header for mistakes.
    "avx512": (
        "-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mfma", "-mprfchw",
        "-Wno-maybe-uninitialized", "-Wno-uninitialized",
    ),
}  # fmt: skip
_FLAGS = (
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-pthread",
    "-Wall",
    "-Wextra",
    # The same bits on every instruction set: only multiplications and additions that say so are fused.
    "-ffp-contract=off",
    "-fno-math-errno",
)
_SANITIZERS = {
    "none": (),
    # Optimising instrumented code takes minutes and gains nothing.
    "address": ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-fno-omit-frame-pointer"),
    "thread": ("-O1", "-fsanitize=thread", "-g"),
}


class BuildError(Exception):
    """The engine cannot be compiled here; the message says why."""


def compiler() -> str:
    """The C++ compiler: $CXX, or the first of c++, g++ and clang++.

    Raises:
        BuildError: there is none, or the processor is not one that the engine knows.
    """
    if platform.machine().lower() not in ("x86_64", "amd64") or not sys.platform.startswith("linux"):
        raise BuildError(f"the engine is for Linux on x86-64, this is {sys.platform} on {platform.machine()}")
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    for name in names:
        if path := shutil.which(name):
            return path
    raise BuildError(f"no C++ compiler found (tried {', '.join(names)})")


def build_library(output: Path) -> None:
    """Compile the shared library.

    Args:
        output: file to write.

    Raises:
        BuildError: it cannot be compiled; the message holds the compiler's own.
    """
    with tempfile.TemporaryDirectory() as folder:
        objects = _compile(Path(folder), "none")
        # Not to depend on the C++ library of the machine that the wheel ends up on.
        link = ("-shared", "-pthread", "-static-libstdc++", "-static-libgcc", "-s")
        exports = f"-Wl,--version-script={SOURCES / 'exports.map'}"
        # Whoever loads the library meanwhile gets the old one or the new one, never a part.
        temporary = output.with_name(f".{output.name}.{os.getpid()}")
        try:
            _run([compiler(), *link, exports, *objects, "-o", temporary])
            temporary.replace(output)
        finally:
            temporary.unlink(missing_ok=True)


def build_program(source: Path, output: Path, sanitizer: str = "none") -> None:
    """Compile a program against the engine, both with the same sanitizer.

    Args:
        source: C++ file that includes minet.h.
        output: executable to write.
        sanitizer: ``none``, ``address`` (and undefined behaviour) or ``thread``.

    Raises:
        BuildError: it cannot be compiled.
    """
    with tempfile.TemporaryDirectory() as folder:
        objects = _compile(Path(folder), sanitizer)
        _run([compiler(), *_FLAGS, *_SANITIZERS[sanitizer], f"-I{FOLDER / 'include'}", source, *objects, "-o", output])


def _compile(folder: Path, sanitizer: str) -> list[Path]:
    # The kernels first: they take longest.
    units = [
        (SOURCES / f"{name}.cpp", f"{name}_{isa}", (*flags, f"-DMINET_{name.upper()}={name}_{isa}"))
        for name in _KERNELS
        for isa, flags in _ISA_FLAGS.items()
    ]
    units += [(path, path.stem, ()) for path in sorted(SOURCES.glob("*.cpp")) if path.stem not in _KERNELS]

    def compiled(unit: tuple[Path, str, tuple[str, ...]]) -> Path:
        source, name, flags = unit
        target = folder / f"{name}.o"
        _run([compiler(), *_FLAGS, *flags, *_SANITIZERS[sanitizer], "-c", source, "-o", target])
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compiled, units))


def _run(command: list[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{' '.join(map(str, command))} failed:\n{done.stderr}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=FOLDER / LIBRARY, help="file to write")
    parser.add_argument("--program", type=Path, help="C++ program to build with the engine, instead of the library")
    parser.add_argument("--sanitizer", choices=_SANITIZERS, default="none", help="for a program")
    arguments = parser.parse_args()
    try:
        if arguments.program:
            build_program(arguments.program, arguments.output, arguments.sanitizer)
        else:
            build_library(arguments.output)
    except BuildError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
