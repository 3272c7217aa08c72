"""What may be wrong with a pair of images: noise, a reference that is displaced, a reference of something else."""

import math
from typing import overload

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from minet_sdk.errors import TrainingError

Image = npt.NDArray[np.float32]
Target = Image | npt.NDArray[np.complex64]


def check_part(name: str, value: float) -> None:
    """Refuse what is no part of a whole.

    Raises:
        TrainingError: naming it.
    """
    if not 0 <= value <= 1:
        raise TrainingError(f"{name} is {value}; it must be between 0 and 1")


def check_noise(limits: tuple[float, float]) -> None:
    """Refuse levels of noise that cannot be drawn log-uniformly.

    Raises:
        TrainingError: they are not two numbers above 0 in order.
    """
    if not 0 < limits[0] <= limits[1] < math.inf:
        raise TrainingError(f"noise is {list(limits)}; expected two numbers above 0, the smaller first")


def log_uniform(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    """A number between two limits whose logarithm is uniform."""
    return float(np.exp(rng.uniform(*np.log(limits))))


def misalign(image: Image, rng: np.random.Generator) -> Image:
    """Turn by about half a degree, move by about half a pixel."""
    angle = np.deg2rad(rng.normal(0, 0.4))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array(image.shape) / 2
    matrix = np.column_stack([turn, middle - turn @ middle + rng.normal(0, 0.6, 2)])
    return ndimage.affine_transform(image, matrix, order=3, mode="nearest").astype(np.float32)


def show_something_else(image: Image, rng: np.random.Generator) -> Image:
    """The image upside down and moved: edges that are none of the target's."""
    return np.roll(image[::-1], rng.integers(10, 60, 2), (0, 1))


@overload
def noisy(image: Image, rng: np.random.Generator, limits: tuple[float, float]) -> Image: ...
@overload
def noisy(image: Target, rng: np.random.Generator, limits: tuple[float, float]) -> Target: ...
def noisy(image: Target, rng: np.random.Generator, limits: tuple[float, float]) -> Target:
    """An image with complex Gaussian noise, as a scanner has it; the noise of a magnitude is Rician.

    Args:
        image: (..., rows, columns), magnitude or complex.
        rng: source of chance.
        limits: of the standard deviation of real and imaginary part, over the brightest pixel; drawn log-uniformly.
    """
    level = log_uniform(rng, limits) * float(np.abs(image).max())
    real, imaginary = level * rng.standard_normal((2, *image.shape), dtype=np.float32)
    if np.iscomplexobj(image):
        return (image + real + 1j * imaginary).astype(np.complex64)
    return np.hypot(image + real, imaginary).astype(np.float32)
