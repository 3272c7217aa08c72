"""Step: every kernel of the shipped PTX runs on this GPU, agrees with float64 and repeats itself bit by bit.

Without a GPU the same launches go through the PTX interpreter, at sizes that it can do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, get_args

import torch
from torch import Tensor

from gpu_steps import exact
from gpu_steps.results import Context
from minet_sdk.kernels import binaries, launches
from minet_sdk.kernels.launches import Element, Launch, Layout
from minet_sdk.kernels.reference import Affinity
from minet_sdk.kernels.torch_launch import CudaLauncher, Launcher
from minet_sdk.kernels.torch_reference import mixing_of

DTYPES: dict[Element, torch.dtype] = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
TEMPERATURE, GAIN = 0.3, 0.7

GRAM_BOUND = {"f32": 5e-6, "f16": 5e-5, "bf16": 5e-5}
"""Float32 sums in 512 parts of some ten thousand products each; tensor cores cut off what others would round."""

AFFINITY_BOUND = 2e-6
ROUNDINGS = {"f32": 8.0, "f16": 1.5, "bf16": 1.5}
"""Of H and W', in units of the element's precision relative to the largest value: one rounding of a float32 sum."""


@dataclass(frozen=True)
class Size:
    """Of one problem."""

    stages: int
    channels: int
    height: int
    width: int
    batch: int = 1

    def __str__(self) -> str:
        return f"{self.batch}x({self.stages}*{self.channels})x{self.height}x{self.width}"


REAL = (Size(12, 64, 320, 320), Size(12, 64, 640, 640), Size(6, 32, 640, 640))
"""The paper's network and minet-x2."""

ODD = (Size(12, 64, 317, 211, 2), Size(17, 8, 101, 67, 3), Size(32, 24, 33, 65), Size(1, 8, 5, 3))
TINY = (Size(3, 8, 3, 1, 2), Size(17, 8, 1, 2))


class Recording:
    """A launcher that notes which entries ran."""

    def __init__(self, launch: Launcher) -> None:
        self.launch, self.entries = launch, set[str]()

    def __call__(self, launch: Launch, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Run it over poisoned outputs, so that what it leaves unwritten shows."""
        for output in outputs:
            output.fill_(torch.nan)
        self.launch(launch, inputs, outputs)
        self.entries.add(launch.entry)


def run(context: Context) -> None:
    """Check every entry."""
    launch = Recording(launcher_for(context))
    splits = 2 if context.tiny else launches.SPLITS
    target = binaries.target_for(torch.cuda.get_device_capability() if context.device == "cuda" else (8, 0))
    context.record("target", target)
    elements: list[Element] = [element for element in get_args(Element) if element != "bf16" or target == "sm80"]
    sizes = TINY if context.tiny else REAL + ODD
    for size, element, layout, separate in product(sizes, elements, get_args(Layout), (False, True)):
        if size in REAL[1:] and (separate or element == "f32"):
            continue
        if size == TINY[-1] and separate == (layout == "hwc8"):
            continue
        with context.attempt(f"{size} {element} {layout}{' separate' if separate else ''}"):
            _check_integration(context, launch, size, element, layout, separate, splits)
    with context.attempt("affinity of made-up Gram matrices"):
        _check_affinities(context, launch, splits)
    with context.attempt("slices on the device"):
        _check_slices(context, launch)
    entries = set(binaries.manifest()["targets"][target]["entries"])
    context.record("entries", len(entries))
    left = sorted(entries - launch.entries)
    context.record("entries_not_run", left)
    if left:
        context.problem(f"{len(left)} of {len(entries)} entries did not run: {', '.join(left)}")


def launcher_for(context: Context) -> Launcher:
    """The GPU, or the interpreter where there is none."""
    if context.device == "cuda":
        return CudaLauncher()
    from minet_sdk.kernels.torch_interpreter import InterpreterLauncher

    return InterpreterLauncher()


def _check_integration(
    context: Context, launch: Recording, size: Size, element: Element, layout: Layout, separate: bool, splits: int
) -> None:
    """Gram, affinity, mix and fold of one problem, each from the one before as the kernels gave it."""
    shape = (size.batch, size.stages * size.channels, size.height, size.width)
    features = exact.random_features(shape, DTYPES[element], context.device, layout)
    inputs = _separated(features, size.stages) if separate else [features]
    sizes: dict[str, Any] = {"stages": size.stages, "batch": size.batch, "separate": separate}
    sizes |= {"channels": size.channels, "pixels": size.height * size.width}
    what = f"{size} {element} {layout}{' separate' if separate else ''}"
    rounding = ROUNDINGS[element] * torch.finfo(DTYPES[element]).eps

    partials = features.new_empty((size.batch, splits, size.stages, size.stages), dtype=torch.float32)
    _run_twice(context, launch, launches.gram(element, layout, splits=splits, **sizes), inputs, partials, what)
    summed = partials.sum(dim=1, dtype=torch.float64)
    _expect(context, f"{what}/gram", exact.gram_error(summed, exact.gram(features, size.stages)), GRAM_BOUND[element])

    mixing = partials.new_empty((size.batch, size.stages, size.stages))
    affinity = launches.affinity(
        "cosine", stages=size.stages, batch=size.batch, splits=splits, temperature=TEMPERATURE, gain=GAIN
    )
    _run_twice(context, launch, affinity, [partials], mixing, what)
    expected = mixing_of(summed, "cosine", TEMPERATURE, GAIN)
    _expect(context, f"{what}/affinity", float((mixing - expected).abs().max()), AFFINITY_BOUND)

    mixed = torch.empty_like(features)
    _run_twice(context, launch, launches.mix(element, layout, **sizes), [*inputs, mixing], mixed, what)
    _expect(context, f"{what}/mix", exact.mix_error(mixed, features, mixing), rounding)

    weight = exact.random_features((16, shape[1], 3, 3), DTYPES[element], context.device, "linear", seed=1)
    folded = weight.new_empty((size.batch, *weight.shape))
    fold = launches.fold(element, stages=size.stages, batch=size.batch, outputs=16, inner=size.channels * 9)
    _run_twice(context, launch, fold, [weight, mixing], folded, what)
    _expect(context, f"{what}/fold", exact.fold_error(folded, weight, mixing), rounding)


def _check_affinities(context: Context, launch: Recording, splits: int) -> None:
    """Every mode on partials of a size at which none saturates, and on one that overflows."""
    generator = torch.Generator(context.device).manual_seed(3)
    for mode, stages in product(get_args(Affinity), (12,) if context.tiny else (1, 12, 32)):
        flat = torch.randn((3, splits, stages, 2 * stages), generator=generator, device=context.device)
        partials = (flat @ flat.mT / (2 * stages * splits)).contiguous()
        partials[2, 0, 0, 0] = torch.inf
        mixing = partials.new_empty((3, stages, stages))
        parameters = launches.affinity(
            mode, stages=stages, batch=3, splits=splits, temperature=TEMPERATURE, gain=GAIN
        )  # fmt: skip
        _run_twice(context, launch, parameters, [partials], mixing, f"affinity {mode} {stages}", nan=True)
        expected = mixing_of(partials.sum(dim=1, dtype=torch.float64), mode, TEMPERATURE, GAIN)
        error = float((mixing - expected)[:2].abs().max())
        _expect(context, f"affinity of made-up Gram matrices/{mode} {stages}", error, AFFINITY_BOUND)
        if not mixing[2].isnan().all():
            context.problem(f"affinity {mode}: a Gram matrix that overflowed does not make every weight NaN")


def _check_slices(context: Context, launch: Recording) -> None:
    """The kernels that keep whole slices on the device: moments, normalisation, matrix products."""
    side = 11 if context.tiny else 331
    batch, pixels = 2, side * side
    generator = torch.Generator(context.device).manual_seed(4)
    slices = 1000 + 5 * torch.randn((batch, side, side), generator=generator, device=context.device)
    sums = torch.empty((batch, launches.MOMENT_PARTS, 2), dtype=torch.float64, device=context.device)
    statistics = slices.new_empty((batch, 2))
    first, second = launches.moments(batch, pixels)
    _run_twice(context, launch, first, [slices], sums, "moments")
    _run_twice(context, launch, second, [slices, sums], statistics, "moments")
    flat = slices.double().flatten(1)
    expected = torch.stack([flat.mean(dim=1), flat.std(dim=1, correction=0)], dim=1)
    _expect(context, "slices/moments", float(((statistics - expected) / expected).abs().max()), 1e-6)

    normal, back = torch.empty_like(slices), torch.empty_like(slices)
    _run_twice(
        context, launch, launches.normalise(batch, pixels, epsilon=1e-8), [slices, statistics], normal, "normalise"
    )
    scaled = (flat - statistics[:, :1]) / (statistics[:, 1:].double() + 1e-8)
    _expect(context, "slices/normalise", float((normal.flatten(1) - scaled).abs().max()), 1e-4)
    _run_twice(
        context, launch, launches.denormalise(batch, pixels, epsilon=1e-8), [normal, statistics], back, "denormalise"
    )
    _expect(context, "slices/denormalise", float(((back - slices) / slices).abs().max()), 1e-6)

    left = torch.randn((side, side), generator=generator, device=context.device)
    for addend in (None, 0.5):
        product_ = torch.empty_like(slices)
        parameters = launches.matmul(
            batch=batch, rows=side, inner=side, columns=side, left_shared=True, scale=2.0, addend_scale=addend
        )
        inputs = [left, normal] if addend is None else [left, normal, slices]
        _run_twice(context, launch, parameters, inputs, product_, "matmul")
        wanted = 2.0 * left.double() @ normal.double() + (0 if addend is None else addend * slices.double())
        error = float((product_ - wanted).abs().max() / wanted.abs().max())
        _expect(context, f"slices/{parameters.entry}", error, 1e-6)


def _run_twice(
    context: Context,
    launch: Recording,
    parameters: Launch,
    inputs: Sequence[Tensor],
    output: Tensor,
    what: str,
    nan: bool = False,
) -> None:
    launch(parameters, inputs, [output])
    again = torch.empty_like(output)
    launch(parameters, inputs, [again])
    if not torch.equal(output.nan_to_num(), again.nan_to_num()):
        context.problem(f"{what}: {parameters.entry} gives other bits the second time")
    if not nan and bool(output.isnan().any()):
        context.problem(f"{what}: {parameters.entry} leaves part of its output unwritten, or NaN")


def _expect(context: Context, name: str, error: float, bound: float) -> None:
    context.record(f"errors/{name}", error)
    if not error <= bound:
        context.problem(f"{name}: error {error:.2e}, expected at most {bound:.2e}")


def _separated(features: Tensor, stages: int) -> list[Tensor]:
    """One tensor a stage, in the features' layout; the unused pointers repeat the first."""
    channels_last = not features.is_contiguous()
    memory = torch.channels_last if channels_last else torch.contiguous_format
    parts = [part.contiguous(memory_format=memory) for part in features.chunk(stages, dim=1)]
    return parts + parts[:1] * (launches.SLOTS - stages)
