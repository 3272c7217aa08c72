"""Every wrong access is refused, and the message says what it touched."""

from typing import Any

import numpy as np
import pytest

from minet_sdk.kernels.ptx import (
    In,
    InOut,
    MisalignedError,
    Out,
    OutOfBoundsError,
    ReadOnlyError,
    UninitialisedError,
    UnwrittenError,
    launch,
)

POINTERS = (".param .u64 x", ".param .u64 y")
START = "ld.param.u64 %rd1, [x]; ld.param.u64 %rd2, [y]; mov.u32 %r1, %tid.x; mad.wide.u32 %rd3, %r1, 4, %rd1;"
SHARED = ".shared .align 4 .b8 first[16]; .shared .align 4 .b8 second[16];"


def run(kernel_of: Any, body: str, *, threads: int = 1, before: str = SHARED, **more: Any) -> Any:
    x, y = np.arange(16, dtype=np.uint32), np.zeros(4, np.uint32)
    launch(
        kernel_of(START + body + " ret;", *POINTERS, before=before), 1, threads, (In(x), Out(y, partial=True)), **more
    )
    return y


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("ld.global.u32 %r2, [%rd1+64];", "read of 4 bytes at byte 64 of argument 0, which has 64"),
        ("ld.global.u32 %r2, [%rd1+-4];", "read of 4 bytes at byte -4 of argument 0"),
        ("ld.global.v4.u32 {%r2, %r3, %r4, %r5}, [%rd1+64];", "read of 16 bytes at byte 64"),
        ("ld.global.u64 %rd4, [%rd2+16];", "read of 8 bytes at byte 16 of argument 1"),
        ("st.global.u32 [%rd2+16], 1;", "write of 4 bytes at byte 16 of argument 1"),
        ("st.global.u32 [%rd1+1048576], 1;", "byte 1048576 of argument 0"),
        ("ld.global.u32 %r2, [16];", "address 0x10, where there is no array"),
        ("cvt.u32.u64 %r2, %rd1; cvt.u64.u32 %rd4, %r2; ld.global.u32 %r2, [%rd4];", "where there is no array"),
        ("mov.u64 %rd4, 0xffffffffffffff00; ld.global.u32 %r2, [%rd4];", "where there is no array"),
        ("mov.u32 %r2, second; ld.shared.u32 %r3, [%r2+16];", "4 bytes. at byte 16 of second, which has 16"),
        ("mov.u32 %r2, second; mov.u32 %r4, first; st.shared.u32 [%r2+-4], 1;", "of first, which has 16"),
        ("mov.u32 %r2, first; st.shared.u32 [%r2+-4], 1;", "before the first variable"),
        ("mov.u32 %r2, first; mov.u32 %r4, second; st.shared.u32 [%r2+24], 1;", "of first, which has 16"),
        ("mov.u32 %r2, first; mov.u32 %r4, second; st.shared.u32 [%r2+100000], 1;", "of second, which has 16"),
    ],
)
def test_bounds(kernel_of: Any, body: str, message: str) -> None:
    with pytest.raises(OutOfBoundsError, match=message):
        run(kernel_of, body)


def test_the_thread_that_does_it_is_named(kernel_of: Any) -> None:
    with pytest.raises(OutOfBoundsError) as caught:
        run(kernel_of, "\nld.global.u32 %r2, [%rd3];", threads=40)
    error = caught.value
    assert (error.entry, error.instruction, error.cta, error.thread) == ("made", "ld.global.u32", (0, 0, 0), (16, 0, 0))
    assert str(error).startswith(f"made, line {error.line} (ld.global.u32), CTA (0, 0, 0), thread (16, 0, 0): read of")
    assert "\n" not in str(error)


def test_inactive_lanes_access_nothing(kernel_of: Any) -> None:
    body = """setp.lt.u32 %p1, %r1, 16; @%p1 ld.global.u32 %r2, [%rd3]; setp.eq.u32 %p2, %r1, 3;
        @%p2 st.global.u32 [%rd2], %r2;"""
    assert run(kernel_of, body, threads=40)[0] == 3


@pytest.mark.parametrize(
    "body",
    [
        "ld.global.u32 %r2, [%rd1+2];",
        "ld.global.v2.u32 {%r2, %r3}, [%rd1+4];",
        "st.global.u16 [%rd2+1], 1;",
        "mov.u32 %r2, first; st.shared.u32 [%r2+1], 1;",
        # The variable is aligned to 4 bytes and no more, wherever it happens to lie.
        "mov.u32 %r2, first; st.shared.u64 [%r2], %rd1;",
        "mov.u32 %r2, second; st.shared.u64 [%r2], %rd1;",
    ],
)
def test_alignment(kernel_of: Any, body: str) -> None:
    with pytest.raises(MisalignedError, match="beyond a multiple of"):
        run(kernel_of, body)


def test_alignment_of_arguments(kernel_of: Any) -> None:
    kernel = kernel_of(
        START + "ld.global.v4.u32 {%r2, %r3, %r4, %r5}, [%rd1]; st.global.u32 [%rd2], %r5; ret;", *POINTERS
    )
    x, y = np.arange(4, dtype=np.uint32), np.zeros(1, np.uint32)
    launch(kernel, 1, 1, (In(x, offset=16), Out(y, offset=4)))
    assert y[0] == 3
    with pytest.raises(MisalignedError, match="8 beyond a multiple of 16"):
        launch(kernel, 1, 1, (In(x, offset=8), Out(y)))


def test_initialisation(kernel_of: Any) -> None:
    with pytest.raises(UninitialisedError, match="byte 8 of argument 1 is read before"):
        run(kernel_of, "ld.global.u32 %r2, [%rd2+8];")
    with pytest.raises(UninitialisedError, match="shared memory at byte 4 of second is read before"):
        run(kernel_of, "mov.u32 %r2, second; st.shared.u32 [%r2], 1; ld.shared.u32 %r2, [%r2+4];")
    with pytest.raises(UninitialisedError, match="local memory at byte 0 of depot"):
        run(kernel_of, ".local .align 4 .b8 depot[8]; mov.u64 %rd4, depot; ld.local.u32 %r2, [%rd4];")
    # A part of what is read is not enough.
    with pytest.raises(UninitialisedError, match="byte 0 of argument 1"):
        run(kernel_of, "st.global.u16 [%rd2], 1; ld.global.u32 %r2, [%rd2];")
    assert run(kernel_of, "st.global.u32 [%rd2], 6; ld.global.u32 %r2, [%rd2]; st.global.u32 [%rd2+4], %r2;")[1] == 6


def test_shared_memory_of_one_cta_is_unknown_to_the_next(kernel_of: Any) -> None:
    body = """mov.u32 %r3, %ctaid.x; setp.eq.u32 %p1, %r3, 0; mov.u32 %r2, first; @%p1 st.shared.u32 [%r2], 1;
        ld.shared.u32 %r4, [%r2];"""
    kernel = kernel_of(START + body + "ret;", *POINTERS, before=SHARED)
    arguments = (In(np.zeros(1)), Out(np.zeros(1), partial=True))
    launch(kernel, 1, 1, arguments)
    with pytest.raises(UninitialisedError, match=r"CTA \(1, 0, 0\)"):
        launch(kernel, 2, 1, arguments)


def test_lanes_of_ctas_that_have_ended_do_not_disturb(kernel_of: Any) -> None:
    """CTA 0 ends before it writes; the others read what they have written at the same address."""
    body = """mov.u32 %r3, %ctaid.x; setp.eq.u32 %p1, %r3, 0; @%p1 ret; mov.u32 %r2, first; st.shared.u32 [%r2], 7;
        ld.shared.u32 %r4, [%r2]; mad.lo.u32 %r2, %r1, 0, %r2; ld.shared.u32 %r4, [%r2];"""
    launch(
        kernel_of(START + body + "ret;", *POINTERS, before=SHARED),
        3,
        1,
        (In(np.zeros(1)), Out(np.zeros(1), partial=True)),
    )


def test_inputs_are_not_written(kernel_of: Any) -> None:
    with pytest.raises(ReadOnlyError, match="write to argument 0, which is an input"):
        run(kernel_of, "st.global.u32 [%rd1], 1;")
    body = """setp.eq.u32 %p1, %r1, 2; selp.b64 %rd4, %rd1, %rd2, %p1; mad.wide.u32 %rd4, %r1, 4, %rd4;
        st.global.u32 [%rd4], 1;"""
    with pytest.raises(ReadOnlyError, match=r"thread \(2, 0, 0\): write to argument 0"):
        run(kernel_of, body, threads=4)
    with pytest.raises(ReadOnlyError, match="write to table"):
        run(kernel_of, "mov.u64 %rd4, table; st.global.u32 [%rd4], 1;", before=".const .align 4 .b8 table[4];")


def test_lanes_may_read_different_arrays(kernel_of: Any) -> None:
    body = """st.global.u32 [%rd2+4], 50; setp.eq.u32 %p1, %r1, 0; selp.b64 %rd4, %rd1, %rd2, %p1;
        ld.global.u32 %r2, [%rd4+4];
        @%p1 st.global.u32 [%rd2], %r2; @!%p1 st.global.u32 [%rd2+8], %r2;"""
    assert run(kernel_of, body, threads=2).tolist() == [1, 50, 50, 0]


def test_outputs_are_complete(kernel_of: Any) -> None:
    kernel = kernel_of(START + "mad.wide.u32 %rd3, %r1, 4, %rd2; st.global.u32 [%rd3], %r1; ret;", *POINTERS)
    y = np.full((3, 4), 99, np.uint32)
    with pytest.raises(
        UnwrittenError, match=r"made: 2 of 12 elements of argument 1 are unwritten, the first at index \(2, 2\)"
    ):
        launch(kernel, 1, 10, (In(np.zeros(1)), Out(y)))
    assert (y == 99).all()
    launch(kernel, 1, 10, (In(np.zeros(1)), Out(y, partial=True)))
    assert y.ravel().tolist() == [*range(10), 99, 99]
    y[...] = 7
    launch(kernel, 1, 5, (In(np.zeros(1)), InOut(y)))
    assert y.ravel().tolist() == [0, 1, 2, 3, 4, *[7] * 7]


def test_a_failed_launch_changes_nothing(kernel_of: Any) -> None:
    kernel = kernel_of(START + "st.global.u32 [%rd2], 5; st.global.u32 [%rd2+4], 5; trap;", *POINTERS)
    y = np.zeros(2, np.uint32)
    with pytest.raises(Exception, match="gave up"):
        launch(kernel, 1, 1, (In(np.zeros(1)), Out(y)))
    assert y.tolist() == [0, 0]
