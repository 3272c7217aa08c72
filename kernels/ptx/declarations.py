"""The declarations of PTX: parameters, variables with their initial values, registers, bounds on the block."""

import re
from collections.abc import Iterator

from minet_sdk.kernels.ptx.errors import PtxSyntaxError
from minet_sdk.kernels.ptx.formats import WIDTHS
from minet_sdk.kernels.ptx.syntax import Parameter, Variable

NAME = r"[A-Za-z_$%][\w$]*"

_PARAMETER = re.compile(
    r"\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)(?:\s+\.ptr(?:\s+\.(?:global|shared|const|local))?(?:\s+\.align\s+\d+)?)?"
    rf"\s+({NAME})\s*(?:\[(\d+)\])?"
)
_VARIABLE = re.compile(
    rf"\s*(?:\.align\s+(\d+)\s+)?\.(\w+)\s+({NAME})\s*((?:\[\s*\d*\s*\])*)\s*(?:=\s*(.*))?", re.DOTALL
)
_REGISTERS = re.compile(rf"({NAME})(?:<(\d+)>)?")
_INTEGER = re.compile(r"-?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|\d+)U?")
_REAL = re.compile(r"0[fF]([0-9a-fA-F]{8})|0[dD]([0-9a-fA-F]{16})")
_ADVICE = ("minnctapersm", "maxnctapersm", "maxnreg", "pragma", "noreturn")
"""Directives of an entry that tell the assembler how to use the hardware, not what to compute."""


def integer(text: str) -> int | None:
    """Value of an integer constant, or None if it is none."""
    if not _INTEGER.fullmatch(text):
        return None
    digits = text.rstrip("U").removeprefix("-")
    value = int(digits, 8) if digits.isdigit() and digits[0] == "0" else int(digits, 0)
    return -value if text[0] == "-" else value


def real(text: str) -> tuple[int, int] | None:
    """Bits and width of a floating-point constant in hexadecimal notation, or None if it is none."""
    found = _REAL.fullmatch(text)
    return (int(found[1] or found[2], 16), 32 if found[1] else 64) if found else None


def parameter(text: str) -> Parameter:
    """``.param .u64 name`` and its like.

    Raises:
        PtxSyntaxError: it is something else.
    """
    found = _PARAMETER.fullmatch(text.strip())
    if found is None or found[2] not in WIDTHS:
        raise PtxSyntaxError(f"cannot read the parameter {' '.join(text.split())!r}")
    size, count = WIDTHS[found[2]] // 8, int(found[4] or 1)
    return Parameter(found[3], found[2], count, size * count, int(found[1] or size))


def registers(text: str) -> Iterator[tuple[str, str]]:
    """Names and types of ``.b32 %r<10>`` and its like, what follows ``.reg``.

    Raises:
        PtxSyntaxError: it is something else.
    """
    kind, _, names = text.strip().partition(" " if " " in text.strip() else "\t")
    kind = kind.strip().removeprefix(".")
    if kind not in WIDTHS or kind.endswith("x2"):
        raise PtxSyntaxError(f"registers of type .{kind} are not supported")
    for name in "".join(names.split()).split(","):
        found = _REGISTERS.fullmatch(name)
        if found is None:
            raise PtxSyntaxError(f"cannot read the register declaration {name!r}")
        for whole in [found[1]] if found[2] is None else [f"{found[1]}{i}" for i in range(int(found[2]))]:
            yield whole, kind


def variable(space: str, text: str) -> Variable:
    """``.align 4 .b8 name[16] = {1, 2}`` and its like, what follows the name of the space.

    Raises:
        PtxSyntaxError: it is something else.
    """
    found = _VARIABLE.fullmatch(text.rstrip())
    if found is None or found[2] not in WIDTHS:
        raise PtxSyntaxError(f"cannot read the declaration {' '.join(text.split())!r}")
    kind = found[2]
    size = WIDTHS[kind] // 8
    count = 1
    for extent in re.findall(r"\[\s*(\d*)\s*\]", found[4]):
        count *= int(extent or 0)
    values = re.sub(r"[{}\s]", "", found[5] or "").split(",")
    content = b"".join(_initial(value, kind) for value in values if value)
    # Constant and global memory starts as zero; shared and local memory starts unknown.
    content = content.ljust(size * count, b"\0") if space in ("const", "global") else content
    if len(content) > size * count:
        raise PtxSyntaxError(f"{found[3]} has {len(content)} initial bytes for {size * count}")
    return Variable(found[3], space, size * count, int(found[1] or size), content)


def _initial(text: str, kind: str) -> bytes:
    bits = WIDTHS[kind]
    whole, hexadecimal = integer(text), real(text)
    if whole is not None and kind[0] != "f":
        return (whole % (1 << bits)).to_bytes(bits // 8, "little")
    if hexadecimal is not None and hexadecimal[1] == bits:
        return hexadecimal[0].to_bytes(bits // 8, "little")
    raise PtxSyntaxError(f"cannot read the initial value {text!r} of type .{kind}")


def block_bounds(text: str) -> tuple[int | None, tuple[int, int, int] | None]:
    """``.maxntid`` as a number of threads, and ``.reqntid``, from the directives between parameters and body.

    Raises:
        PtxSyntaxError: there are others that are not known.
    """
    most, exact = None, None
    for directive in filter(None, (part.strip() for part in text.split("."))):
        name, _, rest = directive.partition(" ")
        if name in _ADVICE:
            continue
        if name not in ("maxntid", "reqntid"):
            raise PtxSyntaxError(f"directive .{name} of an entry is not supported")
        x, y, z = ([int(size) for size in rest.split(",")] + [1, 1])[:3]
        if name == "maxntid":
            most = x * y * z
        else:
            exact = (x, y, z)
    return most, exact
