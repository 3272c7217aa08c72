"""The table: every instruction in it is tried by some test, and what is not in it is refused when reached."""

import re
from pathlib import Path
from typing import Any

import pytest

from minet_sdk.kernels.ptx import UnsupportedError, launch, unsupported
from minet_sdk.kernels.ptx.instructions import INSTRUCTIONS


def test_every_instruction_is_tried() -> None:
    texts = "\n".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    missing = [name for name in INSTRUCTIONS if not re.search(rf"\b{name}(?:\.|\{{|;|\"|\()", texts)]
    assert missing == []


@pytest.mark.parametrize(
    "text",
    [
        "dp4a.u32.u32 %r1, %r2, %r2, %r2;",
        "add.cc.u32 %r1, %r2, %r2;",
        "add.rn.q32 %r1, %r2, %r2;",
        "add.u32 %r1, %r2;",
        "add.f32 %f1, %f2, 1;",
        "mul.u32 %r1, %r2, %r2;",
        "setp.foo.u32 %p1, %r1, %r2;",
        "cvt.u32.f32 %r1, %f1;",
        "fma.rz.f64 %rd1, %rd2, %rd2, %rd2;",
        "lop3.b32 %r1, %r2, %r2, %r2, %r3;",
        "bar.arrive 0, 64;",
        "@%p1 bar.sync 0;",
        "brx.idx %r1, %r2;",
        "mov.u32 %r1, %h1;",
        "add.u64 %rd1, %r1, %rd1;",
        "ld.global.u32 %h1, [%rd1];",
    ],
)
def test_unknown_instructions_fail_only_when_reached(kernel_of: Any, text: str) -> None:
    kernel = kernel_of("setp.eq.u32 %p1, 1, 1; mov.u32 %r2, 1; bra END;\n" + text + "\nEND: ret;")
    assert [instruction.operands != () for instruction, _ in unsupported(kernel)] == [True]
    launch(kernel, 1, 1, ())
    reached = kernel_of("setp.eq.u32 %p1, 1, 1; mov.u32 %r2, 1;\n" + text + "\nret;")
    with pytest.raises(UnsupportedError, match=r"made, line \d+ .*, CTA \(0, 0, 0\), thread \(0, 0, 0\)"):
        launch(reached, 1, 1, ())
