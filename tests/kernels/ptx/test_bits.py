"""Logic, shifts, bit fields and byte permutations against Python's integers and what the PTX manual says in words."""

from itertools import product
from typing import Any

import numpy as np
import pytest

EDGES = {
    16: [0, 1, 2, 0x7FFF, 0x8000, 0xFFFF, 0xA5C3],
    32: [0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xA5C396E1, 0x00F0, 12345678],
    64: [0, 1, 2, 2**63 - 1, 2**63, 2**64 - 1, 0xA5C396E10F2D4B78, 2**40 + 5],
}


def columns(*values: Any, kind: str = "uint32") -> list[Any]:
    """All combinations, one column each."""
    return [np.array(column, kind) for column in zip(*product(*values), strict=True)]


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_logic(execute: Any, bits: int) -> None:
    kind = f"uint{bits}"
    a, b = columns(EDGES[bits], EDGES[bits], kind=kind)
    assert (execute(f"and.b{bits}", kind, a, b) == a & b).all()
    assert (execute(f"or.b{bits}", kind, a, b) == a | b).all()
    assert (execute(f"xor.b{bits}", kind, a, b) == a ^ b).all()
    assert (execute(f"not.b{bits}", kind, a) == 2**bits - 1 - a).all()
    assert (execute(f"cnot.b{bits}", kind, a) == (a == 0)).all()


def test_logic_of_predicates(execute: Any) -> None:
    p, q = columns([True, False], [True, False], kind="bool")
    assert execute("and.pred", "bool", p, q).tolist() == [True, False, False, False]
    assert execute("or.pred", "bool", p, q).tolist() == [True, True, True, False]
    assert execute("xor.pred", "bool", p, q).tolist() == [False, True, True, False]
    assert execute("not.pred", "bool", p).tolist() == [False, False, True, True]


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_shifts(execute: Any, bits: int) -> None:
    kind = f"uint{bits}"
    values, amounts = columns(EDGES[bits], [0, 1, 5, bits - 1, bits, bits + 1, 255, 2**32 - 1], kind="uint64")
    a, n = values.astype(kind), amounts.astype("uint32")
    left, right, signed = [], [], []
    for value, amount in zip(values.tolist(), amounts.tolist(), strict=True):
        left.append((value << amount) % 2**bits if amount < bits else 0)
        right.append(value >> amount if amount < bits else 0)
        signed.append(((value - (value >> (bits - 1) << bits)) >> min(amount, bits)) % 2**bits)
    assert execute(f"shl.b{bits}", kind, a, n).tolist() == left
    assert execute(f"shr.u{bits}", kind, a, n).tolist() == right
    assert execute(f"shr.s{bits}", kind, a, n).tolist() == signed


@pytest.mark.parametrize("mode", ["wrap", "clamp"])
def test_funnel_shifts(execute: Any, mode: str) -> None:
    low, high, n = columns(EDGES[32][:6], EDGES[32][3:], [0, 1, 17, 31, 32, 33, 63, 64])
    left, right = [], []
    for a, b, c in zip(low.tolist(), high.tolist(), n.tolist(), strict=True):
        amount = c % 32 if mode == "wrap" else min(c, 32)
        both = (b << 32) | a
        left.append((both << amount) >> 32 & 0xFFFFFFFF)
        right.append(both >> amount & 0xFFFFFFFF)
    assert execute(f"shf.l.{mode}.b32", "uint32", low, high, n).tolist() == left
    assert execute(f"shf.r.{mode}.b32", "uint32", low, high, n).tolist() == right


def test_every_function_of_three_bits(execute: Any) -> None:
    a, b, c = (np.array([value], "uint32") for value in (0xF0F0F0F0, 0xCCCCCCCC, 0xAAAAAAAA))
    for table in (0, 1, 0x80, 0x96, 0xE8, 0xCA, 0xFF, 0x3C):
        # The three sources hold all combinations, so that the low byte of the result is the table itself.
        assert int(execute("lop3.b32", "uint32", a, b, c, str(table))[0]) & 0xFF == table


def test_permutation_of_bytes(execute: Any) -> None:
    low, high = np.array([0x33221100], np.uint32), np.array([0x77E65544], np.uint32)

    def permuted(selector: int, mode: str = "") -> str:
        return f"{int(execute(f'prmt.b32{mode}', 'uint32', low, high, np.array([selector], np.uint32))[0]):08x}"

    assert permuted(0x3210) == "33221100"
    assert permuted(0x7654) == "77e65544"
    assert permuted(0x0167) == "0011e677"
    assert permuted(0xE0F8) == "ff000000"
    manual = {
        "f4e": ["3210", "4321", "5432", "6543"],
        "b4e": ["5670", "6701", "7012", "0123"],
        "rc8": ["0000", "1111", "2222", "3333"],
        "ecl": ["3210", "3211", "3222", "3333"],
        "ecr": ["0000", "1110", "2210", "3210"],
        "rc16": ["1010", "3232", "1010", "3232"],
    }
    for mode, rows in manual.items():
        for selector, row in enumerate(rows):
            assert permuted(selector, f".{mode}") == permuted(int(row, 16)), (mode, selector)


@pytest.mark.parametrize("kind", ["u32", "s32", "u64", "s64"])
def test_extraction_of_bit_fields(execute: Any, kind: str) -> None:
    bits = int(kind[1:])
    values, starts, lengths = columns(EDGES[bits], [0, 3, 20, bits - 1, bits, 255], [0, 1, 7, bits, 255], kind="uint64")
    expected: list[int] = []
    for value, start, length in zip(values.tolist(), starts.tolist(), lengths.tolist(), strict=True):
        # Bit by bit, as the manual's pseudocode does.
        sign = 0
        if kind[0] == "s" and length:
            sign = value >> min(start + length - 1, bits - 1) & 1
        result = 0
        for i in range(bits):
            bit = value >> (start + i) & 1 if i < length and start + i < bits else sign
            result |= bit << i
        expected.append(result)
    dtype = f"uint{bits}"
    fields = execute(f"bfe.{kind}", dtype, values.astype(dtype), starts.astype("u4"), lengths.astype("u4"))
    assert fields.tolist() == expected


@pytest.mark.parametrize("bits", [32, 64])
def test_insertion_of_bit_fields(execute: Any, bits: int) -> None:
    field, into, starts, lengths = columns(
        EDGES[bits][::2], EDGES[bits][1::2], [0, 5, bits - 1, bits, 255], [0, 1, 9, bits, 255], kind="uint64"
    )
    expected: list[int] = []
    for a, b, start, length in zip(*(x.tolist() for x in (field, into, starts, lengths)), strict=True):
        result = b
        for i in range(length):
            if start + i < bits:
                result = result & ~(1 << (start + i)) | (a >> i & 1 if i < bits else 0) << (start + i)
        expected.append(result)
    dtype = f"uint{bits}"
    result = execute(
        f"bfi.b{bits}", dtype, field.astype(dtype), into.astype(dtype), starts.astype("u4"), lengths.astype("u4")
    )
    assert result.tolist() == expected


def test_masks(execute: Any) -> None:
    start, length = columns([0, 3, 31, 32, 200], [0, 1, 8, 32, 100])
    clamped = [
        sum(1 << i for i in range(min(s, 32), min(s + n, 32)))
        for s, n in zip(start.tolist(), length.tolist(), strict=True)
    ]
    assert execute("bmsk.clamp.b32", "uint32", start, length).tolist() == clamped
    wrapped = [
        sum(1 << i for i in range(s % 32, min(s % 32 + n % 32, 32)))
        for s, n in zip(start.tolist(), length.tolist(), strict=True)
    ]
    assert execute("bmsk.wrap.b32", "uint32", start, length).tolist() == wrapped


@pytest.mark.parametrize("bits", [32, 64])
def test_counting(execute: Any, bits: int) -> None:
    kind = f"uint{bits}"
    a = np.array(EDGES[bits], kind)
    values = a.tolist()
    assert execute(f"popc.b{bits}", "uint32", a).tolist() == [value.bit_count() for value in values]
    assert execute(f"clz.b{bits}", "uint32", a).tolist() == [bits - value.bit_length() for value in values]
    assert execute(f"brev.b{bits}", kind, a).tolist() == [int(f"{value:0{bits}b}"[::-1], 2) for value in values]
    highest = [value.bit_length() - 1 for value in values]
    assert execute(f"bfind.u{bits}", "uint32", a).tolist() == [x % 2**32 for x in highest]
    shifts = [bits - 1 - x if x >= 0 else 2**32 - 1 for x in highest]
    assert execute(f"bfind.shiftamt.u{bits}", "uint32", a).tolist() == shifts
    signed = [2**bits - 1 - value if value >> (bits - 1) else value for value in values]
    assert execute(f"bfind.s{bits}", "uint32", a).tolist() == [(x.bit_length() - 1) % 2**32 for x in signed]
