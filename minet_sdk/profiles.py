"""Which image sizes a TensorRT plan covers: ranges with one size that they are tuned for, and named clinical sets."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from minet_sdk.errors import InputError
from minet_sdk.shapes import LEAST_SIZE

Size = tuple[int, int, int]
"""N, H, W of the low-resolution target."""

LARGEST_SIDE = 4096

LARGEST_BATCH = 256


@dataclass(frozen=True)
class Profile:
    """The sizes that a plan accepts, and the one that it is tuned for: N, H, W of the low-resolution target.

    Raises:
        InputError: not minimum <= optimum <= maximum in every axis, or sizes that no scanner makes.
    """

    minimum: Size
    optimum: Size
    maximum: Size

    def __post_init__(self) -> None:
        for name in ("minimum", "optimum", "maximum"):
            size = tuple(getattr(self, name))
            if len(size) != 3 or any(type(value) is not int for value in size):
                raise InputError(f"{name} of a profile is {getattr(self, name)!r}; expected three integers N, H, W")
            object.__setattr__(self, name, size)
            batch, sides = size[0], size[1:]
            if not 1 <= batch <= LARGEST_BATCH:
                raise InputError(f"{name} {format_size(size)} has a batch of {batch}; give 1 to {LARGEST_BATCH}")
            if min(sides) < LEAST_SIZE or max(sides) > LARGEST_SIDE:
                raise InputError(
                    f"{name} {format_size(size)} has a side of {min(sides) if min(sides) < LEAST_SIZE else max(sides)}"
                    f"; give {LEAST_SIZE} to {LARGEST_SIDE} rows and columns of the low-resolution target"
                )
        for lower, upper in (("minimum", "optimum"), ("optimum", "maximum")):
            small, large = getattr(self, lower), getattr(self, upper)
            if any(a > b for a, b in zip(small, large, strict=True)):
                raise InputError(
                    f"{lower} {format_size(small)} is larger than {upper} {format_size(large)}; "
                    "give minimum <= optimum <= maximum in every axis"
                )

    @property
    def static(self) -> bool:
        """Whether it covers one size only."""
        return self.minimum == self.maximum

    def covers(self, target: Size) -> bool:
        """Whether a target of N, H, W fits."""
        return all(a <= b <= c for a, b, c in zip(self.minimum, target, self.maximum, strict=True))

    def __str__(self) -> str:
        if self.static:
            return format_size(self.optimum)
        return f"{format_size(self.minimum)} to {format_size(self.maximum)}, best at {format_size(self.optimum)}"


@dataclass(frozen=True)
class _Matrix:
    """One profile of a named set, in rows x columns of the restored image, which is what a scanner's protocol says."""

    optimum: tuple[int, int]
    maximum: tuple[int, int]


PROFILE_SETS: dict[str, tuple[_Matrix, ...]] = {
    "brain": (_Matrix((256, 256), (320, 320)), _Matrix((512, 512), (512, 512))),
    "knee": (_Matrix((320, 320), (384, 384)), _Matrix((640, 368), (640, 640))),
    "all": (_Matrix((320, 320), (384, 384)), _Matrix((512, 512), (640, 640))),
}
"""Brain: 160x160 to 320x320, tuned for 256x256 (240x240 too), and 512x512. Knee: 320x320 crops and 384x384, and whole
640x368 fastMRI slices up to 640x640. All: everything up to 640x640. Smaller images always fit."""


def profile_set(name: str, scale: int, batch: int = 1) -> tuple[Profile, ...]:
    """The profiles of a named set of clinical matrices.

    Args:
        name: one of `PROFILE_SETS`.
        scale: magnification of the model; the matrices of the set are those of restored images.
        batch: slices at once, the largest and the best number.

    Raises:
        InputError: no such set.
    """
    if name not in PROFILE_SETS:
        raise InputError(f"profile is {name!r}; choose one of {', '.join(PROFILE_SETS)}, or give sizes of your own")

    def low(matrix: tuple[int, int]) -> Size:
        return (batch, -(-matrix[0] // scale), -(-matrix[1] // scale))

    least = (1, LEAST_SIZE, LEAST_SIZE)
    return tuple(Profile(least, low(matrix.optimum), low(matrix.maximum)) for matrix in PROFILE_SETS[name])


def parse_size(text: str) -> Size:
    """N, H, W from ``HxW`` (then N is 1) or ``NxHxW``.

    Raises:
        InputError: neither form.
    """
    parts = text.lower().split("x")
    if len(parts) not in (2, 3) or not all(part.isascii() and part.isdigit() for part in parts):
        raise InputError(f"size is {text!r}; give HxW or NxHxW of the low-resolution target, such as 160x160")
    numbers = [int(part) for part in parts]
    return cast(Size, tuple(numbers if len(numbers) == 3 else [1, *numbers]))


def format_size(size: Sequence[int]) -> str:
    """``1x160x160``."""
    return "x".join(str(value) for value in size)


def covering(profiles: Sequence[Profile], target: Size) -> tuple[Profile, ...]:
    """The profiles, and one more of exactly this target if none covers it.

    The golden vector must fit into every plan, or the plan could not be checked before its first use.
    """
    if any(profile.covers(target) for profile in profiles):
        return tuple(profiles)
    return (*profiles, Profile(target, target, target))


def choose_profile(profiles: Sequence[Profile], target: Size, subject: str) -> int:
    """Index of the profile that covers a target and is tuned for the size nearest to it.

    Args:
        profiles: of a plan, in its order.
        target: N, H, W.
        subject: name of the plan, for the error.

    Raises:
        InputError: none covers it; the message says what the plan covers.
    """
    fitting = [index for index, profile in enumerate(profiles) if profile.covers(target)]
    if not fitting:
        raise InputError(
            f"target {format_size(target)} lies outside what {subject} covers ({coverage(profiles)}): give another "
            "size, or build a plan for it with `minet-sdk export BUNDLE --opt HxW`"
        )
    return min(fitting, key=lambda index: distance(profiles[index], target))


def distance(profile: Profile, target: Size) -> float:
    """How far a target is from the size that a profile is tuned for."""
    return sum(max(a, b) / min(a, b) - 1 for a, b in zip(target, profile.optimum, strict=True))


def coverage(profiles: Iterable[Profile]) -> str:
    """What the profiles cover, for a sentence."""
    return "; ".join(str(profile) for profile in profiles)
