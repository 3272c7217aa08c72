"""Coverage counts what at least one thread has executed."""

from typing import Any

import numpy as np
import pytest

from minet_sdk.kernels.ptx import Coverage, In, TrapError, launch

BODY = """ld.param.u64 %rd1, [x];
ld.global.u32 %r1, [%rd1];
setp.eq.u32 %p1, %r1, 0;
@%p1 mov.u32 %r2, 1;
@!%p1 bra OTHER;
mov.u32 %r3, 2;
mov.u32 %r3, 3;
ret;
OTHER: mov.u32 %r4, 4;
ret;"""


@pytest.mark.parametrize("schedule", ["lockstep", "forward"])
def test_branches_and_guards(kernel_of: Any, schedule: Any) -> None:
    kernel = kernel_of(BODY, ".param .u64 x")
    first = kernel.instructions[0].line
    coverage = Coverage()
    launch(kernel, 2, 33, (In(np.array([1], np.uint32)),), coverage=coverage, schedule=schedule)
    assert [instruction.line - first for instruction in coverage.missed(kernel)] == [3, 5, 6, 7]
    assert coverage.fraction(kernel) == 0.6
    assert coverage.report() == f"made: 6 of 10 instructions executed; never lines {first + 3}, {first + 5}-{first + 7}"
    launch(kernel, 1, 1, (In(np.array([0], np.uint32)),), coverage=coverage, schedule=schedule)
    assert coverage.missed(kernel) == []
    assert coverage.fraction(kernel) == 1
    assert coverage.report() == "made: 10 of 10 instructions executed"
    assert list(coverage) == [kernel]


def test_nothing_yet(kernel_of: Any) -> None:
    kernel = kernel_of(BODY, ".param .u64 x")
    assert Coverage().fraction(kernel) == 0
    assert len(Coverage().missed(kernel)) == 10
    assert Coverage().report() == ""


def test_failed_launches_count_to_where_they_came(kernel_of: Any) -> None:
    kernel, coverage = kernel_of("mov.u32 %r1, 1; bra A; A: mov.u32 %r2, 1; trap; ret;"), Coverage()
    with pytest.raises(TrapError):
        launch(kernel, 1, 1, (), coverage=coverage)
    assert [instruction.opcode for instruction in coverage.missed(kernel)] == ["trap", "ret"]
