"""How each kernel is launched: entry, grid, block and integer arguments, from the sizes of a problem.

One source for the TensorRT plugin, the PyTorch operator, the runtime and the tests. A kernel takes its inputs, then
these integers (int32), then its output; pointers are 16-byte aligned. Sizes may be any type with ``+ - * //`` and an
int on the right, so that TensorRT's shape expressions pass through; only ints are checked against the limits.
"""

import math
import struct
from dataclasses import dataclass
from typing import Any, Literal, get_args

from minet_sdk.errors import InputError

Element = Literal["f32", "f16", "bf16"]
Layout = Literal["linear", "hwc8"]
Mode = Literal["paper", "released", "cosine"]
Size = Any
"""An int, or an expression that becomes one when the shape is known."""

SLOTS = 32
"""Pointer arguments of the entries with separate inputs; the unused ones repeat the first."""

SPLITS = 512
"""Parts that the Gram sum is cut into. Part of the numbers that come out, so it is the same on every GPU."""

MOST_STAGES = 32
"""Most stage features that the kernels mix."""

MOMENT_PARTS = 64
"""Parts that the pixels of a slice are cut into for their mean and deviation."""

MOST_BATCH = 65535
"""CUDA's limit of the second and third grid dimension."""

CHANNEL_MULTIPLE = 8
"""Channels come in eights, so that a 16-byte vector never straddles the end of anything."""

_MOST_ELEMENTS = 2**31 - 1
_NARROW_STAGES_16_BIT = 16
_NARROW_STAGES_F32 = 12
_CHUNK_MULTIPLE = 64
_VECTOR: dict[str, int] = {"f32": 4, "f16": 8, "bf16": 8}
_PIXELS_PER_BLOCK = 1024
_TILE = 32
_MIX_COLUMNS = 2048
"""16-byte vectors that a CTA of `mix` and `fold` keeps in shared memory."""


@dataclass(frozen=True)
class Launch:
    """One kernel launch; no dynamic shared memory."""

    entry: str
    grid: tuple[Size, Size, Size]
    block: int
    integers: tuple[Size, ...]


def gram(
    element: Element,
    layout: Layout,
    *,
    stages: int,
    batch: Size,
    channels: Size,
    pixels: Size,
    splits: int = SPLITS,
    separate: bool = False,
) -> Launch:
    """F -> partial Gram matrices, float32 (batch, splits, stages, stages), exactly symmetric.

    Args:
        element: format of F.
        layout: ``linear`` is (batch, stages * channels, H, W), ``hwc8`` is (batch, H, W, stages * channels).
        stages: M, 1 to 32.
        batch: N.
        channels: C of one stage, a multiple of 8.
        pixels: H * W.
        splits: parts of the sum; anything but `SPLITS` is for tests.
        separate: F comes as 32 pointers, each (batch, channels, H, W) or (batch, H, W, channels), in place of one.

    Raises:
        InputError: a size that the kernels do not take.
    """
    _check_features(element, layout, stages, batch, channels, pixels)
    _check_range("splits", splits, 1, MOST_BATCH)
    elements = channels * pixels
    piece = _CHUNK_MULTIPLE * splits
    chunk = _ceiling(elements, piece) * _CHUNK_MULTIPLE
    wide = stages > (_NARROW_STAGES_F32 if element == "f32" else _NARROW_STAGES_16_BIT)
    block = 256
    if element == "f32":
        block = 384 if wide else 128
    addressing = () if separate else _addressing(layout, stages, channels, elements)
    return Launch(
        entry=f"minet_gram_{_form(separate)}{'_wide' if wide else ''}_{element}",
        grid=(splits, batch, 1),
        block=block,
        integers=(stages, elements, chunk, *addressing),
    )


def affinity(
    mode: Mode,
    *,
    stages: int,
    batch: Size,
    splits: int = SPLITS,
    temperature: float = 1.0,
    gain: float = 1.0,
) -> Launch:
    """Partial Gram matrices -> A = I + gain * softmax(energy), float32 (batch, stages, stages).

    A sample with a Gram entry that is not finite gets an A of NaN throughout.

    Args:
        mode: what the energy is, see `minet_sdk.kernels.reference.affinity`.
        stages: M.
        batch: N.
        splits: of the `gram` that wrote the partials.
        temperature: of ``cosine``; the other modes have none and ignore it.
        gain: factor of the softmax.

    Raises:
        InputError: a size or number that the kernel does not take.
    """
    if mode not in get_args(Mode):
        raise InputError(f"affinity mode is {mode!r}; expected one of {', '.join(get_args(Mode))}")
    _check_stages(stages)
    _check_range("batch", batch, 1, MOST_BATCH)
    _check_range("splits", splits, 1, MOST_BATCH)
    _check_finite("gain", gain)
    numbers = (float_bits(gain),)
    if mode == "cosine":
        _check_finite("temperature", temperature)
        if temperature <= 0:
            raise InputError(f"temperature is {temperature}; expected a positive number")
        numbers = (float_bits(temperature), float_bits(gain))
    return Launch(entry=f"minet_affinity_{mode}", grid=(batch, 1, 1), block=1024, integers=(stages, splits, *numbers))


def fold(element: Element, *, stages: int, batch: Size, outputs: int, inner: int) -> Launch:
    """W, A -> W'_j = sum_i A_ij W_i, (batch, outputs, stages, inner) for every sample's A.

    Args:
        element: format of W and W'.
        stages: M.
        batch: N.
        outputs: output channels of the convolution.
        inner: numbers of one stage in one output channel: input channels * 3 * 3.

    Raises:
        InputError: a size that the kernel does not take.
    """
    _check_element(element)
    _check_stages(stages)
    _check_range("batch", batch, 1, MOST_BATCH)
    _check_range("outputs", outputs, 1, _MOST_ELEMENTS)
    _check_multiple("inner", inner)
    _check_elements("outputs * inner", outputs * inner)
    block = _mix_block(stages)
    return Launch(
        entry=f"minet_fold_{element}",
        grid=(_ceiling(outputs * inner, _VECTOR[element] * block), batch, 1),
        block=block,
        integers=(stages, outputs, inner),
    )


def mix(
    element: Element,
    layout: Layout,
    *,
    stages: int,
    batch: Size,
    channels: Size,
    pixels: Size,
    separate: bool = False,
) -> Launch:
    """F, A -> H = A F, stacked, in the layout of F; arguments as in `gram`.

    Raises:
        InputError: a size that the kernel does not take.
    """
    _check_features(element, layout, stages, batch, channels, pixels)
    elements = channels * pixels
    block = _mix_block(stages)
    return Launch(
        entry=f"minet_mix_{_form(separate)}_{element}",
        grid=(_ceiling(elements, _VECTOR[element] * block), batch, 1),
        block=block,
        integers=(stages, elements, *_addressing(layout, stages, channels, elements)),
    )


def moments(batch: Size, pixels: Size) -> list[Launch]:
    """Mean and population standard deviation of each slice, summed in float64; two launches, one after the other.

    The first takes slices float32 (batch, pixels) to sums float64 (batch, `MOMENT_PARTS`, 2), the second the slices
    and these sums to statistics float32 (batch, 2): mean, deviation.

    Raises:
        InputError: a size that the kernels do not take.
    """
    _check_slices(batch, pixels)
    return [
        Launch("minet_moment_sums", (MOMENT_PARTS, batch, 1), 256, (pixels,)),
        Launch("minet_moments", (batch, 1, 1), 32, (pixels, MOMENT_PARTS)),
    ]


def normalise(batch: Size, pixels: Size, *, epsilon: float, clip: float | None = None) -> Launch:
    """Slices, statistics of `moments` -> (x - mean) / (deviation + epsilon), clipped to +- ``clip`` if there is one.

    Raises:
        InputError: a size or number that the kernel does not take.
    """
    _check_slices(batch, pixels)
    _check_finite("epsilon", epsilon)
    limit = math.inf if clip is None else clip
    return Launch("minet_normalise", *_per_pixel(batch, pixels), (pixels, float_bits(epsilon), float_bits(limit)))


def denormalise(batch: Size, pixels: Size, *, epsilon: float) -> Launch:
    """Normalised slices, statistics -> x * (deviation + epsilon) + mean.

    Raises:
        InputError: a size or number that the kernel does not take.
    """
    _check_slices(batch, pixels)
    _check_finite("epsilon", epsilon)
    return Launch("minet_denormalise", *_per_pixel(batch, pixels), (pixels, float_bits(epsilon)))


def matmul(
    *,
    batch: Size,
    rows: Size,
    inner: Size,
    columns: Size,
    left_shared: bool = False,
    right_shared: bool = False,
    scale: float = 1.0,
    addend_scale: float | None = None,
) -> Launch:
    """A (rows, inner), B (inner, columns) -> C = scale * A B for each sample, float32, row-major.

    Args:
        batch: N products.
        rows: of A and C.
        inner: columns of A, rows of B.
        columns: of B and C.
        left_shared: one A serves all samples.
        right_shared: one B serves all samples.
        scale: factor of the product.
        addend_scale: if given, a third input E (batch, rows, columns) is added: C = scale * A B + addend_scale * E.
            E may be C itself.

    Raises:
        InputError: a size or number that the kernel does not take.
    """
    _check_range("batch", batch, 1, MOST_BATCH)
    for name, size in (("rows", rows), ("inner", inner), ("columns", columns)):
        _check_range(name, size, 1, _TILE * MOST_BATCH)
    _check_finite("scale", scale)
    name, numbers = "minet_matmul", (float_bits(scale),)
    if addend_scale is not None:
        _check_finite("addend_scale", addend_scale)
        name, numbers = "minet_matmul_add", (float_bits(scale), float_bits(addend_scale))
    return Launch(
        entry=name,
        grid=(_ceiling(columns, _TILE), _ceiling(rows, _TILE), batch),
        block=256,
        integers=(rows, inner, columns, int(left_shared), int(right_shared), *numbers),
    )


def float_bits(value: float) -> int:
    """A float32 as the int32 of the same bits, the only way a number enters a TensorRT kernel."""
    return struct.unpack("<i", struct.pack("<f", value))[0]


def _ceiling(size: Size, divisor: int) -> Size:
    return (size + (divisor - 1)) // divisor


def _addressing(layout: Layout, stages: int, channels: Size, elements: Size) -> tuple[Size, Size, Size]:
    """Elements from one stage to the next, in one contiguous run, and from one run to the next."""
    if layout == "linear":
        return (elements, elements, elements)
    return (channels, channels, channels * stages)


def _per_pixel(batch: Size, pixels: Size) -> tuple[tuple[Size, Size, Size], int]:
    return (_ceiling(pixels, _PIXELS_PER_BLOCK), batch, 1), 256


def _form(separate: bool) -> str:
    return "separate" if separate else "stacked"


def _mix_block(stages: int) -> int:
    """Threads whose vectors of all stages fit in shared memory; whole warps."""
    return min(256, _MIX_COLUMNS // stages // 32 * 32)


def _check_features(element: Element, layout: Layout, stages: int, batch: Size, channels: Size, pixels: Size) -> None:
    _check_element(element)
    if layout not in get_args(Layout):
        raise InputError(f"layout is {layout!r}; expected one of {', '.join(get_args(Layout))}")
    _check_stages(stages)
    _check_range("batch", batch, 1, MOST_BATCH)
    _check_multiple("channels", channels)
    _check_range("pixels", pixels, 1, _MOST_ELEMENTS)
    _check_elements("channels * pixels", channels * pixels)
    if layout == "hwc8":
        _check_elements("stages * channels", channels * stages)


def _check_slices(batch: Size, pixels: Size) -> None:
    _check_range("batch", batch, 1, MOST_BATCH)
    _check_range("pixels", pixels, 1, _MOST_ELEMENTS)


def _check_element(element: Element) -> None:
    if element not in get_args(Element):
        raise InputError(f"element is {element!r}; expected one of {', '.join(get_args(Element))}")


def _check_stages(stages: int) -> None:
    _check_range("stages", stages, 1, MOST_STAGES)


def _check_multiple(name: str, size: Size) -> None:
    if isinstance(size, int) and (size < 1 or size % CHANNEL_MULTIPLE):
        raise InputError(f"{name} is {size}; expected a positive multiple of {CHANNEL_MULTIPLE}")


def _check_elements(name: str, size: Size) -> None:
    if isinstance(size, int) and size > _MOST_ELEMENTS:
        raise InputError(f"{name} is {size}; the kernels take at most 2^31 - 1: cut the image into tiles")


def _check_range(name: str, size: Size, least: int, most: int) -> None:
    if isinstance(size, int) and not least <= size <= most:
        raise InputError(f"{name} is {size}; expected {least} to {most}")


def _check_finite(name: str, value: float) -> None:
    if not math.isfinite(value) or abs(value) > 3.4e38:
        raise InputError(f"{name} is {value}; expected a finite float32")
