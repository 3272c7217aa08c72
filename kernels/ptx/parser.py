"""PTX text to typed data: what the grammar here does not know is an error with its line, never skipped.

What changes nothing about the result is left out: debugging information, advice to the assembler, and device functions,
which no kernel can call here.
"""

import re
import struct
from bisect import bisect_right
from dataclasses import dataclass, field

from minet_sdk.kernels.ptx.declarations import NAME, block_bounds, integer, parameter, real, registers, variable
from minet_sdk.kernels.ptx.errors import PtxSyntaxError
from minet_sdk.kernels.ptx.syntax import (
    Address,
    Instruction,
    Integer,
    Kernel,
    Label,
    Module,
    Negated,
    Operand,
    Pair,
    Real,
    Register,
    Sink,
    Special,
    Symbol,
    Variable,
    Vector,
)

_SPACE = re.compile(r"\s*")
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_HEADER = re.compile(r"\.(version|target|address_size)\s+([^\n]+)")
_LINKAGE = re.compile(r"\.(?:visible|extern|weak|common)\b")
_ENTRY = re.compile(rf"\.entry\s+({NAME})\s*(?:\(([^)]*)\))?([^{{;]*)\{{")
_FUNCTION = re.compile(r"\.func\b[^{;]*")
_IGNORED = re.compile(r"\.(?:file|loc)\b[^\n]*|\.pragma\b[^;]*;|\.section\b[^{]*\{[^}]*\}")
_DECLARATION = re.compile(r"\.(reg|shared|local|const|global|param)\b([^;]*);")
_LABEL = re.compile(rf"({NAME})\s*:(?!:)")
_STATEMENT = re.compile(rf"(?:@(!?)\s*({NAME})\s+)?([a-z]\w*)((?:\.[\w:]+)*)(?:\s+([^;]*?))?\s*;")
_PARTS = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^,\s][^,]*")
_DECIMAL = re.compile(r"-?(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|-?\d+[eE][-+]?\d+")
_BASE_OFFSET = re.compile(rf"({NAME})\s*(?:\+\s*(-?\w+)|(-\s*\w+))?")
_SPECIALS = re.compile(
    r"%(?:n?tid|n?ctaid)\.[xyz]|%(?:laneid|warpid|nwarpid|lanemask_(?:eq|le|lt|ge|gt)|total_smem_size|dynamic_smem_size)"
)
_OPAQUE = ("call",)
"""Instructions with a syntax of their own; they parse without operands, and executing one is an error."""


def parse(text: str) -> Module:
    """Parse a whole PTX text.

    Args:
        text: as a compiler writes it.

    Raises:
        PtxSyntaxError: something in it is not understood; the message names the line.
    """
    return _Parser(text).module()


@dataclass
class _Scope:
    """Names between two braces."""

    parent: "_Scope | None" = None
    registers: dict[str, str] = field(default_factory=dict[str, str])
    labels: dict[str, int] = field(default_factory=dict[str, int])
    symbols: set[str] = field(default_factory=set[str])
    operands: dict[str, Operand] = field(default_factory=dict[str, Operand])


@dataclass
class _Body:
    """What is collected between the braces of a kernel."""

    variables: list[Variable]
    registers: dict[str, str] = field(default_factory=dict[str, str])
    statements: list[tuple[re.Match[str], _Scope]] = field(default_factory=list[tuple[re.Match[str], _Scope]])
    scopes: int = 0


class _Parser:
    """One pass over one text."""

    def __init__(self, text: str) -> None:
        self.text = _COMMENT.sub(lambda found: "\n" * found[0].count("\n") or " ", text)
        self.newlines = [found.start() for found in re.finditer("\n", self.text)]
        self.at = self.start = 0

    def module(self) -> Module:
        """The whole text."""
        try:
            return self._module()
        except PtxSyntaxError as error:
            if error.line is None:
                error.line = self._line(self.start)
            raise

    def _module(self) -> Module:
        header: dict[str, str] = {}
        variables: list[Variable] = []
        kernels: dict[str, Kernel] = {}
        while self._more():
            if found := self._take(_HEADER):
                header[found[1]] = found[2].strip()
            elif self._take(_LINKAGE) or self._take(_IGNORED):
                continue
            elif found := self._take(_ENTRY):
                if found[1] in kernels:
                    raise PtxSyntaxError(f"entry {found[1]} stands here a second time")
                kernels[found[1]] = self._kernel(found, variables)
            elif self._take(_FUNCTION):
                self._skip_function()
            elif (found := self._take(_DECLARATION)) and found[1] in ("shared", "const", "global"):
                variables.append(variable(found[1], found[2]))
            else:
                raise self._unexpected("a directive, an entry or a variable")
        for name in ("version", "target"):
            if name not in header:
                raise PtxSyntaxError(f"there is no .{name}: this is not a PTX module")
        if header.get("address_size", "64") != "64":
            raise PtxSyntaxError(f"addresses of {header['address_size']} bits are not supported; compile for 64")
        return Module(header["version"], header["target"].split(",")[0].strip(), kernels)

    def _kernel(self, found: re.Match[str], module_variables: list[Variable]) -> Kernel:
        line = self._line(found.start())
        parameters = tuple(parameter(text) for text in (found[2] or "").split(",") if text.strip())
        most, exact = block_bounds(found[3])
        symbols = {known.name for known in parameters} | {known.name for known in module_variables}
        body = _Body(list(module_variables))
        self._body(_Scope(symbols=symbols), body)
        instructions: list[Instruction] = []
        for statement, scope in body.statements:
            self.start = statement.start()
            instructions.append(self._instruction(statement, scope))
        used = {name for instruction in instructions for name in _symbols(instruction.operands)}
        variables = tuple(known for known in body.variables if known.name in used)
        return Kernel(found[1], parameters, body.registers, variables, tuple(instructions), most, exact, line)

    def _body(self, scope: _Scope, body: _Body) -> None:
        """Read to the brace that closes the kernel."""
        while self._more():
            if self.text[self.at] == "{":
                self.at += 1
                body.scopes += 1
                scope = _Scope(scope)
            elif self.text[self.at] == "}":
                self.at += 1
                if scope.parent is None:
                    return
                scope = scope.parent
            elif found := self._take(_STATEMENT):
                body.statements.append((found, scope))
            elif found := self._take(_LABEL):
                if found[1] in scope.labels:
                    raise PtxSyntaxError(f"label {found[1]} stands here a second time")
                scope.labels[found[1]] = len(body.statements)
            elif found := self._take(_DECLARATION):
                self._declare(found[1], found[2], scope, body)
            elif not self._take(_IGNORED):
                raise self._unexpected("an instruction, a label or a declaration")
        raise PtxSyntaxError("the text ends within a kernel: a closing brace is missing")

    def _declare(self, space: str, text: str, scope: _Scope, body: _Body) -> None:
        if space == "reg":
            suffix = "" if scope.parent is None else f"@{body.scopes}"
            for name, kind in registers(text):
                scope.registers[name] = name + suffix
                body.registers[name + suffix] = kind
        elif space == "param":
            scope.symbols.add(parameter(".param " + text).name)
        else:
            declared = variable(space, text)
            if any(known.name == declared.name for known in body.variables):
                raise PtxSyntaxError(f"variable {declared.name} is declared a second time")
            body.variables.append(declared)
            scope.symbols.add(declared.name)

    def _instruction(self, found: re.Match[str], scope: _Scope) -> Instruction:
        guard = self._operand(found[2], scope) if found[2] else None
        if guard is not None and not isinstance(guard, Register):
            raise PtxSyntaxError(f"guard {found[2]} is not a predicate register")
        operands: tuple[Operand, ...] = ()
        if found[5] and found[3] not in _OPAQUE:
            operands = tuple(self._operand(text.strip(), scope) for text in _PARTS.findall(found[5]))
        modifiers = tuple(found[4].split(".")[1:])
        return Instruction(found[3], modifiers, operands, guard, found[1] == "!", self._line(found.start()))

    def _operand(self, text: str, scope: _Scope) -> Operand:
        operand = scope.operands.get(text)
        if operand is None:
            operand = scope.operands[text] = self._read(text, scope)
        return operand

    def _read(self, text: str, scope: _Scope) -> Operand:
        """One operand; the first character says what it can be."""
        if text[0] == "{" and text[-1] == "}":
            return Vector(tuple(self._operand(part.strip(), scope) for part in text[1:-1].split(",")))
        if text[0] == "[" and text[-1] == "]":
            return self._address(text[1:-1].strip(), scope)
        if "|" in text:
            first, second = (self._operand(part.strip(), scope) for part in text.split("|", 1))
            return Pair(first, second)
        if text[0] == "!" and isinstance(inner := self._operand(text[1:].strip(), scope), Register):
            return Negated(inner)
        if text == "_":
            return Sink()
        if _SPECIALS.fullmatch(text):
            return Special(text)
        if (whole := integer(text)) is not None:
            return Integer(whole)
        if (bits := real(text)) is not None:
            return Real(*bits)
        if _DECIMAL.fullmatch(text):
            return Real(struct.unpack("<Q", struct.pack("<d", float(text)))[0], 64)
        return self._named(text, scope)

    def _named(self, text: str, scope: _Scope) -> Register | Symbol | Label:
        """A name, or the name of a variable plus an offset."""
        found = _BASE_OFFSET.fullmatch(text)
        named = self._resolve(found[1], scope) if found else None
        if found is None or named is None:
            raise PtxSyntaxError(f"operand {text!r} is neither declared nor a constant")
        offset = _offset(found)
        if offset and not isinstance(named, Symbol):
            raise PtxSyntaxError(f"operand {text!r} adds to what is not an address")
        return Symbol(named.name, offset) if isinstance(named, Symbol) else named

    def _address(self, text: str, scope: _Scope) -> Address:
        if (whole := integer(text)) is not None:
            return Address(Integer(whole))
        found = _BASE_OFFSET.fullmatch(text)
        base = self._resolve(found[1], scope) if found else None
        if found is None or not isinstance(base, Register | Symbol):
            raise PtxSyntaxError(f"cannot read the address [{text}]")
        return Address(base, _offset(found))

    def _resolve(self, name: str, scope: _Scope | None) -> Register | Symbol | Label | None:
        while scope is not None:
            if name in scope.registers:
                return Register(scope.registers[name])
            if name in scope.symbols:
                return Symbol(name)
            if name in scope.labels:
                return Label(name, scope.labels[name])
            scope = scope.parent
        return None

    def _skip_function(self) -> None:
        depth = 0
        for found in re.finditer(r"[{};]", self.text[self.at :]):
            depth += (found[0] == "{") - (found[0] == "}")
            if depth == 0:
                self.at += found.end()
                return
        raise PtxSyntaxError("the text ends within a function: a closing brace is missing")

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.at)
        if found:
            self.start, self.at = found.span()
        return found

    def _more(self) -> bool:
        found = _SPACE.match(self.text, self.at)
        assert found is not None
        self.start = self.at = found.end()
        return self.at < len(self.text)

    def _line(self, at: int) -> int:
        return bisect_right(self.newlines, at - 1) + 1

    def _unexpected(self, expected: str) -> PtxSyntaxError:
        shown = self.text[self.at :].partition("\n")[0][:60]
        return PtxSyntaxError(f"expected {expected}, got {shown!r}", line=self._line(self.at))


def _offset(found: re.Match[str]) -> int:
    text = "".join((found[2] or found[3] or "0").split())
    value = integer(text)
    if value is None:
        raise PtxSyntaxError(f"offset {text!r} is not a number")
    return value


def _symbols(operands: tuple[Operand, ...]) -> list[str]:
    """Names of the variables that operands mention."""
    names: list[str] = []
    for operand in operands:
        if isinstance(operand, Address):
            names += _symbols((operand.base,))
        elif isinstance(operand, Vector):
            names += _symbols(operand.elements)
        elif isinstance(operand, Symbol):
            names.append(operand.name)
    return names
