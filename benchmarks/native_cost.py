"""What the native engine's hot kernels cost in instructions, allocations and copies, against the committed record.

    python benchmarks/native_cost.py [--record]

No timed test: callgrind counts the instructions of small images (AVX2, since valgrind knows no AVX-512), a driver that
takes the place of malloc and memcpy counts allocations and copies, and objdump what spills from AVX-512 registers.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minet_sdk.atomic import replacing
from minet_sdk.backends.native_library import library_path
from minet_sdk.bundle import NATIVE_PLAN
from minet_sdk.export.native_program import PANEL, Activation, Code, Kind, Operation, Program, Tensor, Weight
from minet_sdk.export.weights import WEIGHTS

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "kernels" / "native" / "cost.json"
DRIVER = Path(__file__).with_suffix(".cpp")
TOLERANCE = 0.02
"""By which a count may rise: libraries of the C language that differ a little take that much."""

CHANNELS = 32
SIZE = (20, 27)
"""Rows and columns of the images: two strips of tiles, whole ones and such as reach beyond the edge."""


class MissingToolError(Exception):
    """A tool is missing; the message says which."""


class Case(NamedTuple):
    """One small plan."""

    program: Program
    weights: bytes


@dataclass
class Draft:
    """A program in the making; its weights are all alike, since values change no count."""

    weights: int = 0
    operations: list[Operation] = field(default_factory=list[Operation])

    def place(self, count: int) -> int:
        """Where so many weights begin, bytes."""
        start = self.weights
        self.weights += 4 * count
        return start

    def convolution(self, inputs: list[Tensor], outputs: int = CHANNELS, kernel: int = 3, **fields: Any) -> Tensor:
        """A convolution with bias."""
        channels, shuffle = sum(tensor.channels for tensor in inputs), fields.get("shuffle", 1)
        panels = all(count % PANEL == 0 for count in (outputs, channels))
        code = {1: Code.CONVOLUTION1, 3: Code.CONVOLUTION3}.get(kernel) if panels else None
        fields = {"before": kernel // 2, "kernel": kernel, "outputs": outputs, **fields}
        weight = Weight(self.place(outputs * channels * kernel**2), channels)
        output = Tensor(Kind.IMAGE, outputs // shuffle**2, inputs[0].multiple * shuffle)
        code = Code.DIRECT if code is None else code
        return self.add(Operation(code, inputs, output, weight=weight, bias=self.place(outputs), **fields))

    def add(self, operation: Operation) -> Tensor:
        """Any other operation."""
        self.operations.append(operation)
        return operation.output

    def case(self, target: Tensor, restored: Tensor, reference: Tensor | None = None, scale: int = 1) -> Case:
        """The whole."""
        weights = np.full(self.weights // 4, 0.01, "<f4").tobytes()
        return Case(Program(scale, target, reference, restored, self.operations), weights)


def _image() -> Tensor:
    return Tensor(Kind.IMAGE, CHANNELS)


def _plain() -> Case:
    draft, target = Draft(), _image()
    return draft.case(target, draft.convolution([target], activation=Activation.RELU))


def _pooled() -> Case:
    """A second convolution of a block, its pooled squeeze, and the next block's first one of the scaled sum."""
    draft, target, pooled, squeezed = Draft(), _image(), Tensor(Kind.VECTOR, CHANNELS), Tensor(Kind.VECTOR, 2)
    block = draft.convolution([target], pooled=pooled)
    factors, total = Tensor(Kind.VECTOR, CHANNELS), _image()
    for source, result, activation in (
        (pooled, squeezed, Activation.RELU),
        (squeezed, factors, Activation.SIGMOID),
    ):
        count = result.channels * source.channels
        weight, bias = Weight(draft.place(count), source.channels), draft.place(result.channels)
        fields: dict[str, Any] = {"outputs": result.channels, "weight": weight, "bias": bias}
        draft.add(Operation(Code.DENSE, [source], result, activation=activation, **fields))
    scaled = draft.convolution([block], scale=factors, added=target, sum=total)
    return draft.case(target, draft.convolution([scaled], residuals=[total]))


def _fusion() -> Case:
    draft, target = Draft(), _image()
    return draft.case(target, draft.convolution([target, target], kernel=1, residuals=[target]))


def _attention() -> Case:
    draft, target = Draft(), _image()
    restored = draft.convolution([target], activation=Activation.SIGMOID, gate=target, residuals=[target, target])
    return draft.case(target, restored)


def _integration() -> Case:
    """Two of four stages known from the reference."""
    draft, target, reference = Draft(), _image(), _image()
    guides = [draft.convolution([reference], kernel=1) for _ in range(2)]
    known = draft.add(Operation(Code.GRAM, guides, Tensor(Kind.MATRIX, 2)))
    stages = [*guides, *(draft.convolution([target], kernel=1) for _ in range(2))]
    gram = draft.add(Operation(Code.GRAM, stages, Tensor(Kind.MATRIX, 4), known=known))
    matrix = draft.add(Operation(Code.AFFINITY, [gram], Tensor(Kind.MATRIX, 4), mode="cosine"))
    return draft.case(target, draft.convolution(stages, mixing=matrix), reference)


def _ends() -> Case:
    """Head, upsampling, tail and the interpolation that is added; the driver conditions such slices, too."""
    draft, target = Draft(), Tensor(Kind.IMAGE, 1)
    fine = draft.convolution([draft.convolution([target])], 4 * CHANNELS, shuffle=2)
    skip = draft.convolution([target], 4, 16, before=7, repeat_edge=True, shuffle=2)
    return draft.case(target, draft.convolution([fine], 1, residuals=[skip]), scale=2)


CASES = {
    "3x3 convolution": _plain,
    "channel attention": _pooled,
    "1x1 fusion": _fusion,
    "channel-spatial attention": _attention,
    "Gram matrix and mixed reduction": _integration,
    "head, upsampling, tail, interpolation, conditioning": _ends,
}


def compilers(path: Path) -> list[str]:
    """What a library was compiled with, as it says itself: counts of another compiler cannot be compared."""
    return sorted({found.decode() for found in re.findall(rb"(?:GCC: |clang version )[ -~]+", path.read_bytes())})


def measure(path: Path | None = None, cases: dict[str, Case] | None = None) -> dict[str, Any]:
    """Count everything.

    Args:
        path: library; None for the installed one.
        cases: plans by name; None for those of the record.

    Raises:
        MissingToolError: a tool is missing.
    """
    path = library_path() if path is None else path
    cases = {name: make() for name, make in CASES.items()} if cases is None else cases
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        driver, arguments = _driver(path, folder / "driver"), [str(item) for item in _plans(cases, folder)]
        lines = _output([driver, *arguments]).splitlines()
        counts: list[dict[str, int]] = [
            dict(zip(("allocations", "allocated", "copied"), map(int, line.split()), strict=True)) for line in lines
        ]
        out = folder / "callgrind"
        options = ["--tool=callgrind", f"--callgrind-out-file={out}", "--instr-atstart=no"]
        _output([_tool("valgrind"), *options, driver, *arguments])
        for index, count in enumerate(counts, start=1):
            (total,) = re.findall(r"^totals: (\d+)$", Path(f"{out}.{index}").read_text(), re.MULTILINE)
            count["instructions"] = int(total)
    return {
        "compilers": compilers(path),
        "cases": dict(zip(cases, counts, strict=True)),
        "avx512": _avx512(path),
    }


def _driver(path: Path, output: Path) -> Path:
    include = ROOT / "kernels" / "native" / "include"
    # What replaces memmove must not become a call of memmove.
    flags = ["-std=c++17", "-O1", "-fno-builtin", "-fno-tree-loop-distribute-patterns", f"-I{include}"]
    _tool("valgrind")
    _output([_tool("g++"), *flags, DRIVER, path, f"-Wl,-rpath,{path.parent}", "-o", output])
    return output


def _plans(cases: dict[str, Case], folder: Path) -> list[Any]:
    arguments: list[Any] = []
    for index, case in enumerate(cases.values()):
        own = folder / str(index)
        own.mkdir()
        (own / NATIVE_PLAN).write_bytes(case.program.to_bytes(case.weights))
        (own / WEIGHTS).write_bytes(case.weights)
        arguments += [own, *SIZE]
    return arguments


def _avx512(path: Path) -> dict[str, int]:
    """Instructions on 512 bits, and those among them that move a register to or from the stack: spilled sums."""
    lines = [
        line for line in _output([_tool("objdump"), "-d", "--no-show-raw-insn", path]).splitlines() if "%zmm" in line
    ]
    spills = [line for line in lines if re.search(r"vmov\w+\s.*\(%r[sb]p", line)]
    return {"instructions": len(lines), "stack moves": len(spills)}


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise MissingToolError(f"{name} is missing: tools/system_packages.sh installs it")
    return found


def _output(command: list[Any]) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stderr}")
    return done.stdout


def risen(record: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What costs more than the record says, in words; instructions only where the compiler is the same."""
    same = record["compilers"] == now["compilers"]
    found = [
        (f"{case}, {name}", expected, now["cases"][case][name])
        for case, counts in record["cases"].items()
        for name, expected in counts.items()
        if same or name != "instructions"
    ]
    if same:
        found += [(f"AVX-512, {name}", expected, now["avx512"][name]) for name, expected in record["avx512"].items()]
    return [f"{name}: {count}, recorded {was}" for name, was, count in found if count > was * (1 + TOLERANCE)]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help="write the record anew")
    recording = parser.parse_args().record
    now = measure()
    if recording:
        with replacing(RECORD) as temporary:
            temporary.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
        return
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    if record["compilers"] != now["compilers"]:
        print(
            f"instructions are not compared: recorded {record['compilers']}, here {now['compilers']}", file=sys.stderr
        )
    print(json.dumps(now, indent=1))
    if found := risen(record, now):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
