"""Instructions of a whole warp against loops over its lanes."""

from typing import Any

import numpy as np
import pytest

from minet_sdk.kernels.ptx import DivergenceError, In, Out, launch

START = """ld.param.u64 %rd1, [x]; ld.param.u64 %rd2, [y]; mov.u32 %r1, %tid.x; mad.wide.u32 %rd1, %r1, 4, %rd1;
    mad.wide.u32 %rd2, %r1, 4, %rd2; ld.global.u32 %r2, [%rd1];"""
END = "st.global.u32 [%rd2], %r3; ret;"


def run(kernel_of: Any, body: str, x: Any, threads: int = 64) -> Any:
    y = np.zeros(threads, np.uint32)
    for schedule in ("lockstep", "forward"):
        kernel = kernel_of(START + body + END, ".param .u64 x", ".param .u64 y")
        launch(kernel, 1, threads, (In(x), Out(y)), schedule=schedule)
    return y


def source_lane(mode: str, lane: int, offset: int, clamp: int) -> tuple[int, bool]:
    """As the manual's pseudocode says."""
    segment, bound = clamp >> 8 & 31, clamp & 31
    last, first = (lane & segment) | (bound & ~segment), lane & segment
    if mode == "up":
        return (lane - offset, True) if lane - offset >= last else (lane, False)
    other = {"down": lane + offset, "bfly": lane ^ offset, "idx": first | (offset & ~segment)}[mode]
    return (other, True) if other <= last else (lane, False)


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
@pytest.mark.parametrize(("offset", "width"), [(1, 32), (5, 32), (16, 32), (31, 32), (3, 8), (1, 16), (4, 4)])
def test_shuffles(kernel_of: Any, mode: str, offset: int, width: int) -> None:
    clamp = (32 - width) << 8 | (0 if mode == "up" else 31)
    x = np.arange(64, dtype=np.uint32) * 10
    body = f"""shfl.sync.{mode}.b32 %r3|%p1, %r2, {offset}, {clamp}, -1; selp.u32 %r4, 1, 0, %p1;
        add.u32 %r3, %r3, %r4;"""
    expected = []
    for thread in range(64):
        lane, valid = source_lane(mode, thread % 32, offset, clamp)
        expected.append(10 * (thread // 32 * 32 + lane) + valid)
    assert run(kernel_of, body, x).tolist() == expected


def test_every_lane_may_ask_for_another(kernel_of: Any) -> None:
    x = np.random.default_rng(0).integers(0, 32, 64).astype(np.uint32)
    result = run(kernel_of, "shfl.sync.idx.b32 %r3, %r1, %r2, 31, 0xffffffff;", x)
    assert result.tolist() == [thread // 32 * 32 + int(x[thread]) for thread in range(64)]


def test_members_only(kernel_of: Any) -> None:
    """Half a warp may shuffle among itself."""
    body = """and.b32 %r4, %r1, 16; setp.eq.u32 %p1, %r4, 0; mov.u32 %r3, 7; @!%p1 bra SKIP;
        shfl.sync.bfly.b32 %r3, %r2, 1, 31, 0xffff; SKIP:"""
    x = np.arange(64, dtype=np.uint32)
    result = run(kernel_of, body, x)
    assert result.tolist() == [7 if thread & 16 else thread ^ 1 for thread in range(64)]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("setp.lt.u32 %p1, %r1, 9; @%p1 bra A; bra B; A: shfl.sync.bfly.b32 %r3, %r2, 1, 31, -1; B:", "a part of it"),
        ("shfl.sync.bfly.b32 %r3, %r2, 1, 31, 0xff;", "member mask"),
        ("setp.lt.u32 %p1, %r1, 9; @%p1 shfl.sync.bfly.b32 %r3, %r2, 1, 31, -1;", "guard"),
        (
            """mov.u32 %r3, 0; setp.lt.u32 %p1, %r1, 8; @!%p1 bra B; shfl.sync.idx.b32 %r3, %r2, 9, 31, 0xff; B:""",
            "does not take part",
        ),
    ],
)
def test_lanes_that_are_missing(kernel_of: Any, body: str, message: str) -> None:
    with pytest.raises(DivergenceError, match=message):
        run(kernel_of, "mov.u32 %r3, 0;" + body, np.zeros(64, np.uint32))


def test_votes(kernel_of: Any) -> None:
    x = np.array([lane % 3 == 0 for lane in range(32)] + [True] * 32 + [False] * 32, np.uint32)
    rows = x.reshape(3, 32).astype(bool)
    body = """setp.ne.u32 %p1, %r2, 0; vote.sync.all.pred %p2, %p1, -1; vote.sync.any.pred %p3, %p1, -1;
        vote.sync.uni.pred %p4, %p1, -1; selp.u32 %r4, 1, 0, %p2; selp.u32 %r5, 2, 0, %p3; selp.u32 %r6, 4, 0, %p4;
        or.b32 %r3, %r4, %r5; or.b32 %r3, %r3, %r6;"""
    expected = [4 * (row.all() or not row.any()) + 2 * row.any() + row.all() for row in rows]
    assert run(kernel_of, body, x, 96).reshape(3, 32).tolist() == [[int(value)] * 32 for value in expected]
    body = "setp.ne.u32 %p1, %r2, 0; vote.sync.ballot.b32 %r3, %p1, 0xffffffff;"
    ballots = [sum(1 << lane for lane in range(32) if row[lane]) for row in rows]
    assert run(kernel_of, body, x, 96).reshape(3, 32).tolist() == [[ballot] * 32 for ballot in ballots]


def test_votes_of_a_part(kernel_of: Any) -> None:
    """What the other lanes hold does not count."""
    body = """mov.u32 %r3, 0; setp.ne.u32 %p1, %r2, 99; setp.lt.u32 %p2, %r1, 4; @!%p2 bra B;
        vote.sync.ballot.b32 %r3, %p1, 0xf; vote.sync.all.pred %p3, %p1, 0xf; @%p3 add.u32 %r3, %r3, 100; B:"""
    assert run(kernel_of, body, np.arange(32, dtype=np.uint32), 32).tolist() == [115] * 4 + [0] * 28


def test_negated_predicates(kernel_of: Any) -> None:
    body = "setp.eq.u32 %p1, %r2, 3; vote.sync.ballot.b32 %r3, !%p1, -1;"
    assert run(kernel_of, body, np.arange(32, dtype=np.uint32), 32)[0] == 2**32 - 1 - 8


def test_matches(kernel_of: Any) -> None:
    x = np.random.default_rng(1).integers(0, 5, 64).astype(np.uint32)
    x[32:] = 3
    equal = [sum(1 << lane for lane in range(32) if x[thread // 32 * 32 + lane] == x[thread]) for thread in range(64)]
    assert run(kernel_of, "match.any.sync.b32 %r3, %r2, -1;", x).tolist() == equal
    body = "match.all.sync.b32 %r3|%p1, %r2, -1; selp.u32 %r4, 1, 0, %p1; xor.b32 %r3, %r3, %r4;"
    assert run(kernel_of, body, x).tolist() == [0] * 32 + [2**32 - 2] * 32


@pytest.mark.parametrize(
    ("name", "function"),
    [
        *(("add.u32", np.add), ("min.s32", np.minimum), ("max.u32", np.maximum), ("and.b32", np.bitwise_and)),
        *(("or.b32", np.bitwise_or), ("xor.b32", np.bitwise_xor), ("min.u32", np.minimum), ("max.s32", np.maximum)),
    ],
)
def test_reductions(kernel_of: Any, name: str, function: Any) -> None:
    kind = np.int32 if ".s" in name else np.uint32
    x = np.random.default_rng(2).integers(-(2**31), 2**31, 64).astype(np.int32).view(kind)
    result = run(kernel_of, f"redux.sync.{name} %r3, %r2, -1;", x).view(kind).reshape(2, 32)
    for row, values in zip(result, x.reshape(2, 32), strict=True):
        assert (row == function.reduce(values, dtype=kind)).all()


def test_active_lanes(kernel_of: Any) -> None:
    body = "activemask.b32 %r3; setp.gt.u32 %p1, %r1, 40; @%p1 bra DONE; activemask.b32 %r3; DONE:"
    assert run(kernel_of, body, np.zeros(64, np.uint32)).tolist() == [2**32 - 1] * 32 + [0x1FF] * 9 + [2**32 - 1] * 23


def test_warp_barrier(kernel_of: Any) -> None:
    """Lanes that went different ways meet there."""
    body = """setp.lt.u32 %p1, %r1, 7; mov.u32 %r3, 1; @%p1 bra A; mov.u32 %r3, 2; bar.warp.sync -1; bra B;
        A: mov.u32 %r3, 3; bar.warp.sync -1; B:"""
    with pytest.raises(DivergenceError):
        run(kernel_of, body, np.zeros(64, np.uint32))
    body = """setp.lt.u32 %p1, %r1, 7; mov.u32 %r3, 1; @%p1 bra A; mov.u32 %r3, 2; A: bar.warp.sync -1;
        activemask.b32 %r4; and.b32 %r3, %r4, %r3;"""
    assert run(kernel_of, body, np.zeros(64, np.uint32)).tolist() == [1] * 7 + [2] * 57
