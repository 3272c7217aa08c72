"""The bundled study is what its maker makes, and valid."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from minet_sdk.dicom import Contrast, contrast_of, load, scan, space_conflict

STUDY = Path(__file__).parents[2] / "minet_sdk" / "study"


def test_it_is_one_study_of_two_contrasts_on_one_grid() -> None:
    reference, target = scan(STUDY).series
    assert contrast_of(reference.header) is Contrast.T1
    assert contrast_of(target.header) is Contrast.T2
    assert space_conflict(target, reference) is None
    t1, t2 = load(reference), load(target)
    assert t1.volume.grid is not None
    assert t2.volume.grid is not None
    assert t1.volume.grid.matches(t2.volume.grid, tolerance_mm=0)
    assert t1.volume.values.shape == (20, 224, 192)
    assert t1.volume.grid.spacing == (4, 1, 1)


def test_the_head_is_upright_and_the_ventricles_are_where_they_belong() -> None:
    """Fluid of the lateral ventricles and eyes, in MNI coordinates: dark in T1, bright in T2."""
    reference, target = (load(series).volume for series in scan(STUDY).series)
    assert reference.grid is not None
    for side in (-1, 1):
        fluid, matter = (tuple(np.rint(reference.grid.indices([side * x, -8, 16])).astype(int)) for x in (5, 26))
        assert reference.values[fluid] < 0.6 * reference.values[matter]
        assert target.values[fluid] > 1.5 * target.values[matter]
        eye, cerebellum = (tuple(np.rint(reference.grid.indices([side * 33, y, -32])).astype(int)) for y in (-58, 58))
        assert target.values[eye] > 1.5 * target.values[cerebellum]


@pytest.mark.parametrize("name", ["t1", "t2"])
def test_dciodvfy_has_nothing_to_say(name: str) -> None:
    for path in sorted((STUDY / name).iterdir()):
        told = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
        assert (told.stdout + told.stderr).strip() == "MRImage"


def test_the_notice_is_there() -> None:
    notice = (STUDY / "NOTICE.txt").read_text(encoding="utf-8")
    assert "McConnell Brain" in notice
    assert "What was changed" in notice
    assert sum(path.stat().st_size for path in STUDY.rglob("*") if path.is_file()) < 2_500_000
