"""A real, tiny training run: it learns, survives being killed, and refuses what it cannot do in one line."""

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from minet_sdk.errors import TrainingError
from minet_sdk.training.checkpoint import load_checkpoint
from minet_sdk.training.config import MinetConfig
from minet_sdk.training.contrast import ContrastSettings
from minet_sdk.training.fit import TrainingSettings, fit
from minet_sdk.training.labels import read_split
from minet_sdk.training.model import Restoration
from minet_sdk.training.module import MinetModule, OptimiserSettings, restoration_loss
from minet_sdk.training.synthetic import Batch, TrainingBatches, WholeSlices

SETTINGS = TrainingSettings(
    model=MinetConfig(stages=1, blocks=1, channels=16, affinity="cosine", skip="sinc"),
    optimiser=OptimiserSettings(steps=40, learning_rate=2e-3, warm_up=4),
    contrast=ContrastSettings(size=48, noise=(0.001, 0.002)),
    patch=32,
    batch_size=4,
    validate_every=20,
    validation_slices=4,
    seed=3,
    precision="32-true",
)

KILLED_RUN = """
import os, signal, sys
from pathlib import Path
import torch
from minet_sdk.training.fit import fit
from minet_sdk.training.module import MinetModule
from test_fit import SETTINGS

train = MinetModule.training_step

def training_step(self, batch, batch_idx):
    if self.global_step == 30:
        os.kill(os.getpid(), signal.SIGKILL)
    return train(self, batch, batch_idx)

MinetModule.training_step = training_step
torch.set_num_threads(1)
fit(SETTINGS, Path(sys.argv[1]), Path(sys.argv[2]), progress=False)
"""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    """Sums in the same order, in this process and in the killed one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def seen() -> list[float]:
    """One number for each batch that the finished run has seen, in order."""
    return []


@pytest.fixture(scope="module")
def run(labels: Path, seen: list[float], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("run") / "tiny"
    train = MinetModule.training_step

    def training_step(self: MinetModule, batch: Batch, batch_idx: int) -> torch.Tensor:
        seen.append(float(batch.truth.double().sum()))
        return train(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MinetModule, "training_step", training_step)
        assert fit(SETTINGS, labels, folder, progress=False) == folder / "best.safetensors"
    return folder


def log_column(run: Path, name: str) -> list[float]:
    with (run / "log" / "version_0" / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def last_weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "last.ckpt", weights_only=False)["state_dict"]


def test_best_network_carries_its_record(run: Path) -> None:
    checkpoint = load_checkpoint(run / "best.safetensors")
    record = checkpoint.record
    assert checkpoint.model.config == SETTINGS.model
    assert record["settings"] == json.loads(json.dumps(asdict(SETTINGS)))
    assert record["settings"]["seed"] == 3
    assert record["data"]["splits"]["test"] == ["subject_14", "subject_15", "subject_16"]
    assert record["versions"]["torch"] == torch.__version__
    assert record["commit"]
    curve = record["curve"]
    assert [point["step"] for point in curve] == [20, 40][: len(curve)]
    best = max(curve, key=lambda point: point["gain_db"])
    assert record["selected_step"] == best["step"]


def test_log_holds_the_measures(run: Path) -> None:
    psnr, zero_filled, gain = (log_column(run, name) for name in ("psnr", "zero_filled_psnr", "gain_db"))
    assert len(psnr) == 2
    for restored, baseline, difference in zip(psnr, zero_filled, gain, strict=True):
        assert difference == pytest.approx(restored - baseline, abs=1e-3)
    assert all(0 < value < 1 for value in log_column(run, "ssim"))
    assert len(log_column(run, "loss")) >= 2
    assert log_column(run, "learning_rate")[-1] < 0.1 * SETTINGS.optimiser.learning_rate


def test_it_learns(run: Path, labels: Path) -> None:
    """Loss of the new and of the trained network on heads that training did not see, and in the log."""
    module = MinetModule(SETTINGS.model, SETTINGS.optimiser, SETTINGS.seed)
    slices = WholeSlices(read_split(labels, "test"), SETTINGS.contrast, "test", SETTINGS.model.scale, 6)

    def loss() -> float:
        with torch.no_grad():
            results = [(module.model(batch.target, batch.reference), batch) for batch in slices]
        return sum(float(restoration_loss(result, batch, 0.7)) for result, batch in results)

    before = loss()
    module.load_state_dict(last_weights(run))
    assert loss() < 0.7 * before
    logged = log_column(run, "loss")
    assert logged[-1] < 0.9 * logged[0]


def test_every_step_sees_the_next_batch_of_the_stream(run: Path, seen: list[float], labels: Path) -> None:
    """Across validations too; a resumed run takes up the same stream, as the bitwise test below shows."""
    stream = TrainingBatches(
        read_split(labels, "train"),
        SETTINGS.contrast,
        scale=SETTINGS.model.scale,
        patch=SETTINGS.patch,
        batch_size=SETTINGS.batch_size,
        seed=SETTINGS.seed,
        first=0,
        length=SETTINGS.optimiser.steps,
    )
    assert seen == [float(batch.truth.double().sum()) for batch in stream]
    assert len(set(seen)) == SETTINGS.optimiser.steps


def test_killed_and_resumed_is_bitwise_the_same(run: Path, labels: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.run(
        [sys.executable, "-c", KILLED_RUN, str(labels), str(killed)], env=environment, capture_output=True, check=False
    )
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    expected, interrupted = last_weights(run), last_weights(killed)
    assert any(not torch.equal(expected[name], interrupted[name]) for name in expected)
    fit(SETTINGS, labels, killed, resume=True, progress=False)
    resumed = last_weights(killed)
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    records = [load_checkpoint(folder / "best.safetensors").record for folder in (run, killed)]
    curves = [[{**point, "seconds": 0} for point in record["curve"]] for record in records]
    assert curves[0] == curves[1]
    assert (killed / "log" / "version_1" / "metrics.csv").is_file()


def test_run_and_resume_need_the_right_folder(run: Path, labels: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="holds a run already: give --resume"):
        fit(SETTINGS, labels, run, progress=False)
    with pytest.raises(TrainingError, match=r"holds no last\.ckpt to resume from"):
        fit(SETTINGS, labels, tmp_path / "new", resume=True, progress=False)
    assert not (tmp_path / "new").exists()


def test_resuming_with_other_settings_is_refused(run: Path, labels: Path) -> None:
    other = replace(SETTINGS, seed=4, model=replace(SETTINGS.model, scale=4))
    with pytest.raises(TrainingError, match=r"other settings: model\.scale was 2, is now 4; seed was 3, is now 4"):
        fit(other, labels, run, resume=True, progress=False)


def test_missing_label_maps_leave_no_folder(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"label maps subject_01\.nii\.gz, .* are missing; --labels"):
        fit(SETTINGS, tmp_path, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_settings_that_do_not_fit_are_refused() -> None:
    for change, message in (
        ({"patch": 33}, "patch is 33; it must be a multiple of the scale 2"),
        ({"patch": 64}, "at most 48"),
        ({"validate_every": 15}, "40 steps are not a multiple of 15"),
    ):
        with pytest.raises(TrainingError, match=message):
            replace(SETTINGS, **change)


def test_loss_of_equation_6() -> None:
    generator = torch.Generator().manual_seed(0)
    target, reference, truth = (torch.randn(2, 1, 6, 6, generator=generator) for _ in range(3))
    batch = Batch(torch.zeros(2, 1, 3, 3), reference, truth)
    both = restoration_loss(Restoration(target, target), batch, 0.3)
    expected = 0.3 * (target - truth).abs().mean() + 0.7 * (target - reference).abs().mean()
    torch.testing.assert_close(both, expected)
    torch.testing.assert_close(restoration_loss(Restoration(target, None), batch, 0.3), (target - truth).abs().mean())


def test_learning_rate_warms_up_and_follows_a_cosine() -> None:
    settings = OptimiserSettings(steps=100, learning_rate=0.5, warm_up=10, final_part=0.01)
    configured: Any = MinetModule(SETTINGS.model, settings, 0).configure_optimizers()
    factor = configured["lr_scheduler"]["scheduler"].lr_lambdas[0]
    assert factor(0) == pytest.approx(0.1, abs=0.001)
    assert factor(50) == pytest.approx(0.01 + 0.99 / 2)
    assert factor(100) == pytest.approx(0.01)
    rates = [factor(step) for step in range(10, 100)]
    assert rates == sorted(rates, reverse=True)
