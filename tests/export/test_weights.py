"""One file of weights for all graphs."""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest

from minet_sdk.bundle import Bundle, Precision
from minet_sdk.export.weights import WEIGHTS, SharedWeights

pytestmark = pytest.mark.long


def stored(bundle: Bundle) -> list[tuple[str, str, int, int]]:
    """Graph, location, offset and length of every external tensor."""
    places: list[tuple[str, str, int, int]] = []
    for path in sorted(bundle.location.glob("*.onnx")):
        for tensor in onnx.load_model(path, load_external_data=False).graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                entry = {item.key: item.value for item in tensor.external_data}
                places.append((path.stem, entry["location"], int(entry["offset"]), int(entry["length"])))
            else:
                assert tensor.data_type == onnx.TensorProto.INT64
    return places


@pytest.mark.parametrize("precision", get_args(Precision))
def test_every_weight_is_stored_once(bundle_of: Callable[[str], Bundle], precision: str) -> None:
    bundle = bundle_of(precision)
    places = stored(bundle)
    assert {graph for graph, *_ in places} == {"model", "reference", "target"}
    assert {location for _, location, *_ in places} == {WEIGHTS}
    content = (bundle.location / WEIGHTS).read_bytes()
    pieces = {(offset, length) for _, _, offset, length in places}
    assert all(offset % 64 == 0 for offset, _ in pieces)
    assert len({content[offset : offset + length] for offset, length in pieces}) == len(pieces)
    assert len(content) < sum(length for _, length in pieces) + 64 * len(pieces)
    of = {graph: {piece[2:] for piece in places if piece[0] == graph} for graph in ("model", "reference", "target")}
    assert of["model"] == of["reference"] | of["target"]


@pytest.mark.parametrize(
    ("small", "large", "most"), [("fp16", "fp32", 0.55), ("bf16", "fp32", 0.55), ("int8", "fp16", 0.7)]
)
def test_smaller_formats_take_less_room(
    bundle_of: Callable[[str], Bundle], small: str, large: str, most: float
) -> None:
    sizes = [(bundle_of(precision).location / WEIGHTS).stat().st_size for precision in (small, large)]
    assert sizes[0] < most * sizes[1]


def test_equal_content_shares_its_place_and_reads_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 5)).astype(np.float32)
    shape = np.array([1, 2])
    weights = SharedWeights()
    for name, arrays in {"a": [first, second, shape], "b": [second, first.astype(np.float16)]}.items():
        tensors = [onnx.numpy_helper.from_array(array, str(i)) for i, array in enumerate(arrays)]
        model = onnx.helper.make_model(onnx.helper.make_graph([], name, [], [], tensors))
        weights.take_from(model)
        (tmp_path / f"{name}.onnx").write_bytes(model.SerializeToString())
    weights.write(tmp_path)
    a, b = (onnx.load_model(tmp_path / f"{name}.onnx").graph.initializer for name in "ab")
    for tensor, array in zip([*a, *b], [first, second, shape, second, first.astype(np.float16)], strict=True):
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), array)
    assert (tmp_path / WEIGHTS).stat().st_size == 64 + 64 + 10
