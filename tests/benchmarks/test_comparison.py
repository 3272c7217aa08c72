"""The comparison on networks and volumes that are small: real tests, real summary, real tables."""

import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import optimize

from minet_sdk.bundle import Bundle
from minet_sdk.kspace import bicubic, degrade, zero_filled
from minet_sdk.training.checkpoint import load_checkpoint, save_checkpoint
from minet_sdk.training.evaluation_sets import TestVolume

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
SLICES = 8


@pytest.fixture(scope="module")
def modules() -> Iterator[Callable[[str], Any]]:
    """The benchmarks are scripts, not a package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module


def volumes(scale: int) -> Iterator[TestVolume]:
    """Two subjects in other proportions, eight slices each, as volumes of one slice."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    for subject in ("first", "second"):
        for number in range(SLICES):
            rng = np.random.default_rng((len(subject), number))
            width = 0.5 if subject == "first" else 0.8
            shape: NDArray[np.float64] = (x**2 / width + y**2 < 0.6) + 0.4 * (np.hypot(x, y - 0.2) < 0.3)
            truth = (shape + 0.02 * rng.standard_normal(shape.shape)).astype(np.float32)[None]
            low = np.stack([degrade(truth[0], scale)])
            yield TestVolume(f"{subject} #{number}", subject, truth, low, (1.5 - truth).astype(np.float32))


@pytest.fixture(scope="module")
def tested(
    modules: Callable[[str], Any], make_bundle: Callable[..., Bundle], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Results of the interpolations and of one small network, under its own name and as MINet with two seeds.

    Only one of the seeds is exported anew.
    """
    output = tmp_path_factory.mktemp("results") / "comparison"
    testing, sets_module = modules("comparison_steps.testing"), modules("comparison_steps.sets")
    sets = {sets_module.CLINICAL: volumes, sets_module.SHOWN: volumes}
    bundle = make_bundle(missing_reference=0.1, scale=2)
    made = load_checkpoint(bundle.location.parent / "random.safetensors")
    told = {"settings": {"steps": 7}, "selected_step": 7, "curve": [{"seconds": 60.0}], "commit": "none"}
    checkpoint = tmp_path_factory.mktemp("trained") / "best.safetensors"
    save_checkpoint(checkpoint, made.model, {**made.record, **told})
    checkpoint.with_name("finished.json").write_text(json.dumps({"seconds": 90.0}))
    testing.test_untrained(2, sets, output)
    testing.test_network(testing.Network("minet", 2, 0, checkpoint), sets, output)
    testing.test_network(testing.Network("minet", 2, 1, checkpoint, bundle.location), sets, output)
    shipped = testing.Network("bundled-minet", 2, 0, checkpoint, bundle.location)
    testing.test_network(shipped, sets, output)
    modules("comparison_steps.robustness").test_robustness(shipped, sets, output)
    modules("comparison_steps.calibration").test_calibration(shipped, sets, output)
    return output


def test_gains_are_those_of_the_slices(modules: Callable[[str], Any], tested: Path) -> None:
    """Bicubic over zero-filled, computed here from the images alone."""
    found = modules("comparison_steps.report").summarise(tested)["x2"]["sets"]["real, ICBM152 T1 to T2"]["rows"]
    decibels: list[float] = []
    for volume in volumes(2):
        truth, low = volume.truth[0].astype(float), volume.low[0]
        errors = [np.mean((method(low, 2) - truth) ** 2) for method in (zero_filled, bicubic)]
        decibels.append(10 * np.log10(errors[0] / errors[1]))
    gain = found["bicubic"]["off"]["gain_db"]
    assert gain["mean"] == pytest.approx(np.mean(decibels), abs=1e-3)
    assert gain["interval"][0] < gain["mean"] < gain["interval"][1]
    assert gain["by_subject"]["second"] == pytest.approx(np.mean(decibels[SLICES:]), abs=1e-3)
    assert found["zero-filled"]["off"]["gain_db"]["mean"] == 0
    assert (found["minet"]["seeds"], found["minet"]["volumes"], found["minet"]["slices"]) == (2, 16, 16)


def test_training_seconds_are_those_of_the_whole_run(
    modules: Callable[[str], Any], tested: Path, tmp_path: Path
) -> None:
    """The curve of the record ends, after 60 seconds, with the validation that was selected."""
    assert json.loads((tested / "minet-x2-seed0.json").read_text())["about"]["training_seconds"] == 90
    testing = modules("comparison_steps.testing")
    for name in ("minet-x2-seed0", "zeng-x2-seed0"):
        (tmp_path / "work" / name).mkdir(parents=True)
        best = tmp_path / "work" / name / "best.safetensors"
        best.write_bytes(name.encode())
        best.with_name("finished.json").write_text(json.dumps({"seconds": 630.6}))
        of = best if name.startswith("minet") else tested / "minet-x2-seed0.json"  # another run's
        told = {"row": "of it", "about": {"training_seconds": 270.8, "sha256": testing.sha256(of)}}
        (tmp_path / f"{name}.json").write_text(json.dumps(told) + "\n")
    before = (tmp_path / "zeng-x2-seed0.json").read_bytes()
    assert testing.update_training_seconds(tmp_path / "work", tmp_path) == {"minet-x2-seed0": (270.8, 630.6)}
    changed = (tmp_path / "minet-x2-seed0.json").read_text()
    assert json.loads(changed)["about"]["training_seconds"] == 630.6
    assert changed.startswith('{"row": "of it", "about": {"training_seconds": 630.6, "sha256"')
    assert (tmp_path / "zeng-x2-seed0.json").read_bytes() == before
    assert testing.update_training_seconds(tmp_path / "work", tmp_path) == {}


def test_rivals_are_compared_on_the_slices_that_both_restored(modules: Callable[[str], Any], tmp_path: Path) -> None:
    """SMORE restores the easy slice alone, and worse than EDSR does."""
    sets = modules("comparison_steps.sets")
    measured = {
        "zero-filled": (20.0, 10.0, 10.0),
        "edsr": (30.0, 20.0, 20.0),
        "smore-2d": (29.0,),
        "minet": (31.0, 21.0, 21.0),
    }
    for row, found in measured.items():
        of_set = [
            {
                "volume": f"{number}",
                "subject": "a",
                "psnr": psnr,
                "ssim": 0.5,
                "nmse": 0.1,
                "errors": [10 ** (-psnr / 10)],
            }
            for number, psnr in enumerate(found)
        ]
        result = {"row": row, "scale": 2, "seed": 0, "about": {}, "results": {sets.CLINICAL: {row: of_set}}}
        (tmp_path / f"{row}-x2-seed0.json").write_text(json.dumps(result))
    results = modules("comparison_steps.report").summarise(tmp_path)
    over = results["x2"]["sets"][sets.CLINICAL]["over"]["minet"]["best single-contrast method"]
    assert (over["rival"], over["gain_db"]["mean"]) == ("edsr", 1)
    lines = modules("comparison_table").details({"missing": [], "results": {"x2": results["x2"]}}).splitlines()
    cells = {line.split("|")[1].strip(): line for line in lines if "dB, " in line}
    assert "29.00 dB, 0.500, +9.00 (1 of 3 slices)" in cells["SMORE-2D (adapted)"]
    assert "slices" not in cells["EDSR"]


def test_the_best_rival_is_found(modules: Callable[[str], Any], tested: Path) -> None:
    found = modules("comparison_steps.report").summarise(tested)["x2"]["sets"]["real, ICBM152 T1 to T2"]
    over = found["over"]["minet"]["best single-contrast method"]
    psnr = {row: found["rows"][row]["off"]["psnr"] for row in ("bicubic", "zero-filled")}
    assert over["rival"] == max(psnr, key=lambda row: psnr[row])


def test_wrong_references_are_counted(tested: Path) -> None:
    """What is refused is as if nothing had been given; with a right reference the gate changes nothing."""
    report = json.loads((tested / "robustness-bundled-minet-x2-seed0.json").read_text())
    for by_gate in report["sets"].values():
        gated = by_gate["gate"]
        assert gated["right"]["over_right"]["mean"] == 0
        assert gated["missing"]["over_missing"]["mean"] == 0
        assert gated["missing"]["refused"] == 1
        assert gated["right"]["refused"] == 0
        assert gated["moved by 8"]["refused"] == 1
        assert gated["moved by 8"]["over_missing"]["mean"] == 0
        assert by_gate["no gate"]["moved by 8"]["refused"] == 0
        assert by_gate["no gate"]["moved by 8"]["over_missing"]["mean"] != 0


@pytest.mark.parametrize("strength", [0.5, 1.6])
def test_detail_that_is_too_strong_or_too_weak_is_told(modules: Callable[[str], Any], strength: float) -> None:
    """A method that adds a multiple of what is missing; SciPy finds the best factor on it."""

    def restore(volume: TestVolume) -> NDArray[np.float32]:
        filled, rng = zero_filled(volume.low, 2), np.random.default_rng(len(volume.name))
        noise = 0.01 * rng.standard_normal(filled.shape)
        return (filled + strength * (volume.truth - filled) + noise).astype(np.float32)

    def error(factor: float) -> float:
        ratios: list[float] = []
        for volume in volumes(2):
            filled = zero_filled(volume.low, 2).astype(float)
            left = filled + factor * (restore(volume) - filled) - volume.truth
            ratios.append(float(np.square(left).mean() / np.square(filled - volume.truth).mean()))
        return float(np.mean(ratios))

    found = modules("comparison_steps.calibration").calibration(restore, volumes(2), 2)
    best: Any = optimize.minimize_scalar(error)
    assert found["factor"] == pytest.approx(best.x, rel=1e-4)
    assert found["factor"] == pytest.approx(1 / strength, rel=0.1)
    assert found["gain_at_factor_db"] > found["gain_db"] + 1


def test_the_strength_of_a_network_is_that_of_its_gain(modules: Callable[[str], Any], tested: Path) -> None:
    found = modules("comparison_steps.report").summarise(tested)["x2"]
    for name, one in found["calibration"]["bundled-minet"].items():
        assert one["gain_db"] == pytest.approx(
            found["sets"][name]["rows"]["bundled-minet"]["off"]["gain_db"]["mean"], abs=2e-3
        )
        assert one["gain_at_factor_db"] > one["gain_db"]


def test_tables_and_pictures_come_from_the_results(modules: Callable[[str], Any], tested: Path, tmp_path: Path) -> None:
    table = modules("comparison_table")
    report: dict[str, Any] = {
        "missing": ["minet-plain-x2-seed0", "edsr-x4-seed0", "edsr-x2-seed0"],
        "results": modules("comparison_steps.report").summarise(tested),
    }
    text = table.tables(report) + table.details(report)
    psnr = report["results"]["x2"]["sets"]["real, ICBM152 T1 to T2"]["rows"]["minet"]["off"]["psnr"]
    assert "**3 trainings of the comparison are still to be made**: first seed of MINet, trained with right" in text
    assert "| MINet | " in text
    assert f"{psnr:.2f} dB" in text
    assert "| another subject's | " in text
    assert "### Strength of the detail, x2" in text
    assert "`minet-x2`, bundled over the best single-contrast method" in text
    drawn: list[NDArray[np.uint8]] = []
    rows = report["results"]["x2"]["sets"]["real, ICBM152 T1 to T2"]["rows"]
    for gain in (-1.0, 1.0):
        rows["minet"]["off"]["gain_db"] = {"mean": gain, "interval": [gain - 0.5, gain + 0.5]}
        modules("comparison_pictures").draw_gains(report, tmp_path / "gains.png")
        drawn.append(np.asarray(Image.open(tmp_path / "gains.png").convert("L")))
    assert np.any(drawn[0] != drawn[1])


def test_every_system_of_the_paper_is_a_row(modules: Callable[[str], Any]) -> None:
    table, plan = modules("comparison_table"), modules("comparison_steps.plan")
    trained = {(run.method, run.scale) for run in plan.runs()}
    for row in (*table.TABLE_1[3:], *table.TABLE_2):
        assert row == "smore-2d" or {(row, 2), (row, 4)} <= trained
    twice = {run.method for run in plan.runs() if run.seed == 1}
    assert {"minet", *table.PARTS} <= twice


def test_budgets_are_measured_once(modules: Callable[[str], Any], tmp_path: Path) -> None:
    plan, path = modules("comparison_steps.plan"), tmp_path / "budgets.json"
    path.write_text(
        json.dumps({"minutes": 6, "machine": {}, "budgets": {"edsr-x2": {"steps": 6, "step_cpu_seconds": 1}}})
    )
    run = plan.Run("edsr", 2, 1)
    assert plan.settle_budgets([run], tmp_path, 6, path)["edsr-x2"].steps == 6
    with pytest.raises(ValueError, match="steps of 6 minutes"):
        plan.settle_budgets([run], tmp_path, 9, path)
