"""Reference trust against windows computed one by one, and on references that are right, moved or somebody else's."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from minet_sdk.errors import InputError
from minet_sdk.kspace import degrade
from minet_sdk.trust import FLAT, LEAST_TRUST, LOUDEST, MOVES, WINDOW, reference_trust, see, seen_by_target

Array = npt.NDArray[np.float32]


def head(seed: int, size: int = 256) -> npt.NDArray[np.float64]:
    """Smooth regions with sharp edges inside an ellipse: (size, size) region numbers, 0 outside."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.standard_normal((size, size)), 8)
    regions = 1 + np.searchsorted(np.quantile(field, (0.2, 0.4, 0.6, 0.8)), field)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    width, height = rng.uniform(0.5, 0.9, 2)
    return regions * (x**2 / width + y**2 / height < 1)


def pair(anatomy: npt.NDArray[np.float64], seed: int = 0) -> tuple[Array, Array]:
    """Reference and target of an anatomy: grey values unrelated, both noisy."""
    rng = np.random.default_rng(seed)
    values = np.array([[0, 0.9, 0.2, 0.7, 0.4, 0.6], [0, 0.3, 0.8, 0.5, 1.0, 0.4]])
    images = [ndimage.gaussian_filter(value[anatomy.astype(int)], 0.7) for value in values]
    first, second = (np.abs(image + 0.01 * rng.standard_normal(image.shape)).astype(np.float32) for image in images)
    return first, second


def by_windows(target: Array, reference: Array) -> float:
    """The definition, window by window in float64."""
    height, width = target.shape
    t, r = (image.astype(float) for image in (target, reference))
    t, r = (t - t.mean()) / t.std(), (r - r.mean()) / r.std()

    def windows(image: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
        around = np.arange(WINDOW) - WINDOW // 2
        return [
            image[np.ix_((row + around) % height, (column + around) % width)]
            for row in range(height)
            for column in range(width)
        ]

    def explained(moved: npt.NDArray[np.float64]) -> float:
        ours, theirs = windows(t), windows(moved)
        flat = FLAT * np.mean([window.var() for window in theirs])
        weights = np.minimum([a.var() for a in ours], LOUDEST * np.mean([a.var() for a in ours]))
        squares = [
            np.mean((a - a.mean()) * (b - b.mean())) ** 2 / (b.var() + flat) / a.var()
            for a, b in zip(ours, theirs, strict=True)
        ]
        return float(np.average(squares, weights=weights))

    chance = max(explained(np.roll(r, move, (0, 1))) for move in MOVES)
    return (explained(r) - chance) / (1 - chance)


def test_equals_the_definition() -> None:
    rng = np.random.default_rng(1)
    reference = rng.random((14, 11)).astype(np.float32)
    target = (0.5 * reference + 0.3 * rng.random((14, 11))).astype(np.float32)
    assert reference_trust(target, see(reference)) == pytest.approx(by_windows(target, reference), rel=1e-5)


@pytest.mark.parametrize("scale", [2, 4])
def test_right_references_are_trusted_and_wrong_ones_are_not(scale: int) -> None:
    heads = [pair(head(seed), seed) for seed in range(6)]
    for number, (reference, target) in enumerate(heads):
        low = degrade(target, scale)
        assert reference_trust(low, seen_by_target(reference, scale)) > 2 * LEAST_TRUST
        other = heads[number - 1][0]
        assert reference_trust(low, seen_by_target(other, scale)) < LEAST_TRUST
        moved = np.roll(reference, 4 * scale, axis=1)
        assert reference_trust(low, seen_by_target(moved, scale)) < LEAST_TRUST


def test_contrast_sign_and_scale_of_the_reference_do_not_matter() -> None:
    reference, target = pair(head(7))
    low, guide = degrade(target, 2), degrade(reference, 2)
    trust = reference_trust(low, see(guide))
    assert reference_trust(low, see(np.float32(300) - 40 * guide)) == pytest.approx(trust, abs=1e-4)
    assert reference_trust(1000 * low + 5, see(guide)) == pytest.approx(trust, abs=1e-4)


def test_constant_images_deserve_no_trust() -> None:
    reference, target = pair(head(8))
    flat = np.full_like(target, 3)
    assert reference_trust(target, see(flat)) == 0
    assert reference_trust(flat, see(reference)) == 0


def test_shapes_are_checked() -> None:
    with pytest.raises(InputError, match="of one size"):
        reference_trust(np.zeros((16, 16), np.float32), see(np.zeros((16, 18), np.float32)))
    with pytest.raises(InputError, match="at least 10 x 10"):
        see(np.zeros((8, 16), np.float32))


def test_many_threads_judge_beside_each_other() -> None:
    pairs = [pair(head(seed, 64), seed) for seed in range(8)]
    targets, references = [target for _, target in pairs] * 20, [see(reference) for reference, _ in pairs] * 20
    alone = list(map(reference_trust, targets, references))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(reference_trust, targets, references)) == alone
