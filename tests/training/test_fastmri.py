"""fastMRI files: what this package reads is what the `fastmri` package reads; pairs, slices and splits fit together."""

import importlib
import pickle
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from minet_sdk.errors import TrainingError
from minet_sdk.training.fastmri import FastMriOptions, open_pairs, read_header
from minet_sdk.training.loading import SliceBatches, make_loader
from minet_sdk.training.pairs import Pair, PairSource, open_source
from minet_sdk.training.splits import Part

Complex = npt.NDArray[np.complex128]

PD, FS_PD = "CORPD_FBK", "CORPDFS_FBK"

HEADER = """<?xml version="1.0" encoding="utf-8"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD" xmlns:xs="http://www.w3.org/2001/XMLSchema"
 xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="http://www.ismrm.org/ISMRMRD ismrmrd.xsd">
 <acquisitionSystemInformation><systemFieldStrength_T>1.494</systemFieldStrength_T></acquisitionSystemInformation>
 <experimentalConditions><H1resonanceFrequency_Hz>63646310</H1resonanceFrequency_Hz></experimentalConditions>
 <encoding>
  <encodedSpace><matrixSize><x>{x}</x><y>{y}</y><z>1</z></matrixSize>
   <fieldOfView_mm><x>280</x><y>162.4</y><z>4.5</z></fieldOfView_mm></encodedSpace>
  <reconSpace><matrixSize><x>{size}</x><y>{size}</y><z>1</z></matrixSize>
   <fieldOfView_mm><x>140</x><y>140</y><z>4.5</z></fieldOfView_mm></reconSpace>
  <encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{last}</maximum><center>{centre}</center>
   </kspace_encoding_step_1></encodingLimits>
  <trajectory>cartesian</trajectory>
 </encoding>
 <sequenceParameters><TR>2800</TR><TE>27</TE><flipAngle_deg>140</flipAngle_deg></sequenceParameters>
</ismrmrdHeader>"""


def centred_dft(size: int) -> Complex:
    """Orthonormal DFT of a centred line, DC in the middle, written out in float64."""
    index = np.arange(size) - size // 2
    return np.exp(-2j * np.pi * np.outer(index, index) / size) / np.sqrt(size)


def anatomy(slices: int, rows: int, columns: int, seed: int) -> Complex:
    """Complex images whose phase turns fast, each slice brighter than the one before."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    images: list[Complex] = []
    for index in range(slices):
        blobs = sum(
            rng.uniform(0.2, 1) * ((x - cx) ** 2 + (2 * y - cy) ** 2 < r**2)
            for cx, cy, r in zip(
                rng.uniform(-0.4, 0.4, 6), rng.uniform(-0.4, 0.4, 6), rng.uniform(0.1, 0.4, 6), strict=True
            )
        )
        phase = 5 * np.sin(6 * x + seed) + 4 * np.cos(5 * y * x)
        images.append(np.asarray((index + 1) * 1e-4 * (0.1 + blobs) * np.exp(1j * phase), dtype=np.complex128))
    return np.stack(images)


def write_file(
    path: Path,
    acquisition: str,
    patient: str,
    *,
    slices: int = 3,
    coils: int = 0,
    matrix: tuple[int, int] = (64, 44),
    size: int = 32,
    seed: int = 0,
) -> Path:
    """A file exactly as published: k-space, both reconstructions where they belong, header, attributes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = anatomy(slices, *matrix, seed)
    if coils:
        x = np.linspace(-1, 1, matrix[1])
        weights = np.exp(-((x - np.linspace(-0.8, 0.8, coils)[:, None]) ** 2) + 1j * np.arange(coils)[:, None])
        images = images[:, None] * weights[None, :, None]
    kspace = centred_dft(matrix[0]) @ images @ centred_dft(matrix[1]).T
    top, left = (matrix[0] - size) // 2, (matrix[1] - size) // 2
    cropped = np.abs(images[..., top : top + size, left : left + size]).astype(np.float32)
    rss = np.sqrt((cropped**2).sum(axis=1)) if coils else cropped
    header = HEADER.format(x=matrix[0], y=matrix[1], size=size, last=matrix[1] - 1, centre=matrix[1] // 2)
    with h5py.File(path, "w") as file:
        file["ismrmrd_header"] = header.encode()
        file["kspace"] = kspace.astype(np.complex64)
        file["reconstruction_rss"] = rss
        if not coils:
            file["reconstruction_esc"] = cropped
        file.attrs.update(
            acquisition=acquisition, patient_id=patient, max=float(rss.max()), norm=float(np.linalg.norm(rss))
        )
    return path


def open_folder(folder: Path, part: Part = "all", **options: Any) -> PairSource:
    return open_source("fastmri", folder, part, options)


def pair_of(source: PairSource, index: int) -> Pair:
    return source.pair(index, np.random.default_rng(0))


class Peer(NamedTuple):
    """The public package's reader and its transforms."""

    data: ModuleType
    transforms: ModuleType
    package: ModuleType


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    """The `fastmri` package; pandas and requests, which only its annotated data sets need, are left empty."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("pandas", "requests"):
            patch.setitem(sys.modules, name, ModuleType(name))
        sys.modules["pandas"].Series = sys.modules["pandas"].DataFrame = object  # type: ignore[attr-defined]
        package = importlib.import_module("fastmri")
        yield Peer(
            importlib.import_module("fastmri.data.mri_data"),
            importlib.import_module("fastmri.data.transforms"),
            package,
        )
    for name in [name for name in sys.modules if name.split(".")[0] == "fastmri"]:
        del sys.modules[name]


def read_with(peer: Peer, folder: Path, coils: int) -> dict[tuple[str, int], tuple[Complex, npt.NDArray[np.float32]]]:
    """Complex cropped image and published reconstruction of each file's slices, by the public package alone."""
    slices = peer.data.SliceDataset(folder, "multicoil" if coils else "singlecoil")
    found: dict[tuple[str, int], tuple[Complex, npt.NDArray[np.float32]]] = {}
    for kspace, mask, target, attributes, name, index in slices:
        assert mask is None
        size = attributes["recon_size"][:2]
        image = peer.package.ifft2c(peer.transforms.to_tensor(kspace))
        image = peer.transforms.complex_center_crop(image, size)
        found[name, index] = peer.transforms.tensor_to_complex_np(image), target
    return found


@pytest.mark.parametrize(("coils", "matrix", "size"), [(0, (640, 368), 320), (0, (64, 45), 32), (4, (64, 44), 32)])
def test_images_are_those_of_the_fastmri_package(
    peer: Peer, tmp_path: Path, coils: int, matrix: tuple[int, int], size: int
) -> None:
    changes: dict[str, Any] = {"slices": 2, "coils": coils, "matrix": matrix, "size": size}
    write_file(tmp_path / "file1000001.h5", FS_PD, "a", seed=1, **changes)
    write_file(tmp_path / "file1000002.h5", PD, "a", seed=2, **changes)
    expected = read_with(peer, tmp_path, coils)
    source = open_folder(tmp_path)
    assert len(source) == 2
    for index in range(2):
        pair = pair_of(source, index)
        image, target = expected["file1000001.h5", index]
        assert pair.target.dtype == np.complex64
        assert pair.target.shape == image.shape
        tolerance = 1e-6 * float(np.abs(image).max())
        np.testing.assert_allclose(pair.target, image, atol=tolerance)
        np.testing.assert_allclose(pair.truth, target, atol=2 * tolerance)
        np.testing.assert_allclose(pair.reference, expected["file1000002.h5", index][1], atol=2 * tolerance)
        assert pair.reference.shape == pair.truth.shape == (size, size)


def low_resolution(image: npt.NDArray[np.generic], scale: int) -> npt.NDArray[np.float64]:
    """Centre crop of the k-space of (..., n, n) images, mean preserved, root sum of squares over coils; float64."""
    size = image.shape[-1]
    kept = np.arange(size // scale) - size // scale // 2
    analysis = np.exp(-2j * np.pi * np.outer(kept, np.arange(size)) / size) / size
    line = np.exp(2j * np.pi * np.outer(np.arange(0, size, scale), kept) / size) @ analysis
    low = np.abs(line @ image @ line.T)
    return low if low.ndim == 2 else np.sqrt((low**2).sum(axis=0))


@pytest.mark.parametrize("coils", [0, 3])
@pytest.mark.parametrize("scale", [2, 4])
def test_low_resolution_is_made_in_the_kspace_of_the_complex_image(tmp_path: Path, coils: int, scale: int) -> None:
    """Planted fault: degrading the magnitude instead, which is another image where the phase turns."""
    write_file(tmp_path / "a.h5", FS_PD, "a", coils=coils, seed=1)
    write_file(tmp_path / "b.h5", PD, "a", coils=coils, seed=2)
    pair = pair_of(open_folder(tmp_path), 1)
    expected = low_resolution(pair.target, scale)
    peak = float(expected.max())
    np.testing.assert_allclose(pair.low_resolution(scale), expected, atol=1e-5 * peak)
    faulty = replace(pair, target=pair.truth)
    assert np.abs(faulty.low_resolution(scale) - expected).max() > 0.05 * peak


def write_volume_pairs(folder: Path, count: int, **changes: Any) -> None:
    for index in range(count):
        write_file(folder / f"file1{index:06d}.h5", FS_PD, f"patient{index}", seed=2 * index, **changes)
        write_file(folder / f"file2{index:06d}.h5", PD, f"patient{index}", seed=2 * index + 1, **changes)


def slices_match(source: PairSource) -> bool:
    """Slice n of both files is n + 1 times as bright as slice 0."""
    levels = [float(np.median(image)) for image in (pair_of(source, 0).reference, pair_of(source, 0).truth)]
    return all(
        np.allclose([np.median(pair.reference) / levels[0], np.median(pair.truth) / levels[1]], index + 1, rtol=0.3)
        for index, pair in enumerate(pair_of(source, index) for index in range(3))
    )


def test_slices_are_paired_by_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted fault: the reference one slice further on."""
    write_file(tmp_path / "a.h5", FS_PD, "a", slices=4, seed=1)
    write_file(tmp_path / "b.h5", PD, "a", slices=4, seed=1)
    source = open_folder(tmp_path)
    assert slices_match(source)
    reader = type(source._reader)  # type: ignore[attr-defined]
    images = reader._images

    def one_further(self: Any, file: Any, index: int) -> Any:
        return images(self, file, index + (file.acquisition == PD))

    monkeypatch.setattr(reader, "_images", one_further)
    assert not slices_match(source)


def test_differing_slice_counts_are_told(tmp_path: Path) -> None:
    write_file(tmp_path / "a.h5", FS_PD, "a", slices=5)
    write_file(tmp_path / "b.h5", PD, "a", slices=3)
    source = open_folder(tmp_path)
    assert len(source) == 3
    assert any("a.h5 has 5 slices, its reference b.h5 3: the first 3" in note for note in source.notes)
    assert source.describe()["notes"] == list(source.notes)


@pytest.mark.parametrize(
    "text",
    ["PDWI,FSPDWI\nfile2000000,file1000000\n", "reference,target\nfile2000000.h5,file1000000.h5\n",
     "target,reference\nfile1000000,file2000000\n", "file2000000,file1000000,7\n"],
)  # fmt: skip
def test_pair_lists_in_use_are_read(tmp_path: Path, text: str) -> None:
    write_volume_pairs(tmp_path / "data", 2)
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(text)
    source = open_folder(tmp_path / "data", pairs=str(pairs))
    assert source.volumes() == {"file1000000": (0, 1, 2)}
    assert source.describe()["volumes"]["file1000000"]["reference"] == "file2000000.h5"


def test_pair_list_decides_and_its_splits_hold(tmp_path: Path) -> None:
    """The published lists join volumes of different patient_id: both are then one subject."""
    write_volume_pairs(tmp_path, 3)
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(
        "reference,target,split\nfile2000001,file1000000,train\nfile2000000,file1000001,train\nfile2000002,file1000002,test\n"
    )
    source = open_folder(tmp_path, pairs=pairs)
    assert source.subjects == ("patient0", "patient2")
    assert any("2 listed pairs join volumes of different patient_id" in note for note in source.notes)
    assert source.split("train").subjects == ("patient0",)
    assert source.split("test").volumes() == {"file1000002": (0, 1, 2)}
    pairs.write_text(pairs.read_text().replace("file1000001,train", "file1000001,validation"))
    with pytest.raises(TrainingError, match="patient0 is in the splits train and validation"):
        open_folder(tmp_path, pairs=pairs)


def test_listed_subjects_share_no_patient(tmp_path: Path) -> None:
    write_volume_pairs(tmp_path, 3)
    pairs = tmp_path / "pairs.csv"
    header = "reference,target,subject,split\n"
    pairs.write_text(f"{header}file2000000,file1000000,a,train\nfile2000001,file1000001,b,test\n")
    assert open_folder(tmp_path, pairs=pairs).subjects == ("a", "b")
    pairs.write_text(f"{header}file2000000,file1000000,a,train\nfile2000000,file1000001,b,test\n")
    with pytest.raises(TrainingError, match="lines 2 and 3: subjects a and b share patient patient0; give both"):
        open_folder(tmp_path, pairs=pairs)
    pairs.write_text(f"{header}file2000000,file1000000,a\nfile2000001,file1000001\n")
    with pytest.raises(TrainingError, match=r"line 3: no subject, but others have one; give it for all or for none"):
        open_folder(tmp_path, pairs=pairs)


def test_published_folders_are_the_splits(tmp_path: Path) -> None:
    """The published validation set tests; training and validation are drawn from the training set, by patient."""
    write_volume_pairs(tmp_path / "singlecoil_train", 12, slices=1)
    write_file(tmp_path / "singlecoil_val" / "file3000000.h5", FS_PD, "other", slices=1)
    write_file(tmp_path / "singlecoil_val" / "file4000000.h5", PD, "other", slices=1)
    parts: dict[Part, PairSource] = {name: open_folder(tmp_path, name) for name in ("train", "validation", "test")}
    assert parts["test"].subjects == ("other",)
    assert [len(parts[name].subjects) for name in ("train", "validation")] == [11, 1]
    assert len(set().union(*(source.subjects for source in parts.values()))) == 13
    assert open_folder(tmp_path, "train").subjects == parts["train"].subjects


def test_patients_without_both_contrasts_are_left_out_and_counted(tmp_path: Path) -> None:
    write_volume_pairs(tmp_path, 1)
    write_file(tmp_path / "file5.h5", PD, "alone")
    for name in ("file6", "file7"):
        write_file(tmp_path / f"{name}.h5", PD, "twice")
    write_file(tmp_path / "file8.h5", FS_PD, "twice")
    source = open_folder(tmp_path)
    assert source.subjects == ("patient0",)
    assert [note.split(" left out")[0] for note in source.notes] == ["1 patients", "1 patients"]


def test_cache_gives_the_same_images_and_notices_changes(tmp_path: Path) -> None:
    write_volume_pairs(tmp_path / "data", 1)
    plain = open_folder(tmp_path / "data")
    cached = open_folder(tmp_path / "data", cache=str(tmp_path / "cache"))
    for source in (
        cached,
        pickle.loads(pickle.dumps(cached)),
        open_folder(tmp_path / "data", cache=tmp_path / "cache"),
    ):
        for index in range(3):
            np.testing.assert_array_equal(pair_of(source, index).target, pair_of(plain, index).target)
            np.testing.assert_array_equal(pair_of(source, index).reference, pair_of(plain, index).reference)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    before = pair_of(cached, 0)
    write_file(tmp_path / "data" / "file1000000.h5", FS_PD, "patient0", seed=9, slices=4)
    after = pair_of(open_folder(tmp_path / "data", cache=tmp_path / "cache"), 0)
    assert np.abs(after.target - before.target).max() > 0.1 * np.abs(before.target).max()


@pytest.mark.parametrize("cached", [False, True])
def test_workers_read_what_one_process_reads(tmp_path: Path, cached: bool) -> None:
    write_volume_pairs(tmp_path / "data", 2)
    options: dict[str, Any] = {"cache": tmp_path / "cache"} if cached else {}
    stream = SliceBatches(
        open_folder(tmp_path / "data", "all", **options), scale=2, patch=16, batch_size=4, seed=0, length=4
    )
    for ahead, alone in zip(make_loader(stream, 2), make_loader(stream), strict=True):
        for first, second in zip(ahead, alone, strict=True):
            np.testing.assert_array_equal(first, second)


def test_what_cannot_be_used_is_refused_in_one_line(tmp_path: Path) -> None:
    whole = write_file(tmp_path / "whole.h5", PD, "a")
    test_file = write_file(tmp_path / "test.h5", PD, "a")
    with h5py.File(test_file, "a") as file:
        file["mask"] = np.ones(44, dtype=np.float32)
    image = write_file(tmp_path / "image.h5", PD, "a")
    with h5py.File(image, "a") as file:
        del file["kspace"]
    text = tmp_path / "text.h5"
    text.write_text("no HDF5")
    truncated = tmp_path / "truncated.h5"
    truncated.write_bytes(whole.read_bytes()[:3000])
    bad = {
        test_file: "undersampled",
        image: "has no kspace",
        text: "damaged, or no HDF5 file",
        truncated: "damaged, or no HDF5 file",
    }
    for path, message in bad.items():
        with pytest.raises(TrainingError, match=message) as caught:
            read_header(path)
        assert "\n" not in str(caught.value)
    with h5py.File(whole, "a") as file:
        del file["ismrmrd_header"]
        file["ismrmrd_header"] = HEADER.format(x=64, y=44, size=320, last=43, centre=22).encode()
    with pytest.raises(TrainingError, match="the image 320 x 320"):
        read_header(whole)


def test_lists_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_volume_pairs(tmp_path, 1)
    pairs = tmp_path / "pairs.csv"
    bad = {
        "file1000000,file2000000\n": "line 1: file1000000 is CORPDFS_FBK, expected CORPD_FBK|are the columns swapped",
        "file2000000,file9\n": "line 1: 0 files are named file9",
        "reference,target\nfile2000000,\n": "line 2: expected the names",
        "reference,other\na,b\n": "expected reference and target",
        "\n": "empty pair list",
        "reference,target,split\nfile2000000,file1000000,training\n": "split 'training' is unknown",
        "file2000000,file1000000\nfile2000000,file1000000\n": "twice as target",
    }
    for text, message in bad.items():
        pairs.write_text(text)
        with pytest.raises(TrainingError, match=message):
            open_pairs(tmp_path, FastMriOptions(pairs=pairs), "all")
