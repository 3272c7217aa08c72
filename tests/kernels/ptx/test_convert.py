"""Conversions against exact arithmetic: every direction of rounding, saturation, NaN, extension and packing."""

from fractions import Fraction
from math import ceil, floor, inf, isinf, isnan, nan, trunc
from typing import Any

import ml_dtypes
import numpy as np
import pytest

DTYPES = {"f16": np.float16, "f32": np.float32, "f64": np.float64, "bf16": ml_dtypes.bfloat16}
VALUES = [
    *(0.0, 0.5, 1.5, 2.5, 0.3, 1e-9, 127.5, 255.6, 300.0, 32768.5, 65535.5),
    *(2.0**31 - 0.5, 2.0**31, 2.0**32, 2.0**63, 2.0**64, 1e30, inf),
]


def limits(kind: str) -> tuple[int, int]:
    bits = int(kind[1:])
    return (0, 2**bits - 1) if kind[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def dtype(kind: str) -> str:
    return {"u": "uint", "s": "int"}[kind[0]] + kind[1:]


WHOLE: dict[str, Any] = {"rzi": trunc, "rmi": floor, "rpi": ceil, "rni": round}


@pytest.mark.parametrize("target", ["u16", "s16", "u32", "s32", "u64", "s64"])
@pytest.mark.parametrize("source", DTYPES)
def test_to_integers(execute: Any, source: str, target: str) -> None:
    with np.errstate(over="ignore"):
        values = np.array(VALUES + [-value for value in VALUES]).astype(DTYPES[source])
    low, high = limits(target)
    for mode, function in WHOLE.items():
        expected = []
        for value in values.astype(float).tolist():
            end = high if value > 0 else low
            expected.append(end if isinf(value) else min(max(function(Fraction(value)), low), high))
        assert execute(f"cvt.{mode}.{target}.{source}", dtype(target), values).tolist() == expected, mode


def test_nan_to_integers(execute: Any) -> None:
    missing = np.array([nan])
    assert execute("cvt.rzi.s32.f32", "int32", missing.astype(np.float32)).tolist() == [0]
    assert execute("cvt.rzi.u32.f16", "uint32", missing.astype(np.float16)).tolist() == [0]
    assert execute("cvt.rzi.s64.f32", "int64", missing.astype(np.float32)).tolist() == [-(2**63)]
    assert execute("cvt.rzi.u64.f64", "uint64", missing).tolist() == [2**63]
    assert execute("cvt.rzi.s32.f64", "int32", missing).tolist() == [-(2**31)]


@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
@pytest.mark.parametrize("target", ["f16", "bf16", "f32"])
@pytest.mark.parametrize("source", ["u32", "s32", "u64", "s64"])
def test_from_integers(execute: Any, exact: Any, source: str, target: str, mode: str) -> None:
    low, high = limits(source)
    values = {
        low,
        high,
        0,
        1,
        2**24 - 1,
        2**24 + 1,
        2**24 + 3,
        65519,
        65520,
        65521,
        2**30 + 2**5 + 1,
        high - 1,
        2**31 - 129,
    }
    if source[1:] == "64":
        # Beside a tie of float32 by less than float64 can hold.
        values |= {2**60 + 2**36, 2**60 + 2**36 + 1, 2**60 + 2**36 - 1, 2**60 + 3 * 2**36 + 1, 2**62 + 2**38 - 1}
    values = {value for value in values | {-value for value in values} if low <= value <= high}
    ordered = sorted(values)
    result = execute(f"cvt.{mode}.{target}.{source}", DTYPES[target], np.array(ordered, dtype(source)))
    assert result.astype(float).tolist() == [exact.rounded(Fraction(value), target, mode) for value in ordered]


@pytest.mark.parametrize(("source", "target"), [("f64", "f32"), ("f64", "f16"), ("f32", "f16"), ("f32", "bf16")])
@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
def test_to_shorter_floats(execute: Any, exact: Any, source: str, target: str, mode: str) -> None:
    bits, smallest, largest = {"f16": (11, -14, 15), "bf16": (8, -126, 127), "f32": (24, -126, 127)}[target]
    unit = 2.0 ** (1 - bits)
    tiny = 2.0 ** (smallest - bits + 1)
    values = [1 + unit / 2, 1 + 1.5 * unit, 1 + unit / 2 + unit / 512, 1 + unit / 2 - unit / 512, 1.0, 0.1, 3.3]
    values += [tiny, tiny / 2, tiny * 1.5, tiny * 0.75, 2.0**smallest - tiny / 2, 2.0**smallest]
    values += [(2 - unit) * 2.0**largest, (2 - unit / 2) * 2.0**largest * (1 - 2.0**-20), (2 - unit / 2) * 2.0**largest]
    with np.errstate(all="ignore"):
        given = np.array(values + [-value for value in values]).astype(DTYPES[source])
    given = given[np.isfinite(given)]
    result = execute(f"cvt.{mode}.{target}.{source}", DTYPES[target], given)
    assert result.astype(float).tolist() == [exact.rounded(Fraction(float(x)), target, mode) for x in given]
    special = execute(f"cvt.{mode}.{target}.{source}", DTYPES[target], np.array([inf, -inf, nan, -0.0], given.dtype))
    assert special[:2].astype(float).tolist() == [inf, -inf]
    assert isnan(float(special[2]))
    assert np.signbit(special[3].astype(float))


def test_to_longer_floats(execute: Any) -> None:
    half = np.array([0.1, -65504, 6e-8, inf, -0.0], np.float16)
    assert execute("cvt.f32.f16", "float32", half).tolist() == half.astype(np.float32).tolist()
    assert execute("cvt.f64.f16", "float64", half).tolist() == half.astype(np.float64).tolist()
    short = np.array([0.1, -3e38, 1e-40, inf], ml_dtypes.bfloat16)
    assert execute("cvt.f32.bf16", "float32", short).tolist() == short.astype(np.float32).tolist()
    single = np.array([0.1, 1e-45, -inf], np.float32)
    assert execute("cvt.f64.f32", "float64", single).tolist() == single.astype(np.float64).tolist()


def test_to_whole_floats(execute: Any) -> None:
    a = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.7, -2.7, 1e20, inf], np.float32)
    for mode, function in {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}.items():
        assert execute(f"cvt.{mode}.f32.f32", "float32", a).tolist() == function(a).tolist()


def test_saturation_of_floats(execute: Any) -> None:
    a = np.array([-1, -0.0, 0.25, 1, 7, inf, nan], np.float32)
    result = execute("cvt.sat.f32.f32", "float32", a)
    assert result.tolist() == [0, 0, 0.25, 1, 1, 1, 0]
    assert not np.signbit(result).any()
    assert execute("cvt.rn.relu.f16.f32", "float16", a[:5]).tolist() == [0, 0, 0.25, 1, 7]


def test_tf32_keeps_ten_bits(execute: Any) -> None:
    a = np.array([1 + 2.0**-11, 1 + 3 * 2.0**-11, 1 + 2.0**-12, -1 - 2.0**-11], np.float32)
    expected = [1 + 2.0**-10, 1 + 2 * 2.0**-10, 1.0, -1 - 2.0**-10]
    assert execute("cvt.rna.tf32.f32", "float32", a).tolist() == expected


@pytest.mark.parametrize("sat", ["", ".sat"])
def test_between_integers(execute: Any, sat: str) -> None:
    kinds = ("u16", "s16", "u32", "s32", "u64", "s64")
    for source in kinds:
        low, high = limits(source)
        edges = {low, high, 0, 1, 127, 128, 255, 256, 32767, 32768, -1, -129}
        values = sorted(value for value in edges if low <= value <= high)
        for target in (*kinds, "u8", "s8"):
            to_low, to_high = limits(target)
            if sat:
                expected = [min(max(value, to_low), to_high) for value in values]
            else:
                expected = [(value - to_low) % (to_high - to_low + 1) + to_low for value in values]
            # An 8-bit result is extended to the 16 bits of its register.
            kind = dtype(target if target[1:] != "8" else target[0] + "16")
            result = execute(f"cvt{sat}.{target}.{source}", kind, np.array(values, dtype(source)))
            assert result.tolist() == expected, (source, target)


def test_packing_two_floats(execute: Any) -> None:
    a, b = np.array([1.0, 65519, -3.1], np.float32), np.array([-2.0, 1e-8, 0.1], np.float32)
    halves = execute("cvt.rn.f16x2.f32", "uint32", a, b)[:, None].view(np.float16)
    assert halves[:, 1].tolist() == a.astype(np.float16).tolist()
    assert halves[:, 0].tolist() == b.astype(np.float16).tolist()
    shorts = execute("cvt.rn.bf16x2.f32", "uint32", a, b)[:, None].view(np.uint16).view(ml_dtypes.bfloat16)
    assert shorts[:, 1].tolist() == a.astype(ml_dtypes.bfloat16).tolist()
    assert shorts[:, 0].tolist() == b.astype(ml_dtypes.bfloat16).tolist()


def test_flushing(execute: Any) -> None:
    a = np.array([1e-40, 1.0], np.float32)
    assert execute("cvt.ftz.f64.f32", "float64", a).tolist() == [0, 1]
    assert execute("cvt.rn.ftz.f32.f64", "float32", a.astype(float)).tolist() == [0, 1]
    assert execute("cvt.rpi.ftz.s32.f32", "int32", a).tolist() == [0, 1]
