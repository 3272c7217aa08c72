"""Small heads for the training tests: nested ellipsoids with FreeSurfer label values, written as NIfTI."""

from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
import pytest

from minet_sdk.training.labels import Subject, read_subject

EDGE = 48

SHELLS = ((1.0, 511, 511), (0.93, 507, 507), (0.86, 515, 515), (0.78, 24, 24), (0.72, 3, 42), (0.55, 2, 41))
"""Outer radius and the label left and right of the middle: skin, soft tissue, bone, fluid, grey and white matter."""

KERNELS = ((-0.18, 4), (0.18, 43), (-0.42, 10), (0.42, 49))
"""Ventricles and thalami: offset from the middle and label."""


def make_head(seed: int) -> npt.NDArray[np.int16]:
    """(x, y, z) label map of one head."""
    rng = np.random.default_rng(seed)
    axes = [np.linspace(-1.1, 1.1, EDGE) for _ in range(3)]
    x, y, z = np.meshgrid(*(axis / rng.uniform(0.9, 1.05) for axis in axes), indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2) * (1 + 0.04 * np.sin(7 * x + seed) * np.cos(6 * y - seed))
    head = np.zeros((EDGE, EDGE, EDGE), dtype=np.int16)
    for outer, left, right in SHELLS:
        head = np.where(radius < outer, np.where(x < 0, left, right), head).astype(np.int16)
    for offset, label in KERNELS:
        head[np.sqrt((x - offset) ** 2 + (y / 1.6) ** 2 + z**2) < 0.15] = label
    return head


@pytest.fixture(scope="session")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of subject_01.nii.gz ... subject_16.nii.gz."""
    folder = tmp_path_factory.mktemp("labels")
    for number in range(1, 17):
        nibabel.Nifti1Image(make_head(number), np.eye(4)).to_filename(folder / f"subject_{number:02d}.nii.gz")
    return folder


@pytest.fixture(scope="session")
def subject(labels: Path) -> Subject:
    """The first head."""
    return read_subject(labels / "subject_01.nii.gz")
