"""The shipped PTX of every entry, run instruction by instruction, against float64 within derived bounds."""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any, get_args

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from minet_sdk.kernels import bounds, emulation, launches, reference
from minet_sdk.kernels.binaries import Target, manifest
from minet_sdk.kernels.launches import Element, Launch, Layout, Mode
from minet_sdk.kernels.ptx import Coverage

pytestmark = pytest.mark.long

Array = npt.NDArray[Any]

TYPES: dict[Element, Any] = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
COMPILED: list[tuple[Target, Element]] = [
    ("sm75", "f16"),
    ("sm75", "f32"),
    ("sm80", "f16"),
    ("sm80", "bf16"),
    ("sm80", "f32"),
]
EXTREMES: dict[Element, tuple[float, ...]] = {"f16": (1e-4, 5e4), "bf16": (1e-15, 1e15), "f32": (1e-15, 1e15)}
LEAST_COVERAGE = 1.0
"""Part of the instructions of each entry that the cases below must execute together."""

COVERAGE: dict[Target, Coverage] = {"sm75": Coverage(), "sm80": Coverage()}


@dataclass(frozen=True)
class Form:
    """Sizes of stage features and the way they lie in memory."""

    stages: int
    batch: int
    channels: int
    height: int
    width: int
    splits: int
    layout: Layout = "linear"
    separate: bool = False

    def __str__(self) -> str:
        form = "separate" if self.separate else "stacked"
        size = f"{self.batch}x{self.channels}x{self.height}x{self.width}"
        return f"{self.stages}-{size}-{self.splits}-{self.layout}-{form}"

    @property
    def sizes(self) -> dict[str, Any]:
        return {
            "stages": self.stages,
            "batch": self.batch,
            "channels": self.channels,
            "pixels": self.height * self.width,
            "separate": self.separate,
        }


# Odd sizes; parts shorter than one pass of a CTA and several passes long; runs of channels that divide no step.
FORMS = [
    Form(1, 1, 8, 13, 23, 1, "hwc8"),
    Form(2, 1, 24, 3, 5, 1, separate=True),
    Form(3, 2, 24, 9, 13, 2, "hwc8"),
    Form(12, 2, 8, 7, 9, 3),
    Form(12, 2, 8, 11, 13, 2, "hwc8", separate=True),
    Form(13, 1, 8, 19, 17, 1),
    Form(16, 1, 40, 9, 7, 2, separate=True),
    Form(16, 1, 24, 11, 3, 1, "hwc8"),
    Form(17, 2, 24, 5, 9, 1, "hwc8"),
    Form(24, 1, 8, 19, 5, 2, separate=True),
    Form(32, 1, 16, 7, 5, 2),
    Form(32, 2, 8, 13, 5, 1, "hwc8", separate=True),
]
MODES: tuple[Mode, ...] = get_args(Mode)


@cache
def features(form: Form, element: Element, magnitude: float = 1.0) -> Array:
    """(N, M, C, H, W); values beyond the format's range are its largest number."""
    rng = np.random.default_rng([form.stages, form.channels, form.width])
    values = rng.standard_normal((form.batch, form.stages, form.channels, form.height, form.width)) * magnitude
    largest = float(ml_dtypes.finfo(TYPES[element]).max)
    return np.clip(values, -largest, largest).astype(TYPES[element])


def flat(stages: Array) -> npt.NDArray[np.float64]:
    """(N, M, C, H, W) -> (N, M, C * H * W) float64."""
    return stages.astype(np.float64).reshape(*stages.shape[:2], -1)


def along_k(stages: Array, layout: Layout) -> npt.NDArray[np.float64]:
    """Stages in the order of k, which parts of the Gram sum are cut along."""
    return flat(stages if layout == "linear" else stages.transpose(0, 1, 3, 4, 2))


def run(target: Target, plan: Launch, inputs: list[Array], output: Array, **options: Any) -> Array:
    emulation.run(plan, inputs, output, kernels=emulation.module(target), coverage=COVERAGE[target], **options)
    return output


def gram(target: Target, element: Element, form: Form, stages: Array, **options: Any) -> Array:
    plan = launches.gram(element, form.layout, **form.sizes, splits=form.splits)
    arrays = emulation.arranged(stages, form.layout, separate=form.separate)
    shape = (form.batch, form.splits, form.stages, form.stages)
    return run(target, plan, arrays, np.empty(shape, np.float32), **options)


def mixed(target: Target, element: Element, form: Form, stages: Array, factors: Array, **options: Any) -> Array:
    plan = launches.mix(element, form.layout, **form.sizes)
    arrays = [*emulation.arranged(stages, form.layout, separate=form.separate), factors]
    output = np.empty_like(emulation.arranged(stages, form.layout)[0])
    return emulation.restored(run(target, plan, arrays, output, **options), form.layout)


def factors_for(form: Form) -> Array:
    """(N, M, M), no two alike, so that a wrong index or a transposition shows."""
    rng = np.random.default_rng(form.stages)
    return (np.eye(form.stages) + rng.normal(size=(form.batch, form.stages, form.stages))).astype(np.float32)


def gram_excess(target: Target, element: Element, form: Form, magnitude: float = 1.0) -> float:
    stages = features(form, element, magnitude)
    partials = gram(target, element, form, stages)
    assert np.array_equal(partials, partials.swapaxes(-1, -2)), "a partial is not exactly symmetric"
    ordered = along_k(stages, form.layout)
    chunk = launches.gram(element, form.layout, **form.sizes, splits=form.splits).integers[2]
    worst = 0.0
    for split, part in enumerate(bounds.parts(ordered.shape[-1], chunk, form.splits)):
        piece = ordered[..., part]
        expected = piece @ piece.swapaxes(-1, -2)
        worst = max(worst, bounds.excess(partials[:, split], expected, bounds.gram(piece, element)))
    return worst


def mix_excess(target: Target, element: Element, form: Form, magnitude: float = 1.0) -> float:
    stages, factors = features(form, element, magnitude), factors_for(form)
    result = flat(mixed(target, element, form, stages, factors))
    exact = factors.astype(np.float64)
    bound = bounds.combination(exact, flat(stages), element)
    return bounds.excess(result, exact @ flat(stages), bound, element)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize(("target", "element"), COMPILED)
def test_gram(target: Target, element: Element, form: Form) -> None:
    assert gram_excess(target, element, form) <= 1


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize(("target", "element"), COMPILED)
def test_mix(target: Target, element: Element, form: Form) -> None:
    assert mix_excess(target, element, form) <= 1


@pytest.mark.parametrize("form", [FORMS[3], FORMS[8]], ids=str)
@pytest.mark.parametrize(("target", "element"), COMPILED)
def test_extreme_magnitudes(target: Target, element: Element, form: Form) -> None:
    for magnitude in EXTREMES[element]:
        assert gram_excess(target, element, form, magnitude) <= 1
        assert mix_excess(target, element, form, magnitude) <= 1


@pytest.mark.parametrize(("stages", "batch", "outputs", "inner"), [(1, 1, 3, 72), (2, 3, 5, 216), (32, 1, 3, 72)])
@pytest.mark.parametrize(("target", "element"), COMPILED)
def test_fold(target: Target, element: Element, stages: int, batch: int, outputs: int, inner: int) -> None:
    rng = np.random.default_rng(stages)
    weight = (rng.standard_normal((outputs, stages * inner // 9, 3, 3)) * 0.1).astype(TYPES[element])
    factors = rng.normal(size=(batch, stages, stages)).astype(np.float32)
    plan = launches.fold(element, stages=stages, batch=batch, outputs=outputs, inner=inner)
    folded = run(target, plan, [weight, factors], np.empty((batch, *weight.shape), weight.dtype))
    exact = reference.folded_weights(weight.astype(np.float64), factors)
    by_stage = weight.astype(np.float64).reshape(outputs, stages, inner)
    bound = bounds.combination(factors.astype(np.float64).swapaxes(-1, -2)[:, None], by_stage, element)
    assert bounds.excess(folded, exact, bound.reshape(exact.shape), element) <= 1


def partials_for(stages: int, batch: int, splits: int, scale: float = 4.0, seed: int = 0) -> Array:
    """Partial Gram matrices as a Gram kernel writes them: symmetric, positive on the diagonal."""
    rng = np.random.default_rng([stages, splits, seed])
    rows = rng.standard_normal((batch, splits, stages, 9)) * np.sqrt(scale / splits / 9)
    return (rows @ rows.swapaxes(-1, -2)).astype(np.float32)


def expected_mixing(partials: Array, mode: Mode, temperature: float, gain: float) -> npt.NDArray[np.float64]:
    """A from the sum of given partials, in float64."""
    energy = partials.astype(np.float64).sum(axis=1)
    if mode == "cosine":
        norm = np.sqrt(np.maximum(np.diagonal(energy, axis1=-2, axis2=-1), reference.GRAM_FLOOR))
        energy = energy / (norm[..., :, None] * norm[..., None, :] * temperature)
    elif mode == "released":
        energy = -energy
    weights = np.exp(energy - energy.max(axis=-1, keepdims=True))
    return np.eye(partials.shape[-1]) + gain * weights / weights.sum(axis=-1, keepdims=True)


def mixing(target: Target, mode: Mode, partials: Array, temperature: float, gain: float, **options: Any) -> Array:
    batch, splits, stages, _ = partials.shape
    plan = launches.affinity(mode, stages=stages, batch=batch, splits=splits, temperature=temperature, gain=gain)
    return run(target, plan, [partials], np.empty((batch, stages, stages), np.float32), **options)


@pytest.mark.parametrize("scale", [4.0, 1e-14, 1e30])
@pytest.mark.parametrize(("stages", "splits"), [(1, 40), (2, 1), (3, 300), (12, 512), (17, 9), (31, 16), (32, 5)])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("target", ["sm75", "sm80"])
def test_affinity(target: Target, mode: Mode, stages: int, splits: int, scale: float) -> None:
    partials = partials_for(stages, 2, splits, scale)
    temperature, gain = 0.1, -0.75
    found = mixing(target, mode, partials, temperature, gain)
    bound = bounds.affinity(partials, mode, temperature=temperature, gain=gain)
    assert bounds.excess(found, expected_mixing(partials, mode, temperature, gain), bound) <= 1
    if scale == 4.0:
        assert bound.max() < 1e-4, "a bound this wide would prove nothing"


def test_cosine_of_a_stage_of_zeros_is_finite() -> None:
    partials = partials_for(3, 1, 4)
    partials[:, :, 1, :] = partials[:, :, :, 1] = 0
    found = mixing("sm80", "cosine", partials, 0.1, 1.0)
    bound = bounds.affinity(partials, "cosine", temperature=0.1)
    assert bounds.excess(found, expected_mixing(partials, "cosine", 0.1, 1.0), bound) <= 1


@pytest.mark.parametrize("damage", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("target", ["sm75", "sm80"])
def test_a_gram_entry_that_is_not_finite_makes_the_whole_mixing_nan(target: Target, mode: Mode, damage: float) -> None:
    partials = partials_for(12, 3, 40)
    healthy = mixing(target, mode, partials, 0.1, 1.0)
    # 3e38 is finite in each partial; their sum is not.
    partials[1, 7, 4, 9] = partials[1, 8, 4, 9] = damage
    damaged = mixing(target, mode, partials, 0.1, 1.0)
    assert np.isnan(damaged[1]).all()
    assert np.array_equal(damaged[[0, 2]], healthy[[0, 2]])


@pytest.mark.parametrize(("target", "element"), COMPILED)
@pytest.mark.parametrize("damage", [np.nan, np.inf])
def test_a_damaged_feature_makes_the_whole_slice_nan(target: Target, element: Element, damage: float) -> None:
    form = replace(FORMS[3], splits=2)
    stages = features(form, element, 0.05).copy()
    stages[1, 2, 3, 4, 5] = damage
    partials = gram(target, element, form, stages)
    factors = mixing(target, "paper", partials, 1.0, 1.0)
    result = flat(mixed(target, element, form, stages, factors))
    assert np.isfinite(result[0]).all()
    assert np.isnan(result[1]).all()


@pytest.mark.parametrize(("target", "element"), COMPILED)
def test_a_gram_beyond_float32_is_refused_and_h_beyond_the_format_is_infinite(target: Target, element: Element) -> None:
    form = replace(FORMS[3], batch=1)
    largest = float(ml_dtypes.finfo(TYPES[element]).max)
    stages = np.full(features(form, element).shape, largest, TYPES[element])
    partials = gram(target, element, form, stages)
    factors = mixing(target, "cosine", partials, 0.1, 1.0)
    result = flat(mixed(target, element, form, stages, factors))
    if element == "f16":  # 65504 squared fits float32: the mixing is right, H = 2 F does not fit float16
        assert np.abs(factors - np.eye(12) - 1 / 12).max() < 1e-6
        assert np.isposinf(result).all()
    else:
        assert np.isposinf(partials).all()
        assert np.isnan(result).all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("target", "element"), COMPILED)
def test_three_kernels_in_a_row_give_the_integration(target: Target, element: Element, mode: Mode) -> None:
    form = replace(FORMS[4], splits=5)
    stages = features(form, element, 0.03)
    result = emulation.integrate(
        stages,
        element,
        mode,
        layout=form.layout,
        separate=form.separate,
        splits=form.splits,
        temperature=0.2,
        gain=0.5,
        target=target,
    )
    exact = reference.mixing(stages, mode, temperature=0.2, gain=0.5)
    if mode != "released":
        exact = np.eye(form.stages) + 0.5 * (exact - np.eye(form.stages))
    expected = exact @ flat(stages)
    # Gram energies here are below 20, so that A errs less than 1e-5 whatever the mode.
    bound = bounds.combination(exact, flat(stages), element) + 1e-5 * np.abs(flat(stages)).sum(axis=-2, keepdims=True)
    assert bounds.excess(flat(result), expected, bound, element) <= 1


SCHEDULES: list[dict[str, Any]] = [
    {"schedule": "forward", "cta_order": 5},
    {"schedule": "reverse", "cta_order": "reverse"},
]


# A kernel of each form and each layout; all of them at larger sizes take long.
SCHEDULED = [FORMS[3], Form(17, 1, 8, 7, 9, 2, "hwc8", separate=True)]
WHOLE = [FORMS[4], FORMS[8], replace(FORMS[11], batch=1)]


@pytest.mark.parametrize("form", [*SCHEDULED, *(pytest.param(form, marks=pytest.mark.slow) for form in WHOLE)], ids=str)
@pytest.mark.parametrize(("target", "element"), COMPILED)
def test_every_schedule_gives_the_same_bits(target: Target, element: Element, form: Form) -> None:
    stages, factors = features(form, element), factors_for(form)
    partials, result = gram(target, element, form, stages), mixed(target, element, form, stages, factors)
    for options in SCHEDULES:
        assert gram(target, element, form, stages, **options).tobytes() == partials.tobytes()
        assert mixed(target, element, form, stages, factors, **options).tobytes() == result.tobytes()


@pytest.mark.parametrize("mode", MODES)
def test_every_schedule_gives_the_same_affinity(mode: Mode) -> None:
    partials = partials_for(12, 2, 30)
    expected = mixing("sm80", mode, partials, 0.1, 1.0)
    for options in SCHEDULES:
        assert mixing("sm80", mode, partials, 0.1, 1.0, **options).tobytes() == expected.tobytes()


def test_layout_and_form_do_not_change_h() -> None:
    stages, factors = features(FORMS[3], "f16"), factors_for(FORMS[3])
    results = {
        mixed("sm80", "f16", replace(FORMS[3], layout=layout, separate=separate), stages, factors).tobytes()
        for layout in get_args(Layout)
        for separate in (False, True)
    }
    assert len(results) == 1


@pytest.mark.parametrize("pixels", [1, 63, 5001])
@pytest.mark.parametrize("target", ["sm75", "sm80"])
def test_moments_and_normalisation(target: Target, pixels: int) -> None:
    rng = np.random.default_rng(pixels)
    offsets = np.array([[0.0], [1e4], [-3e-3]])
    slices = (rng.standard_normal((3, pixels)) * [[1.0], [2.5], [1e-3]] + offsets).astype(np.float32)
    exact = slices.astype(np.float64)
    mean, deviation = exact.mean(axis=1), exact.std(axis=1)
    first, second = launches.moments(3, pixels)
    sums = run(target, first, [slices], np.empty((3, launches.MOMENT_PARTS, 2), np.float64))
    statistics = run(target, second, [slices, sums], np.empty((3, 2), np.float32))
    size = np.abs(mean) + deviation
    assert np.abs(statistics[:, 0] - mean).max() <= (1e-6 * size).max()
    assert (np.abs(statistics[:, 1] - deviation) <= 1e-6 * deviation).all()

    epsilon, clip = 1e-3, 1.5
    plan = launches.normalise(3, pixels, epsilon=epsilon, clip=clip)
    normal = run(target, plan, [slices, statistics], np.empty_like(slices))
    padded = (statistics[:, 1:].astype(np.float64)) + epsilon
    expected = np.clip((exact - statistics[:, :1]) / padded, -clip, clip)
    assert bounds.excess(normal, expected, 4 * bounds.UNIT * np.abs(expected) + 1e-37) <= 1

    free = run(target, launches.normalise(3, pixels, epsilon=epsilon), [slices, statistics], np.empty_like(slices))
    back = run(target, launches.denormalise(3, pixels, epsilon=epsilon), [free, statistics], np.empty_like(slices))
    assert bounds.excess(back, exact, 8 * bounds.UNIT * (np.abs(exact) + padded + np.abs(mean)[:, None])) <= 1


def test_a_constant_slice_has_no_deviation_and_nan_stays_nan() -> None:
    slices = np.full((2, 100), 0.1, np.float32)
    slices[1, 50] = np.nan
    first, second = launches.moments(2, 100)
    sums = run("sm80", first, [slices], np.empty((2, launches.MOMENT_PARTS, 2), np.float64))
    statistics = run("sm80", second, [slices, sums], np.empty((2, 2), np.float32))
    assert statistics[0].tolist() == [np.float32(0.1), 0.0]
    assert np.isnan(statistics[1]).all()
    known = np.array([[0.0, 1.0], [0.0, 1.0]], np.float32)
    normal = run("sm80", launches.normalise(2, 100, epsilon=0.0, clip=1.0), [slices, known], np.empty_like(slices))
    assert np.isnan(normal[1, 50])
    assert np.isfinite(np.delete(normal[1], 50)).all()


@pytest.mark.parametrize(("rows", "inner", "columns"), [(1, 1, 1), (33, 70, 31), (64, 32, 35)])
@pytest.mark.parametrize("target", ["sm75", "sm80"])
def test_matmul(target: Target, rows: int, inner: int, columns: int) -> None:
    rng = np.random.default_rng(rows)
    for left_shared, right_shared in ((False, False), (True, False), (False, True)):
        left = rng.standard_normal((1 if left_shared else 2, rows, inner)).astype(np.float32)
        right = rng.standard_normal((1 if right_shared else 2, inner, columns)).astype(np.float32)
        addend = rng.standard_normal((2, rows, columns)).astype(np.float32)
        sizes: dict[str, Any] = {
            "batch": 2,
            "rows": rows,
            "inner": inner,
            "columns": columns,
            "left_shared": left_shared,
            "right_shared": right_shared,
        }
        exact = -0.5 * np.broadcast_to(left.astype(np.float64) @ right.astype(np.float64), addend.shape)
        bound = bounds.product(left.astype(np.float64), right.astype(np.float64), 0.5)
        bound = np.broadcast_to(bound, addend.shape)
        plain = run(target, launches.matmul(**sizes, scale=-0.5), [left, right], np.empty_like(addend))
        assert bounds.excess(plain, exact, bound) <= 1
        plan = launches.matmul(**sizes, scale=-0.5, addend_scale=3.0)
        added = run(target, plan, [left, right, addend], np.empty_like(addend))
        expected = exact + 3.0 * addend.astype(np.float64)
        assert bounds.excess(added, expected, bound + 4 * bounds.UNIT * np.abs(expected)) <= 1


def test_a_lowered_bound_fails() -> None:
    """The bounds are within sight of the errors: a hundredth of them would not do."""
    stages, factors = features(FORMS[3], "f16"), factors_for(FORMS[3]).astype(np.float64)
    result = flat(mixed("sm80", "f16", FORMS[3], stages, factors.astype(np.float32)))
    bound = bounds.combination(factors, flat(stages), "f16")
    assert bounds.excess(result, factors @ flat(stages), bound / 100, "f16") > 1


def test_every_instruction_of_every_entry_was_executed() -> None:
    """Last in this file: the cases above together. Alone it has nothing to judge."""
    if not any(True for _ in COVERAGE["sm75"]):
        pytest.skip("runs after the other tests of this file")
    for target, coverage in COVERAGE.items():
        kernels = emulation.module(target)
        entries = manifest()["targets"][target]["entries"]
        lacking = {entry: coverage.fraction(kernels[entry]) for entry in entries}
        lacking = {entry: part for entry, part in lacking.items() if part < LEAST_COVERAGE}
        assert not lacking, coverage.report()
