"""Tiles give what the whole slice gives, if and only if their margin covers what the network looks at."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from minet_sdk import Runtime
from minet_sdk.bundle import open_bundle
from minet_sdk.errors import InputError
from minet_sdk.export.bundle import export_bundle
from minet_sdk.kspace import degrade
from minet_sdk.slices import TiledFeatures
from minet_sdk.tiling import fitting, margin_of, tiled
from minet_sdk.training.checkpoint import load_checkpoint, save_checkpoint
from minet_sdk.training.edsr import EdsrConfig
from minet_sdk.training.network import build

Array = NDArray[np.float32]
Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def local_bundle(once: Once) -> Path:
    """A single-contrast model without global parts, with random weights."""

    def export(folder: Path) -> None:
        network = build(EdsrConfig(scale=2, reference=False, blocks=2, channels=16), seed=7)
        save_checkpoint(folder / "local.safetensors", network, {"note": "random weights for tests"})
        export_bundle(folder / "local.safetensors", folder / "local", name="local")

    return once("edsr local", export) / "local"


def uneven(height: int, width: int) -> Array:
    """Dark on one side, bright on the other: no part of it has the statistics of the whole."""
    y, x = np.mgrid[:height, :width]
    return (1000 * np.exp(-((x / width - 0.8) ** 2) * 20) + 20 * np.sin(y / 3) * np.cos(x / 2)).astype(np.float32)


@pytest.mark.parametrize(("height", "width", "rows", "columns", "margin"), [(50, 37, 3, 2, 4), (16, 64, 1, 4, 30)])
def test_every_sample_is_kept_once(height: int, width: int, rows: int, columns: int, margin: int) -> None:
    tiling = tiled(height, width, rows, columns, margin)
    assert len(tiling.tiles) == rows * columns
    image = np.arange(height * width, dtype=np.float32).reshape(height, width)
    result, times = np.zeros((2 * height, 2 * width), np.float32), np.zeros((2 * height, 2 * width), np.float32)
    for tile in tiling.tiles:
        part = np.kron(tile.cut(image), np.ones((2, 2), np.float32))
        tile.paste(part, result, 2)
        single = np.zeros_like(times)
        tile.paste(np.ones_like(part), single, 2)
        times += single
        for given, kept, size in ((tile.rows, tile.kept_rows, height), (tile.columns, tile.kept_columns, width)):
            assert given[0] == max(0, kept[0] - margin)
            assert given[1] == min(size, kept[1] + margin)
    assert (times == 1).all()
    np.testing.assert_array_equal(result, np.kron(image, np.ones((2, 2), np.float32)))


def test_the_least_work_that_fits_is_chosen() -> None:
    assert fitting(100, 100, 5, lambda h, w: True) == tiled(100, 100, 1, 1, 5)
    found = fitting(100, 60, 5, lambda h, w: h * w <= 55 * 60)
    assert found is not None
    assert (found.rows, found.columns) == (2, 1)
    assert fitting(100, 100, 5, lambda h, w: h * w < 21 * 21) is None, "no tile keeps fewer than 16 samples"
    assert str(found) == "exact, 2 x 1 tiles"


def test_tiles_are_exact_in_float64_and_one_sample_less_is_not(local_bundle: Path) -> None:
    """The network itself in double precision, so that nothing but the margin can differ; the planted fault is one."""
    network = load_checkpoint(local_bundle.parent / "local.safetensors").model.double().eval()
    reach = open_bundle(local_bundle).manifest.reach
    assert reach is not None
    image = uneven(40, 52).astype(np.float64) / 300

    def run(part: NDArray[np.float64]) -> NDArray[np.float64]:
        with torch.no_grad():
            return network(torch.from_numpy(np.ascontiguousarray(part))[None, None]).restored[0, 0].numpy()

    def in_tiles(margin: int) -> float:
        result = np.zeros((80, 104))
        for tile in tiled(40, 52, 2, 2, margin).tiles:
            tile.paste(run(tile.cut(image)), result, 2)  # type: ignore[arg-type] # float64 on purpose
        return float(np.abs(result - run(image)).max())

    assert in_tiles(margin_of(reach, 2)) < 1e-12
    assert in_tiles(margin_of(reach, 2) - 1) > 1e-9


@pytest.mark.parametrize("backend", ["native", "onnxruntime"])
def test_a_runtime_tiles_what_is_too_large(local_bundle: Path, backend: str) -> None:
    image = uneven(60, 44)
    with Runtime(local_bundle, backend=backend, threads=1) as whole:
        expected = whole(image)
        assert whole.tiling_for(60, 44).whole
    with Runtime(local_bundle, backend=backend, threads=1, largest_output=80 * 80) as runtime:
        assert runtime.info.tiling == "exact"
        assert len(runtime.tiling_for(60, 44).tiles) > 1
        restored = runtime(image)
        complex_one = runtime(image * np.exp(0.3j))
    np.testing.assert_allclose(restored, expected, atol=2e-5 * float(np.ptp(expected)))
    assert complex_one.shape == expected.shape


def test_global_networks_are_refused_or_say_what_they_do(small_bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    truth = np.stack([uneven(128, 96), uneven(128, 96)[:, ::-1]])
    target, reference = degrade(truth, 2), 1500 - truth
    with Runtime(small_bundle, threads=1, largest_output=90 * 96) as runtime:
        assert runtime.info.tiling == "none: its channel attention and affinity take in the whole image"
        with pytest.raises(
            InputError,
            match=r"128 x 96, over the limit of 8640 pixels .* channel attention and affinity .* smaller matrix, or "
            r"accept tiling='approximate'",
        ) as error:
            runtime(target, reference)
        assert "\n" not in str(error.value)
        with pytest.raises(InputError, match="channel attention"):
            runtime.prepare(reference)
        expected = None
    with Runtime(small_bundle, threads=1) as runtime:
        expected = runtime(target, reference)
    with Runtime(small_bundle, threads=1, largest_output=90 * 96, tiling="approximate") as runtime:
        assert runtime.info.tiling == "approximate"
        restored = runtime(target, reference)
        prepared = runtime.prepare(reference)
        np.testing.assert_array_equal(runtime(target, prepared), restored)
    assert isinstance(prepared.features[0], TiledFeatures)
    assert "approximate, 2 x 1 tiles, the channel attention and affinity of each tile alone" in caplog.text
    deviation = float(np.abs(restored - expected).max() / np.ptp(expected))
    assert 1e-6 < deviation < 0.2, "close, but not the result of the whole"


def test_a_bundle_that_does_not_say_how_far_it_looks_is_never_cut(local_bundle: Path, tmp_path: Path) -> None:
    """As those of earlier versions do not."""
    folder = Path(shutil.copytree(local_bundle, tmp_path / "old"))
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("reach", "global_parts", "bytes_per_pixel"):
        del manifest[name]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with Runtime(folder, threads=1, largest_output=64 * 64, tiling="approximate") as runtime:
        assert runtime(uneven(32, 32)).shape == (64, 64)
        with pytest.raises(InputError, match="does not say how far it looks, export it again"):
            runtime(uneven(60, 44))
    with pytest.raises(InputError, match=r"max_memory cannot be honoured.*export it again"):
        Runtime(folder, backend="onnxruntime", max_memory=2**30)


def test_even_tiles_can_be_too_large(local_bundle: Path) -> None:
    with (
        Runtime(local_bundle, largest_output=40 * 40) as runtime,
        pytest.raises(InputError, match="so would every tile"),
    ):
        runtime(uneven(60, 44))


def test_options_are_checked(local_bundle: Path) -> None:
    with pytest.raises(InputError, match="tiling is 'some'; choose one of exact, approximate"):
        Runtime(local_bundle, tiling="some")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="max_memory is 0"):
        Runtime(local_bundle, max_memory=0)
