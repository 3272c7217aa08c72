"""A series in overlapping stages: the bits of one after the other, and nothing half written, whatever goes wrong."""

import shutil
import sys
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from minet_sdk import Runtime, cli
from minet_sdk import pipeline as pipeline_module
from minet_sdk import series as series_module
from minet_sdk.demo import study_folder
from minet_sdk.dicom.read import load
from minet_sdk.dicom.scan import scan
from minet_sdk.dicom.uids import hashed_uid
from minet_sdk.dicom.write import write_series
from minet_sdk.errors import DicomError, InputError
from minet_sdk.kspace import degrade
from minet_sdk.run import RunSummary, run_dicom

SLICES = 5
PATIENCE = 20.0


def cropped(header: Dataset, values: np.ndarray, step: int) -> Dataset:
    """An image of a part of the bundled study, in pixels ``step`` times as large."""
    image = deepcopy(header)
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.Rows, image.Columns = values.shape
    image.PixelSpacing = [step * float(one) for one in header.PixelSpacing]
    row, column = np.array(header.ImageOrientationPatient, np.float64).reshape(2, 3)
    spacing = [float(one) for one in header.PixelSpacing]
    corner = np.array(header.ImagePositionPatient, np.float64)
    corner += (60 + (step - 1) / 2) * (row * spacing[1] + column * spacing[0])
    image.ImagePositionPatient = [round(float(one), 6) for one in corner]
    image.SOPInstanceUID = hashed_uid(header.SOPInstanceUID, f"cropped {step}")
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.PixelData = np.clip(np.rint(values), 0, 2**header.BitsStored - 1).astype("<u2").tobytes()
    image["PixelData"].VR = "OW"
    return image


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``target`` and ``reference``: five small slices of the bundled pair."""
    folder = tmp_path_factory.mktemp("study")
    for name, kind, step in (("reference", "t1", 1), ("target", "t2", 2)):
        whole = load(scan(study_folder() / kind).series[0])
        values = whole.volume.values[:SLICES, 60:124, 60:108]
        values = values if step == 1 else degrade(values, step, offset=(step - 1) / 2)
        images = [cropped(whole.datasets[i], values[i], step) for i in range(SLICES)]
        write_series(images, folder / name)
    return folder


@pytest.fixture
def restore(study: Path, small_bundle: Path) -> Callable[..., RunSummary]:
    """Restores the study, or a copy of it, with a small model."""

    def run(output: Path, folder: Path = study, **options: Any) -> RunSummary:
        def open_runtime(name: str) -> Runtime:
            return Runtime(small_bundle, threads=1, **options)

        return run_dicom(folder / "target", folder / "reference", output, open_runtime, overwrite=True)

    return run


def pixels(folder: Path) -> list[bytes]:
    return [pydicom.dcmread(path).PixelData for path in sorted(folder.iterdir())]


def test_overlapped_and_sequential_give_the_same_bits(
    restore: Callable[..., RunSummary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore(tmp_path / "overlapped")

    @contextmanager
    def inline(items: Iterable[Any], most: int = 2) -> Generator[Any]:
        yield iter(items)

    monkeypatch.setattr(pipeline_module, "ahead", inline)
    summary = restore(tmp_path / "sequential")
    assert summary.slices == summary.files == SLICES
    assert not summary.fallbacks
    assert not summary.reference_resampled
    assert pixels(tmp_path / "overlapped") == pixels(tmp_path / "sequential")
    assert 0 < summary.seconds["inference"] < summary.seconds["total"]


def test_preparing_beside_gives_the_same_bits(
    restore: Callable[..., RunSummary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way of a GPU, on a CPU engine: the next reference is prepared while a target is restored."""
    restore(tmp_path / "plain")
    monkeypatch.setattr(Runtime, "prepares_beside", True)
    restore(tmp_path / "beside")
    assert pixels(tmp_path / "plain") == pixels(tmp_path / "beside")


@pytest.mark.parametrize("overlapped", [True, False])
def test_reading_restoring_and_writing_go_on_at_the_same_time(
    restore: Callable[..., RunSummary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overlapped: bool
) -> None:
    """The network waits, inside the second slice, for the third to be read and for the first to be encoded.

    Without overlap, the planted fault, it waits in vain.
    """
    read, encoded = threading.Semaphore(0), threading.Event()
    met: list[bool] = []
    infer: Callable[..., Any] = Runtime.infer
    derive = series_module.derive
    shift = series_module.to_fft_grid
    patience = PATIENCE if overlapped else 0.01

    def reading(*arguments: Any) -> Any:
        read.release()
        return shift(*arguments)

    def waiting(self: Runtime, *arguments: Any) -> Any:
        if len(met) == 1:
            met.append(all(read.acquire(timeout=patience) for _ in range(3)) and encoded.wait(patience))
        else:
            met.append(True)
        return infer(self, *arguments)

    def encoding(*arguments: Any, **options: Any) -> Any:
        encoded.set()
        return derive(*arguments, **options)

    @contextmanager
    def inline(items: Iterable[Any], most: int = 2) -> Generator[Any]:
        yield iter(items)

    monkeypatch.setattr(series_module, "to_fft_grid", reading)
    monkeypatch.setattr(series_module, "derive", encoding)
    monkeypatch.setattr(Runtime, "infer", waiting)
    if not overlapped:
        monkeypatch.setattr(pipeline_module, "ahead", inline)
    restore(tmp_path / "out")
    assert met == [True, overlapped, *[True] * (SLICES - 2)]


def truncated(study: Path, folder: Path, name: str) -> Path:
    """A copy of the study with a damaged fourth image."""
    copy = Path(shutil.copytree(study, folder))
    victim = sorted((copy / name).iterdir())[3]
    victim.write_bytes(victim.read_bytes()[:-100])
    return copy


@pytest.mark.parametrize("stage", ["target file", "reference file", "network", "consistency", "encoding", "writing"])
def test_an_error_in_any_stage_leaves_everything_as_it_was(
    restore: Callable[..., RunSummary], study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    restore(tmp_path / "out")
    before = pixels(tmp_path / "out")
    source, expected = study, r"planted"
    count = 0

    def failing_at_the_third(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == 3:
                raise DicomError("planted")
            return real(*arguments, **options)

        return call

    if stage.endswith("file"):
        source = truncated(study, tmp_path / "damaged", stage.split()[0])
        expected = r"IM_0004\.dcm: truncated or corrupt pixel data"
    elif stage in ("network", "consistency"):
        name = "infer" if stage == "network" else "finish"
        monkeypatch.setattr(Runtime, name, failing_at_the_third(getattr(Runtime, name)))
    else:
        module, name = (series_module, "derive") if stage == "encoding" else (pydicom.Dataset, "save_as")
        monkeypatch.setattr(module, name, failing_at_the_third(getattr(module, name)))
    with pytest.raises(DicomError, match=expected) as error:
        restore(tmp_path / "out", source)
    assert "\n" not in str(error.value)
    assert pixels(tmp_path / "out") == before
    assert {path.name for path in tmp_path.iterdir()} <= {"out", "damaged"}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_tiles_are_said_wherever_the_image_goes(restore: Callable[..., RunSummary], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="channel attention and affinity take in the whole image"):
        restore(tmp_path / "out", largest_output=40 * 64)
    assert not list(tmp_path.iterdir())
    summary = restore(tmp_path / "out", largest_output=40 * 64, tiling="approximate")
    assert summary.tiling.startswith("approximate, ")
    assert summary.to_dict()["tiling"] == summary.tiling
    tiled = pydicom.dcmread(tmp_path / "out" / "IM_0001.dcm")
    assert f"tiling {summary.tiling}" in tiled.DerivationDescription
    whole = restore(tmp_path / "whole")
    plain = pydicom.dcmread(tmp_path / "whole" / "IM_0001.dcm")
    assert whole.tiling == ""
    assert "tiling" not in plain.DerivationDescription
    assert plain.SOPInstanceUID != tiled.SOPInstanceUID


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-memory", "lots"], "'lots' is no amount of memory"),
        (["--max-memory", "1MiB"], "over max_memory of 1 MiB"),
    ],
)
def test_the_command_line_takes_a_limit(
    study: Path,
    small_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    inputs = ["--target", str(study / "target"), "--reference", str(study / "reference"), "--model", str(small_bundle)]
    monkeypatch.setattr(sys, "argv", ["minet-sdk", "run", *inputs, "-o", str(tmp_path / "out"), *options])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    told = capsys.readouterr().err
    assert stop.value.code == 1
    assert message in told
    assert told.count("\n") == 1
    assert not list(tmp_path.iterdir())
