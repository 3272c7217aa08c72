"""Launches: arguments that fit and that do not, grids and blocks, orders, statistics."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from minet_sdk.errors import MinetError
from minet_sdk.kernels.ptx import ArgumentError, In, InOut, Out, PtxError, launch

NUMBERS = """ld.param.u64 %rd1, [y]; ld.param.u32 %r1, [i]; ld.param.f32 %f1, [f]; ld.param.u16 %h1, [h];
    ld.param.u64 %rd2, [l];    st.global.u32 [%rd1], %r1; st.global.f32 [%rd1+4], %f1; st.global.u16 [%rd1+8], %h1;
    st.global.u64 [%rd1+16], %rd2; ret;"""
PARAMETERS = (".param .u64 y", ".param .u32 i", ".param .f32 f", ".param .u16 h", ".param .u64 l")


def test_numbers(kernel_of: Any) -> None:
    kernel, y = kernel_of(NUMBERS, *PARAMETERS), np.zeros(24, np.uint8)
    launch(kernel, 1, 1, (Out(y, partial=True), -5, 0.1, 65535, 2**64 - 1))
    assert y[:4].view(np.int32)[0] == -5
    assert y[4:8].view(np.float32)[0] == np.float32(0.1)
    assert y[8:10].view(np.uint16)[0] == 65535
    assert y[16:].view(np.uint64)[0] == 2**64 - 1
    launch(kernel, 1, 1, (Out(y, partial=True), np.uint32(2**32 - 1), np.float64(0.1), np.int8(-1), 7))
    assert y[:4].view(np.int32)[0] == -1


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, 5.0, "float"),
        (1, 2**32, "32 bits do not hold"),
        (1, -(2**31) - 1, "32 bits do not hold"),
        (1, 1.0, "argument 1 for .u32 i is 1.0 of type float"),
        (1, In(np.zeros(1)), "not a pointer"),
        (2, 1, "argument 2 for .f32 f is 1 of type int"),
        (3, 65536, "16 bits"),
        (4, b"12345678", "bytes"),
    ],
)
def test_arguments_of_the_wrong_type(kernel_of: Any, position: int, value: Any, message: str) -> None:
    arguments: list[Any] = [Out(np.zeros(24, np.uint8), partial=True), 1, 1.0, 1, 1]
    arguments[position] = value
    with pytest.raises(ArgumentError, match=message):
        launch(kernel_of(NUMBERS, *PARAMETERS), 1, 1, arguments)


def test_number_of_arguments(kernel_of: Any) -> None:
    with pytest.raises(ArgumentError, match="made: 2 arguments; this kernel takes 5"):
        launch(kernel_of(NUMBERS, *PARAMETERS), 1, 1, (1, 2))


def test_structures_have_their_size(compiled: Any) -> None:
    arguments: list[Any] = [In(np.zeros(4, np.float32)), b"123", Out(np.zeros(4, np.float32))]
    with pytest.raises(ArgumentError, match="expected 12 bytes"):
        launch(compiled["windowed"], 1, 4, arguments)


@pytest.mark.parametrize(
    ("grid", "block", "message"),
    [
        (0, 1, "grid is 0"),
        ((1, 2, 3, 4), 1, "grid is"),
        ((1, 70000), 1, "grid is"),
        (1, 1025, "block is 1025"),
        (1, (32, 33), "1056 threads; this kernel takes at most 1024"),
        (1, (1, 1, 65), "block is"),
        (1, -1, "block is -1"),
    ],
)
def test_sizes(kernel_of: Any, grid: Any, block: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        launch(kernel_of("ret;"), grid, block, ())


def test_bounds_that_the_kernel_was_compiled_for(kernel_of: Any) -> None:
    with pytest.raises(ArgumentError, match="129 threads; this kernel takes at most 128"):
        launch(kernel_of("ret;", directives=".maxntid 64, 2"), 1, 129, ())
    launch(kernel_of("ret;", directives=".maxntid 64, 2"), 1, 128, ())
    with pytest.raises(ArgumentError, match=r"block is \(32, 1, 1\); this kernel takes \(64, 1, 1\) only"):
        launch(kernel_of("ret;", directives=".reqntid 64"), 1, 32, ())


COPY = """ld.param.u64 %rd1, [x]; ld.param.u64 %rd2, [y]; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %tid.x;
    mad.lo.u32 %r1, %r1, 8, %r2; mad.wide.u32 %rd1, %r1, 2, %rd1; mad.wide.u32 %rd2, %r1, 2, %rd2;
    ld.global.b16 %h1, [%rd1]; st.global.b16 [%rd2], %h1; ret;"""


@pytest.mark.parametrize("dtype", [np.float16, np.uint16, np.int16, ml_dtypes.bfloat16])
def test_arrays_of_any_type_and_order(kernel_of: Any, dtype: Any) -> None:
    kernel = kernel_of(COPY, ".param .u64 x", ".param .u64 y")
    x = np.arange(64).astype(dtype).reshape(4, 16)
    y = np.zeros((16, 4), dtype).T
    launch(kernel, 8, 8, (In(x), Out(y)))
    assert (y == x).all()
    z = np.zeros((4, 32), dtype)
    launch(kernel, 8, 8, (In(x[::-1]), Out(z[:, ::2])))
    assert (z[:, ::2] == x[::-1]).all()
    assert (z[:, 1::2] == 0).all()


def test_the_same_array_twice(kernel_of: Any) -> None:
    kernel, x = kernel_of(COPY, ".param .u64 x", ".param .u64 y"), np.arange(64, dtype=np.int16)
    with pytest.raises(ArgumentError, match="give both as InOut"):
        launch(kernel, 8, 8, (In(x), Out(x)))
    launch(kernel, 8, 8, (InOut(x), InOut(x)))
    assert (x == np.arange(64)).all()


@pytest.mark.parametrize("order", ["forward", "reverse", 3])
@pytest.mark.parametrize("schedule", ["lockstep", "forward", "reverse"])
def test_orders_do_not_matter_to_a_right_kernel(compiled: Any, schedule: Any, order: Any) -> None:
    x = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    sums = np.zeros(7, np.float32)
    launch(compiled["block_sum"], 7, 96, (In(x), x.size, Out(sums)), schedule=schedule, cta_order=order)
    reference = np.zeros(7, np.float32)
    launch(compiled["block_sum"], 7, 96, (In(x), x.size, Out(reference)))
    assert sums.tolist() == reference.tolist()


def test_orders_are_real(kernel_of: Any) -> None:
    """An atomic counter shows who came first."""
    body = """ld.param.u64 %rd1, [x]; ld.param.u64 %rd2, [y]; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %tid.x;
        mad.lo.u32 %r1, %r1, 64, %r2; mad.wide.u32 %rd2, %r1, 4, %rd2; atom.global.add.u32 %r3, [%rd1], 1;
        st.global.u32 [%rd2], %r3; ret;"""
    kernel = kernel_of(body, ".param .u64 x", ".param .u64 y")

    def ranks(**options: Any) -> Any:
        y = np.zeros((30, 64), np.uint32)
        launch(kernel, 30, 64, (InOut(np.zeros(1, np.uint32)), Out(y)), **options)
        return y

    assert (ranks() == np.arange(30 * 64).reshape(30, 64)).all()
    backwards = ranks(cta_order="reverse")
    assert (backwards[:, 0].argsort() == np.arange(30)[::-1]).all()
    assert (ranks(cta_order=1) == ranks(cta_order=1)).all()
    assert (ranks(cta_order=1) != ranks(cta_order=2)).any()
    assert (ranks(schedule="forward")[:, :32].max(axis=1) < ranks(schedule="forward")[:, 32:].min(axis=1)).all()
    assert (ranks(schedule="reverse")[:, :32].min(axis=1) > ranks(schedule="reverse")[:, 32:].max(axis=1)).all()


@pytest.mark.parametrize(("option", "value"), [("schedule", "sideways"), ("cta_order", "shuffled")])
def test_unknown_orders(kernel_of: Any, option: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=value):
        launch(kernel_of("ret;"), 1, 1, (), **{option: value})


def test_statistics(kernel_of: Any) -> None:
    kernel = kernel_of("mov.u32 %r1, %tid.x; setp.lt.u32 %p1, %r1, 10; @%p1 bra A; add.u32 %r2, %r1, 1; A: ret;")
    statistics = launch(kernel, 5, 40, ())
    assert statistics.ctas == 5
    assert statistics.thread_instructions == 5 * (40 * 4 + 30)
    assert 0 < statistics.seconds < 10


def test_errors_are_the_packages_own(kernel_of: Any) -> None:
    assert issubclass(PtxError, MinetError)
    with pytest.raises(PtxError, match=r"^made: 1 arguments"):
        launch(kernel_of("ret;"), 1, 1, (1,))
