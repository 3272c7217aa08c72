"""Randomised contrast: the same state gives the same pair, and every setting does what its name says."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from minet_sdk.training.contrast import PAPER_CLINICAL, ContrastSettings, random_pair
from minet_sdk.training.labels import TISSUES, Subject
from minet_sdk.training.pairs import MagnitudePair
from minet_sdk.training.signal import T1_WEIGHTED, T2_WEIGHTED, signal, tissue_table

Image = npt.NDArray[np.float32]

PLAIN = ContrastSettings(
    averaged=0,
    missing_reference=0,
    size=48,
    physics=0,
    texture=0,
    protocol_texture=0,
    skull_stripped=0,
    detail=0,
    blurred=0,
    misaligned=0,
    wrong_reference=0,
    noise=(1e-6, 1.0000001e-6),
)
"""Nothing that can be switched off."""

COUNT = 24

FLAT = Subject("one tissue", np.full((48, 48, 48), TISSUES.index("white matter"), dtype=np.uint8))


def pairs(subject: Subject, settings: ContrastSettings) -> list[MagnitudePair]:
    return [random_pair(subject, np.random.default_rng((7, index)), settings) for index in range(COUNT)]


def average(subject: Subject, settings: ContrastSettings, value: Callable[[MagnitudePair], float]) -> float:
    return float(np.mean([value(pair) for pair in pairs(subject, settings)]))


def edges(image: Image) -> npt.NDArray[np.floating]:
    return ndimage.gaussian_gradient_magnitude(image.astype(np.float64), 1.0)


def shared_edges(pair: MagnitudePair) -> float:
    """Correlation of the two contrasts' edge maps."""
    return float(np.corrcoef(edges(pair.reference).ravel(), edges(pair.target).ravel())[0, 1])


def sharpness(image: Image) -> float:
    """Part of the image's power above half the Nyquist frequency."""
    power = np.abs(np.fft.fft2(image.astype(np.float64) - image.mean())) ** 2
    frequency = np.abs(np.fft.fftfreq(image.shape[0]))
    outside = np.maximum.outer(frequency, frequency) > 0.25
    return float(power[outside].sum() / power.sum())


def test_same_state_same_pair(subject: Subject) -> None:
    first, again = pairs(subject, ContrastSettings(size=48)), pairs(subject, ContrastSettings(size=48))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.reference, b.reference)
        np.testing.assert_array_equal(a.target, b.target)
    assert not np.array_equal(first[0].target, first[1].target)


def test_pairs_have_the_promised_form(subject: Subject) -> None:
    for pair in pairs(subject, ContrastSettings(size=64, missing_reference=0)):
        for image in (pair.reference, pair.target):
            assert image.shape == (64, 64)
            assert image.dtype == np.float32
            assert image.min() >= 0
            assert image.max() == 1


def test_reference_and_target_share_their_edges(subject: Subject) -> None:
    """With planted faults: a reference moved by two pixels, and one of another head."""
    aligned = average(subject, PLAIN, shared_edges)
    moved = average(subject, PLAIN, lambda pair: shared_edges(replace(pair, reference=np.roll(pair.reference, 2, 0))))
    wrong = average(subject, replace(PLAIN, wrong_reference=1), shared_edges)
    assert aligned > 0.6
    assert moved < aligned - 0.15
    assert wrong < aligned - 0.3


def test_misalignment_is_small(subject: Subject) -> None:
    aligned = average(subject, PLAIN, shared_edges)
    misaligned = average(subject, replace(PLAIN, misaligned=1), shared_edges)
    assert aligned - 0.2 < misaligned < aligned


def test_contrasts_correlate_with_both_signs(subject: Subject) -> None:
    """Grey values inside the head: a network that learns one mapping between them is wrong half of the time."""

    def correlation(pair: MagnitudePair) -> float:
        inside = pair.target > 0.1
        return float(np.corrcoef(pair.reference[inside], pair.target[inside])[0, 1])

    values = np.array([correlation(pair) for pair in pairs(subject, PLAIN)])
    assert (values > 0.3).sum() >= 4
    assert (values < -0.1).sum() >= 4


def test_blurred_targets_are_smoother(subject: Subject) -> None:
    sharp = average(subject, PLAIN, lambda pair: sharpness(pair.target))
    blurred = average(subject, replace(PLAIN, blurred=1), lambda pair: sharpness(pair.target))
    assert blurred < 0.75 * sharp


def test_sharp_borders_are_sharp_in_both_contrasts(subject: Subject) -> None:
    def blunter(pair: MagnitudePair) -> float:
        return min(sharpness(pair.reference), sharpness(pair.target))

    sharp, usual, soft = (
        average(subject, one, blunter)
        for one in (replace(PLAIN, edge=(0.0, 0.2)), PLAIN, replace(PLAIN, edge=(0.8, 0.9)))
    )
    assert sharp > 1.2 * usual > 1.4 * soft


@pytest.mark.parametrize("change", [{"detail": 1}, {"texture": 0.1}])
def test_detail_and_texture_roughen_flat_tissue(change: dict[str, Any]) -> None:
    def roughness(pair: MagnitudePair) -> float:
        return float(np.median(edges(pair.reference)[16:32, 16:32]))

    assert average(FLAT, replace(PLAIN, **change), roughness) > 1.2 * average(FLAT, PLAIN, roughness)


def test_skull_stripping_darkens_everything_but_the_brain(subject: Subject) -> None:
    def dark(pair: MagnitudePair) -> float:
        return float((pair.target < 0.01).mean())

    assert average(subject, replace(PLAIN, skull_stripped=1), dark) > average(subject, PLAIN, dark) + 0.1


@pytest.mark.parametrize("level", [0.01, 0.025])
def test_noise_is_rician(subject: Subject, level: float) -> None:
    """In air the magnitude of complex noise is Rayleigh distributed: mean over root mean square is sqrt(pi) / 2."""
    settings = replace(PLAIN, size=96, noise=(level, 1.0000001 * level))
    ratios: list[float] = []
    for pair in pairs(subject, settings):
        air = pair.target[:12, :12].astype(np.float64)
        ratios.append(air.mean() / np.sqrt(np.mean(air**2)))
        assert 0.4 * level < np.sqrt(np.mean(air**2)) < 4 * level
    assert np.mean(ratios) == pytest.approx(np.sqrt(np.pi) / 2, rel=0.02)


def test_averaged_anatomy_is_smooth_in_both_contrasts(subject: Subject) -> None:
    def sharpness(settings: ContrastSettings) -> list[float]:
        gradients = [
            [np.abs(np.diff(image, axis=0)).mean() / image.mean() for image in (pair.reference, pair.target)]
            for pair in pairs(subject, settings)
        ]
        return list(np.mean(gradients, axis=0))

    sharp, smooth = sharpness(PLAIN), sharpness(replace(PLAIN, averaged=1))
    assert all(after < 0.8 * before for before, after in zip(sharp, smooth, strict=True))


def test_missing_reference_is_zeros_and_leaves_the_target_alone(subject: Subject) -> None:
    with_reference, without = pairs(subject, PLAIN), pairs(subject, replace(PLAIN, missing_reference=1))
    assert not any(pair.reference.any() for pair in without)
    assert np.array_equal(with_reference[0].target, without[0].target)


def striped(first: str, second: str) -> Subject:
    """Two tissues in turn from foot to head."""
    pattern = np.where(np.arange(48) // 4 % 2, TISSUES.index(first), TISSUES.index(second)).astype(np.uint8)
    return Subject("stripes", np.ascontiguousarray(np.broadcast_to(pattern, (48, 48, 48))))


def test_protocols_of_the_papers_clinical_sets() -> None:
    """T1w by inversion recovery guiding T2w: fluid is dark in one and bright in the other, on every pair."""
    white, fluid = TISSUES.index("white matter"), TISSUES.index("fluid")
    first, second = (signal(tissue_table(), protocol) for protocol in (T1_WEIGHTED, T2_WEIGHTED))
    assert first[white] > 1.5 * first[fluid]
    assert second[fluid] > 3 * second[white]
    settings = replace(PLAIN, physics=1, protocols=PAPER_CLINICAL.protocols, orientations=(0.5, 0.5, 0))
    for pair in pairs(striped("white matter", "fluid"), settings):
        inside = pair.target > 0.02
        assert np.corrcoef(pair.reference[inside], pair.target[inside])[0, 1] < 0


def test_orientations_are_drawn_from() -> None:
    """What is striped along one axis shows its stripes in two orientations of three."""
    head = striped("white matter", "fluid")

    def stripes(axis: int) -> float:
        parts = (float(axis == 0), float(axis == 1), float(axis == 2))
        inner = slice(12, 36), slice(12, 36)
        return average(head, replace(PLAIN, orientations=parts), lambda pair: float(edges(pair.target)[inner].mean()))

    assert stripes(2) < 0.5 * min(stripes(0), stripes(1))
