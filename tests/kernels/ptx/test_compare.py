"""Comparison and selection, with NaN on either side and with all names of the comparisons."""

from collections.abc import Callable
from itertools import product
from math import inf, isnan, nan
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from minet_sdk.kernels.ptx import In, Out, launch

DTYPES = {"f16": np.float16, "f32": np.float32, "f64": np.float64, "bf16": ml_dtypes.bfloat16}
ORDERED: dict[str, Callable[[float, float], bool]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b and not isnan(a) and not isnan(b),
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "num": lambda a, b: not (isnan(a) or isnan(b)),
}
FLOATS = [0.0, -0.0, 1.0, -1.0, 1.5, inf, -inf, nan]


@pytest.mark.parametrize("form", DTYPES)
def test_floats(execute: Any, form: str) -> None:
    pairs = list(product(FLOATS, repeat=2))
    a, b = (np.array(column).astype(DTYPES[form]) for column in zip(*pairs, strict=True))
    for name, holds in ORDERED.items():
        assert execute(f"setp.{name}.{form}", "bool", a, b).tolist() == [holds(x, y) for x, y in pairs], name
        either = {"num": "nan"}.get(name, f"{name}u")
        expected = [isnan(x) or isnan(y) or (name != "num" and holds(x, y)) for x, y in pairs]
        assert execute(f"setp.{either}.{form}", "bool", a, b).tolist() == expected, either


@pytest.mark.parametrize(("kind", "dtype"), [("u16", "u2"), ("s32", "i4"), ("u32", "u4"), ("s64", "i8"), ("u64", "u8")])
def test_integers(execute: Any, kind: str, dtype: str) -> None:
    limits = np.iinfo(dtype)
    pairs = list(product([int(limits.min), 0, 1, int(limits.max)], repeat=2))
    a, b = (np.array(column, dtype) for column in zip(*pairs, strict=True))
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        assert execute(f"setp.{name}.{kind}", "bool", a, b).tolist() == [ORDERED[name](x, y) for x, y in pairs]
    if kind[0] == "u":
        for unsigned, name in (("lo", "lt"), ("ls", "le"), ("hi", "gt"), ("hs", "ge")):
            assert execute(f"setp.{unsigned}.{kind}", "bool", a, b).tolist() == [ORDERED[name](x, y) for x, y in pairs]


def test_combination_with_a_third_predicate(execute: Any) -> None:
    a, b = np.array([1, 1, 2, 2], np.int32), np.array([1, 2, 1, 2], np.int32)
    p = np.array([True, True, False, False])
    equal = a == b
    assert execute("setp.eq.and.s32", "bool", a, b, p).tolist() == (equal & p).tolist()
    assert execute("setp.eq.or.s32", "bool", a, b, p).tolist() == (equal | p).tolist()
    assert execute("setp.eq.xor.s32", "bool", a, b, p).tolist() == (equal ^ p).tolist()


def test_flushing_before_the_comparison(execute: Any) -> None:
    a, b = np.array([1e-40, -1e-42], np.float32), np.array([0, 1e-41], np.float32)
    assert execute("setp.eq.f32", "bool", a, b).tolist() == [False, False]
    assert execute("setp.eq.ftz.f32", "bool", a, b).tolist() == [True, True]


def test_set(execute: Any) -> None:
    a, b = np.array([1, 2, nan], np.float32), np.array([2, 1, 1], np.float32)
    assert execute("set.lt.u32.f32", "uint32", a, b).tolist() == [0xFFFFFFFF, 0, 0]
    assert execute("set.lt.s32.f32", "int32", a, b).tolist() == [-1, 0, 0]
    assert execute("set.ltu.f32.f32", "float32", a, b).tolist() == [1, 0, 1]
    p = np.array([False, True, True])
    assert execute("set.lt.or.u32.f32", "uint32", a, b, p).tolist() == [0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF]


def test_selection(execute: Any) -> None:
    a, b, p = np.array([1, 2], np.int32), np.array([3, 4], np.int32), np.array([True, False])
    assert execute("selp.b32", "int32", a, b, p).tolist() == [1, 4]
    assert execute("selp.f32", "float32", np.array([1, nan], np.float32), "0f40000000", p).tolist() == [1, 2]
    assert execute("slct.s32.s32", "int32", a, b, np.array([0, -1], np.int32)).tolist() == [1, 4]
    assert execute("slct.u32.f32", "int32", a, b, np.array([-0.0, nan], np.float32)).tolist() == [1, 4]


def test_classes(execute: Any) -> None:
    a = np.array([0, -1, 1e-40, inf, nan], np.float32)
    expected = {
        "finite": [1, 1, 1, 0, 0],
        "infinite": [0, 0, 0, 1, 0],
        "number": [1, 1, 1, 1, 0],
        "notanumber": [0, 0, 0, 0, 1],
        "normal": [0, 1, 0, 0, 0],
        "subnormal": [0, 0, 1, 0, 0],
    }
    for name, holds in expected.items():
        assert execute(f"testp.{name}.f32", "bool", a).tolist() == [bool(value) for value in holds], name


def test_copied_sign(execute: Any) -> None:
    sign, value = np.array([-1, 1, -0.0], np.float32), np.array([2, -3, nan], np.float32)
    result = execute("copysign.f32", "float32", sign, value)
    assert np.signbit(result).tolist() == [True, False, True]
    assert np.abs(result[:2]).tolist() == [2, 3]


def test_packed_comparison(kernel_of: Any) -> None:
    kernel = kernel_of(
        """ld.param.u64 %rd1, [x]; ld.param.u64 %rd2, [y]; mov.u32 %r1, %tid.x;
        mad.wide.u32 %rd1, %r1, 8, %rd1; mad.wide.u32 %rd2, %r1, 4, %rd2;
        ld.global.v2.b32 {%r2, %r3}, [%rd1];
        setp.lt.f16x2 %p1|%p2, %r2, %r3;
        selp.u32 %r4, 1, 0, %p1; selp.u32 %r5, 2, 0, %p2; or.b32 %r4, %r4, %r5;
        st.global.b32 [%rd2], %r4; ret;""",
        ".param .u64 x",
        ".param .u64 y",
    )
    pairs = np.array([[1, 5, 2, 4], [3, 1, 2, 9]], np.float16)
    result = np.zeros(2, np.uint32)
    launch(kernel, 1, 2, (In(pairs), Out(result)))
    assert result.tolist() == [1, 2]


def test_two_results(kernel_of: Any) -> None:
    kernel = kernel_of(
        """ld.param.u64 %rd1, [y]; mov.u32 %r1, %tid.x; mad.wide.u32 %rd1, %r1, 4, %rd1;
        setp.gt.u32 %p1|%p2, %r1, 2; selp.u32 %r2, 10, 0, %p1; selp.u32 %r3, 1, 0, %p2;
        add.u32 %r2, %r2, %r3; st.global.b32 [%rd1], %r2; ret;""",
        ".param .u64 y",
    )
    result = np.zeros(4, np.uint32)
    launch(kernel, 1, 4, (Out(result),))
    assert result.tolist() == [1, 1, 1, 10]
