"""One instruction at a time, wrapped into a kernel; and small kernels that nvcc has compiled."""

import struct
from collections.abc import Callable
from fractions import Fraction
from math import inf, isinf, isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from minet_sdk.kernels.ptx import In, Module, Out, launch, parse

Array = npt.NDArray[Any]
Execute = Callable[..., Array]

HEADER = ".version 7.0\n.target sm_80\n.address_size 64\n"
SHAPES = {"f16": (11, -14, 15), "bf16": (8, -126, 127), "f32": (24, -126, 127), "f64": (53, -1022, 1023)}
"""Bits of the significand, smallest and largest exponent of each format."""
FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="session")
def compiled() -> Module:
    """The kernels of ``fixtures/kernels.cu``."""
    return parse((FIXTURES / "kernels.ptx").read_text())


def _wrapped(name: str, result: np.dtype[Any], sources: list[Array | str]) -> str:
    """A kernel that loads one element of each array, executes ``name`` and stores its result."""
    body: list[str] = []
    operands: list[str] = []
    parameters = [".param .u64 to", ".param .u32 count"]
    for i, source in enumerate(sources):
        if isinstance(source, str):
            operands.append(source)
            continue
        size = source.dtype.itemsize
        parameters.append(f".param .u64 from{i}")
        body += [
            f".reg .b{max(8 * size, 16)} %x{i};",
            f"ld.param.u64 %rd1, [from{i}];",
            f"mad.wide.u32 %rd2, %r1, {size}, %rd1;",
            f"ld.global.b{8 * size} %x{i}, [%rd2];",
        ]
        operands.append(f"%x{i}")
        if source.dtype == np.bool_:
            body += [f".reg .pred %p{i + 2};", f"setp.ne.u16 %p{i + 2}, %x{i}, 0;"]
            operands[-1] = f"%p{i + 2}"
    bits = 8 * result.itemsize
    if result == np.bool_:
        body += [
            ".reg .pred %d;",
            f"{name} %d, {', '.join(operands)};",
            ".reg .b16 %dd;",
            "selp.b16 %dd, 1, 0, %d;",
        ]
    else:
        body += [f".reg .b{max(bits, 16)} %dd;", f"{name} %dd, {', '.join(operands)};"]
    return f"""{HEADER}.visible .entry wrapped({", ".join(parameters)})
{{
    .reg .pred %p1;
    .reg .b32 %r<3>;
    .reg .b64 %rd<4>;
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %tid.x;
    mad.lo.u32 %r1, %r1, 64, %r2;
    ld.param.u32 %r2, [count];
    setp.ge.u32 %p1, %r1, %r2;
    @%p1 bra DONE;
    {chr(10).join(body)}
    ld.param.u64 %rd1, [to];
    mad.wide.u32 %rd2, %r1, {result.itemsize}, %rd1;
    st.global.b{bits} [%rd2], %dd;
DONE:
    ret;
}}
"""


@pytest.fixture(scope="session")
def execute() -> Execute:
    """``execute("add.s32", "int32", a, b)``: the instruction on every element; a source may be a constant as text."""

    def run(name: str, result: str, *sources: Array | str) -> Array:
        arrays = [np.ascontiguousarray(source) for source in sources if not isinstance(source, str)]
        out = np.empty(arrays[0].shape, result)
        kernel = parse(_wrapped(name, out.dtype, list(sources)))["wrapped"]
        launch(kernel, -(-out.size // 64), 64, (Out(out), out.size, *map(In, arrays)))
        return out

    return run


@pytest.fixture(scope="session")
def kernel_of() -> Callable[..., Any]:
    """``kernel_of(body, ".param .u64 x")``: a kernel with 20 registers of each type."""

    def make(body: str, *parameters: str, before: str = "", directives: str = "") -> Any:
        registers = "\n".join(
            f".reg .{kind} {name}<20>;"
            for kind, name in (("pred", "%p"), ("b16", "%h"), ("b32", "%r"), ("f32", "%f"), ("b64", "%rd"))
        )
        entry = f"{before}\n.visible .entry made({', '.join(parameters)})\n{directives}"
        return parse(f"{HEADER}{entry}\n{{\n{registers}\n{body}\n}}")["made"]

    return make


class Exact:
    """Floating-point formats in exact arithmetic: the reference for every rounding, slow and without NumPy's help."""

    @staticmethod
    def rounded(value: Fraction, form: str, mode: str = "rn") -> float:
        """An exact value in a format; a zero is +0."""
        bits, smallest, largest = SHAPES[form]
        if value == 0:
            return 0.0
        size = abs(value)
        exponent = size.numerator.bit_length() - size.denominator.bit_length()
        exponent = max(exponent - (size < Fraction(2) ** exponent), smallest)
        unit = Fraction(2) ** (exponent - bits + 1)
        whole, rest = divmod(size, unit)
        half = unit / 2
        up = {
            "rn": rest > half or (rest == half and whole % 2 == 1),
            "rna": rest >= half,
            "rz": False,
            "rm": rest > 0 and value < 0,
            "rp": rest > 0 and value > 0,
        }[mode]
        result = (whole + up) * unit
        if result >= Fraction(2) ** (largest + 1):
            finite = {"rz": True, "rm": value > 0, "rp": value < 0}.get(mode, False)
            most = (2 - Fraction(2) ** (1 - bits)) * Fraction(2) ** largest
            result_float = float(most) if finite else inf
        else:
            result_float = float(result)
        return -result_float if value < 0 else result_float

    @staticmethod
    def bits_of(value: float, form: str) -> int:
        """Bits of a value that the format holds; every NaN is the same."""
        if isnan(value):
            return -1
        if form == "bf16":
            return struct.unpack("<I", struct.pack("<f", value))[0] >> 16
        code, whole = {"f16": ("<e", "<H"), "f32": ("<f", "<I"), "f64": ("<d", "<Q")}[form]
        return struct.unpack(whole, struct.pack(code, value))[0]

    @staticmethod
    def value_of(bits: int, form: str) -> float:
        """The value of some bits."""
        if form == "bf16":
            return struct.unpack("<f", struct.pack("<I", bits << 16))[0]
        code, whole = {"f16": ("<e", "<H"), "f32": ("<f", "<I"), "f64": ("<d", "<Q")}[form]
        return struct.unpack(code, struct.pack(whole, bits))[0]

    @staticmethod
    def multiply_add(a: float, b: float, c: float, form: str, mode: str = "rn") -> float:
        """a * b + c with one rounding."""
        if any(isnan(x) or isinf(x) for x in (a, b, c)):
            try:
                return a * b + c if not (isinf(a) and b == 0) and not (isinf(b) and a == 0) else nan
            except OverflowError:
                return nan
        exact = Fraction(a) * Fraction(b) + Fraction(c)
        if exact == 0:
            # The sign of a zero: that of the two terms if they agree, else minus only when rounding down.
            product = a * b if a * b else (-0.0 if (Exact.bits_of(a, "f64") ^ Exact.bits_of(b, "f64")) >> 63 else 0.0)
            if product == 0 and c == 0 and Exact.bits_of(product, "f64") == Exact.bits_of(c, "f64"):
                return c
            return -0.0 if mode == "rm" else 0.0
        result = Exact.rounded(exact, form, mode)
        return -0.0 if result == 0 and exact < 0 else result


@pytest.fixture(scope="session")
def exact() -> type[Exact]:
    """Reference arithmetic."""
    return Exact
