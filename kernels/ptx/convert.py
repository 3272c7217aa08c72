"""``cvt``: between all integer and floating-point types, with every direction of rounding, saturation and packing."""

from typing import Any

import numpy as np

from minet_sdk.kernels.ptx.elementwise import Builder, Function, Unary, rectified, saturated, unary
from minet_sdk.kernels.ptx.errors import UnsupportedError
from minet_sdk.kernels.ptx.formats import FORMATS, Format
from minet_sdk.kernels.ptx.lanes import Lanes
from minet_sdk.kernels.ptx.modifiers import Modifiers
from minet_sdk.kernels.ptx.operands import Decoder, Step
from minet_sdk.kernels.ptx.rounding import Value, flush, integer_to_odd, round_to
from minet_sdk.kernels.ptx.syntax import Instruction

_WHOLE: dict[str, Unary] = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}
_DIRECTIONS = ("rn", "rz", "rm", "rp", "rna")


def convert(decoder: Decoder, instruction: Instruction) -> Step:
    """``cvt``."""
    modifiers = Modifiers(instruction)
    source, target = modifiers.form(), modifiers.form()
    whole = modifiers.choice(_WHOLE, "")
    direction = modifiers.choice(_DIRECTIONS, "rn")
    ftz, sat, relu = modifiers.flag("ftz"), modifiers.flag("sat"), modifiers.flag("relu")
    modifiers.done()
    if target.is_packed:
        return _packed(decoder, instruction, source, target, direction, relu=relu)
    if source.is_float and target.is_float:
        function = _float_to_float(source, target, direction, whole)
    elif source.is_float:
        function = _float_to_integer(source, target, whole)
    elif target.is_float:
        function = _integer_to_float(source, target, direction)
    else:
        function = _integer_to_integer(source, target, sat=sat)
    if ftz:
        function = _flushed(function, source, target)
    if target.is_float and sat:
        function = saturated(function, target)
    if relu:
        function = rectified(function, target)
    return unary(decoder, instruction, target, function, source)


def _flushed(inner: Function, source: Format, target: Format) -> Function:
    """``.ftz`` acts on float32 only, on either side."""

    def function(value: Value) -> Value:
        result = inner(flush(value) if source.name == "f32" else value)
        return flush(result) if target.name == "f32" else result

    return function


def _float_to_float(source: Format, target: Format, direction: str, whole: str) -> Unary:
    kind = target.compute
    if whole:
        if source.name != target.name:
            raise UnsupportedError(f"cvt.{whole}.{target.name}.{source.name}")
        return _WHOLE[whole]
    exact = target.name == "f64" or (target.bits == 32 and source.bits == 16)
    by_numpy = direction == "rn" and (target.name in ("f16", "f32") or (target.name == "bf16" and source.name != "f64"))
    if exact or by_numpy:
        return lambda value: value.astype(kind)
    return _rounded(target, direction)


def _rounded(target: Format, direction: Any) -> Unary:
    kind, name = target.compute, target.name
    return lambda value: round_to(value.astype(np.float64), name, direction).astype(kind)


def _float_to_integer(source: Format, target: Format, whole: str) -> Unary:
    """Out of range gives the nearest end; NaN gives 0, or the sign bit alone if 64 bits are involved."""
    if not whole:
        raise UnsupportedError("a conversion to an integer needs a rounding such as .rzi")
    rounding = _WHOLE[whole]
    low, high = target.limits
    kind = target.compute
    wide = source.bits == 64 or target.bits == 64
    missing = target.raw(1 << (target.bits - 1)).view(kind) if wide else kind(0)

    def function(value: Value) -> Value:
        rounded = rounding(value.astype(np.float64))
        inside = (rounded < float(high + 1)) & (rounded >= float(low))
        result = np.where(inside, rounded, 0.0).astype(kind)
        if inside.all():
            return result
        ends = np.where(rounded > 0, kind(high), kind(low))
        return np.where(inside, result, np.where(np.isnan(rounded), missing, ends))

    return function


def _integer_to_float(source: Format, target: Format, direction: Any) -> Unary:
    kind, name = target.compute, target.name
    if direction == "rn" and name != "bf16":
        return lambda value: value.astype(kind)
    if name == "f64":
        raise UnsupportedError(f"cvt.{direction}.f64.{source.name} is not supported")
    return lambda value: round_to(integer_to_odd(value), name, direction).astype(kind)


def _integer_to_integer(source: Format, target: Format, *, sat: bool) -> Unary:
    kind = target.compute
    if not sat:
        return lambda value: value.astype(kind)
    low = source.compute(max(target.limits[0], source.limits[0]))
    high = source.compute(min(target.limits[1], source.limits[1]))
    return lambda value: np.clip(value, low, high).astype(kind)


def _packed(
    decoder: Decoder, instruction: Instruction, source: Format, target: Format, direction: str, *, relu: bool
) -> Step:
    """Two float32 into one register; the first source goes into the upper half."""
    if source.name != "f32":
        raise UnsupportedError(f"cvt.{target.name}.{source.name}")
    half = FORMATS[target.name.removesuffix("x2")]
    function = _float_to_float(source, half, direction, "")
    if relu:
        function = rectified(function, half)
    write = decoder.target(instruction.operands[0], FORMATS["b32"])
    upper, lower = decoder.sources(instruction.operands[1:], source, source)

    def step(lanes: Lanes) -> None:
        high, low = (half.encode(function(read(lanes))).astype(np.uint32) for read in (upper, lower))
        write(lanes, (high << np.uint32(16)) | low)

    return step


CONVERT: dict[str, Builder] = {"cvt": convert}
