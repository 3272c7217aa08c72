"""Volumes through the model: right place, nothing lost, every exception visible."""

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from minet_sdk import Runtime
from minet_sdk import pipeline as pipeline_module
from minet_sdk.backends.base import Runner
from minet_sdk.errors import BackendError, InputError
from minet_sdk.kspace import bicubic, degrade, zero_filled
from minet_sdk.measures import psnr
from minet_sdk.pipeline import restore_volume, to_fft_grid
from minet_sdk.slices import Inferred
from minet_sdk.volume import Grid, Volume

Array = NDArray[np.float32]
StudySlices = Callable[[int, int], tuple[Volume, Volume]]


@pytest.fixture(scope="module")
def study(study_slices: StudySlices) -> tuple[Volume, Volume]:
    """Reference and truth: three slices of the bundled pair, cropped."""
    return study_slices(9, 12)


def coarse(truth: Volume, scale: int) -> Volume:
    """What a scanner would give: large pixels that cover the small ones, and a header that says so."""
    assert truth.grid is not None
    return Volume(degrade(truth.values, scale, offset=(scale - 1) / 2), truth.grid.coarsened(scale))


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime("minet-x2", threads=1)


def test_restored_volume_lies_where_the_truth_lies(runtime: Runtime, study: tuple[Volume, Volume]) -> None:
    reference, truth = study
    target = coarse(truth, 2)
    result = restore_volume(runtime, target, reference)
    assert truth.grid is not None
    assert result.volume.grid is not None
    assert result.volume.grid.matches(truth.grid)
    assert not result.fallbacks
    assert not result.reference_resampled
    assert result.notes[0] == ""
    assert psnr(truth.values, result.volume.values) > psnr(truth.values, bicubic(to_fft_grid(target.values, 2), 2)) + 1


def test_a_missing_half_pixel_is_noticed(
    runtime: Runtime, study: tuple[Volume, Volume], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted fault: without the move to the FFT grid the content is half a fine pixel off."""
    reference, truth = study
    right = restore_volume(runtime, coarse(truth, 2), reference).volume.values

    def stay(values: Array, scale: int) -> Array:
        return values

    monkeypatch.setattr(pipeline_module, "to_fft_grid", stay)
    wrong = restore_volume(runtime, coarse(truth, 2), reference).volume.values
    assert psnr(truth.values, wrong) < psnr(truth.values, right) - 6


def test_the_move_to_the_fft_grid_undoes_the_offset(study: tuple[Volume, Volume]) -> None:
    """Independent of the model: sinc interpolation of the moved image is the low-pass of the truth."""
    truth = study[1].values
    for scale in (2, 4):
        moved = zero_filled(to_fft_grid(degrade(truth, scale, offset=(scale - 1) / 2), scale), scale)
        plain = zero_filled(degrade(truth, scale), scale)
        assert psnr(truth, moved) > psnr(truth, plain) - 0.3


def test_reference_on_another_grid_is_resampled_and_said(runtime: Runtime, study: tuple[Volume, Volume]) -> None:
    reference, truth = study
    assert reference.grid is not None
    moved = Grid(reference.grid.shape, reference.grid.origin + 0.4, reference.grid.steps)
    result = restore_volume(runtime, coarse(truth, 2), Volume(reference.values, moved))
    assert result.reference_resampled
    assert "resampled" in result.notes[0]


def test_slices_without_reference_are_interpolated_by_models_that_need_one(
    small_bundle: Path, study: tuple[Volume, Volume], caplog: pytest.LogCaptureFixture
) -> None:
    reference, truth = study
    assert reference.grid is not None
    first = Volume(
        reference.values[:2], Grid((2, *reference.grid.shape[1:]), reference.grid.origin, reference.grid.steps)
    )
    target = coarse(truth, 2)
    with Runtime(small_bundle, threads=1) as runtime:
        result = restore_volume(runtime, target, first)
    assert [f.slice for f in result.fallbacks] == [2]
    assert "covers 0%" in result.fallbacks[0].reason
    assert result.notes[2].startswith("bicubic interpolation instead of the model")
    np.testing.assert_array_equal(result.volume.values[2], bicubic(to_fft_grid(target.values, 2), 2)[2])
    assert "slice 3 of 3: bicubic interpolation instead of the model" in caplog.text


def test_an_engine_that_fails_loses_no_slice(
    small_bundle: Path, study: tuple[Volume, Volume], monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, truth = study
    with Runtime(small_bundle, threads=1) as runtime:
        infer: Callable[..., Inferred] = Runtime.infer
        calls = iter((False, True, False))

        def failing(self: Runtime, *inputs: Array) -> Inferred:
            if next(calls):
                raise BackendError("out of memory")
            return infer(self, *inputs)

        monkeypatch.setattr(Runtime, "infer", failing)
        result = restore_volume(runtime, coarse(truth, 2), reference)
    assert [(f.slice, f.reason) for f in result.fallbacks] == [(1, "out of memory")]
    assert np.isfinite(result.volume.values).all()


def test_an_engine_that_fails_at_every_slice_is_no_result(
    small_bundle: Path, study: tuple[Volume, Volume], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Runtime, *inputs: Array) -> Inferred:
        raise BackendError("out of memory")

    with Runtime(small_bundle, threads=1) as runtime:
        monkeypatch.setattr(Runtime, "infer", failing)
        with pytest.raises(BackendError, match="the model has restored none of the slices: out of memory"):
            restore_volume(runtime, coarse(study[1], 2), study[0])


class Counted:
    """How many slices were in the engine at the same time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.most = self._now = 0
        self._lock = threading.Lock()
        inner = Runner.restore

        def restore(runner: Runner, target: Array, features: Any) -> Array:
            with self._lock:
                self._now += 1
                self.most = max(self.most, self._now)
            try:
                return inner(runner, target, features)
            finally:
                with self._lock:
                    self._now -= 1

        monkeypatch.setattr(Runner, "restore", restore)


@pytest.mark.parametrize(("threads", "max_memory", "expected"), [(2, None, 2), (1, None, 1), (2, "40MiB", 1)])
def test_two_slices_share_the_threads_where_memory_allows(
    study: tuple[Volume, Volume],
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
    max_memory: str | None,
    expected: int,
) -> None:
    reference, truth = study
    target = coarse(truth, 2)
    repeated = [Volume(np.repeat(volume.values, 3, 0), None) for volume in (target, reference)]
    with Runtime("minet-x2", backend="native", threads=threads, max_memory=max_memory) as runtime:
        assert runtime.slices_at_once(*target.values.shape[1:]) == expected
        alone = np.stack([runtime(low, guide) for low, guide in zip(*(v.values for v in repeated), strict=True)])
        counted = Counted(monkeypatch)
        result = restore_volume(runtime, repeated[0], repeated[1])
    assert counted.most == expected
    assert result.seconds > 0
    np.testing.assert_array_equal(result.volume.values, alone)


def test_an_engine_that_fails_at_one_of_two_slices_loses_none(
    study: tuple[Volume, Volume], monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, truth = study
    target = coarse(truth, 2)
    infer, calls = Runtime.infer, itertools.count()

    def failing(runtime: Runtime, ready: Any) -> Inferred:
        if next(calls) == 1:
            raise BackendError("no memory left")
        return infer(runtime, ready)

    with Runtime("minet-x2", backend="native", threads=2) as runtime:
        monkeypatch.setattr(Runtime, "infer", failing)
        result = restore_volume(runtime, target, reference)
    (fallback,) = result.fallbacks
    assert "no memory left" in fallback.reason
    assert np.isfinite(result.volume.values).all()


def test_progress_reaches_the_end(runtime: Runtime, study: tuple[Volume, Volume]) -> None:
    seen: list[tuple[int, int]] = []
    restore_volume(runtime, coarse(study[1], 2), study[0], lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_what_does_not_go_together_is_refused(runtime: Runtime, study: tuple[Volume, Volume]) -> None:
    reference, truth = study
    assert reference.grid is not None
    target = coarse(truth, 2)
    with pytest.raises(InputError, match="needs a reference"):
        restore_volume(runtime, target, None)
    with pytest.raises(InputError, match="position in space"):
        restore_volume(runtime, target, Volume(reference.values))
    far = Grid(reference.grid.shape, reference.grid.origin + 1000, reference.grid.steps)
    with pytest.raises(InputError, match="same region"):
        restore_volume(runtime, target, Volume(reference.values, far))
    with pytest.raises(InputError, match="reference has shape"):
        restore_volume(runtime, Volume(target.values), Volume(reference.values[:, :-2]))
