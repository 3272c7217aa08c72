"""Registers that may be unwritten: proven where possible, checked when it happens, allowed for copies."""

from typing import Any

import numpy as np
import pytest

from minet_sdk.kernels.ptx import Out, UninitialisedError, launch
from minet_sdk.kernels.ptx.registers import unproven_reads

START = "ld.param.u64 %rd1, [y]; mov.u32 %r1, %tid.x; mad.wide.u32 %rd1, %r1, 4, %rd1; setp.lt.u32 %p1, %r1, 5;"
END = "st.global.u32 [%rd1], %r3; ret;"


def reads(kernel_of: Any, body: str) -> set[str]:
    return {name for _, name in unproven_reads(kernel_of(START + body + END, ".param .u64 y"))}


@pytest.mark.parametrize(
    ("body", "unproven"),
    [
        ("mov.u32 %r3, 1;", set()),
        ("add.u32 %r3, %r2, 1;", {"%r2"}),
        ("@%p1 mov.u32 %r2, 1; add.u32 %r3, %r2, 1;", {"%r2"}),
        ("@%p1 bra A; mov.u32 %r2, 1; bra B; A: mov.u32 %r2, 2; B: add.u32 %r3, %r2, 1;", set()),
        ("@%p1 bra B; mov.u32 %r2, 1; B: add.u32 %r3, %r2, 1;", {"%r2"}),
        ("mov.u32 %r2, 0; A: add.u32 %r2, %r2, 1; setp.lt.u32 %p2, %r2, 9; @%p2 bra A; mov.u32 %r3, %r2;", set()),
        ("A: add.u32 %r3, %r2, 1; mov.u32 %r2, 1; @%p1 bra A;", {"%r2"}),
        ("shfl.sync.bfly.b32 %r3|%p4, %r1, 1, 31, -1; @%p4 add.u32 %r3, %r3, 1;", set()),
        ("mov.u32 %r3, 0; bra B; A: add.u32 %r3, %r9, 1; B:", set()),
    ],
)
def test_which_reads_are_proven(kernel_of: Any, body: str, unproven: set[str]) -> None:
    assert reads(kernel_of, body) == unproven


def test_every_read_of_compiled_kernels_is_proven(compiled: Any) -> None:
    for kernel in compiled.kernels.values():
        assert unproven_reads(kernel) == set()


def run(kernel_of: Any, body: str, schedule: Any) -> Any:
    y = np.zeros(40, np.uint32)
    launch(kernel_of(START + body + END, ".param .u64 y"), 1, 40, (Out(y),), schedule=schedule)
    return y


@pytest.mark.parametrize("schedule", ["lockstep", "forward"])
def test_unwritten_registers(kernel_of: Any, schedule: str) -> None:
    with pytest.raises(UninitialisedError, match=r"thread \(5, 0, 0\): register %r2 is read before it is written"):
        run(kernel_of, "@%p1 mov.u32 %r2, 1; add.u32 %r3, %r2, 1;", schedule)
    with pytest.raises(UninitialisedError, match="register %f2"):
        run(kernel_of, "mov.u32 %r3, 0; add.f32 %f1, %f2, %f2;", schedule)
    with pytest.raises(UninitialisedError, match="register %rd2"):
        run(kernel_of, "ld.global.u32 %r3, [%rd2];", schedule)
    with pytest.raises(UninitialisedError, match="register %p7"):
        run(kernel_of, "mov.u32 %r3, 0; @%p7 bra A; A:", schedule)


@pytest.mark.parametrize("schedule", ["lockstep", "forward"])
def test_what_was_written_under_the_same_guard_may_be_read(kernel_of: Any, schedule: str) -> None:
    body = "mov.u32 %r3, 0; @%p1 add.u32 %r2, %r1, 1; @%p1 add.u32 %r3, %r2, 1;"
    assert run(kernel_of, body, schedule).tolist() == [2, 3, 4, 5, 6, *[0] * 35]


def test_copies_of_unwritten_registers_are_allowed(kernel_of: Any) -> None:
    """Compilers write them where a value is not used later."""
    body = "mov.u32 %r4, %r5; selp.b32 %r3, 8, %r4, %p1; setp.lt.u32 %p3, %r1, 5; @!%p3 mov.u32 %r3, 9;"
    assert run(kernel_of, body, "lockstep").tolist() == [8] * 5 + [9] * 35
