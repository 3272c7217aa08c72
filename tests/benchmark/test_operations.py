"""The operation counter against numbers worked out by hand, for single operators and for whole networks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from minet_sdk.benchmark.operations import Operations, count
from minet_sdk.benchmark.suite import operations_of
from minet_sdk.bundle import Bundle
from minet_sdk.errors import BundleError, InputError
from minet_sdk.training.config import MinetConfig, preset

SINC_TAPS = 16


def graph(tmp_path: Path, *nodes: onnx.NodeProto, weights: dict[str, tuple[int, ...]]) -> Path:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "C", "H", "W"])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    tensors = [TensorProto(name=name, dims=dims, data_type=TensorProto.FLOAT) for name, dims in weights.items()]
    made = helper.make_graph(list(nodes), "g", inputs, outputs, tensors)
    path = tmp_path / "graph.onnx"
    path.write_bytes(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString())
    return path


@pytest.mark.parametrize(
    ("shape", "weight", "attributes", "direct", "winograd"),
    [
        # 20 x 20 outputs of 32 channels, 9 * 16 products each; 5 x 5 tiles of 36 products.
        ((1, 16, 20, 20), (32, 16, 3, 3), {"pads": [1] * 4}, 400 * 32 * 144, 25 * 36 * 32 * 16),
        # 5 x 5 tiles cover 17 to 20 pixels.
        ((2, 16, 17, 18), (16, 16, 3, 3), {"pads": [1] * 4}, 2 * 306 * 16 * 144, 2 * 25 * 36 * 256),
        ((1, 16, 20, 20), (16, 16, 3, 3), {"pads": [1] * 4, "strides": [2, 2]}, 100 * 16 * 144, 100 * 16 * 144),
        ((1, 16, 20, 20), (16, 1, 3, 3), {"pads": [1] * 4, "group": 16}, 400 * 16 * 9, 400 * 16 * 9),
        ((1, 1, 20, 20), (16, 1, 3, 3), {"pads": [1] * 4}, 400 * 16 * 9, 400 * 16 * 9),
        ((1, 16, 20, 20), (8, 16, 1, 1), {}, 400 * 8 * 16, 400 * 8 * 16),
        ((1, 1, 20, 20), (4, 1, 5, 5), {}, 256 * 4 * 25, 256 * 4 * 25),
    ],
)
def test_convolutions(
    tmp_path: Path,
    shape: tuple[int, ...],
    weight: tuple[int, ...],
    attributes: dict[str, Any],
    direct: int,
    winograd: int,
) -> None:
    path = graph(tmp_path, helper.make_node("Conv", ["x", "w"], ["y"], **attributes), weights={"w": weight})
    assert count(path, {"x": shape}) == Operations(direct, winograd, 0)


def test_matrix_products(tmp_path: Path) -> None:
    path = graph(tmp_path, helper.make_node("MatMul", ["x", "w"], ["y"]), weights={"w": (7, 5)})
    assert count(path, {"x": (1, 2, 3, 7)}) == Operations(0, 0, 2 * 3 * 7 * 5)


def by_hand(config: MinetConfig, pixels: int) -> int:
    """Multiplications of a MINet's convolutions at x2 on the restored grid, the attention as a banded convolution."""
    c, stages = config.channels, config.stages
    full = 9 * c * c * pixels
    hidden = c // 16
    groups = 2 * stages * ((2 * config.blocks + 1) * full + config.blocks * 2 * hidden * c)
    # A quarter of the pixels to four times the channels, and one more at full size.
    upsampler = full + full
    heads = 9 * c * pixels // 4 + 9 * c * pixels
    fusions, reduction, attention, tail = stages * 2 * c * c * pixels, 2 * stages * full, full, 9 * c * pixels
    sinc = SINC_TAPS**2 * 4 * pixels // 4 if config.skip == "sinc" else 0
    return heads + upsampler + groups + fusions + reduction + attention + tail + sinc


def test_a_whole_network_is_the_sum_of_its_layers(make_bundle: Callable[..., Bundle]) -> None:
    bundle = make_bundle(scale=2)
    config, pixels = MinetConfig.from_dict(bundle.manifest.architecture), 320 * 320
    found = operations_of(bundle, (320, 320))
    assert found["whole"].convolutions == by_hand(config, pixels)
    matrix, features = (2 * config.stages) ** 2, config.channels * pixels
    assert found["whole"].products == 2 * matrix * features
    for name in ("convolutions", "winograd", "products"):
        assert getattr(found["whole"], name) == getattr(found["prepare"], name) + getattr(found["critical"], name)


def test_the_paper_preset_is_what_it_was_measured_to_be() -> None:
    """647.3 billion with two attentions as 3D convolutions and the reference's own tail, which inference leaves out."""
    config, pixels = preset("paper", 2), 320 * 320
    c = config.channels
    trained = by_hand(config, pixels) - 9 * c * c * pixels + 2 * 27 * c * pixels + 9 * c * pixels
    assert trained == pytest.approx(647.3e9, rel=1e-4)
    assert by_hand(config, pixels) == pytest.approx(650.67e9, rel=1e-4)


def test_floors_follow_from_the_peak() -> None:
    assert Operations(650_000_000_000, 166_000_000_000, 0).floor_seconds(220) == pytest.approx(5.909, abs=1e-3)
    assert Operations(650_000_000_000, 166_000_000_000, 0).floor_seconds(220, winograd=True) == pytest.approx(
        1.509, abs=1e-3
    )


def test_wrong_shapes_and_files_are_named(tmp_path: Path) -> None:
    path = graph(tmp_path, helper.make_node("MatMul", ["x", "w"], ["y"]), weights={"w": (7, 5)})
    with pytest.raises(InputError, match="input x got the shape"):
        count(path, {})
    unheard = helper.make_node("Unheard", ["x"], ["z"], domain="else")
    path = graph(tmp_path, unheard, helper.make_node("MatMul", ["z", "w"], ["y"]), weights={"w": (7, 5)})
    with pytest.raises(BundleError, match=r"graph\.onnx"):
        count(path, {"x": (1, 1, 3, 7)})
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"bad\.onnx"):
        count(tmp_path / "bad.onnx", {})
