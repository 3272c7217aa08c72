"""A series appears whole or not at all."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from minet_sdk.dicom import write_series
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
