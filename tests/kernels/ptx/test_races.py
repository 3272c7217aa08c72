"""Warps and CTAs that get into each other's way, and those that do not."""

from typing import Any

import numpy as np
import pytest

from minet_sdk.kernels.ptx import InOut, Out, RaceError, launch

SHARED = ".shared .align 16 .b8 buffer[1024];"
START = """ld.param.u64 %rd1, [y]; mov.u32 %r1, %tid.x; mad.wide.u32 %rd2, %r1, 4, %rd1; mov.u32 %r2, %ctaid.x;
    mov.u32 %r5, buffer; mad.lo.u32 %r6, %r1, 4, %r5; shr.u32 %r3, %r1, 5; setp.eq.u32 %p1, %r3, 0;
    setp.eq.u32 %p3, %r1, 0; setp.eq.u32 %p4, %r1, 32; setp.eq.u32 %p5, %r1, 64; st.shared.u32 [%r6], 0; bar.sync 0;"""

RACES = {
    "write after read": "@%p3 ld.shared.u32 %r7, [%r5]; @%p4 st.shared.u32 [%r5], 5;",
    "read after write": "@%p3 st.shared.u32 [%r5], 5; @%p4 ld.shared.u32 %r7, [%r5];",
    "write after write": "@%p3 st.shared.u32 [%r5], 5; @%p4 st.shared.u32 [%r5], 5;",
    "both at once": "or.pred %p6, %p3, %p4; @%p6 st.shared.u32 [%r5], 5;",
    "write after many reads": "ld.shared.u32 %r7, [%r5]; @%p3 st.shared.u32 [%r5], 5;",
    "write of the last of many readers": "ld.shared.u32 %r7, [%r5]; @%p5 st.shared.u32 [%r5], 5;",
    "write after reads one by one": """@%p3 ld.shared.u32 %r7, [%r5]; @%p4 ld.shared.u32 %r7, [%r5];
        @%p4 st.shared.u32 [%r5], 1;""",
    "part of a wide write": "@%p3 st.shared.v4.u32 [%r5], {1, 2, 3, 4}; @%p4 ld.shared.u8 %h1, [%r5+13];",
    "wide read of a narrow write": "@%p3 st.shared.u8 [%r5+11], 4; @%p4 ld.shared.v4.u32 {%r7, %r8, %r9, %r10}, [%r5];",
}
HARMLESS = {
    "reads only": "ld.shared.u32 %r7, [%r5]; ld.shared.u32 %r7, [%r5];",
    "a barrier in between": """@%p3 st.shared.u32 [%r5], 5; bar.sync 0; @%p4 ld.shared.u32 %r7, [%r5]; bar.sync 0;
        @%p3 st.shared.u32 [%r5], 6;""",
    "one warp": "@%p3 st.shared.u32 [%r5], 5; @%p1 ld.shared.u32 %r7, [%r5]; @%p3 st.shared.u32 [%r5], 7;",
    "neighbours": "@%p3 st.shared.u32 [%r5], 5; @%p4 st.shared.u32 [%r5+4], 5; @%p5 ld.shared.u32 %r7, [%r5+8];",
}


def run(kernel_of: Any, body: str, schedule: Any, y: Any, ctas: int = 1) -> None:
    kernel = kernel_of(START + body + " ret;", ".param .u64 y", before=SHARED)
    launch(kernel, ctas, 96, (y,), schedule=schedule)


@pytest.mark.parametrize("schedule", ["lockstep", "forward", "reverse"])
@pytest.mark.parametrize("name", RACES)
def test_two_warps_in_shared_memory(kernel_of: Any, name: str, schedule: str) -> None:
    with pytest.raises(RaceError, match=r"shared memory .*no barrier in between"):
        run(kernel_of, RACES[name], schedule, Out(np.zeros(1), partial=True))


@pytest.mark.parametrize("schedule", ["lockstep", "forward", "reverse"])
@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_no_race(kernel_of: Any, name: str, schedule: str) -> None:
    run(kernel_of, HARMLESS[name], schedule, Out(np.zeros(1), partial=True), ctas=3)


def test_two_ctas_in_global_memory(kernel_of: Any) -> None:
    with pytest.raises(RaceError, match=r"CTA .*global memory written where another CTA has written"):
        run(kernel_of, "@%p3 st.global.u32 [%rd1], 5;", "forward", Out(np.zeros(1, np.uint32)), ctas=2)
    body = """add.u32 %r4, %r2, %r1; mad.wide.u32 %rd3, %r4, 4, %rd1; @%p3 ld.global.u32 %r7, [%rd3];
        @%p3 st.global.u32 [%rd1+4], 5;"""
    with pytest.raises(RaceError, match="another CTA"):
        run(kernel_of, body, "forward", InOut(np.zeros(4, np.uint32)), ctas=3)


def test_two_warps_in_global_memory(kernel_of: Any) -> None:
    body = "@%p3 st.global.u32 [%rd1], 5; {} @%p4 ld.global.u32 %r7, [%rd1];"
    with pytest.raises(RaceError, match="global memory read where warp 0 has written"):
        run(kernel_of, body.format(""), "lockstep", Out(np.zeros(1, np.uint32)))
    run(kernel_of, body.format("bar.sync 0;"), "lockstep", Out(np.zeros(1, np.uint32)))
