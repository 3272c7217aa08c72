"""Rounding to every format in every direction, against exact rational arithmetic."""

from fractions import Fraction
from math import inf
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from minet_sdk.kernels.ptx.rounding import (
    add_to_odd,
    bf16_to_f32,
    f32_to_bf16,
    flush,
    integer_to_odd,
    multiply_add_f32,
    multiply_add_f64,
    round_to,
)


@pytest.mark.parametrize("mode", ["rn", "rna", "rz", "rm", "rp"])
@pytest.mark.parametrize("form", ["f16", "bf16", "f32"])
def test_round_to(exact: Any, form: str, mode: str) -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal(2000) * 2.0 ** rng.uniform(-150, 128, 2000)
    few = {"f16": 11, "bf16": 8, "f32": 24}[form]
    ties = np.ldexp(rng.integers(2**few, 2 ** (few + 1), 300) * 2 + 1, rng.integers(-40, 5, 300)).astype(float)
    values = np.concatenate([values, ties, -ties, [0.0, 2.0**-133, 2.0**-150, 1.5 * 2.0**-24, 65520.0, 3.4e38, 3.5e38]])
    expected = [exact.rounded(Fraction(value), form, mode) for value in values.tolist()]
    assert round_to(values, form, mode).tolist() == expected  # pyright: ignore[reportArgumentType]
    assert round_to(np.array([inf, -inf]), form, mode).tolist() == [inf, -inf]  # pyright: ignore[reportArgumentType]


def test_bfloat16(exact: Any) -> None:
    bits = np.arange(2**16, dtype=np.uint32).astype(np.uint16)
    wide = bf16_to_f32(bits)
    np.testing.assert_array_equal(wide, bits.view(ml_dtypes.bfloat16).astype(np.float32))
    numbers = ~np.isnan(wide)
    assert (f32_to_bf16(wide)[numbers] == bits[numbers]).all()
    rng = np.random.default_rng(2)
    values = rng.integers(0, 2**32, 20000, dtype=np.uint32).view(np.float32)
    values = values[~np.isnan(values)]
    assert (f32_to_bf16(values) == values.astype(ml_dtypes.bfloat16).view(np.uint16)).all()


def test_sums_to_odd_round_again_as_if_once() -> None:
    """2^24 + 2^-60 and its like: float64 forgets the small part, its last bit does not."""
    for small in (2.0**-60, -(2.0**-60)):
        for large in (1 + 2.0**-24, 1 + 3 * 2.0**-24):
            once = np.float32(large + np.sign(small) * 2.0**-50)
            assert add_to_odd(np.array(large), np.array(small)).astype(np.float32) == once
    exact_sum = add_to_odd(np.array([1.5]), np.array([0.25]))
    assert exact_sum.tolist() == [1.75]


def test_products_and_sums_of_floats(exact: Any) -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal((2, 3000)) * 2.0 ** rng.integers(-30, 30, (2, 3000))).astype(np.float32)
    c = np.where(rng.random(3000) < 0.5, -a * b, rng.standard_normal(3000) * np.abs(a * b)).astype(np.float32)
    expected = [exact.multiply_add(*map(float, triple), "f32") for triple in zip(a, b, c, strict=True)]
    assert multiply_add_f32(a, b, c).tolist() == expected
    scalar: Any = np.asarray(multiply_add_f32(np.float32(3), np.float32(5), np.float32(1)))
    assert (scalar.item(), scalar.dtype) == (16, np.float32)


def test_products_and_sums_of_doubles(exact: Any) -> None:
    rng = np.random.default_rng(4)
    a, b = rng.standard_normal((2, 3000))
    c = np.where(rng.random(3000) < 0.5, -a * b, rng.standard_normal(3000))
    expected = [exact.multiply_add(*map(float, triple), "f64") for triple in zip(a, b, c, strict=True)]
    assert multiply_add_f64(a, b, c).tolist() == expected
    with np.errstate(all="ignore"):
        assert multiply_add_f64(np.array(inf), np.array(1.0), np.array(1.0)) == inf


def test_integers_to_odd() -> None:
    values = [0, 1, 2**53 + 1, 2**60 + 2**36 + 1, 2**63 - 1, -(2**63), -(2**60) - 1]
    odd = integer_to_odd(np.array(values, np.int64))
    for value, result in zip(values, odd.tolist(), strict=True):
        # Never rounded across a float32 or onto one of its ties, unless exact.
        assert np.float32(result) == np.float32(Fraction(value)) or abs(result - value) <= 2.0**11
    assert integer_to_odd(np.array([2**64 - 1], np.uint64))[0] < 2.0**64


def test_flushing() -> None:
    assert flush(np.array([1e-39, -1e-39, 2e-38, 0], np.float32)).tolist() == [0, 0, np.float32(2e-38), 0]
    assert np.signbit(flush(np.array([-1e-39], np.float32)))[0]
    assert flush(np.array([6e-8, 1e-3], np.float16)).tolist() == [0, np.float16(1e-3)]
    assert np.isnan(flush(np.array([np.nan], np.float32)))[0]
