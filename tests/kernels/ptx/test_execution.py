"""Control flow: lanes that part and meet again, lanes that wait for their warp, endless loops."""

from typing import Any

import numpy as np
import pytest

from minet_sdk.kernels.ptx import HangError, In, Out, TrapError, launch

SCHEDULES = ("lockstep", "forward", "reverse")
START = """ld.param.u64 %rd1, [y]; mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x;
    mad.lo.u32 %r2, %r2, %r3, %r1; mad.wide.u32 %rd1, %r2, 4, %rd1;"""
END = "st.global.u32 [%rd1], %r4; ret;"


def run(kernel_of: Any, body: str, threads: int = 70, ctas: int = 3) -> Any:
    """The same from every schedule."""
    results = []
    for schedule in SCHEDULES:
        y = np.zeros((ctas, threads), np.uint32)
        launch(kernel_of(START + body + END, ".param .u64 y"), ctas, threads, (Out(y),), schedule=schedule)
        results.append(y)
    assert (results[0] == results[1]).all()
    assert (results[0] == results[2]).all()
    return results[0]


def test_two_ways_and_back(kernel_of: Any) -> None:
    body = """and.b32 %r5, %r1, 1; setp.eq.u32 %p1, %r5, 0; mov.u32 %r4, 0; @%p1 bra EVEN; add.u32 %r4, %r4, 100;
        bra JOIN;
        EVEN: add.u32 %r4, %r4, 200; JOIN: add.u32 %r4, %r4, 1;"""
    assert run(kernel_of, body)[1].tolist() == [201 if thread % 2 == 0 else 101 for thread in range(70)]


def test_loops_of_different_length(kernel_of: Any) -> None:
    """Each lane counts to its own number, and half of the rounds count twice."""
    body = """mov.u32 %r4, 0; mov.u32 %r5, 0;
        LOOP: setp.ge.u32 %p1, %r5, %r2; @%p1 bra DONE; and.b32 %r6, %r5, 1; setp.ne.u32 %p2, %r6, 0;
        @%p2 add.u32 %r4, %r4, 1; add.u32 %r4, %r4, 1; add.u32 %r5, %r5, 1; bra LOOP; DONE:"""
    expected = [n + n // 2 for n in range(210)]
    assert run(kernel_of, body).ravel().tolist() == expected


def test_nested_branches(kernel_of: Any) -> None:
    body = """and.b32 %r5, %r1, 1; and.b32 %r6, %r1, 2; setp.eq.u32 %p1, %r5, 0; setp.eq.u32 %p2, %r6, 0;
        mov.u32 %r4, 0;
        @!%p1 bra ODD; @!%p2 bra EVEN2; mov.u32 %r4, 1; bra JOIN; EVEN2: mov.u32 %r4, 2; bra JOIN;
        ODD: @!%p2 bra ODD2; mov.u32 %r4, 3; bra JOIN; ODD2: mov.u32 %r4, 4; JOIN:"""
    assert run(kernel_of, body)[0].tolist() == [[1, 3, 2, 4][thread % 4] for thread in range(70)]


def test_a_block_that_lies_behind_its_exit(kernel_of: Any) -> None:
    """The shuffle behind the loop stands before it in the text; lanes that leave early must wait for the others."""
    body = """mov.u32 %r4, 0; bra LOOP;
        AFTER: shfl.sync.bfly.b32 %r6, %r4, 1, 31, -1; add.u32 %r4, %r4, %r6; bra STORE;
        LOOP: add.u32 %r4, %r4, 1; setp.gt.u32 %p1, %r4, %r1; @%p1 bra AFTER; bra LOOP; STORE:"""
    result = run(kernel_of, body, 64)
    assert result[0].tolist() == [thread + 1 + (thread ^ 1) + 1 for thread in range(64)]


def test_only_complete_warps_go_on(kernel_of: Any) -> None:
    """The second warp is complete at the shuffle while a lane of the first one is still on its way."""
    body = """mov.u32 %r4, 0; setp.eq.u32 %p1, %r1, 5; @%p1 bra LONG;
        BACK: shfl.sync.bfly.b32 %r6, %r1, 1, 31, -1; add.u32 %r4, %r4, %r6; bra STORE;
        LONG: add.u32 %r4, %r4, 1; setp.lt.u32 %p2, %r4, 50; @%p2 bra LONG; bra BACK; STORE:"""
    result = run(kernel_of, body, 64)
    assert result[0].tolist() == [(thread ^ 1) + (50 if thread == 5 else 0) for thread in range(64)]


def test_early_exit(kernel_of: Any) -> None:
    body = (
        "mov.u32 %r4, 1; setp.gt.u32 %p1, %r1, 40; @%p1 st.global.u32 [%rd1], 9; @%p1 ret; bar.sync 0; mov.u32 %r4, 2;"
    )
    assert run(kernel_of, body)[2].tolist() == [2] * 41 + [9] * 29


def test_guards(kernel_of: Any) -> None:
    body = """setp.lt.u32 %p1, %r1, 10; mov.u32 %r4, 5; @%p1 add.u32 %r4, %r4, 1; @!%p1 add.u32 %r4, %r4, 2;
        setp.lt.u32 %p2, %r3, 1000; @%p2 add.u32 %r4, %r4, 10; @!%p2 trap;"""
    assert run(kernel_of, body)[0].tolist() == [16] * 10 + [17] * 60


def test_falling_off_the_end_is_an_exit(kernel_of: Any) -> None:
    y = np.zeros(40, np.uint32)
    kernel = kernel_of(START + "st.global.u32 [%rd1], 3;", ".param .u64 y")
    launch(kernel, 1, 40, (Out(y),))
    assert (y == 3).all()


def test_endless_loops_end(kernel_of: Any, compiled: Any) -> None:
    for schedule in SCHEDULES:
        with pytest.raises(HangError, match="step_limit"):
            launch(kernel_of("A: bra A;"), 1, 1, (), step_limit=1000, schedule=schedule)
        arguments = (In(np.zeros(1, np.int32)), Out(np.zeros(64, np.int32)))
        with pytest.raises(HangError, match=r"spin, line \d+ .*CTA \(0, 0, 0\)"):
            launch(compiled["spin"], 1, 64, arguments, step_limit=1000, schedule=schedule)


def test_trap(kernel_of: Any) -> None:
    with pytest.raises(TrapError, match=r"CTA \(1, 0, 0\), thread \(3, 0, 0\)"):
        run(kernel_of, "mov.u32 %r4, 0; setp.eq.u32 %p1, %r2, 73; @!%p1 bra OK; trap; OK:")
