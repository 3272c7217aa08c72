"""Launch parameters cover every element once, pass through symbolic sizes, and refuse what the kernels do not take."""

import math
import struct
from collections.abc import Callable
from typing import Any

import pytest

from minet_sdk.errors import InputError
from minet_sdk.kernels import launches
from minet_sdk.kernels.binaries import manifest
from minet_sdk.kernels.launches import Launch


class Symbol:
    """A size that is known later, with the operators of TensorRT's shape expressions: itself on the left only."""

    def __init__(self, evaluate: Callable[[dict[str, int]], int]) -> None:
        self.evaluate = evaluate

    @classmethod
    def named(cls, name: str) -> "Symbol":
        return cls(lambda sizes: sizes[name])

    def _with(self, other: "int | Symbol", function: Callable[[int, int], int]) -> "Symbol":
        return Symbol(lambda sizes: function(self.evaluate(sizes), value_of(other, sizes)))

    def __add__(self, other: "int | Symbol") -> "Symbol":
        return self._with(other, lambda a, b: a + b)

    def __sub__(self, other: "int | Symbol") -> "Symbol":
        return self._with(other, lambda a, b: a - b)

    def __mul__(self, other: "int | Symbol") -> "Symbol":
        return self._with(other, lambda a, b: a * b)

    def __floordiv__(self, other: "int | Symbol") -> "Symbol":
        return self._with(other, lambda a, b: a // b)

    def __bool__(self) -> bool:
        raise AssertionError("a size that is known later cannot be asked anything")


def value_of(size: "int | Symbol", sizes: dict[str, int]) -> int:
    return size.evaluate(sizes) if isinstance(size, Symbol) else size


PLANS: list[Callable[[Any, Any, Any], list[Launch]]] = [
    lambda n, c, p: [
        launches.gram(element, layout, stages=stages, batch=n, channels=c, pixels=p, separate=separate)
        for element in ("f32", "f16", "bf16")
        for layout in ("linear", "hwc8")
        for stages in (1, 12, 13, 16, 17, 32)
        for separate in (False, True)
    ],
    lambda n, c, p: [
        launches.mix(element, layout, stages=stages, batch=n, channels=c, pixels=p, separate=separate)
        for element in ("f32", "f16", "bf16")
        for layout in ("linear", "hwc8")
        for stages in (1, 12, 32)
        for separate in (False, True)
    ],
    lambda n, c, p: [
        launches.affinity("cosine", stages=12, batch=n, temperature=0.1),
        launches.fold("f16", stages=12, batch=n, outputs=64, inner=576),
        *launches.moments(n, p),
        launches.normalise(n, p, epsilon=1e-11),
        launches.denormalise(n, p, epsilon=1e-11),
        launches.matmul(batch=n, rows=p, inner=c, columns=p, addend_scale=0.5),
    ],
]


@pytest.mark.parametrize("sizes", [(1, 64, 102400), (3, 8, 63), (2, 24, 1)])
def test_symbolic_sizes_give_what_ints_give(sizes: tuple[int, int, int]) -> None:
    names = dict(zip("ncp", sizes, strict=True))
    symbols = [Symbol.named(name) for name in "ncp"]
    for plans in PLANS:
        for known, later in zip(plans(*sizes), plans(*symbols), strict=True):
            assert (later.entry, later.block) == (known.entry, known.block)
            assert tuple(value_of(size, names) for size in later.grid) == known.grid
            assert tuple(value_of(size, names) for size in later.integers) == known.integers


def test_every_launch_names_a_shipped_entry() -> None:
    shipped = set(manifest()["targets"]["sm80"]["entries"])
    planned = {plan.entry for plans in PLANS for plan in plans(1, 8, 9)}
    planned |= {launches.affinity(mode, stages=2, batch=1).entry for mode in ("paper", "released", "cosine")}
    planned |= {launches.fold(element, stages=2, batch=1, outputs=8, inner=72).entry for element in ("f32", "bf16")}
    planned |= {launches.matmul(batch=1, rows=1, inner=1, columns=1).entry}
    assert planned == shipped
    without_bf16 = {entry for entry in shipped if "bf16" not in entry}
    assert set(manifest()["targets"]["sm75"]["entries"]) == without_bf16


@pytest.mark.parametrize("pixels", [1, 63, 4097, 102400])
@pytest.mark.parametrize("splits", [1, 3, 512])
def test_gram_parts_cover_every_element_once(pixels: int, splits: int) -> None:
    plan = launches.gram("f16", "linear", stages=12, batch=1, channels=24, pixels=pixels, splits=splits)
    _, elements, chunk, *_ = plan.integers
    assert elements == 24 * pixels
    assert chunk % 64 == 0
    assert plan.grid == (splits, 1, 1)
    assert chunk * splits >= elements
    # Whole parts may stay empty only because a chunk is a multiple of 64.
    assert chunk == 64 or (chunk - 64) * splits < elements


@pytest.mark.parametrize("element", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("stages", range(1, 33))
def test_mixing_fits_shared_memory_and_covers_every_vector(element: launches.Element, stages: int) -> None:
    plan = launches.mix(element, "linear", stages=stages, batch=2, channels=8, pixels=1001)
    vectors = 8 * 1001 // (4 if element == "f32" else 8)
    assert plan.block % 32 == 0
    assert plan.block * stages <= 2048
    assert (plan.grid[0] - 1) * plan.block < vectors <= plan.grid[0] * plan.block


def test_addressing_describes_both_layouts() -> None:
    stages, channels, height, width = 3, 16, 5, 7
    sizes: dict[str, Any] = {"stages": stages, "batch": 1, "channels": channels, "pixels": height * width}
    row, run, pitch = launches.mix("f16", "linear", **sizes).integers[2:]
    assert [row + k // run * pitch + k % run for k in (0, 17, 559)] == [560, 577, 1119]
    row, run, pitch = launches.mix("f16", "hwc8", **sizes).integers[2:]
    # Stage 1, element k = (pixel, channel) of (pixels, stages, channels).
    places = [row + k // run * pitch + k % run for k in (0, 17, 559)]
    assert places == [(0 * 3 + 1) * 16, (1 * 3 + 1) * 16 + 1, (34 * 3 + 1) * 16 + 15]


@pytest.mark.parametrize("value", [0.0, 1.0, -1.5, 0.1, 1e-11, math.inf])
def test_float_bits_are_those_of_float32(value: float) -> None:
    bits = launches.float_bits(value)
    assert -(2**31) <= bits < 2**31
    assert struct.unpack("<f", struct.pack("<i", bits))[0] == pytest.approx(value, rel=6e-8)


def test_only_cosine_has_a_temperature() -> None:
    assert launches.affinity("paper", stages=2, batch=1, temperature=-1.0).integers == (2, 512, 0x3F800000)
    cosine = launches.affinity("cosine", stages=2, batch=1, temperature=2.0, gain=-1.0)
    assert cosine.integers == (2, 512, 0x40000000, launches.float_bits(-1.0))


GOOD: dict[str, Any] = {"stages": 12, "batch": 1, "channels": 8, "pixels": 64}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": 0}, "stages is 0; expected 1 to 32"),
        ({"stages": 33}, "stages is 33; expected 1 to 32"),
        ({"channels": 12}, "channels is 12; expected a positive multiple of 8"),
        ({"channels": 0}, "channels is 0"),
        ({"batch": 65536}, "batch is 65536; expected 1 to 65535"),
        ({"pixels": 2**28}, r"at most 2\^31 - 1"),
        ({"pixels": 0}, "pixels is 0"),
    ],
)
def test_sizes_beyond_the_kernels_are_refused(change: dict[str, Any], message: str) -> None:
    for plan in (launches.gram, launches.mix):
        with pytest.raises(InputError, match=message):
            plan("f16", "linear", **{**GOOD, **change})


def test_names_and_numbers_that_do_not_exist_are_refused() -> None:
    wrong: Any = "f64"
    with pytest.raises(InputError, match="element is 'f64'"):
        launches.gram(wrong, "linear", **GOOD)
    with pytest.raises(InputError, match="layout is 'f64'"):
        launches.mix("f32", wrong, **GOOD)
    with pytest.raises(InputError, match="mode is 'f64'"):
        launches.affinity(wrong, stages=2, batch=1)
    with pytest.raises(InputError, match="splits is 0"):
        launches.gram("f16", "linear", **GOOD, splits=0)
    with pytest.raises(InputError, match=r"temperature is 0\.0"):
        launches.affinity("cosine", stages=2, batch=1, temperature=0.0)
    with pytest.raises(InputError, match="gain is nan"):
        launches.affinity("paper", stages=2, batch=1, gain=math.nan)
    with pytest.raises(InputError, match="inner is 12"):
        launches.fold("f16", stages=2, batch=1, outputs=4, inner=12)
    with pytest.raises(InputError, match="rows is 0"):
        launches.matmul(batch=1, rows=0, inner=1, columns=1)
