"""Integer instructions against Python's integers of any length, on the edges of every type and random values."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

from minet_sdk.kernels.ptx import DivisionError

Integers = Callable[[int, int], int]
TYPES = ("u16", "s16", "u32", "s32", "u64", "s64")


def limits(kind: str) -> tuple[int, int]:
    bits = int(kind[1:])
    return (0, 2**bits - 1) if kind[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def dtype(kind: str) -> str:
    return {"u": "uint", "s": "int", "b": "uint"}[kind[0]] + kind[1:]


def edges(kind: str, *, zero: bool = True) -> list[int]:
    low, high = limits(kind)
    rng = np.random.default_rng(int(kind[1:]))
    some = [int(value) for value in rng.integers(low, high, 6, dtype=dtype(kind), endpoint=True)]
    values = {low, low + 1, high, high - 1, 0, 1, 2, 7, high // 2, high // 3, *some}
    values |= {-1, -7} if kind[0] == "s" else set()
    return sorted(values - (set() if zero else {0}))


def wrap(value: int, kind: str) -> int:
    bits = int(kind[1:])
    value %= 2**bits
    return value - 2**bits if kind[0] == "s" and value >= 2 ** (bits - 1) else value


def pairs(kind: str, *, zero: bool = True) -> tuple[Any, Any]:
    both = list(product(edges(kind), edges(kind, zero=zero)))
    left, right = zip(*both, strict=True)
    return np.array(left, dtype(kind)), np.array(right, dtype(kind))


def towards_zero(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


BINARY: dict[str, Integers] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul.lo": lambda a, b: a * b,
    "min": min,
    "max": max,
}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", BINARY)
def test_binary(execute: Any, name: str, kind: str) -> None:
    a, b = pairs(kind)
    expected = [wrap(BINARY[name](int(x), int(y)), kind) for x, y in zip(a, b, strict=True)]
    assert execute(f"{name}.{kind}", dtype(kind), a, b).tolist() == expected


@pytest.mark.parametrize("kind", TYPES)
def test_upper_half_of_products(execute: Any, kind: str) -> None:
    a, b = pairs(kind)
    expected = [wrap(int(x) * int(y) >> int(kind[1:]), kind) for x, y in zip(a, b, strict=True)]
    assert execute(f"mul.hi.{kind}", dtype(kind), a, b).tolist() == expected


@pytest.mark.parametrize("kind", TYPES[:4])
def test_wide_products_and_sums(execute: Any, kind: str) -> None:
    a, b = pairs(kind)
    wide = f"{kind[0]}{2 * int(kind[1:])}"
    c = np.resize(np.array(edges(wide), dtype(wide)), a.shape)
    products = [int(x) * int(y) for x, y in zip(a, b, strict=True)]
    assert execute(f"mul.wide.{kind}", dtype(wide), a, b).tolist() == products
    sums = [wrap(value + int(z), wide) for value, z in zip(products, c, strict=True)]
    assert execute(f"mad.wide.{kind}", dtype(wide), a, b, c).tolist() == sums


@pytest.mark.parametrize("kind", TYPES[2:])
@pytest.mark.parametrize("part", ["lo", "hi"])
def test_multiply_add(execute: Any, part: str, kind: str) -> None:
    a, b = pairs(kind)
    c = np.roll(a, 5)
    shift = int(kind[1:]) if part == "hi" else 0
    expected = [wrap((int(x) * int(y) >> shift) + int(z), kind) for x, y, z in zip(a, b, c, strict=True)]
    assert execute(f"mad.{part}.{kind}", dtype(kind), a, b, c).tolist() == expected


@pytest.mark.parametrize("kind", ["u32", "s32"])
def test_24_bits(execute: Any, kind: str) -> None:
    a, b = pairs(kind)
    c = np.roll(a, 3)
    cut = [wrap(int(x), kind[0] + "24") * wrap(int(y), kind[0] + "24") for x, y in zip(a, b, strict=True)]
    assert execute(f"mul24.lo.{kind}", dtype(kind), a, b).tolist() == [wrap(value, kind) for value in cut]
    sums = [wrap(value + int(z), kind) for value, z in zip(cut, c, strict=True)]
    assert execute(f"mad24.lo.{kind}", dtype(kind), a, b, c).tolist() == sums


@pytest.mark.parametrize("kind", TYPES)
def test_division_is_towards_zero(execute: Any, kind: str) -> None:
    a, b = pairs(kind, zero=False)
    quotients = [towards_zero(int(x), int(y)) for x, y in zip(a, b, strict=True)]
    assert execute(f"div.{kind}", dtype(kind), a, b).tolist() == [wrap(value, kind) for value in quotients]
    rests = [int(x) - q * int(y) for x, y, q in zip(a, b, quotients, strict=True)]
    assert execute(f"rem.{kind}", dtype(kind), a, b).tolist() == rests


@pytest.mark.parametrize("name", ["div.s32", "rem.u32"])
def test_division_by_zero_is_an_error(execute: Any, name: str) -> None:
    with pytest.raises(DivisionError, match=r"thread \(2, 0, 0\).*division by zero"):
        execute(name, "int32", np.array([1, 2, 3], "int32"), np.array([1, 1, 0], "int32"))


@pytest.mark.parametrize("kind", ["s16", "s32", "s64"])
def test_sign(execute: Any, kind: str) -> None:
    a = np.array(edges(kind), dtype(kind))
    assert execute(f"neg.{kind}", dtype(kind), a).tolist() == [wrap(-int(x), kind) for x in a]
    assert execute(f"abs.{kind}", dtype(kind), a).tolist() == [wrap(abs(int(x)), kind) for x in a]


def test_saturating_sums(execute: Any) -> None:
    a, b = pairs("s32")
    low, high = limits("s32")
    expected = [min(max(int(x) + int(y), low), high) for x, y in zip(a, b, strict=True)]
    assert execute("add.sat.s32", "int32", a, b).tolist() == expected
    expected = [min(max(int(x) - int(y), low), high) for x, y in zip(a, b, strict=True)]
    assert execute("sub.sat.s32", "int32", a, b).tolist() == expected


@pytest.mark.parametrize("kind", TYPES[:4])
def test_absolute_difference(execute: Any, kind: str) -> None:
    a, b = pairs(kind)
    c = np.roll(b, 4)
    expected = [wrap(int(z) + abs(int(x) - int(y)), kind) for x, y, z in zip(a, b, c, strict=True)]
    assert execute(f"sad.{kind}", dtype(kind), a, b, c).tolist() == expected
