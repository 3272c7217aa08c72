"""What the library does to a slice around the network, against float64 and against the definitions in NumPy."""

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from minet_sdk.backends import native_library
from minet_sdk.backends.native import NativeEngine
from minet_sdk.backends.native_library import library
from minet_sdk.errors import InputError
from minet_sdk.export.native_program import Kind, Program, Tensor
from minet_sdk.kspace import degrade, enforce_consistency
from minet_sdk.normalisation import Normalisation
from minet_sdk.trust import LEAST_TRUST, reference_trust, seen_by_target

NATIVE = Path(__file__).resolve().parents[3] / "kernels" / "native"
Array = npt.NDArray[np.float32]
Make = Callable[..., NativeEngine]

SIZES = [(10, 10), (16, 12), (33, 21), (40, 24), (37, 50), (31, 62), (45, 77), (96, 80), (11, 67), (30, 128)]
"""Of the target: radices 2 to 31 and what must be convolved, even and odd, whole groups of lines and parts."""

WAYS = [("avx2", 1), ("avx2", 3), ("avx512", 1), ("avx512", 2)]


@pytest.fixture
def make(draft: Any, engine_of: Make) -> Make:
    """An engine of a scale; what its network does does not matter here."""

    def engine(scale: int, **options: Any) -> NativeEngine:
        draft.scale = scale
        draft.operations.clear()
        target = Tensor(Kind.IMAGE, 1)
        program: Program = draft.program(target, draft.convolution([target], scale**2, shuffle=scale))
        return engine_of(program, bytes(draft.weights), **options)

    return engine


def anatomy(shape: tuple[int, int], seed: int) -> tuple[Array, Array]:
    """Two contrasts of the same random regions, noisy, in scanner units."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.standard_normal(shape), min(shape) / 20)
    regions = np.searchsorted(np.quantile(field, (0.2, 0.4, 0.6, 0.8)), field)
    values = rng.permuted(np.linspace(100, 900, 5)), rng.permuted(np.linspace(50, 600, 5))
    first, second = (value[regions] + rng.normal(0, 10, shape) for value in values)
    return np.abs(first).astype(np.float32), np.abs(second).astype(np.float32)


def relative(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (40, 24), (37, 29)])
@pytest.mark.parametrize(("level", "spread"), [(0.0, 1.0), (1e6, 1.0), (300.0, 80.0), (0.0, 1e-9), (2.0, 0.0)])
def test_normalise_and_undo(make: Make, shape: tuple[int, int], level: float, spread: float) -> None:
    image = (level + spread * np.random.default_rng(1).standard_normal(shape)).astype(np.float32)
    normal, mean, deviation = make(2).normalise(image, 1e-11)
    exact = image.astype(np.float64)
    assert mean == pytest.approx(exact.mean(), rel=1e-12, abs=1e-12 * max(spread, 1e-12))
    assert deviation == pytest.approx(Normalisation().statistics(image)[1].item(), rel=1e-6)
    expected = (exact - exact.mean()) / (exact.std() or 1)
    np.testing.assert_allclose(normal, expected, rtol=2e-6, atol=2e-6)
    by_numpy = normal * np.float32(deviation) + np.float32(mean)
    np.testing.assert_array_equal(make(2).undo(normal, mean, deviation), by_numpy)


def check_put_back(make: Make, size: tuple[int, int], scale: int) -> None:
    rng = np.random.default_rng(size)
    restored = rng.gamma(2, 100, [scale * side for side in size]).astype(np.float32)
    target = rng.gamma(2, 100, size).astype(np.float32)
    exact = enforce_consistency(restored.astype(np.float64), target.astype(np.float64), scale, "soft")  # type: ignore[arg-type]
    found = make(scale).put_back(restored, target)
    assert relative(found, exact) < 1e-6
    assert relative(restored, exact) > 0.05


def check_trust(make: Make, size: tuple[int, int], scale: int) -> None:
    engine, fine = make(scale), (scale * size[0], scale * size[1])
    reference, truth = anatomy(fine, 3)
    target, other = degrade(truth, scale), anatomy(fine, 4)[0]
    for guide in (reference, other, 1e4 - 3 * reference):
        expected = reference_trust(target, seen_by_target(guide, scale))
        assert engine.trust(target, engine.see(guide)) == pytest.approx(expected, rel=1e-4, abs=2e-5)
    if min(size) > 40:
        assert engine.trust(target, engine.see(reference)) > 2 * LEAST_TRUST
        assert engine.trust(target, engine.see(other)) < LEAST_TRUST


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [*SIZES, (1, 1), (1, 7), (4, 1), (2, 3)])
def test_put_back(make: Make, size: tuple[int, int], scale: int) -> None:
    check_put_back(make, size, scale)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("size", SIZES)
def test_trust(make: Make, size: tuple[int, int], scale: int) -> None:
    check_trust(make, size, scale)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("check", "size", "file", "right", "wrong"),
    [
        (check_put_back, (40, 24), "slice_kernels.cpp", "multiply_subtract(b.re, im2", "multiply_add(b.re, im2"),
        (check_put_back, (37, 50), "fourier.cpp", "(whole - i) % whole", "(whole - i + 1) % whole"),
        (check_put_back, (33, 21), "slice_kernels.cpp", "b.re - a.im}", "b.re + a.im}"),
        (check_put_back, (16, 12), "slice.cpp", "soft_edge = 0.25", "soft_edge = 0.26"),
        (check_trust, (96, 80), "slice_kernels.cpp", "left ? -line : line", "line"),
        (check_trust, (45, 77), "slice.cpp", "{-3, 0}", "{-2, 0}"),
    ],
)
def test_planted_faults_are_found(
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    check: Callable[[Make, tuple[int, int], int], None],
    size: tuple[int, int],
    file: str,
    right: str,
    wrong: str,
) -> None:
    check(make, size, 2)
    shutil.copytree(NATIVE, tmp_path / "native")
    source = tmp_path / "native" / "src" / file
    assert source.read_text().count(right) == 1
    source.write_text(source.read_text().replace(right, wrong))
    mutant = tmp_path / "libminet.so"
    subprocess.run([sys.executable, tmp_path / "native" / "build.py", "--output", mutant], check=True)
    with monkeypatch.context() as patch:
        patch.setattr(native_library, "library_path", lambda: mutant)
        native_library.library.cache_clear()
        try:
            with pytest.raises(AssertionError):
                check(make, size, 2)
        finally:
            native_library.library.cache_clear()


def test_constant_images_deserve_no_trust(make: Make) -> None:
    engine = make(2)
    reference, truth = anatomy((64, 48), 5)
    target = degrade(truth, 2)
    assert engine.trust(target, engine.see(np.full_like(reference, 7))) == pytest.approx(0, abs=1e-6)
    assert engine.trust(np.full_like(target, 7), engine.see(reference)) == 0


def test_same_bits_with_any_instruction_set_and_threads(make: Make) -> None:
    reference, truth = anatomy((90, 2 * 67), 6)
    target = degrade(truth, 2)
    found: list[tuple[bytes, bytes, float]] = []
    for isa, threads in WAYS:
        if isa == "avx512" and not library().minet_supports(2):
            continue
        engine = make(2, isa=isa, threads=threads)
        normal, mean, deviation = engine.normalise(target, 1e-11)
        trust = engine.trust(target, engine.see(reference))
        found.append((engine.put_back(reference, target).tobytes(), normal.tobytes(), mean + deviation + trust))
    assert len(found) >= 2
    assert all(one == found[0] for one in found)


def test_put_back_in_place(make: Make) -> None:
    engine = make(2)
    restored, truth = anatomy((74, 66), 7)
    target = degrade(truth, 2)
    expected = engine.put_back(restored, target)
    assert not np.array_equal(expected, restored)
    pointer = restored.ctypes.data
    status = library().minet_put_back(engine.handle, pointer, target.ctypes.data, *target.shape, pointer)
    assert status == 0
    np.testing.assert_array_equal(restored, expected)


def test_values_that_are_not_finite_stay_so(make: Make) -> None:
    restored, truth = anatomy((64, 64), 8)
    restored[5, 6] = np.nan
    assert not np.isfinite(make(2).put_back(restored, degrade(truth, 2))).all()


def test_what_does_not_fit_is_refused(make: Make) -> None:
    engine = make(2)
    image = np.zeros((24, 24), np.float32)
    seen = engine.see(image)
    assert seen.nbytes > 0
    for call, message in (
        (lambda: engine.see(image[:16]), "at least 10 x 10"),
        (lambda: engine.see(image[:23]), "expected multiples of 2"),
        (lambda: engine.trust(image, seen), "that of a target of 12 x 12, the target is 24 x 24"),
        (lambda: engine.put_back(image, image), r"the restored image is \(24, 24\), expected \(48, 48\)"),
    ):
        with pytest.raises(InputError, match=message):
            call()
    found = ctypes.c_double()
    assert library().minet_trust(engine.handle, None, 12, 12, seen.handle, ctypes.byref(found)) == 1
    assert library().minet_put_back(engine.handle, image.ctypes.data, image.ctypes.data, 0, 12, image.ctypes.data) == 1
