"""Floating-point instructions against exact rational arithmetic, on the edges of every format and hard roundings."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import product
from math import inf, isinf, isnan, nan
from typing import Any

import ml_dtypes
import numpy as np
import pytest

DTYPES = {"f16": np.float16, "f32": np.float32, "f64": np.float64, "bf16": ml_dtypes.bfloat16}


def edges(exact: Any, form: str, *, finite: bool = False) -> list[float]:
    """Zeros, subnormals, ends of the range, neighbours of one, some random ones, and what is no number."""
    bits = {"f16": 16, "bf16": 16, "f32": 32, "f64": 64}[form]
    significand = {"f16": 10, "bf16": 7, "f32": 23, "f64": 52}[form]
    one, end = exact.bits_of(1.0, form), exact.bits_of(inf, form)
    smallest = 1 << significand
    chosen = [0, 1, 2, smallest - 1, smallest, smallest + 1, one - 1, one, one + 1, end - 1, one + smallest // 3]
    rng = np.random.default_rng(bits)
    chosen += [one + int(offset) for offset in rng.integers(-3 * smallest, 3 * smallest, 3)]
    chosen += [] if finite else [end, end + (1 << (significand - 1))]
    positive = [exact.value_of(value, form) for value in chosen]
    return positive + [-value for value in positive]


def column(values: Sequence[float], form: str) -> Any:
    return np.array(values).astype(DTYPES[form])


def compare(result: Any, expected: list[float], exact: Any, form: str) -> None:
    """Bit by bit, with one NaN for all."""
    assert [exact.bits_of(float(x), form) for x in result] == [exact.bits_of(x, form) for x in expected]


def combine(name: str, a: float, b: float, exact: Any, form: str, mode: str = "rn") -> float:
    """Sum or difference with one rounding."""
    return exact.multiply_add(a, 1.0, b if name == "add" else -b, form, mode)


def zero_sign(a: float, b: float, exact: Any) -> bool:
    return bool((exact.bits_of(a, "f64") ^ exact.bits_of(b, "f64")) >> 63) if not (isnan(a) or isnan(b)) else False


@pytest.mark.parametrize("form", ["f16", "bf16", "f32"])
@pytest.mark.parametrize("name", ["add", "sub"])
def test_sums(execute: Any, exact: Any, name: str, form: str) -> None:
    a, b = zip(*product(edges(exact, form), repeat=2), strict=True)
    result = execute(f"{name}.{form}", DTYPES[form], column(a, form), column(b, form))
    compare(result, [combine(name, x, y, exact, form) for x, y in zip(a, b, strict=True)], exact, form)


@pytest.mark.parametrize("mode", ["rz", "rm", "rp"])
@pytest.mark.parametrize("name", ["add", "sub"])
def test_sums_in_every_direction(execute: Any, exact: Any, name: str, mode: str) -> None:
    a, b = zip(*product(edges(exact, "f32", finite=True), repeat=2), strict=True)
    result = execute(f"{name}.{mode}.f32", np.float32, column(a, "f32"), column(b, "f32"))
    compare(result, [combine(name, x, y, exact, "f32", mode) for x, y in zip(a, b, strict=True)], exact, "f32")


def exact_product(a: float, b: float, exact: Any, form: str, mode: str) -> float:
    if isnan(a) or isnan(b) or isinf(a) or isinf(b):
        return nan if isnan(a) or isnan(b) or 0 in (a, b) else a * b
    result = exact.rounded(Fraction(a) * Fraction(b), form, mode)
    return -abs(result) if zero_sign(a, b, exact) else result


@pytest.mark.parametrize(
    ("form", "mode"), [("f16", "rn"), ("bf16", "rn"), *(("f32", m) for m in ("rn", "rz", "rm", "rp"))]
)
def test_products(execute: Any, exact: Any, form: str, mode: str) -> None:
    a, b = zip(*product(edges(exact, form), repeat=2), strict=True)
    suffix = f".{mode}.{form}" if form == "f32" else f".{form}"
    result = execute(f"mul{suffix}", DTYPES[form], column(a, form), column(b, form))
    compare(result, [exact_product(x, y, exact, form, mode) for x, y in zip(a, b, strict=True)], exact, form)


@pytest.mark.parametrize("form", ["f32", "f64"])
def test_quotients(execute: Any, exact: Any, form: str) -> None:
    a, b = zip(*product(edges(exact, form, finite=True), repeat=2), strict=True)
    expected: list[float] = []
    for x, y in zip(a, b, strict=True):
        size = exact.rounded(Fraction(x) / Fraction(y), form) if y else (inf if x else nan)
        expected.append(-abs(size) if zero_sign(x, y, exact) else abs(size))
    compare(execute(f"div.rn.{form}", DTYPES[form], column(a, form), column(b, form)), expected, exact, form)


def hard_triples(exact: Any, form: str) -> list[tuple[float, float, float]]:
    """Random numbers, cancellation, and sums that lie just beside the middle of two neighbours."""
    bits = {"f16": 11, "bf16": 8, "f32": 24}[form]
    rng = np.random.default_rng(bits)
    few = edges(exact, form)
    triples = list(product(few[::3], few[::4], few[::3]))
    scale = 2.0 ** rng.integers(-6, 6, 200)
    a, b = (column(list(rng.standard_normal(200) * scale), form).astype(float) for _ in range(2))
    c = column(list(-a * b), form).astype(float)
    triples += list(zip(a.tolist(), b.tolist(), c.tolist(), strict=True))
    # 1 + 2^-bits is a tie of the format; a term far below decides it.
    for exponent in (-40, -60, -100):
        tiny = exact.rounded(Fraction(2) ** (exponent // 2), form)
        tie = 1 + 2.0 ** (1 - bits)
        triples += [(tiny, tiny, tie), (-tiny, tiny, tie)]
        half = 2.0**-bits
        triples += [(1 + 2.0 ** (1 - bits), half * (1 - half), 1.0), (half, 1 + 2 * half, 1.0), (half, 1.0, 1.0)]
    if form == "f32":
        triples += [(2.0**-70, 2.0**-79 * (1 + 2.0**-23), 2.0**-149), (2.0**-75, 2.0**-75, 0.0)]
        triples += [(2.0**-75, -(2.0**-75), 2.0**-126), (1.5 * 2.0**-75, 2.0**-75, 2.0**-148)]
        # The same below the normal numbers.
        triples += [(2.0**-75 * (1 + 2.0**-23), 2.0**-75 * (1 - 2.0**-23), 2.0**-127 + 2.0**-149)]
        # Beside a sum of 1 the product is a tie of float32 to within what float64 holds.
        near = [2.0**-12 * (1 + sign * 2.0**-23) for sign in (-1, 1)]
        triples += [(x, y, z) for x in near for y in near for z in (1.0, 1 + 2.0**-23, -1.0, -1 - 2.0**-23)]
    return triples


@pytest.mark.parametrize(
    ("form", "mode"), [("f16", "rn"), ("bf16", "rn"), ("f32", "rn"), ("f32", "rz"), ("f32", "rm"), ("f32", "rp")]
)
def test_fused_multiply_add_rounds_once(execute: Any, exact: Any, form: str, mode: str) -> None:
    triples = hard_triples(exact, form)
    a, b, c = (list(part) for part in zip(*triples, strict=True))
    result = execute(f"fma.{mode}.{form}", DTYPES[form], *(column(part, form) for part in (a, b, c)))
    compare(result, [exact.multiply_add(*triple, form, mode) for triple in triples], exact, form)


@pytest.mark.parametrize(("factor", "first", "unit"), [(2.0**-12, 1.0, 2.0**-23), (2.0**-75, 2.0**-127, 2.0**-149)])
def test_fused_multiply_add_differs_from_two_roundings(execute: Any, factor: float, first: float, unit: float) -> None:
    """The product is just below half a unit of an odd sum: float64 rounds it to the half, and that to the even side.

    Among normal numbers and among subnormal ones.
    """
    a, b = (np.array([factor * (1 + sign * 2.0**-23)], np.float32) for sign in (1, -1))
    c = np.array([first + unit], np.float32)
    assert (a.astype(float) * b + c).astype(np.float32) == first + 2 * unit
    assert execute("fma.rn.f32", np.float32, a, b, c) == c


def test_fused_multiply_add_of_doubles(execute: Any, exact: Any) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((2, 400))
    c = np.where(np.arange(400) % 2, -a * b, rng.standard_normal(400) * 2.0 ** rng.integers(-60, 60, 400))
    result = execute("fma.rn.f64", np.float64, a, b, c)
    compare(result, [exact.multiply_add(*triple, "f64") for triple in zip(a, b, c, strict=True)], exact, "f64")


@pytest.mark.parametrize("form", ["f16", "bf16", "f32", "f64"])
@pytest.mark.parametrize("name", ["min", "max"])
def test_extremes(execute: Any, exact: Any, name: str, form: str) -> None:
    a, b = zip(*product(edges(exact, form), repeat=2), strict=True)

    def order(x: float) -> tuple[float, bool]:
        negative = zero_sign(x, 1.0, exact)
        return (x, not negative) if name == "max" else (-x, negative)

    expected = [y if isnan(x) else x if isnan(y) else max(x, y, key=order) for x, y in zip(a, b, strict=True)]
    compare(execute(f"{name}.{form}", DTYPES[form], column(a, form), column(b, form)), expected, exact, form)
    if form != "f64":
        missing = [nan if isnan(x) or isnan(y) else z for x, y, z in zip(a, b, expected, strict=True)]
        compare(execute(f"{name}.NaN.{form}", DTYPES[form], column(a, form), column(b, form)), missing, exact, form)


@pytest.mark.parametrize("form", ["f16", "bf16", "f32", "f64"])
def test_sign(execute: Any, exact: Any, form: str) -> None:
    a = edges(exact, form)
    compare(execute(f"neg.{form}", DTYPES[form], column(a, form)), [-x for x in a], exact, form)
    compare(execute(f"abs.{form}", DTYPES[form], column(a, form)), [abs(x) for x in a], exact, form)


@pytest.mark.parametrize("name", ["rcp.rn", "sqrt.rn"])
@pytest.mark.parametrize("form", ["f32", "f64"])
def test_reciprocal_and_root_are_exact(execute: Any, exact: Any, name: str, form: str) -> None:
    a = [x for x in edges(exact, form, finite=True) if x > 0]
    result = execute(f"{name}.{form}", DTYPES[form], column(a, form))
    if name == "rcp.rn":
        compare(result, [exact.rounded(1 / Fraction(x), form) for x in a], exact, form)
        return
    for x, root in zip(a, result, strict=True):
        # The root lies between the middles to its neighbours.
        below, above = (Fraction(float(np.nextafter(root, DTYPES[form](end)))) for end in (0, inf))
        middle = Fraction(float(root))
        assert ((below + middle) / 2) ** 2 <= Fraction(x) <= ((above + middle) / 2) ** 2


APPROXIMATE: dict[str, Callable[[Any], Any]] = {
    "ex2.approx": np.exp2,
    "lg2.approx": np.log2,
    "sin.approx": np.sin,
    "cos.approx": np.cos,
    "tanh.approx": np.tanh,
    "rcp.approx": np.reciprocal,
    "rsqrt.approx": lambda x: 1 / np.sqrt(x),
    "sqrt.approx": np.sqrt,
}


@pytest.mark.parametrize("name", APPROXIMATE)
def test_approximate_functions(execute: Any, name: str) -> None:
    x = np.random.default_rng(4).uniform(0.01, 20, 200).astype(np.float32)
    with np.errstate(all="ignore"):
        expected = APPROXIMATE[name](x.astype(np.longdouble))
        special = np.array([0, -0.0, inf, nan, -1], np.float32)
        ends = APPROXIMATE[name](special)
    assert np.abs(execute(f"{name}.f32", np.float32, x) / expected - 1).max() < 2.0**-23
    np.testing.assert_allclose(execute(f"{name}.f32", np.float32, special), ends, rtol=2.0**-22)


def test_approximate_division(execute: Any) -> None:
    a, b = np.random.default_rng(5).uniform(1, 9, (2, 100)).astype(np.float32)
    for name in ("div.approx.f32", "div.full.f32"):
        assert np.abs(execute(name, np.float32, a, b).astype(float) * b / a - 1).max() < 2.0**-23


def test_half_precision_functions(execute: Any) -> None:
    x = np.random.default_rng(6).uniform(-4, 4, 100)
    for form in ("f16", "bf16"):
        short = x.astype(DTYPES[form])
        for name, function in (("ex2.approx", np.exp2), ("tanh.approx", np.tanh)):
            flushing = ".ftz" if (form, name) == ("bf16", "ex2.approx") else ""
            result = execute(f"{name}{flushing}.{form}", DTYPES[form], short).astype(float)
            assert np.abs(result / function(short.astype(float)) - 1).max() < 2.0 ** (-10 if form == "f16" else -7)


def test_subnormals_are_flushed_on_request(execute: Any) -> None:
    tiny, small = np.array([1e-40, -1e-40, 2e-38], np.float32), np.array([1e-40, 1e-40, -1.9e-38], np.float32)
    kept = execute("add.f32", np.float32, tiny, small)
    assert kept[0] > 0
    assert kept[2] > 0
    flushed = execute("add.ftz.f32", np.float32, tiny, small)
    assert flushed.tolist() == [0, 0, 0]
    assert execute("mul.ftz.f32", np.float32, tiny, np.array([-1, 1, 1], np.float32)).tolist()[:2] == [0, 0]
    half = np.array([3e-7, 1], np.float16)
    assert execute("add.ftz.f16", np.float16, half, half).tolist() == [0, 2]


def test_saturation_and_rectification(execute: Any) -> None:
    a = np.array([-2, -0.0, 0.25, 3, inf, nan], np.float32)
    result = execute("add.sat.f32", np.float32, a, np.zeros(6, np.float32))
    assert result.tolist() == [0, 0, 0.25, 1, 1, 0]
    assert not np.signbit(result).any()
    half = np.array([-2, -0.0, 0.25, 3], np.float16)
    one = np.ones(4, np.float16)
    assert execute("fma.rn.relu.f16", np.float16, half, one, np.zeros(4, np.float16)).tolist() == [0, 0, 0.25, 3]
    assert execute("fma.rn.sat.f16", np.float16, half, one, np.zeros(4, np.float16)).tolist() == [0, 0, 0.25, 1]


@pytest.mark.parametrize("form", ["f16", "bf16"])
def test_packed_pairs(execute: Any, form: str) -> None:
    rng = np.random.default_rng(7)
    a, b, c = (rng.standard_normal((3, 50, 2)) * 8).astype(DTYPES[form])
    packed = [x.view(np.uint16).view(np.uint32)[:, 0] for x in (a, b, c)]

    def unpacked(value: Any) -> Any:
        return value[:, None].view(np.uint16).view(DTYPES[form])

    wide = [x.astype(np.float64) for x in (a, b, c)]
    for name, expected in (("add", wide[0] + wide[1]), ("sub", wide[0] - wide[1]), ("mul", wide[0] * wide[1])):
        result = unpacked(execute(f"{name}.{form}x2", np.uint32, *packed[:2]))
        np.testing.assert_array_equal(result, expected.astype(np.float32).astype(DTYPES[form]))
    result = unpacked(execute(f"fma.rn.{form}x2", np.uint32, *packed))
    np.testing.assert_array_equal(result, (wide[0] * wide[1] + wide[2]).astype(DTYPES[form]))
    np.testing.assert_array_equal(unpacked(execute(f"max.{form}x2", np.uint32, *packed[:2])), np.maximum(a, b))
    np.testing.assert_array_equal(unpacked(execute(f"neg.{form}x2", np.uint32, packed[0])), -a)


def test_mad_of_floats_is_fused(execute: Any) -> None:
    a, b, c = np.random.default_rng(8).standard_normal((3, 100)).astype(np.float32)
    np.testing.assert_array_equal(
        execute("mad.rn.f32", np.float32, a, b, c), execute("fma.rn.f32", np.float32, a, b, c)
    )
