"""Two images of one anatomy whose contrast is random: what a network must see to learn edges instead of grey values.

A network trained on two fixed protocols learns the mapping from one grey value to another and fails on real pairs.
Here tissue values, their correlation, fine structure, texture, one-sided lesions, bias, gamma, sharpness, noise and
alignment are drawn anew for every pair; true protocols are a minority.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from minet_sdk.errors import TrainingError
from minet_sdk.training.augmentation import check_noise, check_part, log_uniform, misalign, show_something_else
from minet_sdk.training.labels import Anatomy
from minet_sdk.training.pairs import Image, MagnitudePair
from minet_sdk.training.signal import PROTOCOL_PAIRS, PROTOCOLS, signal, tissue_table

Labels = npt.NDArray[np.uint8]

AXIAL = 2

_PARTS = (
    "physics", "texture", "protocol_texture", "averaged", "skull_stripped", "detail", "blurred", "misaligned",
    "wrong_reference", "missing_reference",
)  # fmt: skip
"""The settings that lie between 0 and 1."""


@dataclass(frozen=True)
class ContrastSettings:
    """How often and how far each property varies; part of every checkpoint's training record."""

    size: int = 256
    """Rows and columns of a slice, cropped or padded."""

    physics: float = 0.2
    """Part of pairs that follow a clinical protocol (`PROTOCOL_PAIRS`), with no arbitrary gamma and little texture."""

    texture: float = 0.06
    """Largest standard deviation of the texture inside a tissue, relative."""

    protocol_texture: float = 0.03
    """The same for pairs that follow a protocol."""

    averaged: float = 0.25
    """Part of pairs whose anatomy is as smooth as an average of many heads, by an amount that varies over the slice."""

    skull_stripped: float = 0.4
    detail: float = 0.7
    """Part of pairs with structure finer than the label maps, seen by both contrasts."""

    blurred: float = 0.5
    """Part of targets that are smoother than the grid could show."""

    misaligned: float = 0.3
    """Part of references moved or turned against the target."""

    wrong_reference: float = 0.02
    """Part of references that show something else."""

    missing_reference: float = 0.1
    """Part of references that are all zeros, which is how a network is told that there is none."""

    noise: tuple[float, float] = (0.001, 0.02)
    """Rician noise, standard deviation over the brightest tissue; drawn log-uniformly."""

    edge: tuple[float, float] = (0.3, 0.9)
    """How much the grid blurs tissue borders, standard deviation in pixels, drawn uniformly; a pixel does 0.29."""

    orientations: tuple[float, float, float] = (0.25, 0.25, 0.5)
    """Parts of sagittal, coronal and axial slices."""

    protocols: tuple[tuple[str, str], ...] = tuple((first.name, second.name) for first, second in PROTOCOL_PAIRS)
    """Reference and target protocols (`PROTOCOLS`) that pairs with physics are drawn from."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn from."""
        if self.size < 1:
            raise TrainingError(f"size is {self.size}; it must be at least 1")
        for name in _PARTS:
            check_part(name, getattr(self, name))
        check_noise(self.noise)
        if not 0 <= self.edge[0] <= self.edge[1] < math.inf:
            raise TrainingError(f"edge is {list(self.edge)}; expected two widths in pixels from 0, the smaller first")
        unknown = sorted({name for pair in self.protocols for name in pair} - set(PROTOCOLS))
        if unknown or not self.protocols:
            raise TrainingError(f"protocols {unknown} are unknown; expected pairs of {', '.join(PROTOCOLS)}")
        if len(self.orientations) != 3 or not abs(sum(self.orientations) - 1) <= 1e-6 or min(self.orientations) < 0:
            raise TrainingError(f"orientations are {self.orientations}; expected three parts that add up to 1")


CLINICAL = ContrastSettings(
    physics=1,
    averaged=0,
    skull_stripped=0,
    blurred=0,
    misaligned=0,
    wrong_reference=0,
    missing_reference=0,
    noise=(0.004, 0.01),
)
"""What a good pair of clinical series looks like: the physics test set. Lesions in the target alone stay."""

PAPER_CLINICAL = replace(CLINICAL, protocols=(("T1w", "T2w"),), orientations=(0.0, 0.0, 1.0))
"""The protocols of the paper's two clinical sets: axial, T1w (inversion recovery) guiding T2w."""

KNEE_CLINICAL = replace(CLINICAL, protocols=(("PD", "FS-PD"),), orientations=(0.0, 1.0, 0.0), size=320)
"""Like fastMRI's knees: coronal, PD guiding FS-PD, 320 x 320."""

KNEE = replace(
    KNEE_CLINICAL,
    physics=0.6,
    blurred=0.5,
    misaligned=0.3,
    wrong_reference=0.02,
    missing_reference=0.1,
    orientations=(0.15, 0.7, 0.15),
    size=256,
    noise=(0.002, 0.03),
)
"""Training pairs of knees: mostly PD guiding FS-PD, the rest in random contrast, with all that makes training hard."""

PRESETS = {
    "random": ContrastSettings(),
    "clinical": CLINICAL,
    "paper-clinical": PAPER_CLINICAL,
    "knee": KNEE,
    "knee-clinical": KNEE_CLINICAL,
}
"""By name."""


def _blur(image: npt.NDArray[np.float32], sigma: float) -> Image:
    """Gaussian blur in float32."""
    return np.asarray(ndimage.gaussian_filter(image, sigma), dtype=np.float32)


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, int], exponent: float) -> Image:
    """Power-law noise field, mean 0, standard deviation 1."""
    spectrum = np.fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    radius = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]) + 1 / 64
    field = np.fft.irfft2(spectrum * radius**-exponent, s=shape).astype(np.float32)
    return (field - field.mean()) / field.std()


def _anatomy(subject: Anatomy, rng: np.random.Generator, settings: ContrastSettings) -> Labels:
    """A slab of tissue labels (slices, size, size): any orientation, turned, scaled, mirrored."""
    axis = int(rng.choice(3, p=settings.orientations))
    thickness = int(rng.choice((1, 3, 5)))
    slab = subject.slab(axis, int(rng.choice(subject.useful_slices[axis])), thickness)
    if rng.random() < 0.5:
        slab = slab[:, :, ::-1]
    if axis != AXIAL and rng.random() < 0.3:
        slab = slab.transpose(0, 2, 1)
    angle = np.deg2rad(rng.normal(0, 8))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / rng.uniform(0.8, 1.35)
    rows, columns = np.nonzero(slab[thickness // 2])
    middle = np.array([rows.mean(), columns.mean()]) + rng.normal(0, 8, 2)
    matrix = np.column_stack([turn, middle - turn @ np.full(2, settings.size / 2)])
    shape = (settings.size, settings.size)
    pieces = [ndimage.affine_transform(piece, matrix, output_shape=shape, order=0) for piece in slab]
    return np.stack(pieces).astype(np.uint8, copy=False)


def _protocol_values(
    rng: np.random.Generator, tissues: Sequence[str], settings: ContrastSettings
) -> tuple[Image, Image]:
    """Grey value of each tissue in reference and target under two protocols of one clinic, tissues varied."""
    table = tissue_table(tissues) * rng.uniform(0.85, 1.15, (len(tissues), 4))
    first, second = settings.protocols[rng.integers(len(settings.protocols))]
    return _brightest_one(signal(table, PROTOCOLS[first])), _brightest_one(signal(table, PROTOCOLS[second]))


def _random_values(rng: np.random.Generator, tissues: Sequence[str]) -> tuple[Image, Image]:
    """Grey value of each tissue in reference and target: two draws of random correlation, either sign."""
    correlation = rng.uniform(-1, 1)
    first = rng.uniform(0.05, 1, len(tissues))
    alike = first if correlation > 0 else 1.05 - first
    second = abs(correlation) * alike + (1 - abs(correlation)) * rng.uniform(0.05, 1, len(tissues))
    first[0] = second[0] = 0
    return first.astype(np.float32), second.astype(np.float32)


def _brightest_one(values: npt.NDArray[np.float64]) -> Image:
    return (values / values.max()).astype(np.float32)


def _average(images: tuple[Image, Image], rng: np.random.Generator) -> tuple[Image, Image]:
    """Both images as if many heads had been averaged: blurred alike, here little, there much."""
    least, most = np.sort(rng.uniform(0.5, 3.0, 2))
    much = np.clip(0.5 + 0.5 * _smooth_noise(rng, images[0].shape, 2.0), 0, 1)

    def blurred(image: Image) -> Image:
        little = _blur(image, least)
        return np.asarray(little + much * (_blur(image, most) - little), dtype=np.float32)

    return blurred(images[0]), blurred(images[1])


def _detail(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Image, Image]:
    """Relative changes of grey value with sharp edges that both contrasts share, sign and size their own."""
    levels = np.sort(rng.normal(0, 1, rng.integers(1, 5))).astype(np.float32)
    region = np.searchsorted(levels, _smooth_noise(rng, shape, rng.uniform(0.8, 2.2)))
    first, second = rng.normal(0, rng.uniform(0.02, 0.25, (2, 1)), (2, len(levels) + 1)).astype(np.float32)
    return first[region], second[region]


def _add_spots(image: Image, tissue: Labels, rng: np.random.Generator, most: int) -> None:
    """Bright or dark ellipses and streaks that only this contrast shows, in place."""
    rows, columns = np.nonzero(tissue)
    for _ in range(rng.integers(0, most + 1)):
        at = rng.integers(len(rows))
        radii = rng.uniform(0.7, 9, 2)
        reach = int(np.ceil(1.5 * radii.max())) + 1
        top, left = max(rows[at] - reach, 0), max(columns[at] - reach, 0)
        window = (slice(top, rows[at] + reach + 1), slice(left, columns[at] + reach + 1))
        y, x = np.ogrid[top : top + image[window].shape[0], left : left + image[window].shape[1]]
        angle = rng.uniform(0, np.pi)
        u = (x - columns[at]) * np.cos(angle) + (y - rows[at]) * np.sin(angle)
        v = (y - rows[at]) * np.cos(angle) - (x - columns[at]) * np.sin(angle)
        shape = np.clip(1.5 - np.hypot(u / radii[0], v / radii[1]), 0, 1)
        image[window] += rng.uniform(-0.4, 0.5) * (tissue[window] > 0) * shape


def _brain(tissue: Labels, kept: Sequence[int]) -> Image:
    """Soft mask of the brain and the fluid inside it."""
    inside = ndimage.binary_fill_holes(ndimage.binary_closing(np.isin(tissue, kept), iterations=2))
    return _blur(np.asarray(inside, dtype=np.float32), 0.5)


def _finish(image: Image, rng: np.random.Generator, noise: float, gamma: float) -> Image:
    """Gamma, bias field and Rician noise."""
    curved = np.clip(image, 0, None) ** gamma
    ramp = [np.linspace(-1, 1, n, dtype=np.float32) * rng.normal(0, 0.15) for n in image.shape]
    biased = curved * (1 + ramp[0][:, None] + ramp[1][None] + ramp[0][:, None] * ramp[1][None])
    real, imaginary = noise * rng.standard_normal((2, *image.shape), dtype=np.float32)
    return np.hypot(biased + real, imaginary).astype(np.float32)


def random_pair(subject: Anatomy, rng: np.random.Generator, settings: ContrastSettings) -> MagnitudePair:
    """One slice of ``subject`` in two random contrasts.

    Args:
        subject: the anatomy.
        rng: the only source of chance; the same state gives the same pair.
        settings: ranges.

    Returns:
        Reference and target, (size, size) each.
    """
    slab = _anatomy(subject, rng, settings)
    tissue = slab[len(slab) // 2]
    shape = (settings.size, settings.size)
    follows_protocol = rng.random() < settings.physics
    tissues = subject.tissues
    values = _protocol_values(rng, tissues, settings) if follows_protocol else _random_values(rng, tissues)
    profile = np.exp(-0.5 * ((np.arange(len(slab)) - len(slab) // 2) / rng.uniform(0.4, 1.5)) ** 2)
    profile = (profile / profile.sum()).astype(np.float32)
    edge = float(rng.uniform(*settings.edge))
    first, second = (_blur(np.tensordot(profile, value[slab], axes=1), edge) for value in values)
    calm = np.float32(1)
    if settings.averaged and rng.random() < settings.averaged:
        first, second = _average((first, second), rng)
        calm = np.float32(rng.uniform(0, 0.4))
    elif rng.random() < settings.detail:
        for own, change in zip((first, second), _detail(rng, shape), strict=True):
            own *= 1 + _blur(change, edge)
    shared, *own_texture = (_smooth_noise(rng, shape, rng.uniform(0.2, 1.6)) for _ in range(3))
    mix = rng.uniform(-1, 1, 2)
    strongest = settings.protocol_texture if follows_protocol else settings.texture
    for image, texture, part in zip((first, second), own_texture, mix, strict=True):
        amount = calm * rng.uniform(0, strongest, len(tissues)).astype(np.float32)[tissue]
        image *= 1 + amount * (np.float32(part) * shared + np.float32(np.sqrt(1 - part**2)) * texture)
    _add_spots(second, tissue, rng, 8)
    _add_spots(first, tissue, rng, 3)
    if rng.random() < settings.skull_stripped:
        mask = _brain(tissue, subject.brain)
        if mask.mean() > 0.05:
            first, second = first * mask, second * mask
    if rng.random() < settings.blurred:
        second = _blur(second, rng.uniform(0.3, 1.6))
    if rng.random() < 0.3:
        first = _blur(first, rng.uniform(0.2, 0.9))
    if rng.random() < settings.misaligned:
        first = misalign(first, rng)
    if rng.random() < settings.wrong_reference:
        first = show_something_else(first, rng)
    gammas = (1.0, 1.0) if follows_protocol else tuple(rng.uniform(0.7, 1.4, 2))
    first, second = (
        _finish(image, rng, log_uniform(rng, settings.noise), gamma)
        for image, gamma in zip((first, second), gammas, strict=True)
    )
    if settings.missing_reference and rng.random() < settings.missing_reference:
        return MagnitudePair(np.zeros_like(first), second / second.max())
    return MagnitudePair(first / first.max(), second / second.max())
