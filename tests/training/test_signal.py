"""Signal equations against values worked out by hand from the textbook formulae."""

import math
from dataclasses import replace

import numpy as np
import pytest

from minet_sdk.training.labels import TISSUES
from minet_sdk.training.signal import (
    FS_PD_WEIGHTED,
    PD_WEIGHTED,
    PROTOCOL_PAIRS,
    PROTOCOLS,
    T1_WEIGHTED,
    T2_WEIGHTED,
    Protocol,
    signal,
    tissue_table,
)

WHITE, GREY, FLUID, MARROW = (TISSUES.index(name) for name in ("white matter", "grey matter", "fluid", "marrow"))
ONE_TISSUE = np.array([[0.8, 1000.0, 100.0, 0.5]])


def test_spin_echo_by_hand() -> None:
    protocol = Protocol("test", repetition_time=1000 * math.log(4), echo_time=100 * math.log(2))
    assert signal(ONE_TISSUE, protocol) == pytest.approx([0.8 * (1 - 1 / 4) / 2], rel=1e-12)


def test_inversion_recovery_by_hand() -> None:
    early = Protocol("test", 1000 * math.log(8), 100 * math.log(2), inversion_time=1000 * math.log(1.25))
    assert signal(ONE_TISSUE, early) == pytest.approx([0.8 * abs(1 - 2 / 1.25 + 1 / 8) / 2], rel=1e-12)
    null = replace(early, inversion_time=1000 * math.log(2 / (1 + 1 / 8)))
    assert signal(ONE_TISSUE, null) == pytest.approx([0], abs=1e-12)


def test_fat_suppression_takes_its_part_of_the_fat() -> None:
    plain = Protocol("test", 3000, 25)
    ratio = signal(ONE_TISSUE, replace(plain, fat_suppression=0.9)) / signal(ONE_TISSUE, plain)
    assert ratio == pytest.approx([1 - 0.9 * 0.5])


def test_times_are_parameters() -> None:
    """Each time moves the signal the way physics says."""
    table = tissue_table()[1:]
    base = Protocol("test", 2000, 20)
    assert (signal(table, replace(base, repetition_time=4000)) > signal(table, base)).all()
    assert (signal(table, replace(base, echo_time=80)) < signal(table, base)).all()
    assert not np.allclose(signal(table, replace(base, inversion_time=500)), signal(table, base))


def test_t1_weighting_needs_the_inversion() -> None:
    """At TR 2001 / TE 10.72 ms a plain spin echo hardly parts white from grey matter; TI 877 ms makes white bright."""

    def by_hand(density: float, t1: float, t2: float, inversion: bool) -> float:
        recovery = 1 - (2 * math.exp(-877 / t1) - math.exp(-2001 / t1) if inversion else math.exp(-2001 / t1))
        return density * recovery * math.exp(-10.72 / t2)

    assert (T1_WEIGHTED.repetition_time, T1_WEIGHTED.echo_time, T1_WEIGHTED.inversion_time) == (2001, 10.72, 877)
    inverted, plain = (
        values[WHITE] / values[GREY]
        for values in (signal(tissue_table(), p) for p in (T1_WEIGHTED, replace(T1_WEIGHTED, inversion_time=None)))
    )
    tissues = (0.70, 650, 80), (0.82, 1000, 95)
    for ratio, inversion in ((inverted, True), (plain, False)):
        white, grey = (by_hand(*tissue, inversion) for tissue in tissues)
        assert ratio == pytest.approx(white / grey, rel=1e-12)
    assert abs(math.log(plain)) < 0.1
    assert inverted > 1.4


def test_t2_weighting_makes_fluid_bright_and_white_matter_dark() -> None:
    assert (T2_WEIGHTED.repetition_time, T2_WEIGHTED.echo_time) == (4511, 112.86)
    values = signal(tissue_table(), T2_WEIGHTED)
    assert values.argmax() == FLUID
    assert values[WHITE] < values[GREY] < 0.7 * values[FLUID]


def test_fat_suppression_darkens_marrow_alone() -> None:
    assert replace(FS_PD_WEIGHTED, name="PD", fat_suppression=0) == PD_WEIGHTED
    ratio = signal(tissue_table(), FS_PD_WEIGHTED)[1:] / signal(tissue_table(), PD_WEIGHTED)[1:]
    assert ratio[MARROW - 1] < 0.5
    assert ratio[WHITE - 1] == 1


def test_background_is_dark_in_every_protocol() -> None:
    for pair in PROTOCOL_PAIRS:
        for protocol in pair:
            values = signal(tissue_table(), protocol)
            assert values[0] == 0
            assert ((values >= 0) & (values <= 1)).all()


def test_protocols_are_found_by_name() -> None:
    assert {name: protocol.name for name, protocol in PROTOCOLS.items()} == {name: name for name in PROTOCOLS}
    assert all(protocol in PROTOCOLS.values() for pair in PROTOCOL_PAIRS for protocol in pair)


def test_knee_protocols_part_fluid_cartilage_and_fat() -> None:
    """In FS-PD fluid is brightest, cartilage between, fat all but gone; in PD fat is as bright as anything."""
    fluid, cartilage, muscle, fat, meniscus = range(5)
    table = tissue_table(("joint fluid", "cartilage", "muscle", "fat", "meniscus"))
    plain, suppressed = signal(table, PD_WEIGHTED), signal(table, FS_PD_WEIGHTED)
    assert plain[fat] > plain[cartilage] > plain[meniscus]
    assert suppressed[fluid] > suppressed[cartilage] > suppressed[muscle] > suppressed[fat]
    assert suppressed[fat] < 0.2 * plain[fat]
