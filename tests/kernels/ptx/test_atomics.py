"""Atomic updates: every operation, lanes that meet, and the old values that they get."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minet_sdk.kernels.ptx import InOut, Out, UninitialisedError, launch

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "add.u32": lambda old, value: old + value,
    "add.s32": lambda old, value: old + value,
    "min.u32": min,
    "max.s32": max,
    "and.b32": lambda old, value: old & value,
    "or.b32": lambda old, value: old | value,
    "xor.b32": lambda old, value: old ^ value,
    "exch.b32": lambda old, value: value,
    "inc.u32": lambda old, value: 0 if old >= value else old + 1,
    "dec.u32": lambda old, value: value if old == 0 or old > value else old - 1,
}
BODY = """ld.param.u64 %rd1, [x]; ld.param.u64 %rd2, [y]; mov.u32 %r1, %tid.x; and.b32 %r2, %r1, 3;
    mad.wide.u32 %rd1, %r2, 4, %rd1; mad.wide.u32 %rd2, %r1, 4, %rd2; add.u32 %r3, %r1, 1;
    atom.global.OPERATION %r4, [%rd1], %r3; st.global.u32 [%rd2], %r4; ret;"""


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(kernel_of: Any, name: str) -> None:
    kernel = kernel_of(BODY.replace("OPERATION", name), ".param .u64 x", ".param .u64 y")
    x, old = np.array([9, 0, 77, 5], np.int32), np.zeros(50, np.int32)
    expected, before = x.tolist(), []
    for lane in range(50):
        before.append(expected[lane % 4])
        expected[lane % 4] = OPERATIONS[name](expected[lane % 4], lane + 1)
    launch(kernel, 1, 50, (InOut(x), Out(old)))
    assert x.tolist() == expected
    assert old.tolist() == before


def test_counters_turn_around_at_their_limit(kernel_of: Any) -> None:
    kernel = kernel_of(
        """ld.param.u64 %rd1, [x]; atom.global.inc.u32 %r1, [%rd1], 3; atom.global.dec.u32 %r1, [%rd1+4], 3;
        atom.global.dec.u32 %r1, [%rd1+8], 3; ret;""",
        ".param .u64 x",
    )
    x = np.array([3, 3, 4], np.uint32)
    launch(kernel, 1, 1, (InOut(x),))
    assert x.tolist() == [0, 2, 3]


def test_compare_and_swap(kernel_of: Any) -> None:
    """Only the first of the lanes that expect the old value succeeds."""
    kernel = kernel_of(
        """ld.param.u64 %rd1, [x]; mov.u32 %r1, %tid.x; add.u32 %r2, %r1, 100;
        atom.global.cas.b32 %r3, [%rd1], 7, %r2; atom.global.cas.b64 %rd2, [%rd1+8], 1, 2; ret;""",
        ".param .u64 x",
    )
    x = np.array([7, 0, 1, 0], np.uint32)
    launch(kernel, 1, 40, (InOut(x),))
    assert x.tolist() == [100, 0, 2, 0]


def test_sums_without_a_result(kernel_of: Any) -> None:
    kernel = kernel_of(
        """ld.param.u64 %rd1, [x]; mov.u32 %r1, buffer; mov.u32 %r2, %tid.x; setp.eq.u32 %p1, %r2, 0;
        @%p1 st.shared.u32 [%r1], 0; bar.sync 0; red.shared.add.u32 [%r1], %r2; bar.sync 0;
        @!%p1 bra DONE; ld.shared.u32 %r3, [%r1]; cvt.rn.f32.u32 %f1, %r3; red.global.add.f32 [%rd1], %f1;
        red.relaxed.gpu.global.add.u64 [%rd1+8], 5; DONE: ret;""",
        ".param .u64 x",
        before=".shared .align 4 .b8 buffer[4];",
    )
    x = np.zeros(4, np.uint32)
    x[:1] = np.array([0.5], np.float32).view(np.uint32)
    for schedule in ("lockstep", "reverse"):
        y = x.copy()
        launch(kernel, 2, 100, (InOut(y),), schedule=schedule)
        assert y[:1].view(np.float32)[0] == 0.5 + 2 * 4950
        assert y[2:].tolist() == [10, 0]


def test_what_is_updated_must_be_there(kernel_of: Any) -> None:
    kernel = kernel_of("ld.param.u64 %rd1, [x]; red.global.add.u32 [%rd1], 1; ret;", ".param .u64 x")
    with pytest.raises(UninitialisedError, match="byte 0 of argument 0"):
        launch(kernel, 1, 1, (Out(np.zeros(1, np.uint32)),))
