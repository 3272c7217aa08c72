"""Made-up knees: each number its own shape, layers where a knee has them, fat that the target suppresses."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from minet_sdk.training.contrast import KNEE, KNEE_CLINICAL, random_pair
from minet_sdk.training.knee import TISSUES, Knee, make_knees
from minet_sdk.training.pairs import open_source

EDGE = 72
FINE = 240
"""Fine enough for the thinnest layers."""

CORONAL, SAGITTAL = 1, 0


def middle(number: int, axis: int = CORONAL, edge: int = EDGE) -> npt.NDArray[np.uint8]:
    return Knee(number, edge).slab(axis, edge // 2, 1)[0]


def area(tissue: npt.NDArray[np.uint8], name: str) -> float:
    return float((tissue == TISSUES.index(name)).mean())


def test_a_number_is_a_shape() -> None:
    first = middle(3)
    np.testing.assert_array_equal(first, middle(3))
    for other in (4, 5, 1000):
        assert 0.02 < (middle(other) != first).mean() < 0.6


def test_slabs_are_neighbouring_slices() -> None:
    knee = Knee(2, EDGE)
    for axis in range(3):
        slab = knee.slab(axis, 30, 3)
        assert slab.shape == (3, EDGE, EDGE)
        assert slab.dtype == np.uint8
        for offset in (-1, 0, 1):
            np.testing.assert_array_equal(slab[1 + offset], knee.slab(axis, 30 + offset, 1)[0])
    np.testing.assert_array_equal(knee.slab(0, 0, 3)[0], knee.slab(0, 0, 1)[0])


def test_slices_of_all_orientations_show_one_volume() -> None:
    """The same voxels, cut three ways: rows run from head or front, columns along the lower axis."""
    knee = Knee(1, 24)
    volume = np.stack([knee.slab(2, z, 1)[0][::-1].T for z in range(24)], axis=2)
    for x in (5, 12):
        np.testing.assert_array_equal(knee.slab(0, x, 1)[0], volume[x].T[::-1])
    for y in (7, 15):
        np.testing.assert_array_equal(knee.slab(1, y, 1)[0], volume[:, y].T[::-1])


@pytest.mark.parametrize("number", [0, 1, 2000])
def test_tissues_lie_where_a_knee_has_them(number: int) -> None:
    """Marrow inside bone, skin outside, cartilage between the bones, and every tissue somewhere."""
    tissue = middle(number, edge=FINE)
    sagittal = middle(number, SAGITTAL, FINE)
    assert set(np.unique(sagittal)) | set(np.unique(tissue)) == set(range(len(TISSUES)))
    assert 0.15 < area(tissue, "fatty marrow") < 0.5
    assert 0.002 < area(tissue, "meniscus") < 0.05
    assert 0.005 < area(tissue, "cartilage") < 0.1
    marrow = tissue == TISSUES.index("fatty marrow")
    around = np.asarray(ndimage.binary_dilation(marrow), dtype=np.bool_) & ~marrow
    assert (tissue[around] == TISSUES.index("bone")).mean() > 0.8
    limb = tissue > 0
    border = limb & ~np.asarray(ndimage.binary_erosion(limb, border_value=1), dtype=np.bool_)
    assert (tissue[border] == TISSUES.index("skin")).mean() > 0.9
    rows = np.nonzero(tissue == TISSUES.index("cartilage"))[0]
    assert 0.25 * FINE < rows.min() < rows.max() < 0.75 * FINE


def test_target_suppresses_fat_and_keeps_the_rest() -> None:
    """PD guiding FS-PD: where marrow is, in the middle of the bones, the target is dark and the reference is not."""
    ratios: list[tuple[float, float]] = []
    for number in range(4):
        pair = random_pair(Knee(number, EDGE), np.random.default_rng(number), replace(KNEE_CLINICAL, size=EDGE))
        bright = pair.reference > 0.5
        dark_too = pair.target < 0.35
        ratios.append((float((bright & dark_too).mean()), float((bright & ~dark_too).mean())))
    suppressed, kept = np.mean(ratios, axis=0)
    assert suppressed > 0.1
    assert kept > 0.05


def test_knees_need_no_files_and_share_no_subject() -> None:
    parts = [open_source("synthetic", None, split, {"anatomy": "knee"}) for split in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [200, 12, 20]
    assert len({name for part in parts for name in part.subjects}) == 232
    assert parts[0].describe()["anatomy"] == "knee, procedural"
    assert [knee.name for knee in make_knees("validation")][:2] == ["knee_1000", "knee_1001"]


def test_nothing_is_stripped_from_a_knee() -> None:
    plain, stripped = (
        random_pair(Knee(1, EDGE), np.random.default_rng(0), replace(KNEE, size=EDGE, skull_stripped=part))
        for part in (0.0, 1.0)
    )
    np.testing.assert_array_equal(plain.target, stripped.target)
