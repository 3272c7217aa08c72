"""A hundred kinds of nonsense for `minet-sdk run`: each ends in one line and exit code 1, and leaves nothing behind."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from minet_sdk import cli
from minet_sdk.demo import study_folder

Rng = np.random.Generator
RUNS = 100


def series(folder: Path, name: str, slices: int = 4) -> Path:
    """The first slices of a bundled series."""
    folder.mkdir(parents=True)
    for path in sorted((study_folder() / name).glob("*.dcm"))[:slices]:
        shutil.copy(path, folder / path.name)
    return folder


def both(folder: Path) -> tuple[Path, Path]:
    return series(folder / "target", "t2"), series(folder / "reference", "t1")


def victim(folder: Path, rng: Rng) -> Path:
    return sorted(folder.glob("*.dcm"))[int(rng.integers(4))]


def edit(path: Path, **changes: object) -> None:
    dataset = pydicom.dcmread(path)
    for name, value in changes.items():
        setattr(dataset, name, value)
    dataset.save_as(path)


def dicom(spoil: Callable[[Path, Path, Rng], object]) -> Callable[[Path, Rng], list[str]]:
    """Arguments for a good pair of series that ``spoil`` has made bad."""

    def make(folder: Path, rng: Rng) -> list[str]:
        target, reference = both(folder)
        spoil(target, reference, rng)
        return ["--target", str(target), "--reference", str(reference)]

    return make


def files(target: Callable[[Path, Rng], object], name: str = "target.npy") -> Callable[[Path, Rng], list[str]]:
    """Arguments for a target file that ``target`` writes and a good reference."""

    def make(folder: Path, rng: Rng) -> list[str]:
        target(folder / name, rng)
        np.save(folder / "reference.npy", np.ones((2, 64, 64), np.float32))
        return ["--target", str(folder / name), "--reference", str(folder / "reference.npy")]

    return make


def truncate(path: Path, rng: Rng) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * rng.uniform(0.01, 0.9))])


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def fill(folder: Path, content: bytes) -> None:
    for path in folder.iterdir():
        path.write_bytes(content)


def shrink(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    dataset.decompress()
    pixels = dataset.pixel_array[:-8]
    dataset.Rows, dataset.PixelData = pixels.shape[0], pixels.tobytes()
    dataset.save_as(path)


def wrong_frame(folder: Path) -> None:
    for path in folder.iterdir():
        edit(path, FrameOfReferenceUID="1.2.3")


def alone(folder: Path, rng: Rng) -> list[str]:
    return [str(series(folder / "study", "t2"))]


GOOD = dicom(lambda target, reference, rng: None)

CASES: dict[str, Callable[[Path, Rng], list[str]]] = {
    "truncated file": dicom(lambda target, reference, rng: truncate(victim(target, rng), rng)),
    "truncated reference": dicom(lambda target, reference, rng: truncate(victim(reference, rng), rng)),
    "wrong modality": dicom(lambda target, reference, rng: [edit(p, Modality="CT") for p in target.iterdir()]),
    "empty folder": dicom(lambda target, reference, rng: empty(target)),
    "empty reference": dicom(lambda target, reference, rng: empty(reference)),
    "text files": dicom(lambda target, reference, rng: fill(target, b"not an image\n" * int(rng.integers(1, 99)))),
    "zero bytes": dicom(lambda target, reference, rng: fill(target, b"")),
    "random bytes": dicom(lambda target, reference, rng: fill(target, rng.bytes(int(rng.integers(1, 5000))))),
    "missing slice": dicom(lambda target, reference, rng: sorted(target.iterdir())[1].unlink()),
    "wrong size in a series": dicom(lambda target, reference, rng: shrink(victim(target, rng))),
    "no geometry": dicom(lambda target, reference, rng: edit(victim(target, rng), ImagePositionPatient=None)),
    "other frame of reference": dicom(lambda target, reference, rng: wrong_frame(reference)),
    "no second series": alone,
    "missing path": lambda folder, rng: ["--target", str(folder / "nowhere"), "--reference", str(folder)],
    "no input": lambda folder, rng: [],
    "unknown model": lambda folder, rng: [*GOOD(folder, rng), "--model", "minet-x3"],
    "folder and file": lambda folder, rng: [*files(lambda p, r: np.save(p, np.ones((2, 32, 32))))(folder, rng)[:3],
                                            str(series(folder / "reference", "t1"))],
    "random bytes as npy": files(lambda path, rng: path.write_bytes(rng.bytes(300))),
    "pickled objects": files(lambda path, rng: np.save(path, np.array([{}, None], object), allow_pickle=True)),
    "four dimensions": files(lambda path, rng: np.save(path, np.ones((1, 2, 32, 32)))),
    "one dimension": files(lambda path, rng: np.save(path, np.ones(int(rng.integers(1, 99))))),
    "NaN": files(lambda path, rng: np.save(path, np.full((2, 32, 32), np.nan))),
    "wrong size": files(lambda path, rng: np.save(path, np.ones((2, 32, int(rng.integers(33, 60)))))),
    "wrong number of slices": files(lambda path, rng: np.save(path, np.ones((3, 32, 32)))),
    "too small": files(lambda path, rng: np.save(path, np.ones((2, 3, 3)))),
    "text as npy": files(lambda path, rng: np.save(path, np.full((2, 32, 32), "a"))),
    "random bytes as nifti": files(lambda path, rng: path.write_bytes(rng.bytes(400)), "target.nii"),
    "zero bytes as nifti": files(lambda path, rng: path.write_bytes(b""), "target.nii.gz"),
    "another kind of file": files(lambda path, rng: path.write_text("hello"), "target.txt"),
}  # fmt: skip


def call(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["minet-sdk", "run", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code if isinstance(stop.value.code, int) else 99


@pytest.mark.parametrize("number", range(RUNS))
def test_bad_input_is_one_line_and_leaves_nothing(
    number: int,
    small_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = list(CASES)[number % len(CASES)]
    place = tmp_path / "out"
    place.mkdir()
    (tmp_path / "in").mkdir()
    arguments = CASES[name](tmp_path / "in", np.random.default_rng(number))
    suffix = ".npy" if any(a.endswith((".npy", ".nii", ".gz")) for a in arguments) else ""
    # Small, so that what fails late fails soon; a case's own model stands later and wins.
    code = call(["--model", str(small_bundle), *arguments, "-o", str(place / f"result{suffix}")], monkeypatch)
    captured = capsys.readouterr()
    assert code == 1, name
    assert captured.out == "", name
    assert captured.err.count("\n") == 1, (name, captured.err)
    assert captured.err.startswith("minet-sdk: error: "), (name, captured.err)
    assert list(place.iterdir()) == [], name


def test_the_same_pair_unspoilt_runs(small_bundle: Path, tmp_path: Path) -> None:
    """The control: what the cases spoil is good before, and a real process says so with exit code 0."""
    target, reference = both(tmp_path / "in")
    command = [sys.executable, "-m", "minet_sdk.cli", "run", "--target", target, "--reference", reference]
    command += ["--model", small_bundle, "-o", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "out")
    assert "Research use only" in done.stderr
    assert len(list((tmp_path / "out").glob("*.dcm"))) == 4


def test_a_real_process_ends_like_that_too(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "minet_sdk.cli", "run", tmp_path, "-o", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("minet-sdk: error: ")
    assert done.stderr.count("\n") == 1
