"""Measures against fastMRI's own evaluation code, and against the definitions that look alike but are not used."""

import importlib.util
import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from minet_sdk.errors import InputError
from minet_sdk.measures import measure, nmse, psnr, ssim

Array = npt.NDArray[np.floating[Any]]


@pytest.fixture(scope="module")
def fastmri() -> dict[str, Any]:
    """The namespace of `fastmri.evaluate`.

    The module is run as a file, and the packages that only its loop over HDF5 files needs are left empty: installed
    whole, fastmri would bring a CUDA build of PyTorch, pandas and torchvision.
    """
    package = importlib.util.find_spec("fastmri")
    assert package is not None, "install requirements of the tests: pip install --no-deps fastmri==0.3.0"
    assert package.origin is not None
    unused = {name: ModuleType(name) for name in ("h5py", "runstats", "fastmri", "fastmri.data")}
    unused["runstats"].Statistics = unused["fastmri.data"].transforms = None  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        for name, module in unused.items():
            patch.setitem(sys.modules, name, module)
        return runpy.run_path(str(Path(package.origin).with_name("evaluate.py")))


def volumes(shape: tuple[int, int, int], error: float, dtype: type[np.floating[Any]]) -> tuple[Array, Array]:
    """A truth whose slices differ in brightness, as heads do, and a disturbed copy."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
    anatomy = 2 + np.cos(5 * y) * np.sin(7 * x) + (np.hypot(y, x) < 0.5)
    truth = anatomy * np.linspace(0.2, 1, shape[0])[:, None, None]
    return truth.astype(dtype), (truth + error * rng.standard_normal(shape)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(4, 32, 32), (1, 7, 7), (3, 20, 31)])
@pytest.mark.parametrize("error", [0.003, 0.3])
def test_measures_are_those_of_fastmri(
    fastmri: dict[str, Any], shape: tuple[int, int, int], error: float, dtype: type[np.floating[Any]]
) -> None:
    truth, restored = volumes(shape, error, dtype)
    result = measure(truth, restored)
    tolerance = 1e-12 if dtype is np.float64 else 1e-5
    assert result.psnr == pytest.approx(float(fastmri["psnr"](truth, restored)), rel=tolerance)
    assert result.nmse == pytest.approx(float(fastmri["nmse"](truth, restored)), rel=tolerance)
    assert result.ssim == pytest.approx(float(fastmri["ssim"](truth, restored).item()), rel=tolerance)


def test_measures_are_those_of_scikit_image() -> None:
    truth, restored = volumes((4, 32, 32), 0.1, np.float64)
    peak = truth.max()
    slices = [structural_similarity(a, b, data_range=peak) for a, b in zip(truth, restored, strict=True)]
    assert ssim(truth, restored) == pytest.approx(np.mean(slices), rel=1e-12)
    assert psnr(truth, restored) == pytest.approx(peak_signal_noise_ratio(truth, restored, data_range=peak), rel=1e-12)


def test_definitions_that_flatter_differ() -> None:
    """Planted faults: the data range of each slice, and the Gaussian window."""
    truth, restored = volumes((4, 32, 32), 0.1, np.float64)
    pairs = list(zip(truth, restored, strict=True))
    by_slice = np.mean([structural_similarity(a, b, data_range=a.max()) for a, b in pairs])
    gaussian = np.mean(
        [structural_similarity(a, b, data_range=truth.max(), gaussian_weights=True, sigma=1.5) for a, b in pairs]
    )
    assert abs(ssim(truth, restored) - by_slice) > 0.01
    assert abs(ssim(truth, restored) - gaussian) > 0.001
    slice_psnr = np.mean([psnr(a[None], b[None]) for a, b in pairs])
    assert abs(psnr(truth, restored) - slice_psnr) > 1


def test_closed_forms() -> None:
    truth = np.zeros((2, 8, 8))
    truth[0, 0, 0] = 10
    assert psnr(truth, truth + 0.1) == pytest.approx(40)
    assert nmse(truth, 0.9 * truth) == pytest.approx(0.01)
    perfect = measure(truth, truth)
    assert (perfect.psnr, perfect.ssim, perfect.nmse) == (float("inf"), pytest.approx(1), 0)


def test_integers_do_not_wrap_around() -> None:
    truth = np.full((1, 8, 8), 200, dtype=np.uint8)
    restored = np.full((1, 8, 8), 210, dtype=np.uint8)
    assert psnr(truth, restored) == pytest.approx(20 * np.log10(20))
    assert nmse(truth, restored) == pytest.approx(1 / 400)


@pytest.mark.parametrize(
    ("truth", "restored", "message"),
    [
        ((8, 8), (8, 8), r"two volumes \(slices, H, W\) of one shape, got \(8, 8\), \(8, 8\)"),
        ((1, 8, 8), (2, 8, 8), r"got \(1, 8, 8\), \(2, 8, 8\)"),
        ((1, 6, 8), (1, 6, 8), "at least 7 x 7, got"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(truth: tuple[int, ...], restored: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        measure(np.ones(truth), np.ones(restored))
