"""Faults planted in the shipped PTX: each must end in a wrong result or in an error of the interpreter.

A test that has never failed proves little. These are the faults that a change of the kernels could bring: an operand in
the wrong order, a barrier gone, an edge off by one, a number taken for another.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from minet_sdk.kernels import bounds, emulation, launches
from minet_sdk.kernels.binaries import Target, ptx
from minet_sdk.kernels.launches import Element, Layout, Mode
from minet_sdk.kernels.ptx import Module, PtxError, parse

pytestmark = pytest.mark.long

Array = npt.NDArray[Any]
Options = dict[str, Any]
Trial = Callable[[Module, Options], float]
"""Runs a kernel and returns its largest error in units of the bound: more than 1 is a wrong result."""

TYPES: dict[Element, Any] = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}


def single(text: str, entry: str) -> str:
    """A PTX text with one entry."""
    header = text[: text.index(".visible .entry")]
    start = text.index(f".visible .entry {entry}(")
    end = text.find(".visible .entry", start + 1)
    return header + text[start : end if end > 0 else len(text)]


@dataclass(frozen=True)
class Features:
    """A gram or mix problem: 2 slices, 24 channels of 5 x 9, which no step divides."""

    element: Element
    stages: int = 12
    layout: Layout = "hwc8"
    separate: bool = False
    splits: int = 1

    @property
    def sizes(self) -> dict[str, Any]:
        return {"stages": self.stages, "batch": 2, "channels": 24, "pixels": 45, "separate": self.separate}

    @property
    def values(self) -> Array:
        rng = np.random.default_rng(self.stages)
        return rng.standard_normal((2, self.stages, 24, 5, 9)).astype(TYPES[self.element])

    def flat(self) -> npt.NDArray[np.float64]:
        """Values in the order of k."""
        moved = self.values if self.layout == "linear" else self.values.transpose(0, 1, 3, 4, 2)
        return moved.astype(np.float64).reshape(2, self.stages, -1)


def gram(problem: Features) -> Trial:
    def trial(module: Module, options: Options) -> float:
        plan = launches.gram(problem.element, problem.layout, **problem.sizes, splits=problem.splits)
        arrays = emulation.arranged(problem.values, problem.layout, separate=problem.separate)
        partials = np.empty((2, problem.splits, problem.stages, problem.stages), np.float32)
        emulation.run(plan, arrays, partials, kernels=module, **options)
        flat, worst = problem.flat(), 0.0
        for split, part in enumerate(bounds.parts(flat.shape[-1], plan.integers[2], problem.splits)):
            piece = flat[..., part]
            exact = piece @ piece.swapaxes(-1, -2)
            worst = max(worst, bounds.excess(partials[:, split], exact, bounds.gram(piece, problem.element)))
        return worst

    return trial


def mix(problem: Features) -> Trial:
    def trial(module: Module, options: Options) -> float:
        factors = np.random.default_rng(1).normal(size=(2, problem.stages, problem.stages)).astype(np.float32)
        plan = launches.mix(problem.element, problem.layout, **problem.sizes)
        arrays = [*emulation.arranged(problem.values, problem.layout, separate=problem.separate), factors]
        output = np.empty_like(emulation.arranged(problem.values, problem.layout)[0])
        emulation.run(plan, arrays, output, kernels=module, **options)
        found = emulation.restored(output, problem.layout).reshape(2, problem.stages, -1)
        flat, exact = problem.values.astype(np.float64).reshape(2, problem.stages, -1), factors.astype(np.float64)
        return bounds.excess(found, exact @ flat, bounds.combination(exact, flat, problem.element), problem.element)

    return trial


def fold(element: Element) -> Trial:
    def trial(module: Module, options: Options) -> float:
        rng = np.random.default_rng(2)
        weight = rng.standard_normal((5, 3, 72)).astype(TYPES[element])
        factors = rng.normal(size=(2, 3, 3)).astype(np.float32)
        output = np.empty((2, *weight.shape), weight.dtype)
        plan = launches.fold(element, stages=3, batch=2, outputs=5, inner=72)
        emulation.run(plan, [weight, factors], output, kernels=module, **options)
        transposed, exact = factors.astype(np.float64).swapaxes(-1, -2)[:, None], weight.astype(np.float64)
        return bounds.excess(output, transposed @ exact, bounds.combination(transposed, exact, element), element)

    return trial


def affinity(mode: Mode, *, damage: float = 0.0, splits: int = 300) -> Trial:
    def trial(module: Module, options: Options) -> float:
        rows = np.random.default_rng(3).standard_normal((2, splits, 12, 9)) * np.sqrt(4 / splits / 9)
        partials = (rows @ rows.swapaxes(-1, -2)).astype(np.float32)
        partials[1, 5, 3, 7] += damage
        plan = launches.affinity(mode, stages=12, batch=2, splits=splits, temperature=0.2, gain=0.75)
        found = np.empty((2, 12, 12), np.float32)
        emulation.run(plan, [partials], found, kernels=module, **options)
        if damage:
            return 0.0 if np.isnan(found[1]).all() and np.isfinite(found[0]).all() else np.inf
        energy = partials.astype(np.float64).sum(axis=1)
        if mode == "cosine":
            norm = np.sqrt(np.diagonal(energy, axis1=-2, axis2=-1))
            energy = energy / (norm[..., :, None] * norm[..., None, :] * 0.2)
        weights = np.exp(-energy if mode == "released" else energy)
        exact = np.eye(12) + 0.75 * weights / weights.sum(axis=-1, keepdims=True)
        return bounds.excess(found, exact, bounds.affinity(partials, mode, temperature=0.2, gain=0.75))

    return trial


def matmul(module: Module, options: Options) -> float:
    rng = np.random.default_rng(4)
    left, right = rng.standard_normal((2, 33, 70)), rng.standard_normal((2, 70, 31))
    left, right = left.astype(np.float32), right.astype(np.float32)
    found = np.empty((2, 33, 31), np.float32)
    plan = launches.matmul(batch=2, rows=33, inner=70, columns=31, scale=-0.5)
    emulation.run(plan, [left, right], found, kernels=module, **options)
    left, right = left.astype(np.float64), right.astype(np.float64)
    return bounds.excess(found, -0.5 * (left @ right), bounds.product(left, right, 0.5))


def moments(module: Module, options: Options) -> float:
    slices = np.random.default_rng(5).standard_normal((2, 5001)).astype(np.float32)
    first, second = launches.moments(2, 5001)
    sums = np.empty((2, launches.MOMENT_PARTS, 2))
    emulation.run(first, [slices], sums, kernels=module, **options)
    found = np.empty((2, 2), np.float32)
    emulation.run(second, [slices, sums], found)
    exact = np.stack([slices.astype(np.float64).mean(axis=1), slices.astype(np.float64).std(axis=1)], axis=1)
    return bounds.excess(found, exact, np.full((2, 2), 1e-6))


def normalise(module: Module, options: Options) -> float:
    slices = np.random.default_rng(6).standard_normal((2, 1500)).astype(np.float32)
    statistics = np.array([[0.1, 0.9], [-0.2, 1.1]], np.float32)
    found = np.empty_like(slices)
    plan = launches.normalise(2, 1500, epsilon=0.25, clip=1.0)
    emulation.run(plan, [slices, statistics], found, kernels=module, **options)
    exact = (slices - statistics[:, :1].astype(np.float64)) / (statistics[:, 1:].astype(np.float64) + 0.25)
    exact = np.clip(exact, -1, 1)
    return bounds.excess(found, exact, 4 * bounds.UNIT * (np.abs(exact) + 1))


@dataclass(frozen=True)
class Mutant:
    """A fault: in the text of an entry, what matches ``pattern`` becomes ``replacement``, all of it or the first."""

    name: str
    entry: str
    trial: Trial
    pattern: str
    replacement: str
    first_only: bool = False
    target: Target = "sm80"
    options: Options = field(default_factory=dict)


F16, F32, BF16 = Features("f16"), Features("f32"), Features("bf16")
SEPARATE, SPLIT = Features("f16", separate=True), Features("f16", splits=2)
WIDE, WIDE_F32 = Features("f16", stages=20), Features("f32", stages=20)
WIDE_SEPARATE_F32 = Features("f32", stages=20, separate=True)
R, F = r"%r\d+", r"%f\d+"
FRAGMENTS = rf"(mma\S+ \{{[^}}]*\}},\{{)({R}),({R}),({R}),({R})(\}},\{{)({R}),({R})\}}"
FORWARD: Options = {"schedule": "forward"}
REVERSE: Options = {"schedule": "reverse"}

MUTANTS = [
    Mutant(
        "left fragment: low half of one row with high half of the other",
        "minet_gram_stacked_f16", gram(F16), FRAGMENTS, r"\1\2,\4,\3,\5\6\7,\8}", first_only=True,
    ),
    Mutant(
        "left fragment: rows exchanged",
        "minet_gram_stacked_bf16", gram(BF16), FRAGMENTS, r"\1\3,\2,\5,\4\6\7,\8}", first_only=True,
    ),
    Mutant(
        "right fragment: halves of k exchanged",
        "minet_gram_separate_f16", gram(SEPARATE), FRAGMENTS, r"\1\2,\3,\4,\5\6\8,\7}", first_only=True,
    ),
    Mutant(
        "Turing: one half of k multiplied twice",
        "minet_gram_stacked_f16", gram(F16),
        rf"(mma\S+ \{{[^}}]*\}},)\{{({R},{R})\}},\{{({R})\}}([^\n]*\n)(mma\S+ \{{[^}}]*\}},)\{{{R},{R}\}},\{{{R}\}}",
        r"\1{\2},{\3}\4\5{\2},{\3}", first_only=True, target="sm75",
    ),
    Mutant(
        "bfloat16 taken for float16",
        "minet_gram_stacked_bf16", gram(BF16), r"f32\.bf16\.bf16\.f32", "f32.f16.f16.f32",
    ),
    Mutant(
        "product added to the wrong block",
        "minet_gram_stacked_wide_f16", gram(WIDE), rf"(mma\S+ )\{{{F},({F},{F},{F})\}}", r"\1{%f1,\2}", first_only=True,
    ),
    Mutant(
        "sum over k not accumulated",
        "minet_gram_stacked_f32", gram(F32), rf"fma\.rn\.f32 \t({F}), ({F}), ({F}), {F};", r"mul.f32 \t\1, \2, \3;",
        first_only=True,
    ),
    Mutant(
        "vector at the end of a part also counted",
        "minet_gram_stacked_f16", gram(SPLIT), rf"(add\.s32 \t{R}, {R}, 512;\nsetp\.)lt", r"\1le",
    ),
    Mutant(
        "last vector of a part missed",
        "minet_gram_stacked_f32", gram(Features("f32", splits=2)),
        rf"(add\.s32 \t({R}), \2, )512(;\nsetp\.lt\.u32)", r"\g<1>1024\3",
    ),
    Mutant(
        "a pass of the loop skipped",
        "minet_gram_stacked_f16", gram(F16), rf"(add\.s32 \t({R}), \2, )1024;", r"\g<1>2048;",
    ),
    Mutant(
        "end of a run of channels ignored",
        "minet_gram_stacked_f16", gram(F16), r"selp\.b64 \t(%rd\d+), 0, %rd\d+,", r"selp.b64 \t\1, 0, 0,",
        first_only=True,
    ),
    Mutant(
        "second slice reads the first",
        "minet_gram_stacked_f16", gram(F16), rf"mov\.u32 \t({R}), %ctaid\.y;", r"mov.u32 \t\1, 0;", first_only=True,
    ),
    Mutant(
        "partials of all slices in one place",
        "minet_gram_stacked_f16", gram(SPLIT), r"%nctaid\.x", "0",
    ),
    Mutant(
        "row of the other half off by four",
        "minet_gram_stacked_f16", gram(F16), rf"or\.b32 (\s*{R}, {R}), 8;", r"or.b32 \1, 4;",
    ),
    Mutant(
        "barrier before the sum over warps removed",
        "minet_gram_stacked_f16", gram(F16), r"bar\.sync \t0;\n", "", options=FORWARD,
    ),
    Mutant(
        "barrier after the table of pointers removed",
        "minet_gram_separate_f16", gram(SEPARATE), r"bar\.sync \t0;\n", "", first_only=True, options=REVERSE,
    ),
    Mutant(
        "one warp counted twice, another not at all",
        "minet_gram_stacked_f16", gram(F16), r"\+7168\]", "+6144]",
    ),
    Mutant(
        "results of two rows exchanged",
        "minet_gram_stacked_f16", gram(F16), rf"\[({R})\+128\], ({F});\n(st\.shared\.f32 \t)\[{R}\+256\], ({F});",
        r"[\1+128], \4;\n\3[\1+256], \2;",
    ),
    Mutant(
        "stage 4 is stage 3",
        "minet_gram_separate_f16", gram(SEPARATE), r"separate_f16_param_4\]", "separate_f16_param_3]",
    ),
    Mutant(
        "stage 19 is stage 18",
        "minet_gram_separate_wide_f32", gram(WIDE_SEPARATE_F32), r"wide_f32_param_19\]", "wide_f32_param_18]",
    ),
    Mutant(
        "wrong lane in a shuffle",
        "minet_gram_stacked_f32", gram(F32), rf"mov\.u32 \t({R}), 4;", r"mov.u32 \t\1, 2;",
    ),
    Mutant(
        "shuffle keeps what it should give",
        "minet_gram_stacked_wide_f32", gram(WIDE_F32), rf"selp\.f32 \t({F}), ({F}), ({F}), (%p\d+);",
        r"selp.f32 \t\1, \3, \2, \4;", first_only=True,
    ),
    Mutant(
        "one group of stages too few",
        "minet_gram_stacked_wide_f32", gram(WIDE_F32), rf"(add\.s32 \t{R}, {R}, )7;", r"\g<1>3;",
    ),
    Mutant(
        "exponential to base 2",
        "minet_affinity_paper", affinity("paper"), "0f3FB8AA3B", "0f3F800000",
    ),
    Mutant(
        "temperature and gain exchanged",
        "minet_affinity_cosine", affinity("cosine"), r"(ld\.param\.u32 \t%r\d+, \[minet_affinity_cosine_param_)3",
        r"\g<1>4",
    ),
    Mutant(
        "gain read as an integer",
        "minet_affinity_paper", affinity("paper"), rf"mov\.b32 \t({F}), ({R});(?=\nfma)", r"cvt.rn.f32.s32 \t\1, \2;",
    ),
    Mutant(
        "sign of the released energy lost",
        "minet_affinity_released", affinity("released"), r"neg\.f32 \t(%f\d+), (%f\d+);", r"mov.f32 \t\1, \2;",
        first_only=True,
    ),
    Mutant(
        "norm taken once",
        "minet_affinity_cosine", affinity("cosine"), r"sqrt\.rn\.f32 \t(%f\d+), (%f\d+);", r"mov.f32 \t\1, \2;",
        first_only=True,
    ),
    Mutant(
        "identity left out",
        "minet_affinity_paper", affinity("paper"), "0f3F800000, 0f00000000", "0f00000000, 0f00000000",
    ),
    Mutant(
        "damage not spread over the slice",
        "minet_affinity_paper", affinity("paper", damage=np.inf), rf"selp\.f32 \t({F}), ({F}), 0f7FC00000",
        r"selp.f32 \t\1, \2, \2",
    ),
    Mutant(
        "infinity taken for a finite number",
        "minet_affinity_paper", affinity("paper", damage=np.inf), r"setp\.geu\.f32 (\s*%p\d+, %f\d+, 0f7F8)",
        r"setp.gtu.f32 \1",
    ),
    Mutant(
        "last partial missed",
        "minet_affinity_paper", affinity("paper"), rf"(add\.s32 \t({R}), \2, -1;\nsetp\.gt\.s32 \t%p\d+, \2, )1;",
        r"\g<1>2;",
    ),
    Mutant(
        "tree over the sharers off by one level",
        "minet_affinity_paper", affinity("paper"), rf"shl\.b32 \t({R}), ({R}), 4;\nadd", r"shl.b32 \t\1, \2, 3;\nadd",
    ),
    Mutant(
        "barrier in the tree removed",
        "minet_affinity_paper", affinity("paper"), r"(\$L__BB\d+_\d+:\n)bar\.sync \t0;\n(add\.s32 \t%r\d+, %r\d+, 2;)",
        r"\1\2", options=REVERSE,
    ),
    Mutant(
        "rounding towards zero",
        "minet_mix_stacked_f16", mix(F16), r"cvt\.rn\.f16", "cvt.rz.f16",
    ),
    Mutant(
        "words of a vector exchanged",
        "minet_mix_stacked_f16", mix(F16), rf"(st\.global\.v4\.b32 \[%rd\d+\], \{{{R}, )({R}), ({R})", r"\1\3, \2",
        first_only=True,
    ),
    Mutant(
        "barrier before the mixing matrix is read removed",
        "minet_mix_stacked_f32", mix(F32), r"bar\.sync \t0;\n", "", options=FORWARD,
    ),
    Mutant(
        "vector behind the last one processed",
        "minet_mix_separate_f16", mix(SEPARATE), r"setp\.ge\.u32", "setp.gt.u32",
    ),
    Mutant(
        "stage 4 of every group left out",
        "minet_mix_stacked_bf16", mix(BF16), rf"(add\.s32 \t{R}, {R}, )3(;\nsetp\.ge\.s32)", r"\g<1>20\2",
    ),
    Mutant(
        "mixing matrix transposed",
        "minet_fold_f16", fold("f16"),
        rf"mad\.lo\.s32 \t({R}), ({R}), ({R}), ({R});(\ncvt[^\n]*\nadd[^\n]*\nshl[^\n]*, 2;)",
        r"mad.lo.s32 \t\1, \4, \3, \2;\5",
    ),
    Mutant(
        "tile overwritten while it is read",
        "minet_matmul", matmul, r"(?s)(.*)bar\.sync \t0;\n", r"\1", options=FORWARD,
    ),
    Mutant(
        "tile of the other factor one column off",
        "minet_matmul", matmul, r"(ld\.shared\.f32 \t%f\d+, \[%r\d+\+)4\]", r"\g<1>8]",
    ),
    Mutant(
        "squares summed about another origin",
        "minet_moment_sums", moments, r"sub\.f64 \t(%fd\d+), (%fd\d+), %fd\d+;", r"mov.f64 \t\1, \2;",
    ),
    Mutant(
        "epsilon left out",
        "minet_normalise", normalise, r"add\.f32 \t(%f\d+), (%f\d+), (%f\d+);", r"mov.f32 \t\1, \3;", first_only=True,
    ),
]  # fmt: skip


@cache
def unchanged(target: Target, entry: str) -> Module:
    return parse(single(ptx(target), entry))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_dies(mutant: Mutant) -> None:
    original = single(ptx(mutant.target), mutant.entry)
    changed, places = re.subn(mutant.pattern, mutant.replacement, original, count=1 if mutant.first_only else 0)
    assert places, "the pattern is nowhere in the text: the kernel changed, and this mutant must too"
    assert changed != original, "the replacement changed nothing"
    assert mutant.trial(unchanged(mutant.target, mutant.entry), mutant.options) <= 1, "fails without the fault too"
    try:
        error = mutant.trial(parse(changed), mutant.options)
    except PtxError:
        return
    assert error > 1, f"survives with an error of {error:.2g} bounds"
