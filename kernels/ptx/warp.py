"""Instructions of a whole warp: shfl, vote, match, redux, activemask, bar.warp.sync.

All lanes that the member mask names must come together; those that are elsewhere are waited for.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from minet_sdk.kernels.ptx.elementwise import Builder
from minet_sdk.kernels.ptx.errors import DivergenceError, UnsupportedError
from minet_sdk.kernels.ptx.formats import FORMATS
from minet_sdk.kernels.ptx.lanes import WARP, Lanes
from minet_sdk.kernels.ptx.modifiers import Modifiers
from minet_sdk.kernels.ptx.operands import Decoder, Step, Writer
from minet_sdk.kernels.ptx.rounding import Value
from minet_sdk.kernels.ptx.syntax import Instruction, Operand, Pair

_B32, _U32, _PREDICATE = FORMATS["b32"], FORMATS["u32"], FORMATS["pred"]
_LANE = np.arange(WARP)[None]
_BIT = np.uint32(1) << np.arange(WARP, dtype=np.uint32)


def _rows(lanes: Lanes, value: Value) -> npt.NDArray[Any]:
    """(warps, 32)."""
    return lanes.full(value).reshape(-1, WARP)


def _active(lanes: Lanes) -> npt.NDArray[np.bool_]:
    return _rows(lanes, np.bool_(True) if lanes.mask is None else lanes.mask)


def _ballot(rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint32]:
    """Bits of the lanes that are true, over the last axis."""
    return np.where(rows, _BIT, np.uint32(0)).sum(axis=-1, dtype=np.uint32)


def _results(decoder: Decoder, target: Operand) -> tuple[Writer, Writer | None]:
    """Writers of ``d`` or of ``d|p``."""
    if isinstance(target, Pair):
        return decoder.target(target.first, _B32), decoder.target(target.second, _PREDICATE)
    return decoder.target(target, _B32), None


def shuffle(decoder: Decoder, instruction: Instruction) -> Step:
    """``shfl.sync``: read a register of another lane."""
    modifiers = Modifiers(instruction)
    modifiers.require("sync", "b32")
    mode = modifiers.choice(("up", "down", "bfly", "idx"))
    modifiers.done()
    target, *sources = instruction.operands
    write, write_valid = _results(decoder, target)
    value, offset, clamp, members = decoder.sources(sources, _B32, _U32, _U32, _U32)

    def step(lanes: Lanes) -> None:
        lanes.converge(members(lanes))
        shift = _rows(lanes, offset(lanes)).astype(np.int64) & 31
        bound = _rows(lanes, clamp(lanes)).astype(np.int64)
        segment = (bound >> 8) & 31
        last = (_LANE & segment) | (bound & 31 & ~segment)
        if mode == "up":
            source = _LANE - shift
            valid = source >= last
        else:
            first = _LANE & segment
            source = {"down": _LANE + shift, "bfly": _LANE ^ shift, "idx": first | (shift & ~segment)}[mode]
            valid = source <= last
        source = np.where(valid, source, _LANE)
        here = _active(lanes)
        wrong = here & ~np.take_along_axis(here, source, 1)
        if wrong.any():
            raise DivergenceError("shuffle from a lane that does not take part", lane=int(np.argmax(wrong)))
        write(lanes, np.take_along_axis(_rows(lanes, value(lanes)), source, 1).reshape(-1))
        if write_valid:
            write_valid(lanes, valid.reshape(-1))

    return step


def vote(decoder: Decoder, instruction: Instruction) -> Step:
    """``vote.sync``: what the predicates of a warp say together."""
    modifiers = Modifiers(instruction)
    form = modifiers.form()
    modifiers.require("sync")
    mode = modifiers.choice(("all", "any", "uni", "ballot"))
    modifiers.done()
    if form.name != ("b32" if mode == "ballot" else "pred"):
        raise UnsupportedError(f"vote.{mode}.{form.name}")
    write = decoder.target(instruction.operands[0], form)
    predicate, members = decoder.sources(instruction.operands[1:], _PREDICATE, _U32)

    def step(lanes: Lanes) -> None:
        lanes.converge(members(lanes))
        here = _active(lanes)
        yes = _rows(lanes, predicate(lanes)) & here
        if mode == "ballot":
            result = _ballot(yes)
        else:
            every, some = (yes == here).all(axis=1), yes.any(axis=1)
            result = {"all": every, "any": some, "uni": every | ~some}[mode]
        write(lanes, np.repeat(result, WARP))

    return step


def match(decoder: Decoder, instruction: Instruction) -> Step:
    """``match.sync``: which lanes hold the same value."""
    modifiers = Modifiers(instruction)
    form = modifiers.form()
    modifiers.require("sync")
    mode = modifiers.choice(("any", "all"))
    modifiers.done()
    target, *sources = instruction.operands
    write, write_all = _results(decoder, target)
    value, members = decoder.sources(sources, form, _U32)

    def step(lanes: Lanes) -> None:
        lanes.converge(members(lanes))
        here = _active(lanes)
        rows = _rows(lanes, value(lanes))
        same = (rows[:, :, None] == rows[:, None, :]) & here[:, None, :]
        equal = _ballot(same)
        if mode == "all":
            every = (same == here[:, None, :]).all(axis=-1)
            equal = np.where(every, equal, np.uint32(0))
            if write_all:
                write_all(lanes, every.reshape(-1))
        write(lanes, equal.reshape(-1))

    return step


_REDUCTIONS: dict[str, np.ufunc] = {
    "add": np.add,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "min": np.minimum,
    "max": np.maximum,
}


def reduce(decoder: Decoder, instruction: Instruction) -> Step:
    """``redux.sync``: sum, extreme or logical combination over a warp."""
    modifiers = Modifiers(instruction)
    form = modifiers.form()
    modifiers.require("sync")
    mode = modifiers.choice(_REDUCTIONS)
    modifiers.done()
    if form.is_float or form.bits != 32:
        raise UnsupportedError(f"redux.{mode}.{form.name}")
    low, high = form.limits
    neutral = form.compute({"min": high, "max": low, "and": high}.get(mode, 0))
    write = decoder.target(instruction.operands[0], form)
    value, members = decoder.sources(instruction.operands[1:], form, _U32)

    def step(lanes: Lanes) -> None:
        lanes.converge(members(lanes))
        rows = np.where(_active(lanes), _rows(lanes, value(lanes)), neutral)
        write(lanes, np.repeat(_REDUCTIONS[mode].reduce(rows, axis=1, dtype=form.compute), WARP))

    return step


def active_mask(decoder: Decoder, instruction: Instruction) -> Step:
    """``activemask``."""
    modifiers = Modifiers(instruction)
    modifiers.require("b32")
    modifiers.done()
    write = decoder.target(instruction.operands[0], _B32)
    return lambda lanes: write(lanes, np.repeat(_ballot(_active(lanes)), WARP))


def warp_barrier(decoder: Decoder, instruction: Instruction) -> Step:
    """``bar.warp.sync``."""
    modifiers = Modifiers(instruction)
    modifiers.require("warp", "sync")
    modifiers.done()
    (members,) = decoder.sources(instruction.operands, _U32)
    return lambda lanes: lanes.converge(members(lanes))


WARP_WIDE: dict[str, Builder] = {
    "shfl": shuffle,
    "vote": vote,
    "match": match,
    "redux": reduce,
    "activemask": active_mask,
    "bar": warp_barrier,
}
"""``bar`` is here for its form ``bar.warp.sync``; barriers of a CTA are control flow."""
