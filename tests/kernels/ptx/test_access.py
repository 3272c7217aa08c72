"""Loads and stores of every width and space, and asynchronous copies."""

import struct
from typing import Any

import numpy as np
import pytest

from minet_sdk.kernels.ptx import In, InOut, Out, RaceError, UninitialisedError, UnsupportedError, launch

POINTERS = (".param .u64 x", ".param .u64 y")
START = "ld.param.u64 %rd1, [x]; ld.param.u64 %rd2, [y]; mov.u32 %r1, %tid.x;"
SHARED = ".shared .align 16 .b8 buffer[1024];"


@pytest.mark.parametrize(
    ("vector", "bits"),
    [("", 8), ("", 16), ("", 32), ("", 64), (".v2", 16), (".v4", 16), (".v2", 32), (".v4", 32), (".v2", 64)],
)
@pytest.mark.parametrize("space", ["global", "shared"])
def test_widths(kernel_of: Any, space: str, vector: str, bits: int) -> None:
    count = int(vector[2:] or 1)
    name = {8: "%h", 16: "%h", 32: "%r", 64: "%rd"}[bits]
    registers = [f"{name}{10 + i}" for i in range(count)]
    operand = registers[0] if count == 1 else "{" + ", ".join(registers) + "}"
    size = bits // 8 * count
    through = f"st.global{vector}.b{bits} [%rd2], {operand};"
    if space == "shared":
        through = f"""st.shared{vector}.b{bits} [%rd3], {operand}; ld.shared{vector}.b{bits} {operand}, [%rd3];
            st{vector}.b{bits} [%rd2], {operand};"""
    kernel = kernel_of(
        START
        + f"""mad.wide.u32 %rd1, %r1, {size}, %rd1; mad.wide.u32 %rd2, %r1, {size}, %rd2;
        mov.u64 %rd3, buffer; mad.wide.u32 %rd3, %r1, {size}, %rd3;
        ld.global.nc{vector}.b{bits} {operand}, [%rd1]; {through} ret;""",
        *POINTERS,
        before=SHARED,
    )
    x = np.random.default_rng(0).integers(0, 256, 40 * size, dtype=np.uint8)
    y = np.zeros_like(x)
    launch(kernel, 1, 40, (In(x), Out(y)))
    assert (x == y).all()


def test_narrow_values_are_extended(kernel_of: Any) -> None:
    kernel = kernel_of(
        START
        + """ld.global.s8 %r2, [%rd1]; ld.global.u8 %r3, [%rd1]; ld.global.s16 %r4, [%rd1]; ld.global.u16 %r5, [%rd1];
        ld.global.s8 %h1, [%rd1]; cvt.s32.s16 %r6, %h1; ld.global.s32 %rd3, [%rd1];
        st.global.v4.b32 [%rd2], {%r2, %r3, %r4, %r5}; st.global.b32 [%rd2+16], %r6; st.global.b8 [%rd2+20], %r4;
        st.global.b16 [%rd2+22], %r4; st.global.b8 [%rd2+21], 9; st.global.b64 [%rd2+24], %rd3; ret;""",
        *POINTERS,
    )
    x, y = np.array([0xFFFE0080 - 2**32], np.int64).astype(np.int32), np.zeros(32, np.uint8)
    x[0] = np.int32(-(2**31) + 0x80F0)
    launch(kernel, 1, 1, (In(x), Out(y)))
    assert y[:20].view(np.int32).tolist() == [-16, 0xF0, 0x80F0 - 2**16, 0x80F0, -16]
    assert y[20:24].tolist() == [0xF0, 9, 0xF0, 0x80]
    assert y[24:].view(np.int64).tolist() == x.tolist()


def test_hints_are_accepted(kernel_of: Any) -> None:
    kernel = kernel_of(
        START
        + """ld.volatile.global.u32 %r2, [%rd1]; ld.global.L1::no_allocate.L2::128B.u32 %r3, [%rd1];
        ld.relaxed.gpu.global.u32 %r4, [%rd1]; ld.weak.global.cg.u32 %r5, [%rd1]; prefetch.global.L2 [%rd1];
        prefetchu.L1 [%rd1];
        add.u32 %r2, %r2, %r3; add.u32 %r4, %r4, %r5; add.u32 %r2, %r2, %r4; membar.gl; fence.acq_rel.gpu;
        nanosleep.u32 20;
        st.global.cs.u32 [%rd2], %r2; ret;""",
        *POINTERS,
    )
    y = np.zeros(1, np.uint32)
    launch(kernel, 1, 1, (In(np.array([5], np.uint32)), Out(y)))
    assert y[0] == 20


def test_structures_by_value(kernel_of: Any) -> None:
    kernel = kernel_of(
        """ld.param.u64 %rd1, [y]; ld.param.v2.u32 {%r1, %r2}, [s+8]; ld.param.f32 %f1, [s]; ld.param.s16 %r3, [s+4];
        st.global.v2.u32 [%rd1], {%r1, %r2}; st.global.f32 [%rd1+8], %f1; st.global.u32 [%rd1+12], %r3; ret;""",
        ".param .align 8 .b8 s[16]",
        ".param .u64 y",
    )
    y = np.zeros(4, np.int32)
    launch(kernel, 1, 1, (struct.pack("<fhxxii", 1.5, -3, 7, -8), Out(y)))
    assert y[[0, 1, 3]].tolist() == [7, -8, -3]
    assert y[2:3].view(np.float32)[0] == 1.5


def test_constant_and_global_variables(kernel_of: Any) -> None:
    kernel = kernel_of(
        """ld.param.u64 %rd1, [y]; ld.const.u16 %r1, [table+2]; mov.u64 %rd2, counter; ld.global.u32 %r2, [%rd2+4];
        add.u32 %r2, %r2, %r1; st.global.u32 [%rd2+4], %r2; ld.global.u32 %r3, [counter+4]; ld.const.f32 %f1, [real];
        cvt.rzi.u32.f32 %r4, %f1; add.u32 %r3, %r3, %r4; st.global.u32 [%rd1], %r3; ret;""",
        ".param .u64 y",
        before=""".const .align 2 .b8 table[4] = {1, 0, 0xFE, 1}; .global .align 4 .u32 counter[2] = {100, 200};
        .const .align 4 .f32 real = 0f41200000;""",
    )
    y = np.zeros(1, np.uint32)
    for _ in range(2):
        # Every launch starts with the initial values.
        launch(kernel, 1, 1, (Out(y),))
        assert y[0] == 0x1FE + 200 + 10


def test_local_memory_is_each_threads_own(kernel_of: Any) -> None:
    kernel = kernel_of(
        """.local .align 8 .b8 depot[64]; ld.param.u64 %rd1, [y]; mov.u32 %r1, %tid.x; mov.u64 %rd3, depot;
        cvta.local.u64 %rd4, %rd3; st.local.u32 [%rd3+8], %r1; and.b32 %r2, %r1, 7; mad.wide.u32 %rd5, %r2, 8, %rd4;
        st.u64 [%rd5], %rd1; st.local.u32 [%rd3+8], %r1; ld.u32 %r3, [%rd4+8]; mad.wide.u32 %rd2, %r1, 4, %rd1;
        st.global.u32 [%rd2], %r3; ret;""",
        ".param .u64 y",
    )
    y = np.zeros(70, np.uint32)
    for schedule in ("lockstep", "reverse"):
        launch(kernel, 1, 70, (Out(y),), schedule=schedule)
        assert (y == np.arange(70)).all()


def test_generic_addresses_in_different_spaces_at_once_are_refused(kernel_of: Any) -> None:
    kernel = kernel_of(
        START
        + """mov.u64 %rd3, buffer; st.shared.u32 [%rd3], 1; cvta.shared.u64 %rd3, %rd3; setp.eq.u32 %p1, %r1, 0;
        selp.b64 %rd4, %rd1, %rd3, %p1; ld.u32 %r2, [%rd4]; st.global.u32 [%rd2], %r2; ret;""",
        *POINTERS,
        before=SHARED,
    )
    arguments = (In(np.array([5], np.uint32)), Out(np.zeros(1, np.uint32)))
    launch(kernel, 1, 1, arguments)
    with pytest.raises(UnsupportedError, match="different spaces"):
        launch(kernel, 1, 2, arguments)
    kernel = kernel_of(
        START
        + """.local .align 4 .b8 depot[4]; mov.u64 %rd3, buffer; st.shared.u32 [%rd3], 1; mov.u64 %rd4, depot;
        st.local.u32 [%rd4], 1; cvta.shared.u64 %rd3, %rd3; cvta.local.u64 %rd4, %rd4; setp.eq.u32 %p1, %r1, 0;
        selp.b64 %rd4, %rd4, %rd3, %p1; ld.u32 %r2, [%rd4]; ret;""",
        *POINTERS,
        before=SHARED,
    )
    with pytest.raises(UnsupportedError, match="different spaces"):
        launch(kernel, 1, 2, arguments)


COPY = (
    START
    + """mad.wide.u32 %rd1, %r1, 16, %rd1; mad.wide.u32 %rd2, %r1, 16, %rd2; mov.u32 %r2, buffer;
    mad.lo.u32 %r2, %r1, 16, %r2; setp.lt.u32 %p1, %r1, 3; selp.u32 %r3, 16, 0, %p1;
    cp.async.cg.shared.global [%r2], [%rd1], 16, %r3; cp.async.commit_group;
    WAIT
    ld.shared.v4.u32 {%r4, %r5, %r6, %r7}, [%r2]; st.global.v4.u32 [%rd2], {%r4, %r5, %r6, %r7}; ret;"""
)


@pytest.mark.parametrize("wait", ["cp.async.wait_group 0;", "cp.async.wait_all;"])
def test_asynchronous_copies(kernel_of: Any, wait: str) -> None:
    kernel = kernel_of(COPY.replace("WAIT", wait), *POINTERS, before=SHARED)
    x, y = np.arange(20, dtype=np.uint32), np.ones(20, np.uint32)
    launch(kernel, 1, 5, (In(x), Out(y)))
    assert (y == np.where(np.arange(20) < 12, x, 0)).all()


@pytest.mark.parametrize("wait", ["", "cp.async.wait_group 1;"])
def test_a_copy_that_nobody_has_waited_for_cannot_be_read(kernel_of: Any, wait: str) -> None:
    kernel = kernel_of(COPY.replace("WAIT", wait), *POINTERS, before=SHARED)
    with pytest.raises(UninitialisedError, match="buffer"):
        launch(kernel, 1, 5, (In(np.arange(20, dtype=np.uint32)), Out(np.ones(20, np.uint32))))


def test_a_copy_under_way_makes_the_old_content_unknown(kernel_of: Any) -> None:
    kernel = kernel_of(
        START
        + """mov.u32 %r2, buffer; st.shared.u32 [%r2], 7; cp.async.ca.shared.global [%r2], [%rd1], 4;
        cp.async.commit_group; ld.shared.u32 %r3, [%r2]; st.global.u32 [%rd2], %r3; ret;""",
        *POINTERS,
        before=SHARED,
    )
    with pytest.raises(UninitialisedError, match="buffer"):
        launch(kernel, 1, 1, (In(np.arange(4, dtype=np.uint32)), Out(np.zeros(1, np.uint32))))


def test_two_groups_of_copies(kernel_of: Any) -> None:
    """Waiting for all but the last one makes the first one visible."""
    kernel = kernel_of(
        START
        + """mov.u32 %r2, buffer; cp.async.ca.shared.global [%r2], [%rd1], 4; cp.async.commit_group;
        cp.async.ca.shared.global [%r2+8], [%rd1+8], 8; cp.async.commit_group; cp.async.wait_group 1;
        ld.shared.u32 %r3, [%r2]; st.global.u32 [%rd2], %r3; cp.async.wait_group 0; ld.shared.u32 %r3, [%r2+12];
        st.global.u32 [%rd2+4], %r3; ret;""",
        *POINTERS,
        before=SHARED,
    )
    y = np.zeros(2, np.uint32)
    launch(kernel, 1, 1, (In(np.arange(4, dtype=np.uint32)), Out(y)))
    assert y.tolist() == [0, 3]


def test_different_values_to_one_place_at_once(kernel_of: Any) -> None:
    kernel = kernel_of(START + "st.global.u32 [%rd2], %r1; ret;", *POINTERS)
    arguments = (In(np.zeros(1)), Out(np.zeros(1, np.uint32)))
    with pytest.raises(RaceError, match=r"thread \(0, 0, 0\).*different values"):
        launch(kernel, 1, 2, arguments)
    same = kernel_of(START + "st.global.u32 [%rd2], 7; ret;", *POINTERS)
    launch(same, 1, 32, arguments)


def test_unknown_forms_are_refused(kernel_of: Any) -> None:
    for text in (
        "ld.global.f32.v9 %f1, [%rd1];",
        "ld.tex.u32 %r1, [%rd1];",
        "ld.global.v2.u32 {%r1, %r2, %r3}, [%rd1];",
        "ld.global.v4.u64 {%rd1, %rd2, %rd3, %rd4}, [%rd1];",
        "st.const.u32 [%rd1], %r1;",
        "ld.param.u32 %r1, [y+8];",
        "cp.async.ca.shared.global [%rd1], [%rd2], 5;",
        "cp.async.bulk.commit_group;",
    ):
        with pytest.raises(UnsupportedError, match="line"):
            launch(
                kernel_of(START.split(";")[1] + "; mov.u64 %rd1, %rd2;" + text + " ret;", ".param .u64 y"),
                1,
                1,
                (InOut(np.zeros(8)),),
            )
