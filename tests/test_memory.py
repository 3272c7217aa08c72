"""Memory limits: what fits is untouched, what does not is tiled or refused before anything runs."""

from pathlib import Path

import numpy as np
import pytest

from minet_sdk import Runtime
from minet_sdk.backends.native import probe
from minet_sdk.bundle import open_bundle
from minet_sdk.errors import InputError
from minet_sdk.memory import ALLOWANCE, as_mib, estimated, parsed_bytes


@pytest.mark.parametrize(
    ("text", "count"),
    [("2GiB", 2 * 2**30), ("800 MB", 800 * 10**6), ("1.5gib", 3 * 2**29), ("4096", 4096), (" 64 KiB ", 65536)],
)
def test_amounts_are_read(text: str, count: int) -> None:
    assert parsed_bytes(text) == count


@pytest.mark.parametrize("text", ["", "much", "2 TiB", "-1GiB", "1e9", "2GiB extra"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="give a number with KiB"):
        parsed_bytes(text)


def test_the_estimate_is_weights_and_images(small_bundle: Path) -> None:
    bundle = open_bundle(small_bundle)
    per_pixel = bundle.manifest.bytes_per_pixel
    assert per_pixel is not None
    weights = sum((small_bundle / name).stat().st_size for name in bundle.manifest.files)
    assert estimated(bundle, 0) == weights
    assert estimated(bundle, 1000) == weights + round(1000 * ALLOWANCE * per_pixel)


def test_too_little_memory_is_refused_before_anything_runs(small_bundle: Path) -> None:
    target, reference = np.ones((64, 64), np.float32), np.ones((128, 128), np.float32)
    needed = estimated(open_bundle(small_bundle), 128 * 128)
    assert needed is not None
    with Runtime(small_bundle, backend="onnxruntime", threads=1, max_memory=needed) as runtime:
        assert runtime.info.memory_known_by == "estimate"
        assert runtime.info.max_memory == needed
        assert runtime(target, reference).shape == (128, 128)
    with Runtime(small_bundle, backend="onnxruntime", threads=1, max_memory=f"{needed - 1}") as runtime:
        with pytest.raises(InputError, match=rf"take about {as_mib(needed)}, over max_memory of .* channel attention"):
            runtime(target, reference)
        assert runtime.stats().slices == runtime.stats().prepared_slices == 0
        assert runtime(target[:32, :32], reference[:64, :64]).shape == (64, 64)


def test_prepared_features_count(small_bundle: Path) -> None:
    """Each slice fits, all of them together do not."""
    references = np.random.default_rng(0).random((3, 100, 80)).astype(np.float32)
    needed = estimated(open_bundle(small_bundle), 100 * 80)
    assert needed is not None
    with Runtime(small_bundle, backend="onnxruntime", threads=1) as runtime:
        one, all_three = runtime.prepare(references[0]), runtime.prepare(references)
        assert one.nbytes is not None
        assert one.nbytes == one.features[0].nbytes == 3 * 16 * 100 * 80 * 4
        assert all_three.nbytes == 3 * one.nbytes
    slices = needed // one.nbytes + 1
    many = np.broadcast_to(references[0], (slices, 100, 80))
    with Runtime(small_bundle, backend="onnxruntime", threads=1, max_memory=needed) as runtime:
        assert runtime.prepare(references[0]).nbytes == one.nbytes
        with pytest.raises(InputError, match="prepared reference holds more than max_memory"):
            runtime.prepare(many)


@pytest.mark.skipif(bool(probe()), reason=probe() or "-")
def test_prepared_features_count_in_the_native_engine_too(small_bundle: Path) -> None:
    """At least the features themselves; more slices than `max_memory` holds are refused."""
    reference = np.random.default_rng(0).random((100, 80)).astype(np.float32)
    with Runtime(small_bundle, backend="native", threads=1) as runtime:
        one, two = runtime.prepare(reference), runtime.prepare(np.stack([reference] * 2))
        assert one.nbytes is not None
        assert one.nbytes >= 3 * 16 * 100 * 80 * 4
        assert two.nbytes == 2 * one.nbytes
    with Runtime(small_bundle, backend="native", threads=1, max_memory=20 * one.nbytes) as runtime:
        assert runtime.prepare(reference).nbytes == one.nbytes
        with pytest.raises(InputError, match="prepared reference holds more than max_memory"):
            runtime.prepare(np.broadcast_to(reference, (21, 100, 80)))
