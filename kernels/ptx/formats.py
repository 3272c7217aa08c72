"""The scalar types of PTX: how many bits, which NumPy type computes with them, and the way there and back.

Registers hold raw bits as unsigned integers (predicates as bool); a format gives them their meaning.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minet_sdk.kernels.ptx.rounding import Value, bf16_to_f32, f32_to_bf16

WIDTHS: dict[str, int] = {
    "pred": 1,
    **{f"{kind}{bits}": bits for kind in "bus" for bits in (8, 16, 32, 64)},
    **{"f16": 16, "bf16": 16, "f16x2": 32, "bf16x2": 32, "f32": 32, "tf32": 32, "f64": 64},
}
"""Bits of every type."""

RAW: dict[int, Any] = {1: np.bool_, 8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
"""How a register of so many bits is stored."""

_SIGNED: dict[int, Any] = {8: np.int8, 16: np.int16, 32: np.int32, 64: np.int64}


@dataclass(frozen=True)
class Format:
    """One type.

    Attributes:
        name: as in PTX.
        bits: width of the register.
        raw: unsigned type that stores it.
        compute: type that instructions compute with; float32 for bf16, which NumPy does not have.
        decode: raw -> compute; a packed type gives (..., 2), the lower half first.
        encode: compute -> raw.
    """

    name: str
    bits: int
    raw: Any
    compute: Any
    decode: Callable[[Value], Value]
    encode: Callable[[Value], Value]

    @property
    def is_float(self) -> bool:
        """Whether it has NaN."""
        return self.name[0] in "ft" or self.name.startswith("bf")

    @property
    def is_signed(self) -> bool:
        """Whether it is a signed integer."""
        return self.name[0] == "s"

    @property
    def is_view(self) -> bool:
        """Whether decoding only looks at the same bits as another type."""
        return np.dtype(self.raw).itemsize == np.dtype(self.compute).itemsize and not self.is_packed

    @property
    def is_packed(self) -> bool:
        """Whether it holds two values."""
        return self.name.endswith("x2")

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest value of an integer type."""
        if self.is_signed:
            return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1
        return 0, (1 << self.bits) - 1


def _same(value: Value) -> Value:
    return value


def _view(name: str, kind: Any) -> Format:
    bits = WIDTHS[name]
    raw = RAW[bits]
    if raw is kind:
        return Format(name, bits, raw, kind, _same, _same)
    return Format(name, bits, raw, kind, lambda value: value.view(kind), lambda value: value.view(raw))


def _split(value: Value) -> Value:
    """uint32 (...) -> uint16 (..., 2), low half first."""
    return np.asarray(value)[..., None].view(np.uint16)


def _join(halves: Value) -> Value:
    """uint16 (..., 2) -> uint32 (...)."""
    return np.ascontiguousarray(halves).view(np.uint32)[..., 0]


def _formats() -> dict[str, Format]:
    forms = [_view("pred", np.bool_), _view("f32", np.float32), _view("tf32", np.float32), _view("f64", np.float64)]
    forms.append(_view("f16", np.float16))
    for bits in (8, 16, 32, 64):
        forms += [_view(f"{kind}{bits}", RAW[bits]) for kind in "bu"]
        forms.append(_view(f"s{bits}", _SIGNED[bits]))
    forms.append(Format("bf16", 16, np.uint16, np.float32, bf16_to_f32, f32_to_bf16))
    packed_half = Format(
        "f16x2",
        32,
        np.uint32,
        np.float16,
        lambda value: _split(value).view(np.float16),
        lambda value: _join(value.view(np.uint16)),
    )
    packed_bf16 = Format(
        "bf16x2",
        32,
        np.uint32,
        np.float32,
        lambda value: bf16_to_f32(_split(value)),
        lambda value: _join(f32_to_bf16(value)),
    )
    return {form.name: form for form in (*forms, packed_half, packed_bf16)}


FORMATS: dict[str, Format] = _formats()
"""Every type by its name."""
