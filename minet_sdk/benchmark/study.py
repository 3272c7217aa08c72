"""The slices that are restored: those of the bundled real study, cut or mirrored to the size that is measured."""

from functools import cache

import numpy as np
import numpy.typing as npt

from minet_sdk.benchmark.inputs import Inputs
from minet_sdk.demo import study_folder
from minet_sdk.dicom.read import load
from minet_sdk.dicom.scan import scan
from minet_sdk.errors import InputError
from minet_sdk.kspace import degrade
from minet_sdk.normalisation import Normalisation

Array = npt.NDArray[np.float32]

DATA = "slices of the bundled ICBM152 study (T1 guides, T2 is degraded), cut or mirrored to size"


@cache
def _study() -> tuple[Array, Array]:
    reference, truth = (load(scan(study_folder() / name).series[0]).volume.values for name in ("t1", "t2"))
    return reference, truth


def real_inputs(
    size: tuple[int, int], scale: int, normalisation: Normalisation, *, needs_reference: bool = True, slices: int = 1
) -> Inputs:
    """Slices of the bundled study at a size.

    Args:
        size: rows and columns of the restored image.
        scale: magnification of the model.
        normalisation: of the model.
        needs_reference: whether the model takes one.
        slices: how many, from the middle of the study outwards in order; the study repeats.

    Raises:
        InputError: the size is not a multiple of the scale.
    """
    if min(size) < scale or any(side % scale for side in size):
        raise InputError(f"size is {size[0]} x {size[1]}; expected multiples of the model's scale {scale}")
    reference, truth = _study()
    picks = [(len(truth) // 2 + index) % len(truth) for index in range(slices)]
    references, truths = (np.stack([_fitted(stack[pick], size) for pick in picks]) for stack in (reference, truth))
    targets = degrade(truths, scale)
    guide = normalisation.apply(references[:1])[:, None] if needs_reference else None
    return Inputs(targets, references, normalisation.apply(targets[:1])[:, None], guide)


def _fitted(image: Array, size: tuple[int, int]) -> Array:
    """The middle of an image, mirrored at its edges as often as the size asks for."""
    missing = [max(0, wanted - found) for wanted, found in zip(size, image.shape, strict=True)]
    image = np.pad(image, [(extra // 2, extra - extra // 2) for extra in missing], mode="symmetric")
    starts = [(found - wanted) // 2 for wanted, found in zip(size, image.shape, strict=True)]
    return image[starts[0] : starts[0] + size[0], starts[1] : starts[1] + size[1]]
