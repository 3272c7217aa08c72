"""A series appears whole or not at all."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from minet_sdk.dicom import write, write_series
from minet_sdk.errors import DicomError, InputError

MakeSeries = Callable[..., list[Path]]


@pytest.fixture
def images(make_series: MakeSeries, tmp_path: Path) -> list[Dataset]:
    return [dcmread(path) for path in make_series(tmp_path / "in", slices=3)]


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_are_named_in_slice_order(images: list[Dataset], tmp_path: Path) -> None:
    files = write_series(images, tmp_path / "a" / "out")
    assert [path.name for path in files] == ["IM_0001.dcm", "IM_0002.dcm", "IM_0003.dcm"]
    assert [dcmread(path).SOPInstanceUID for path in files] == [image.SOPInstanceUID for image in images]
    assert [entry.name for entry in (tmp_path / "a").iterdir()] == ["out"]


def test_an_empty_folder_is_taken(images: list[Dataset], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert len(write_series(images, tmp_path / "out")) == 3


def _failing(images: list[Dataset]) -> Iterator[Dataset]:
    yield images[0]
    raise RuntimeError("engine lost")


@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_halfway_changes_nothing(existing: bool, images: list[Dataset], tmp_path: Path) -> None:
    if existing:
        write_series(images[:1], tmp_path / "out")
    before = _tree(tmp_path)
    with pytest.raises(RuntimeError, match="engine lost"):
        write_series(_failing(images), tmp_path / "out", overwrite=existing)
    assert _tree(tmp_path) == before
    images[1].file_meta.TransferSyntaxUID = RLELossless  # which its pixel data is not
    with pytest.raises(DicomError, match=r"IM_0002\.dcm"):
        write_series(images, tmp_path / "out", overwrite=existing)
    assert _tree(tmp_path) == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == (["in", "out"] if existing else ["in"])


def test_an_earlier_result_is_replaced_only_on_request(images: list[Dataset], tmp_path: Path) -> None:
    write_series(images, tmp_path / "out")
    before = _tree(tmp_path)
    with pytest.raises(InputError, match="not empty"):
        write_series(images[:1], tmp_path / "out")
    assert _tree(tmp_path) == before
    write_series(images[:1], tmp_path / "out", overwrite=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["IM_0001.dcm"]


@pytest.mark.parametrize("name", ["thesis.txt", "folder/IM_0001.dcm", "scan.dcm"])
def test_foreign_files_are_never_replaced(name: str, images: list[Dataset], tmp_path: Path) -> None:
    (tmp_path / "out" / name).parent.mkdir(parents=True)
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(InputError, match="no earlier result"):
        write_series(images, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / name).read_text() == "mine"


def test_a_place_that_cannot_be_written_is_named(images: list[Dataset], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        write_series(images, tmp_path / "file")
    with pytest.raises(InputError, match="cannot write"):
        write_series(images, tmp_path / "file" / "out")


def test_acquired_images_are_never_replaced_whatever_their_name(
    images: list[Dataset], make_series: MakeSeries, tmp_path: Path
) -> None:
    """Many systems export IM_0001.dcm, too."""
    (acquired,) = make_series(tmp_path / "acquired", slices=1)
    acquired.rename(acquired.with_name("IM_0001.dcm"))
    before = _tree(tmp_path / "acquired")
    with pytest.raises(InputError, match=r"holds IM_0001\.dcm, which is no earlier result"):
        write_series(images, tmp_path / "acquired", overwrite=True)
    assert _tree(tmp_path / "acquired") == before


def test_the_current_folder_keeps_its_identity(
    images: list[Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    identity = Path.cwd().stat().st_ino
    assert [path.name for path in write_series(images, Path())] == ["IM_0001.dcm", "IM_0002.dcm", "IM_0003.dcm"]
    write_series(images[:1], Path(), overwrite=True)
    assert [entry.name for entry in (tmp_path / "here").iterdir()] == ["IM_0001.dcm"]
    assert (tmp_path / "here").stat().st_ino == identity


def test_a_link_stays_one(images: list[Dataset], tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    write_series(images, tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert len(list((tmp_path / "disk").iterdir())) == 3


@pytest.mark.parametrize("moved", [1, 4])
def test_a_mounted_folder_gets_the_files_or_keeps_its_own(
    moved: int, images: list[Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which cannot be renamed; a failure after some files have been moved puts all of them back."""
    write_series(images, tmp_path / "out")
    before = _tree(tmp_path / "out")
    monkeypatch.setattr(os.path, "ismount", (tmp_path / "out").__eq__)
    replace, left = Path.replace, iter([True] * moved)

    def failing(self: Path, target: Path) -> Path:
        if not next(left, False) and self.parent.name == "fresh":
            raise OSError(28, "No space left on device")
        return replace(self, target)

    with monkeypatch.context() as full:
        full.setattr(Path, "replace", failing)
        with pytest.raises(InputError, match="No space left"):
            write_series(images[:2], tmp_path / "out", overwrite=True)
    assert _tree(tmp_path / "out") == before
    write_series(images[:2], tmp_path / "out", overwrite=True)
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["IM_0001.dcm", "IM_0002.dcm"]
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_an_interrupt_between_two_renames_keeps_the_earlier_result(
    images: list[Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_series(images, tmp_path / "out")
    before = _tree(tmp_path / "out")
    replace = Path.replace

    def interrupted(self: Path, target: Path) -> Path:
        if self.name == "fresh":
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_series(images[:1], tmp_path / "out", overwrite=True)
    assert _tree(tmp_path / "out") == before


def test_a_folder_that_may_not_be_written_is_found_before_the_work(
    images: list[Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> bool:
        return False

    monkeypatch.setattr(write.os, "access", denied)
    with pytest.raises(InputError, match="no folder that may be written to"):
        write_series(iter(()), tmp_path / "a" / "out")
    assert not (tmp_path / "a").exists()
