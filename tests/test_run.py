"""From files to files: DICOM study, two series, NIfTI and arrays give the same restored image."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pydicom
import pytest

from minet_sdk import Runtime
from minet_sdk.demo import demonstrate, study_folder
from minet_sdk.dicom.read import load
from minet_sdk.dicom.scan import scan
from minet_sdk.errors import DicomError, InputError
from minet_sdk.files import read_volume, write_volume
from minet_sdk.kspace import degrade
from minet_sdk.measures import psnr
from minet_sdk.run import bundled_model_for, run_dicom, run_files, run_study
from minet_sdk.volume import Grid


def open_runtime(name: str) -> Runtime:
    return Runtime(name, threads=1)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    """A short demonstration: the bundled study with three slices."""
    study = tmp_path_factory.mktemp("study")
    for name in ("t1", "t2"):
        (study / name).mkdir()
        for path in sorted((study_folder() / name).glob("*.dcm"))[8:11]:
            shutil.copy(path, study / name)
    output = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("minet_sdk.demo.study_folder", lambda: study)
        demonstrate(output, open_runtime, picture=True)
        shutil.copytree(study, output / "study")
        yield output


def test_demo_writes_series_picture_and_figures(demo: Path) -> None:
    for scale in (2, 4):
        restored = load(scan(demo / f"x{scale}" / "restored").series[0])
        truth = load(scan(demo / "study" / "t2").series[0])
        assert truth.volume.grid is not None
        assert restored.volume.grid is not None
        assert restored.volume.grid.matches(truth.volume.grid)
        assert (demo / f"comparison_x{scale}.png").read_bytes().startswith(b"\x89PNG")
        header = restored.datasets[0]
        assert list(header.ImageType)[:2] == ["DERIVED", "SECONDARY"]
        assert "research use only" in header.DerivationDescription
        assert "consistency soft" in header.DerivationDescription
        assert f"MINet AI super-resolution x{scale} of T2 guided by T1" in header.DerivationDescription


def test_study_and_two_series_give_the_same_files(demo: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    shutil.copytree(demo / "study" / "t1", study / "a")
    shutil.copytree(demo / "x2" / "low_resolution", study / "b")
    (study / "notes.txt").write_text("scanned on a Sunday")
    summary = run_study(study, tmp_path / "out", open_runtime)
    assert "T2 target" in summary.pairing
    assert "T1 reference" in summary.pairing
    assert summary.model == "minet-x2"
    assert summary.consistency == "soft"
    assert summary.skipped
    assert summary.skipped[0].startswith("notes.txt")
    for ours, theirs in zip(
        sorted((tmp_path / "out").iterdir()), sorted((demo / "x2" / "restored").iterdir()), strict=True
    ):
        a, b = pydicom.dcmread(ours), pydicom.dcmread(theirs)
        assert a.PixelData == b.PixelData
        assert a.SOPInstanceUID == b.SOPInstanceUID
        assert a.SeriesInstanceUID == b.SeriesInstanceUID


def test_nifti_gives_the_image_that_dicom_gives(demo: Path, tmp_path: Path) -> None:
    for name, folder in (("low", demo / "x2" / "low_resolution"), ("guide", demo / "study" / "t1")):
        write_volume(load(scan(folder).series[0]).volume, tmp_path / f"{name}.nii.gz")
    run_files(tmp_path / "low.nii.gz", tmp_path / "guide.nii.gz", tmp_path / "out.nii.gz", open_runtime)
    ours = read_volume(tmp_path / "out.nii.gz")
    theirs = load(scan(demo / "x2" / "restored").series[0]).volume
    assert ours.grid is not None
    assert theirs.grid is not None
    assert ours.grid.matches(theirs.grid)
    header = load(scan(demo / "x2" / "restored").series[0]).datasets[0]
    assert "RescaleSlope" not in header
    expected = np.clip(np.rint(ours.values), 0, 2**header.BitsStored - 1)
    assert np.abs(expected - theirs.values).max() <= 1  # where float32 affines differ in their last bit
    assert np.mean(expected != theirs.values) < 1e-3


def test_arrays_lie_on_the_fft_grid(demo: Path, tmp_path: Path) -> None:
    truth = load(scan(demo / "study" / "t2").series[0]).volume.values
    guide = load(scan(demo / "study" / "t1").series[0]).volume.values
    np.save(tmp_path / "low.npy", degrade(truth, 4))
    np.save(tmp_path / "guide.npy", guide)
    summary = run_files(tmp_path / "low.npy", tmp_path / "guide.npy", tmp_path / "out.npy", open_runtime)
    assert summary.model == "minet-x4"
    restored = np.load(tmp_path / "out.npy")
    with open_runtime("minet-x4") as runtime:
        np.testing.assert_array_equal(restored, runtime(degrade(truth, 4), guide))
    assert psnr(truth, restored) > 25


def test_outputs_are_not_overwritten_unasked(demo: Path, tmp_path: Path) -> None:
    low, guide = demo / "x2" / "low_resolution", demo / "study" / "t1"
    with pytest.raises(InputError, match="not empty"):
        run_dicom(low, guide, demo / "x2" / "restored", open_runtime)
    with pytest.raises(InputError, match="not empty"):
        demonstrate(demo, open_runtime)
    np.save(tmp_path / "a.npy", np.ones((1, 32, 32)))
    with pytest.raises(InputError, match="exists"):
        run_files(tmp_path / "a.npy", None, tmp_path / "a.npy", open_runtime)


def test_series_of_different_frames_are_refused(demo: Path, tmp_path: Path) -> None:
    shutil.copytree(demo / "study" / "t1", tmp_path / "other")
    for path in (tmp_path / "other").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.FrameOfReferenceUID = "1.2.3"
        dataset.save_as(path)
    with pytest.raises(DicomError, match="frames of reference"):
        run_dicom(demo / "x2" / "low_resolution", tmp_path / "other", tmp_path / "out", open_runtime)


def test_the_bundled_model_follows_the_inputs() -> None:
    def plain(size: int) -> tuple[int, int, int]:
        return 1, size, size

    assert bundled_model_for(plain(32), plain(64)) == "minet-x2"
    assert bundled_model_for(plain(32), plain(128)) == "minet-x4"
    assert bundled_model_for(plain(32), None) == "minet-x2"
    assert bundled_model_for((1, 32, 32), (1, 128, 64)) == "minet-x2"
    coarse = Grid(plain(32), np.zeros(3), np.diag([4.0, 4.0, 4.0]))
    assert bundled_model_for(coarse, coarse.refined(4)) == "minet-x4"


def test_the_bundled_model_follows_the_spacings_along_the_targets_plane() -> None:
    """A sagittal reference of 0.5 mm with slices of 1 mm is twice, not four times, as fine as axial pixels of 2 mm."""
    axial = Grid((4, 32, 32), np.zeros(3), np.array([[0.0, 0, 4], [0, 2, 0], [2, 0, 0]]))
    sagittal = Grid((64, 128, 128), np.zeros(3), np.array([[1.0, 0, 0], [0, 0, -0.5], [0, 0.5, 0]]))
    assert bundled_model_for(axial, sagittal) == "minet-x2"


def test_an_input_is_never_replaced(demo: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    shutil.copytree(demo / "study" / "t1", study / "t1")
    shutil.copytree(demo / "x2" / "low_resolution", study / "t2")  # written by this SDK: an earlier result, by its look
    before = {path: path.read_bytes() for path in study.rglob("*.dcm")}
    (tmp_path / "link").symlink_to(study / "t2")
    for output in (study / "t2", study / "t1", study, tmp_path / "link"):
        with pytest.raises(InputError, match="is or holds the input"):
            run_dicom(study / "t2", study / "t1", output, open_runtime, overwrite=True)
        with pytest.raises(InputError, match="is or holds the input"):
            run_study(study, output, open_runtime, overwrite=True)
    assert {path: path.read_bytes() for path in study.rglob("*.dcm")} == before
    np.save(tmp_path / "low.npy", np.ones((2, 32, 32), np.float32))
    np.save(tmp_path / "guide.npy", np.ones((2, 64, 64), np.float32))
    for name in ("low", "guide"):
        with pytest.raises(InputError, match=f"is or holds the input .*{name}"):
            run_files(
                tmp_path / "low.npy", tmp_path / "guide.npy", tmp_path / f"{name}.npy", open_runtime, overwrite=True
            )


def never(name: str) -> Runtime:
    raise AssertionError("the model was opened for nothing")


def test_an_output_that_cannot_be_written_is_found_before_the_work(demo: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "low.npy", np.ones((2, 32, 32), np.float32))
    np.save(tmp_path / "guide.npy", np.ones((2, 64, 64), np.float32))
    (tmp_path / "file").touch()
    for output, message in (
        (tmp_path / "out.nii.gz", "no place in the patient"),
        (tmp_path / "file" / "out.npy", "cannot write"),
    ):
        with pytest.raises(InputError, match=message):
            run_files(tmp_path / "low.npy", tmp_path / "guide.npy", output, never)
    with pytest.raises(InputError, match="the output of DICOM series is a folder"):
        run_dicom(demo / "x2" / "low_resolution", demo / "study" / "t1", tmp_path / "out.nii.gz", never)
    run_files(tmp_path / "low.npy", tmp_path / "guide.npy", tmp_path / "new" / "folder" / "out.npy", open_runtime)
    assert np.load(tmp_path / "new" / "folder" / "out.npy").shape == (2, 64, 64)


def test_a_run_that_is_terminated_leaves_nothing(demo: Path, tmp_path: Path) -> None:
    """While its first slices are written, which they are into a hidden folder."""
    study = tmp_path / "study"
    shutil.copytree(demo / "study" / "t1", study / "t1")
    shutil.copytree(demo / "x2" / "low_resolution", study / "t2")
    script = (
        "import sys, time\n"
        "from minet_sdk import cli\n"
        "from minet_sdk.dicom import write\n"
        "save = write._save\n"
        "def slow(*arguments):\n"
        "    save(*arguments)\n"
        "    print('written', flush=True)\n"
        "    time.sleep(60)\n"
        "write._save = slow\n"
        f"sys.argv = ['minet-sdk', 'run', {str(study)!r}, '-o', {str(tmp_path / 'out')!r}, '--threads', '1']\n"
        "cli.main()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        assert any(entry.name.startswith(".out-") for entry in tmp_path.iterdir())
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["study"]
