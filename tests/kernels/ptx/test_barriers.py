"""Barriers of a CTA: who waits for whom, votes, and threads that never come."""

from typing import Any

import numpy as np
import pytest

from minet_sdk.kernels.ptx import BarrierError, In, Out, RaceError, UninitialisedError, launch

SCHEDULES = ("lockstep", "forward", "reverse")
SHARED = ".shared .align 4 .b8 buffer[1024];"
START = """ld.param.u64 %rd1, [y]; mov.u32 %r1, %tid.x; mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x;
    mad.lo.u32 %r4, %r2, %r3, %r1; mad.wide.u32 %rd1, %r4, 4, %rd1; mov.u32 %r5, buffer; mad.lo.u32 %r6, %r1, 4, %r5;
    sub.u32 %r7, %r3, 1; sub.u32 %r7, %r7, %r1; mad.lo.u32 %r7, %r7, 4, %r5;"""


def run(kernel_of: Any, body: str, schedule: Any, threads: int = 96, ctas: int = 4) -> Any:
    y = np.zeros((ctas, threads), np.uint32)
    kernel = kernel_of(START + body, ".param .u64 y", before=SHARED)
    launch(kernel, ctas, threads, (Out(y),), schedule=schedule)
    return y


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("barrier", ["bar.sync 0", "barrier.sync 3", "barrier.cta.sync.aligned 1", "bar.sync 0, 96"])
def test_exchange_through_shared_memory(kernel_of: Any, barrier: str, schedule: str) -> None:
    body = f"st.shared.u32 [%r6], %r4; {barrier}; ld.shared.u32 %r8, [%r7]; st.global.u32 [%rd1], %r8; ret;"
    result = run(kernel_of, body, schedule)
    assert (result == np.arange(4)[:, None] * 96 + np.arange(96)[::-1]).all()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ctas_may_pass_different_numbers_of_barriers(kernel_of: Any, schedule: str) -> None:
    body = """mov.u32 %r9, 0; st.shared.u32 [%r6], %r1;
        LOOP: bar.sync 0; ld.shared.u32 %r8, [%r7]; bar.sync 0; add.u32 %r8, %r8, 1; st.shared.u32 [%r6], %r8;
        add.u32 %r9, %r9, 1; setp.le.u32 %p1, %r9, %r2; @%p1 bra LOOP; st.global.u32 [%rd1], %r8; ret;"""
    result = run(kernel_of, body, schedule)
    for cta in range(4):
        thread = np.arange(96)
        for _ in range(cta + 1):
            thread = thread[::-1] + 1
        assert result[cta].tolist() == thread.tolist()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_threads_that_have_ended_are_not_waited_for(kernel_of: Any, schedule: str) -> None:
    body = """st.global.u32 [%rd1], 1; setp.gt.u32 %p1, %r1, 50; @%p1 ret; st.shared.u32 [%r6], %r1; bar.sync 0;
        ld.shared.u32 %r8, [buffer]; st.global.u32 [%rd1], %r8; ret;"""
    assert run(kernel_of, body, schedule)[1].tolist() == [0] * 51 + [1] * 45


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_votes(compiled: Any, schedule: Any) -> None:
    x = np.random.default_rng(0).integers(-1, 13, 5 * 70).astype(np.int32)
    x[70:140] = 8
    x[140:210] = 0
    x[150] = 11
    some, every, number = (np.zeros(5, np.int32) for _ in range(3))
    launch(compiled["votes"], 5, 70, (In(x), Out(some), Out(every), Out(number)), schedule=schedule)
    rows = x.reshape(5, 70)
    assert (some == (rows > 10).any(axis=1)).all()
    assert (every == (rows > 0).all(axis=1)).all()
    assert (number == (rows > 5).sum(axis=1)).all()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_different_barriers_are_an_error(compiled: Any, schedule: Any) -> None:
    with pytest.raises(BarrierError, match=r"divergent_barrier, line \d+ \(bar.sync\), CTA .* different barriers"):
        launch(compiled["divergent_barrier"], 1, 64, (Out(np.zeros(64, np.int32)),), schedule=schedule)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_producers_and_consumers(kernel_of: Any, schedule: str) -> None:
    """Two warps meet at one numbered barrier from different places; the third does not take part."""
    body = """setp.ge.u32 %p1, %r1, 64; @%p1 bra OTHER; setp.ge.u32 %p2, %r1, 32; @%p2 bra CONSUME;
        st.shared.u32 [%r6], %r1; bar.sync 1, 64; mov.u32 %r8, 7; bra DONE;
        CONSUME: bar.sync 1, 64; ld.shared.u32 %r8, [%r6+-128]; bra DONE;
        OTHER: mov.u32 %r8, 9; DONE: st.global.u32 [%rd1], %r8; ret;"""
    assert run(kernel_of, body, schedule)[3].tolist() == [7] * 32 + list(range(32)) + [9] * 32


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_too_few_threads_for_a_counted_barrier(kernel_of: Any, schedule: str) -> None:
    body = "setp.ge.u32 %p1, %r1, 32; @%p1 bra DONE; bar.sync 1, 64; DONE: st.global.u32 [%rd1], 1; ret;"
    with pytest.raises(BarrierError, match="more threads than ever come"):
        run(kernel_of, body, schedule)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_the_barrier_something_is_wrong(compiled: Any, schedule: Any) -> None:
    arguments = (In(np.arange(64, dtype=np.int32)), Out(np.zeros(64, np.int32)))
    with pytest.raises(RaceError if schedule == "lockstep" else UninitialisedError, match="missing_barrier"):
        launch(compiled["missing_barrier"], 1, 64, arguments, schedule=schedule)
