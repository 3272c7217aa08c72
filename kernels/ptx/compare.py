"""Comparison and selection: setp, set, selp, slct, testp, copysign; a NaN is neither less, equal nor greater."""

import numpy as np

from minet_sdk.kernels.ptx.elementwise import Binary, Builder, Unary, binary, ternary, unary
from minet_sdk.kernels.ptx.errors import UnsupportedError
from minet_sdk.kernels.ptx.formats import FORMATS, Format
from minet_sdk.kernels.ptx.lanes import Lanes
from minet_sdk.kernels.ptx.modifiers import Modifiers
from minet_sdk.kernels.ptx.operands import Decoder, Reader, Step
from minet_sdk.kernels.ptx.rounding import Value, flush
from minet_sdk.kernels.ptx.syntax import Instruction, Operand, Pair

_PREDICATE = FORMATS["pred"]
_ORDERED: dict[str, Binary] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
_UNSIGNED = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}
_UNORDERED = {f"{name}u": name for name in _ORDERED}
_NAMES = (*_ORDERED, *_UNSIGNED, *_UNORDERED, "num", "nan")
_COMBINE: dict[str, Binary] = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}


def _comparison(modifiers: Modifiers, form: Format) -> Binary:
    """Claim the comparison and ``.ftz``."""
    name = modifiers.choice(_NAMES)
    if not form.is_float:
        name = _UNSIGNED.get(name, name)
        if name not in _ORDERED:
            raise UnsupportedError(f"comparison .{name} of .{form.name}")
        return _ORDERED[name]
    if name in _UNSIGNED:
        raise UnsupportedError(f"comparison .{name} of .{form.name}")
    ordered = _ordered(name)
    if not modifiers.flag("ftz"):
        return ordered
    return lambda first, second: ordered(flush(first), flush(second))


def _ordered(name: str) -> Binary:
    """Comparison of floating-point numbers."""

    def compare(first: Value, second: Value) -> Value:
        unordered = np.isnan(first) | np.isnan(second)
        if name in ("num", "nan"):
            return unordered if name == "nan" else ~unordered
        if name in _UNORDERED:
            return _ORDERED[_UNORDERED[name]](first, second) | unordered
        return _ORDERED[name](first, second) & ~unordered

    return compare


def _third(decoder: Decoder, sources: list[Operand], combine: str) -> Reader | None:
    """Reader of the predicate to combine with, taken from the end of ``sources``."""
    if not combine:
        return None
    if len(sources) != 3:
        raise UnsupportedError(f"{len(sources)} source operands; expected 3")
    return decoder.source(sources.pop(), _PREDICATE)


def set_predicate(decoder: Decoder, instruction: Instruction) -> Step:
    """``setp``: predicate of a comparison, combined with another predicate if there is one."""
    modifiers = Modifiers(instruction)
    form = modifiers.form()
    combine = modifiers.choice(_COMBINE, "")
    compare = _comparison(modifiers, form)
    modifiers.done()
    target, *sources = instruction.operands
    third = _third(decoder, sources, combine)
    left, right = decoder.sources(sources, form, form)
    parts = (target.first, target.second) if isinstance(target, Pair) else (target,)
    writers = [decoder.target(part, _PREDICATE) for part in parts]
    if form.is_packed:
        if len(writers) != 2 or third:
            raise UnsupportedError("a packed comparison needs two results and no third source")

        def step_packed(lanes: Lanes) -> None:
            result = compare(left(lanes), right(lanes))
            for half, write in enumerate(writers):
                write(lanes, np.ascontiguousarray(result[..., half]))

        return step_packed
    join = _COMBINE.get(combine)

    def step(lanes: Lanes) -> None:
        result = compare(left(lanes), right(lanes))
        results = (result, ~result) if len(writers) > 1 else (result,)
        if join and third:
            other = third(lanes)
            results = tuple(join(one, other) for one in results)
        for one, write in zip(results, writers, strict=True):
            write(lanes, one)

    return step


def set_value(decoder: Decoder, instruction: Instruction) -> Step:
    """``set``: all ones, or 1.0, where a comparison holds."""
    modifiers = Modifiers(instruction)
    form, result = modifiers.form(), modifiers.form()
    combine = modifiers.choice(_COMBINE, "")
    compare = _comparison(modifiers, form)
    modifiers.done()
    if form.is_packed or result.is_packed:
        raise UnsupportedError(f"set.{result.name}.{form.name}")
    target, *sources = instruction.operands
    third = _third(decoder, sources, combine)
    left, right = decoder.sources(sources, form, form)
    write = decoder.target(target, result)
    yes = result.compute(1.0) if result.is_float else result.raw((1 << result.bits) - 1).view(result.compute)
    no = result.compute(0)
    join = _COMBINE.get(combine)

    def step(lanes: Lanes) -> None:
        holds = compare(left(lanes), right(lanes))
        if join and third:
            holds = join(holds, third(lanes))
        write(lanes, np.where(holds, yes, no))

    return step


def select(decoder: Decoder, instruction: Instruction) -> Step:
    """``selp``: the first source where the predicate holds, else the second."""
    modifiers = Modifiers(instruction)
    form = modifiers.form()
    modifiers.done()

    def function(yes: Value, no: Value, condition: Value) -> Value:
        return np.where(condition, yes, no)

    return ternary(decoder, instruction, form, function, (form, form, _PREDICATE))


def select_by_sign(decoder: Decoder, instruction: Instruction) -> Step:
    """``slct``: the first source where the third is not negative, else the second."""
    modifiers = Modifiers(instruction)
    sign, form = modifiers.form(), modifiers.form()
    modifiers.done()

    def function(yes: Value, no: Value, key: Value) -> Value:
        return np.where(key >= 0, yes, no)

    return ternary(decoder, instruction, form, function, (form, form, sign))


_CLASSES: dict[str, Unary] = {
    "finite": np.isfinite,
    "infinite": np.isinf,
    "number": lambda value: ~np.isnan(value),
    "notanumber": np.isnan,
    "normal": lambda value: np.isfinite(value) & (np.abs(value) >= np.finfo(value.dtype).smallest_normal),
    "subnormal": lambda value: (value != 0) & (np.abs(value) < np.finfo(value.dtype).smallest_normal),
}


def classify(decoder: Decoder, instruction: Instruction) -> Step:
    """``testp``."""
    modifiers = Modifiers(instruction)
    form = modifiers.form()
    name = modifiers.choice(_CLASSES)
    modifiers.done()
    return unary(decoder, instruction, _PREDICATE, _CLASSES[name], form)


def copy_sign(decoder: Decoder, instruction: Instruction) -> Step:
    """``copysign``: sign of the first source, magnitude of the second."""
    modifiers = Modifiers(instruction)
    form = modifiers.form()
    modifiers.done()
    return binary(decoder, instruction, form, lambda sign, value: np.copysign(value, sign), form, form)


COMPARE: dict[str, Builder] = {
    "setp": set_predicate,
    "set": set_value,
    "selp": select,
    "slct": select_by_sign,
    "testp": classify,
    "copysign": copy_sign,
}
