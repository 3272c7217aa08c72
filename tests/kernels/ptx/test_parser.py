"""PTX as nvcc writes it, every form of operand and declaration, and text that is broken in one place."""

from pathlib import Path

import pytest

from minet_sdk.kernels.ptx import PtxSyntaxError, UnsupportedError, launch, parse
from minet_sdk.kernels.ptx.syntax import (
    Address,
    Integer,
    Label,
    Negated,
    Pair,
    Parameter,
    Real,
    Register,
    Sink,
    Special,
    Symbol,
    Vector,
)

TEXT = (Path(__file__).parent / "fixtures" / "kernels.ptx").read_text()
HEADER = ".version 7.0\n.target sm_80, debug\n.address_size 64\n"


def kernel(body: str, parameters: str = ".param .u64 x", before: str = "", directives: str = ""):
    return parse(f"{HEADER}{before}\n.visible .entry k({parameters}) {directives}\n{{\n{body}\n}}")["k"]


def operands(body: str):
    return kernel(body).instructions[0].operands


def test_what_nvcc_writes() -> None:
    module = parse(TEXT)
    assert module.target == "sm_80"
    assert module.version == "9.0"
    assert module.entries == tuple(
        line.split()[2].rstrip("(") for line in TEXT.splitlines() if line.startswith(".visible .entry")
    )
    block_sum = module["block_sum"]
    assert [parameter.type for parameter in block_sum.parameters] == ["u64", "u32", "u64"]
    assert block_sum.shared_bytes == 128
    windowed = module["windowed"]
    assert windowed.parameters[1] == Parameter("windowed_param_1", "b8", 12, 12, 4)
    assert {variable.name: variable.space for variable in windowed.variables} == {
        "primes": "const",
        "__local_depot8": "local",
    }
    assert windowed.variables[0].content[:8] == bytes([2, 0, 0, 0, 3, 0, 0, 0])
    assert module["prefix_sum"].variables[0].size == 0


def test_lines_are_those_of_the_text() -> None:
    lines = TEXT.splitlines()
    for one in parse(TEXT).kernels.values():
        assert one.name in lines[one.line - 1]
        for instruction in one.instructions:
            assert instruction.name in lines[instruction.line - 1]


def test_every_instruction_of_the_text_is_there() -> None:
    written = [line for line in TEXT.splitlines() if line[:1] in "\t " and line.rstrip().endswith(";")]
    count = sum(not line.strip().startswith(".") for line in written)
    assert sum(len(one.instructions) for one in parse(TEXT).kernels.values()) == count


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%r1", Register("%r1")),
        ("low", Register("low")),
        ("-5", Integer(-5)),
        ("0x1fU", Integer(31)),
        ("017", Integer(15)),
        ("0b101", Integer(5)),
        ("0f3F800000", Real(0x3F800000, 32)),
        ("0d3FF0000000000000", Real(0x3FF0000000000000, 64)),
        ("1.5", Real(0x3FF8000000000000, 64)),
        ("-2.5e-1", Real(0xBFD0000000000000, 64)),
        ("%tid.x", Special("%tid.x")),
        ("%lanemask_lt", Special("%lanemask_lt")),
        ("[%r1]", Address(Register("%r1"))),
        ("[%r1+-8]", Address(Register("%r1"), -8)),
        ("[%r1 + 0x10]", Address(Register("%r1"), 16)),
        ("[%r1-4]", Address(Register("%r1"), -4)),
        ("[x+8]", Address(Symbol("x"), 8)),
        ("[64]", Address(Integer(64))),
        ("buffer", Symbol("buffer")),
        ("buffer+12", Symbol("buffer", 12)),
        ("{%r1, _, 3}", Vector((Register("%r1"), Sink(), Integer(3)))),
        ("%r1|%r2", Pair(Register("%r1"), Register("%r2"))),
        ("!%p1", Negated(Register("%p1"))),
        ("HERE", Label("HERE", 0)),
        ("$L__BB0_2", Label("$L__BB0_2", 1)),
    ],
)
def test_operands(text: str, expected: object) -> None:
    body = (
        f".reg .b32 %r<3>; .reg .b32 low; .reg .pred %p<2>; .shared .b8 buffer[16];\nHERE: op {text};\n$L__BB0_2: ret;"
    )
    assert operands(body) == (expected,)


def test_guards_modifiers_and_labels() -> None:
    one = kernel(".reg .pred %p; .reg .f32 %f;\nA: B: @!%p add.rn.ftz.f32 %f, %f, %f;\n@%p bra.uni B;\nC:")
    first, second = one.instructions
    assert (first.opcode, first.modifiers, first.negated, first.guard) == (
        "add",
        ("rn", "ftz", "f32"),
        True,
        Register("%p"),
    )
    assert first.name == "add.rn.ftz.f32"
    assert second.operands == (Label("B", 0),)
    assert not second.negated


def test_inner_scopes_have_names_of_their_own() -> None:
    body = """.reg .b32 %r<2>; .reg .b32 t;
    { .reg .b32 t; mov.u32 t, 1; { .reg .b64 t; LOOP: mov.u64 t, 2; bra LOOP; } add.u32 %r1, t, 0; }
    { .reg .b16 t; LOOP: mov.b16 t, 3; bra LOOP; }
    mov.u32 t, 4; ret;"""
    one = kernel(body)
    names = [i.operands[0].name for i in one.instructions if i.opcode == "mov" and isinstance(i.operands[0], Register)]
    assert len(set(names)) == 4
    assert [one.registers[name] for name in names] == ["b32", "b64", "b16", "b32"]
    added = one.instructions[3].operands[1]
    assert added == Register(names[0])
    assert [i.operands[0] for i in one.instructions if i.opcode == "bra"] == [Label("LOOP", 1), Label("LOOP", 4)]


def test_bounds_of_the_block() -> None:
    one = kernel("ret;", directives=".maxntid 16, 8, 2\n.minnctapersm 2\n.maxnreg 64")
    assert (one.most_threads, one.exact_block) == (256, None)
    one = kernel("ret;", directives=".reqntid 128")
    assert one.exact_block == (128, 1, 1)


def test_parameters() -> None:
    one = kernel(
        "ret;", ".param .u64 .ptr .global .align 16 a,\n .param .align 8 .b8 s[24], .param .f32 f, .param .u16 h"
    )
    assert one.parameters == (
        Parameter("a", "u64", 1, 8, 8),
        Parameter("s", "b8", 24, 24, 8),
        Parameter("f", "f32", 1, 4, 4),
        Parameter("h", "u16", 1, 2, 2),
    )
    assert kernel("ret;", "").parameters == ()


def test_what_changes_nothing_is_left_out() -> None:
    text = (
        HEADER
        + """.file 1 "a.cu"
    .extern .func (.param .b32 r) vprintf (.param .b64 a, .param .b64 b);
    .func inner(.param .b32 a) { .reg .b32 %r; { ret; } }
    .visible .entry k() { .loc 1 2 3
    .pragma "nounroll"; /* { */ // }
    ret; }
    .section .debug_info { .b8 1, 2 }
    """
    )
    assert len(parse(text)["k"].instructions) == 1


def test_calls_are_parsed_but_refused() -> None:
    body = """{ .param .b64 argument; .reg .b64 %d; mov.b64 %d, 0; st.param.b64 [argument+0], %d;
    call.uni (result), vprintf, (argument, argument); } ret;"""
    with pytest.raises(UnsupportedError, match=r"st\.param"):
        launch(kernel(body, ""), 1, 1, ())
    with pytest.raises(UnsupportedError, match=r"call\.uni"):
        launch(kernel("call.uni (result), vprintf, (a, b); ret;", ""), 1, 1, ())


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", None, "no .version"),
        (".version 7.0", None, "no .target"),
        (".version 7.0\n.target sm_80\n.address_size 32\n", None, "32 bits"),
        (HEADER + "\n.global .align 4 .b8 x[4] = {1, 2, 3, 4, 5};", 5, "5 initial bytes"),
        (HEADER + "\n.global .align 4 .u32 x[1] = {other};", 5, "initial value 'other'"),
        (HEADER + "\n.texref x;", 5, "expected a directive"),
        (HEADER + ".entry k() {\nret;\n", 6, "closing brace"),
        (HEADER + ".entry k() {\nmov.u32 %r1, 5;\nret; }", 5, "'%r1' is neither declared nor a constant"),
        (HEADER + ".entry k() {\n.reg .b32 %r;\n\nmov.u32 %r, 12abc;\nret; }", 7, "'12abc'"),
        (HEADER + ".entry k() {\n.reg .b32 %r;\nld.global.u32 %r, [%q];\nret; }", 6, r"address \[%q\]"),
        (HEADER + ".entry k() {\n.reg .b32 %r;\n@%r1 ret; }", 6, "'%r1'"),
        (HEADER + ".entry k() {\nA:\nA: ret; }", 6, "label A"),
        (HEADER + ".entry k() {\n.reg .v4 .f32 %f; ret; }", 5, "registers of type"),
        (HEADER + ".entry k() {\n.shared .b8 a[4];\n.shared .b8 a[4]; ret; }", 6, "second time"),
        (HEADER + ".entry k(.param .texref t) {\nret; }", 4, "parameter '.param .texref t'"),
        (HEADER + ".entry k()\n.explicitcluster {\nret; }", 4, "explicitcluster"),
        (HEADER + ".entry k() { ret; }\n.entry k() { ret; }", 5, "k stands here a second time"),
        (HEADER + ".entry k() {\n= 5;\n}", 5, "expected an instruction"),
        (HEADER + ".entry k() {\n.reg .b32 %r;\nbra %r+1; }", 6, "adds to what is not an address"),
        (HEADER + ".func f() {", 4, "within a function"),
        (HEADER + ".entry k() {\n.reg .b32 %r;\ntex.1d.f32 %r, [%r, {%r}]; }", 6, "cannot read the address"),
    ],
)
def test_broken_text(text: str, line: int | None, message: str) -> None:
    with pytest.raises(PtxSyntaxError, match=message) as caught:
        parse(text)
    if line is not None:
        assert caught.value.line == line


def test_an_unknown_entry_is_named_with_the_known_ones() -> None:
    with pytest.raises(KeyError, match=r"'nothing'.*block_sum, collatz"):
        parse(TEXT)["nothing"]
