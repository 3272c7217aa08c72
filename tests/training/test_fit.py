"""A real, tiny training run: it learns, records itself, stops when it should, and refuses what it cannot do."""

import csv
import json
import math
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from minet_sdk.bundle import models_folder
from minet_sdk.errors import TrainingError
from minet_sdk.training import preparing
from minet_sdk.training.checkpoint import load_checkpoint, save_checkpoint
from minet_sdk.training.config import MinetConfig
from minet_sdk.training.edsr import EdsrConfig
from minet_sdk.training.fit import fit
from minet_sdk.training.folder import RunFolder
from minet_sdk.training.loading import Batch, WholeSlices
from minet_sdk.training.lyu import LyuConfig
from minet_sdk.training.module import RestorationModule
from minet_sdk.training.network import build
from minet_sdk.training.objectives import make_objective
from minet_sdk.training.pairs import PairSource, open_source
from minet_sdk.training.preparing import leaves_parameters, prepare
from minet_sdk.training.saving import SaveBest
from minet_sdk.training.settings import Machine, TrainingSettings
from minet_sdk.training.step_time import StepTime, measure_step
from minet_sdk.training.warm_start import initialise
from minet_sdk.training.zeng import ZengConfig

CONTRAST = {"contrast": {"size": 48, "noise": [0.001, 0.002]}}

SETTINGS = TrainingSettings(
    network=MinetConfig(stages=1, blocks=1, channels=16, affinity="cosine", skip="sinc"),
    method="minet",
    objective="eq6",
    data_options=CONTRAST,
    patch=32,
    batch_size=4,
    steps=40,
    learning_rate=2e-3,
    warm_up=4,
    validate_every=20,
    validation_slices=4,
    seed=3,
    precision="32-true",
)
SHORT = replace(SETTINGS, steps=2, validate_every=1, validation_slices=1, batch_size=2)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Any:
    """Sums in the same order in every run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def machine(labels: Path) -> Machine:
    return Machine(data_path=labels, accelerator="cpu")


@pytest.fixture(scope="module")
def seen() -> list[float]:
    """One number for each batch that the finished run has seen, in order."""
    return []


@pytest.fixture(scope="module")
def run(machine: Machine, seen: list[float], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("run") / "tiny"
    train = RestorationModule.training_step

    def training_step(self: RestorationModule, batch: Batch, batch_idx: int) -> dict[str, torch.Tensor]:
        seen.append(float(batch.truth.double().sum()))
        return train(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RestorationModule, "training_step", training_step)
        assert fit(SETTINGS, folder, replace(machine, tensorboard=True), progress=False) == folder / "best.safetensors"
    return folder


def log_column(run: Path, name: str) -> list[float]:
    with (run / "log" / "version_0" / "metrics.csv").open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def state(run: Path) -> dict[str, Any]:
    return torch.load(run / "last.ckpt")


def same(first: Path, second: Path) -> bool:
    one, other = (state(run)["state_dict"] for run in (first, second))
    return all(torch.equal(one[name], other[name]) for name in one)


def test_best_network_carries_its_record(run: Path) -> None:
    checkpoint = load_checkpoint(run / "best.safetensors")
    record = checkpoint.record
    assert checkpoint.model.config == SETTINGS.network
    assert record["settings"] == json.loads(json.dumps(SETTINGS.to_dict()))
    assert record["settings"]["seed"] == 3
    assert record["data"]["subjects"] == {"train": [f"subject_{number:02d}" for number in range(1, 11)]}
    assert record["augmentation"]["missing_reference"] == 0
    assert record["versions"]["torch"] == torch.__version__
    assert record["commit"]
    curve = record["curve"]
    assert [point["step"] for point in curve] == [20, 40][: len(curve)]
    best = max(curve, key=lambda point: point["gain_db"])
    assert record["selected_step"] == best["step"]


def test_the_run_says_how_it_ended(run: Path) -> None:
    finished = json.loads((run / "finished.json").read_text())
    assert finished["steps"] == 40
    assert finished["stopped_early"] is False
    assert finished["best"]["gain_db"] == max(
        point["gain_db"] for point in state(run)["callbacks"]["SaveBest"]["curve"]
    )


def test_log_holds_the_measures(run: Path) -> None:
    psnr, zero_filled, gain = (log_column(run, name) for name in ("psnr", "zero_filled_psnr", "gain_db"))
    assert len(psnr) == 2
    for restored, baseline, difference in zip(psnr, zero_filled, gain, strict=True):
        assert difference == pytest.approx(restored - baseline, abs=1e-3)
    assert all(0 < value < 1 for value in log_column(run, "ssim"))
    assert len(log_column(run, "loss")) == 2
    assert log_column(run, "learning_rate")[-1] < 0.1 * SETTINGS.learning_rate


def test_tensorboard_shows_what_the_csv_file_shows(run: Path) -> None:
    events: Any = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    accumulator = events.EventAccumulator(str(run / "log" / "version_0"))
    accumulator.Reload()
    shown = [(event.step, event.value) for event in accumulator.Scalars("gain_db")]
    assert [step for step, _ in shown] == [20, 40]
    assert [value for _, value in shown] == pytest.approx(log_column(run, "gain_db"), abs=1e-4)
    assert len(accumulator.Scalars("loss")) == 2


def test_it_learns(run: Path, machine: Machine) -> None:
    """Loss of the new and of the trained network on heads that training did not see."""
    slices = WholeSlices(open_source("synthetic", machine.data_path, "test", CONTRAST), "test", 2, 6)
    objective = make_objective("eq6")
    network = build(SETTINGS.network, SETTINGS.seed)

    def loss() -> float:
        with torch.no_grad():
            batches = [slices[index] for index in range(6)]
            return sum(
                float(objective.generator_loss(network(batch.target, batch.reference), batch)) for batch in batches
            )

    before = loss()
    weights = {name.removeprefix("network."): value for name, value in state(run)["state_dict"].items()}
    network.load_state_dict(weights, strict=False)
    assert loss() < 0.8 * before


def test_every_step_sees_the_next_batch_of_the_stream(run: Path, seen: list[float], machine: Machine) -> None:
    """Across validations too; a resumed run takes up the same stream, as the tests of real runs show."""
    units = prepare(SETTINGS, machine).data.units
    expected = [float(sum(units[2 * step + part].truth.double().sum() for part in range(2))) for step in range(40)]
    assert seen == pytest.approx(expected, rel=1e-12)
    assert len(set(seen)) == 40


def test_the_seed_determines_a_run_whoever_prepares_the_data(machine: Machine, tmp_path: Path) -> None:
    for name, settings, workers in (("a", SHORT, 0), ("b", SHORT, 2), ("c", replace(SHORT, seed=4), 0)):
        torch.manual_seed(len(name))
        fit(settings, tmp_path / name, replace(machine, workers=workers), progress=False)
    assert same(tmp_path / "a", tmp_path / "b")
    assert not same(tmp_path / "a", tmp_path / "c")


def test_a_run_leaves_the_random_state_alone(machine: Machine, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    fit(SHORT, tmp_path / "run", machine, progress=False)
    assert torch.equal(before, torch.get_rng_state())


def test_it_stops_when_nothing_gets_better(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A step that is far too long spoils the network at once; the second worse validation ends the run."""
    settings = replace(SHORT, steps=12, learning_rate=1.0, warm_up=0, patience=2, clip_norm=0)
    fit(settings, tmp_path / "run", machine)
    finished = json.loads((tmp_path / "run" / "finished.json").read_text())
    curve = state(tmp_path / "run")["callbacks"]["SaveBest"]["curve"]
    gains = [point["gain_db"] for point in curve]
    assert finished["stopped_early"]
    assert finished["steps"] == len(curve) < 12
    assert gains.index(max(gains)) == len(gains) - 3
    told = capsys.readouterr()
    assert told.out == ""
    assert [line.split(":")[0] for line in told.err.splitlines()] == [
        f"step {i} of 12" for i in range(1, len(gains) + 1)
    ]


def test_mixed_precision_trains_in_it(machine: Machine, tmp_path: Path) -> None:
    fit(replace(SHORT, precision="bf16-mixed"), tmp_path / "bf16", machine, progress=False)
    fit(SHORT, tmp_path / "full", machine, progress=False)
    assert not same(tmp_path / "bf16", tmp_path / "full")
    assert all(tensor.dtype == torch.float32 for tensor in state(tmp_path / "bf16")["state_dict"].values())


def test_a_diverged_run_ends_with_one_line(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) after \d+ steps: the run has diverged; lower"):
        fit(
            replace(SHORT, learning_rate=1e30, clip_norm=0, warm_up=0, steps=4, validate_every=4),
            tmp_path / "run",
            machine,
            progress=False,
        )
    assert not (tmp_path / "run" / "finished.json").exists()


def test_a_network_that_is_no_number_is_not_saved(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of the last step is finite, the weights that it makes are not, and a validation follows at once."""
    clip = RestorationModule.on_before_optimizer_step

    def spoil(self: RestorationModule, optimizer: torch.optim.Optimizer) -> None:
        if self.trainer.fit_loop.total_batch_idx == SHORT.steps - 1:
            gradient = next(self.network.parameters()).grad
            assert gradient is not None
            gradient.fill_(math.nan)
        clip(self, optimizer)

    monkeypatch.setattr(RestorationModule, "on_before_optimizer_step", spoil)
    with pytest.raises(TrainingError, match="the validation gain is nan dB after 2 steps: the run has diverged; lower"):
        fit(SHORT, tmp_path / "run", machine, progress=False)
    best = load_checkpoint(tmp_path / "run" / "best.safetensors")
    assert best.record["selected_step"] == 1
    assert all(torch.isfinite(weight).all() for weight in best.model.parameters())
    assert [point["step"] for point in state(tmp_path / "run")["callbacks"]["SaveBest"]["curve"]] == [1]
    assert not (tmp_path / "run" / "finished.json").exists()


def test_a_gain_that_is_not_finite_is_the_lowest() -> None:
    saver = SaveBest(RunFolder(Path()), {})
    saver.curve = [{"gain_db": gain} for gain in (1.0, 2.0, 2.0, math.nan, math.inf)]
    assert saver.best is saver.curve[2]


def test_a_run_killed_between_its_last_save_and_its_end_trains_no_further(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps that change nothing: the second validation is no better than the first."""
    settings = replace(SHORT, steps=6, learning_rate=1e-12, patience=1)
    with monkeypatch.context() as patch:
        patch.setattr(SaveBest, "on_fit_end", Callback.on_fit_end)
        fit(settings, tmp_path / "run", machine, progress=False)
    before = state(tmp_path / "run")["callbacks"]["SaveBest"]["curve"]
    assert not (tmp_path / "run" / "finished.json").exists()
    fit(settings, tmp_path / "run", machine, resume="yes", progress=False)
    finished = json.loads((tmp_path / "run" / "finished.json").read_text())
    assert len(before) < 6
    assert (finished["steps"], finished["stopped_early"]) == (before[-1]["step"], True)
    assert state(tmp_path / "run")["callbacks"]["SaveBest"]["curve"] == before


def test_what_this_machine_cannot_do_is_refused_before_training(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="precision is 16-mixed, which only a GPU trains in; choose bf16-mixed"):
        fit(replace(SHORT, precision="16-mixed"), tmp_path / "run", machine, progress=False)
    with pytest.raises(TrainingError, match="validation has 1 of the slices that 2 devices need"):
        fit(SHORT, tmp_path / "run", replace(machine, devices=2), progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("objective", ["eq6", "l1", "mse"])
@pytest.mark.parametrize(
    "network",
    [
        SETTINGS.network,
        replace(SETTINGS.network, reference=False),
        replace(SETTINGS.network, attention=False),
        EdsrConfig(blocks=1, channels=8),
        ZengConfig(depth=2, guided_depth=2, channels=8),
        LyuConfig(encoder_blocks=1, decoder_blocks=1, channels=8),
    ],
)
def test_parameters_that_a_step_leaves_are_known(network: Any, objective: str) -> None:
    """Data parallel training must look for them: without that it ends at the second step."""
    module = RestorationModule(build(network), make_objective(objective), replace(SETTINGS, network=network))
    batch = Batch(torch.rand(1, 1, 16, 16), torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32))
    module.generator_losses(module.restore(batch), batch)["loss"].backward()
    left = [name for name, parameter in module.network.named_parameters() if parameter.grad is None]
    assert leaves_parameters(module) == bool(left)


def test_run_and_resume_need_the_right_folder(run: Path, machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="holds a run already: give --resume"):
        fit(SETTINGS, run, machine, progress=False)
    with pytest.raises(TrainingError, match=r"holds no last\.ckpt to resume from"):
        fit(SETTINGS, tmp_path / "new", machine, resume="yes", progress=False)
    assert not (tmp_path / "new").exists()


def test_a_finished_run_is_left_as_it_is(run: Path, machine: Machine) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.iterdir()}
    assert fit(SETTINGS, run, machine, resume="auto", progress=False) == run / "best.safetensors"
    assert {path: path.stat().st_mtime_ns for path in run.iterdir()} == before


def test_resuming_with_other_settings_is_refused(run: Path, machine: Machine) -> None:
    other = replace(SETTINGS, seed=4, network=replace(SETTINGS.network, scale=4))
    with pytest.raises(TrainingError, match=r"other settings: network\.scale was 2, is now 4; seed was 3, is now 4"):
        fit(other, run, machine, resume="yes", progress=False)


def test_files_may_move_but_not_change(
    run: Path, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Synthetic data stand for data that have a cache and a file of splits."""

    def synthetic(kind: str, path: Path, split: Any, options: Any) -> PairSource:
        return open_source("synthetic", path, split, CONTRAST)

    def settings(place: str) -> TrainingSettings:
        folder = tmp_path / place
        options = {**CONTRAST, "splits": str(folder / "splits.csv"), "cache": str(folder / "cache")}
        network = str(folder / "network.safetensors")
        return replace(SHORT, data_options=options, initialise=network, teacher=network, teacher_weight=0.1)

    monkeypatch.setattr(preparing, "open_source", synthetic)
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    shutil.copy(run / "best.safetensors", old / "network.safetensors")
    (old / "splits.csv").write_text("subject,split\n")
    best = fit(settings("old"), tmp_path / "run", machine, progress=False)
    (tmp_path / "run" / "finished.json").unlink()
    shutil.move(old, new)
    for _ in range(2):
        assert fit(settings("new"), tmp_path / "run", machine, resume="yes", progress=False) == best
    record = state(tmp_path / "run")["callbacks"]["SaveBest"]["record"]
    assert record["settings"] == json.loads((tmp_path / "run" / "settings.json").read_text())
    (new / "splits.csv").write_text("subject,split\na,test\n")
    with pytest.raises(
        TrainingError, match=r"splits is .*new.splits\.csv .*not the file that the run was started with"
    ):
        fit(settings("new"), tmp_path / "run", machine, resume="yes", progress=False)
    (new / "splits.csv").write_text("subject,split\n")
    save_checkpoint(new / "network.safetensors", build(SETTINGS.network, seed=9), {})
    with pytest.raises(TrainingError, match=r"initialise is .*network\.safetensors .*not the file that the run was"):
        fit(settings("new"), tmp_path / "run", machine, resume="yes", progress=False)


def test_a_folder_of_an_older_version_is_refused(machine: Machine, tmp_path: Path) -> None:
    old = {"model": {"scale": 2}, "optimiser": {"steps": 40}, "patch": 80, "seed": 0}
    (tmp_path / "settings.json").write_text(json.dumps(old))
    (tmp_path / "last.ckpt").write_bytes(b"")
    with pytest.raises(TrainingError, match=r"a run of an older minet-sdk.* with --initialise .*best\.safetensors"):
        fit(SETTINGS, tmp_path, machine, resume="yes", progress=False)


def test_missing_label_maps_leave_no_folder(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"label maps subject_01\.nii\.gz, .* are missing"):
        fit(SETTINGS, tmp_path / "run", replace(machine, data_path=tmp_path), progress=False)
    with pytest.raises(TrainingError, match=r"cannot train with devices=1, accelerator=gpu"):
        fit(SETTINGS, tmp_path / "run", replace(machine, accelerator="gpu"), progress=False)
    assert not (tmp_path / "run").exists()


def test_fine_tuning_starts_from_the_weights_of_another_run(run: Path, machine: Machine) -> None:
    best = run / "best.safetensors"
    prepared = prepare(replace(SETTINGS, seed=8, initialise=str(best)), machine)
    own, taken = prepared.module.network.state_dict(), load_checkpoint(best).model.state_dict()
    assert all(torch.equal(own[name], taken[name]) for name in own)
    assert prepared.record["initialised"]["left_as_made"] == []
    assert prepared.record["initialised"]["taken"] == len(own)
    assert len(prepared.record["initialised"]["sha256"]) == 64


def test_a_resumed_run_still_says_what_it_started_from(run: Path, machine: Machine, tmp_path: Path) -> None:
    settings = replace(
        SHORT, network=replace(SETTINGS.network, attention=False), initialise=str(run / "best.safetensors")
    )
    fit(settings, tmp_path / "run", machine, progress=False)
    saved = state(tmp_path / "run")["callbacks"]["SaveBest"]
    assert saved["record"]["settings"]["steps"] == 2
    started = prepare(settings, machine, fresh=False)
    assert "initialised" not in started.record
    first = {"command": "minet-sdk train", "commit": "first"}
    saved["record"] |= first
    for times in (1, 2):
        saver = SaveBest(RunFolder(tmp_path), {**started.record, "command": f"minet-sdk train --resume, {times}"})
        saver.load_state_dict(saved)
        saved = saver.state_dict()
        assert saver.record["initialised"]["file"] == "best.safetensors"
        assert first.items() <= saver.record.items()
        assert [resumed["command"] for resumed in saver.record["resumed"]] == [
            f"minet-sdk train --resume, {number}" for number in range(1, times + 1)
        ]
        assert saver.record["resumed"][-1]["commit"] == started.record["commit"]


def test_the_user_is_told_what_did_not_fit(
    run: Path, machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = replace(SHORT, network=replace(SETTINGS.network, stages=2), initialise=str(run / "best.safetensors"))
    fit(settings, tmp_path / "run", machine)
    assert re.match(r"\d+ of \d+ tensors do not fit .*best\.safetensors and start anew\n", capsys.readouterr().err)


def test_other_networks_take_what_fits_and_say_what_does_not(run: Path) -> None:
    single = build(replace(SETTINGS.network, reference=False, stages=2), seed=1)
    before = {name: value.clone() for name, value in single.state_dict().items()}
    told = initialise(single, run / "best.safetensors")
    after = single.state_dict()
    assert (
        "reduction.weight" in told["left_as_made"]
        or after["reduction.weight"].shape == before["reduction.weight"].shape
    )
    for name in before:
        assert torch.equal(after[name], before[name]) == (name in told["left_as_made"]) or not before[name].any(), name
    assert 0 < told["taken"] < len(before)
    with pytest.raises(TrainingError, match="no weight fits this network"):
        initialise(build(EdsrConfig(blocks=1, channels=8)), run / "best.safetensors")


def test_a_deeper_network_starts_with_the_images_of_the_other(run: Path) -> None:
    path = run / "best.safetensors"
    deeper = build(replace(SETTINGS.network, blocks=3), seed=1)
    target, reference = torch.rand(2, 1, 16, 16), torch.rand(2, 1, 32, 32)
    expected = load_checkpoint(path).model(target, reference).restored
    assert not torch.equal(deeper(target, reference).restored, expected)
    told = initialise(deeper, path)
    assert torch.equal(deeper(target, reference).restored, expected)
    new = [name for name in told["left_as_made"] if name.endswith("weight")]
    assert new
    assert all(".blocks.1." in name or ".blocks.2." in name for name in new)
    deeper(target, reference).restored.sum().backward()
    gradients = {name: parameter.grad for name, parameter in deeper.named_parameters() if parameter.grad is not None}
    assert all(gradients[name].any() for name in new if ".second." in name)


@pytest.mark.parametrize("name", ["minet-x2", "minet-x4"])
def test_bundled_checkpoints_initialise(name: str) -> None:
    path = models_folder() / name / "checkpoint.safetensors"
    network = build(load_checkpoint(path).model.config, seed=1)
    assert initialise(network, path)["left_as_made"] == []


def test_a_teacher_of_another_scale_is_refused(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "teacher.safetensors"
    save_checkpoint(path, build(replace(SETTINGS.network, scale=4)), {})
    with pytest.raises(TrainingError, match="is for scale 4, the network for 2"):
        prepare(replace(SETTINGS, teacher=str(path), teacher_weight=1.0), machine)
    save_checkpoint(path, build(SETTINGS.network), {})
    record = prepare(replace(SETTINGS, teacher=str(path), teacher_weight=1.0), machine).record
    assert record["teacher"]["file"] == "teacher.safetensors"


def test_step_time_is_that_of_the_run(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that is made a tenth of a second longer is measured so."""
    settings = replace(SETTINGS, validation_slices=1)
    before = measure_step(settings, machine, steps=3)
    train = RestorationModule.training_step

    def training_step(self: RestorationModule, batch: Batch, batch_idx: int) -> dict[str, torch.Tensor]:
        time.sleep(0.3)
        return train(self, batch, batch_idx)

    monkeypatch.setattr(RestorationModule, "training_step", training_step)
    slowed = measure_step(settings, machine, steps=3)
    assert 0.3 < slowed.step < 0.3 + 20 * before.step
    assert 0 < before.step_cpu < 5
    assert before.validation > 0


def test_steps_within_a_time() -> None:
    measured = StepTime(step=0.5, step_cpu=0.4, validation=6.0)
    steps = measured.steps_within(10, validations=10)
    assert steps == 1080
    assert steps * 0.5 + 10 * 6.0 <= 600
    with pytest.raises(TrainingError, match="1 minutes are too short for 10 validations"):
        measured.steps_within(1, validations=10)
