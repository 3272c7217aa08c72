"""A reference that does not show what the target shows: nothing of it reaches the image, and it is said."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from minet_sdk import Runtime
from minet_sdk import slices as slices_module
from minet_sdk.errors import BackendError
from minet_sdk.kspace import degrade
from minet_sdk.pipeline import INTERPOLATED, UNGUIDED, restore_volume
from minet_sdk.slices import Inferred, ReadySlice
from minet_sdk.volume import Grid, Volume

Array = NDArray[np.float32]
StudySlices = Callable[[int, int], tuple[Volume, Volume]]


@pytest.fixture(scope="module")
def study(study_slices: StudySlices) -> tuple[Volume, Volume]:
    """Reference and truth: two slices of the bundled pair, cropped."""
    return study_slices(9, 11)


@pytest.fixture(scope="module")
def low(study: tuple[Volume, Volume]) -> Array:
    return np.stack([degrade(truth, 2) for truth in study[1].values])


@pytest.fixture(scope="module", params=["native", "openvino", "onnxruntime"])
def runtime(judging_bundle: Path, request: pytest.FixtureRequest) -> Runtime:
    return Runtime(judging_bundle, backend=request.param, threads=1)


def elsewhere(reference: Array) -> Array:
    """A reference that shows something else: turned upside down."""
    return np.ascontiguousarray(reference[..., ::-1, :])


def test_nothing_of_a_wrong_reference_reaches_the_image(
    runtime: Runtime, study: tuple[Volume, Volume], low: Array, caplog: pytest.LogCaptureFixture
) -> None:
    reference = study[0].values
    alone = runtime(low, np.zeros_like(reference))
    caplog.clear()
    before = runtime.stats().unguided
    mixed = np.stack([reference[0], elsewhere(reference[1])])
    restored = runtime(low, mixed)
    assert np.array_equal(restored[1], alone[1])
    assert not np.array_equal(restored[0], alone[0])
    assert runtime.stats().unguided == before + 1
    assert [record.message for record in caplog.records] == [
        f"slice 2 of 2: the reference does not show what the target shows (trust {_trust(runtime, low[1], mixed[1])}, "
        "at least 0.15 is needed)"
    ]


def test_prepared_references_are_judged_alike(runtime: Runtime, study: tuple[Volume, Volume], low: Array) -> None:
    mixed = np.stack([study[0].values[0], elsewhere(study[0].values[1])])
    prepared = runtime.prepare(mixed)
    assert np.array_equal(runtime(low, prepared), runtime(low, mixed))
    assert runtime.ready(low[0], runtime.prepare(mixed[0])).guided
    assert not runtime.ready(low[1], runtime.prepare(mixed[1])).guided


def test_a_right_reference_is_used_as_without_the_gate(
    judging_bundle: Path, study: tuple[Volume, Volume], low: Array
) -> None:
    with Runtime(judging_bundle, threads=1) as runtime, Runtime(judging_bundle, threads=1, trust=False) as trusting:
        assert np.array_equal(runtime(low, study[0].values), trusting(low, study[0].values))
        assert runtime.info.trust == "at least 0.15"
        assert trusting.info.trust == "any: the runtime was opened with trust=False"
        wrong = elsewhere(study[0].values)
        assert not np.array_equal(runtime(low, wrong), trusting(low, wrong))
        assert trusting.ready(low[0], wrong[0]).trust is None
        assert trusting.stats().unguided == 0


def test_a_gate_that_never_closes_is_noticed(
    judging_bundle: Path, study: tuple[Volume, Volume], low: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted fault."""
    monkeypatch.setattr(slices_module, "LEAST_TRUST", -1.0)
    with Runtime(judging_bundle, threads=1) as runtime:
        wrong = elsewhere(study[0].values)
        assert not np.array_equal(runtime(low, wrong), runtime(low, np.zeros_like(wrong)))


def test_models_that_need_a_reference_get_any(small_bundle: Path, study: tuple[Volume, Volume], low: Array) -> None:
    with Runtime(small_bundle, threads=1) as runtime:
        assert runtime.info.trust == "any: the model was never trained without a reference"
        inferred = runtime.infer(runtime.ready(low[0], elsewhere(study[0].values)[0]))
        assert inferred.guided
        assert inferred.trust is None


def test_a_series_tells_of_every_slice(
    judging_bundle: Path, study: tuple[Volume, Volume], caplog: pytest.LogCaptureFixture
) -> None:
    reference, truth = study
    assert truth.grid is not None
    target = Volume(degrade(truth.values, 2, offset=0.5), truth.grid.coarsened(2))
    mixed = Volume(np.stack([elsewhere(reference.values[0]), reference.values[1]]), reference.grid)
    with Runtime(judging_bundle, threads=1) as runtime:
        result = restore_volume(runtime, target, mixed)
    assert [(fallback.slice, fallback.method) for fallback in result.fallbacks] == [(0, UNGUIDED)]
    assert result.notes[0].startswith("restored without the reference: the reference does not show")
    assert result.notes[1] == ""
    assert caplog.text.count("slice 1 of 2: restored without the reference") == 1
    assert result.trust_p50 is not None
    assert 0 < result.trust_p50 < 1


def test_slices_that_the_reference_does_not_cover_are_restored_without_it(
    judging_bundle: Path, study: tuple[Volume, Volume], monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, truth = study
    assert truth.grid is not None
    assert reference.grid is not None
    target = Volume(degrade(truth.values, 2, offset=0.5), truth.grid.coarsened(2))
    first = Volume(
        reference.values[:1], Grid((1, *reference.grid.shape[1:]), reference.grid.origin, reference.grid.steps)
    )
    with Runtime(judging_bundle, threads=1) as runtime:
        result = restore_volume(runtime, target, first)
        assert [(one.slice, one.method) for one in result.fallbacks] == [(1, UNGUIDED)]
        assert result.fallbacks[0].reason == "the reference covers 0% of this slice"

        infer, failed = runtime.infer, iter((False, True))

        def failing(ready: ReadySlice) -> Inferred:
            if next(failed):
                raise BackendError("out of memory")
            return infer(ready)

        monkeypatch.setattr(runtime, "infer", failing)
        result = restore_volume(runtime, target, first)
        assert [(one.slice, one.method, one.reason) for one in result.fallbacks] == [(1, INTERPOLATED, "out of memory")]
        monkeypatch.setattr(runtime, "infer", failing_always)
        with pytest.raises(BackendError, match="restored none of the slices: out of memory"):
            restore_volume(runtime, target, first)


def failing_always(ready: ReadySlice) -> Inferred:
    raise BackendError("out of memory")


def _trust(runtime: Runtime, target: Array, reference: Array) -> str:
    return f"{runtime.ready(target, reference).trust:.2f}"
