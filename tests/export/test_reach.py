"""How far a network looks, counted in its graph, against what a disturbed sample really changes in float64."""

from collections.abc import Callable

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from minet_sdk.bundle import Bundle, Manifest, models_folder
from minet_sdk.export.onnx_from_torch import onnx_from_torch
from minet_sdk.export.reach import extent_of
from minet_sdk.training.architecture import Architecture
from minet_sdk.training.config import MinetConfig
from minet_sdk.training.edsr import EdsrConfig
from minet_sdk.training.layers import ChannelAttention
from minet_sdk.training.network import Network, build

pytestmark = pytest.mark.long

CASES: dict[str, Architecture] = {
    "restored grid, x4": EdsrConfig(scale=4, reference=False, blocks=1, channels=4),
    "restored grid, guided, x2": MinetConfig(stages=1, blocks=1, channels=16, integration="reduction", scale=2),
    "target's grid, guided, x2": MinetConfig(
        stages=2, blocks=1, channels=16, grid="target", integration="reduction", scale=2
    ),
}


def make(config: Architecture) -> Network:
    """Random weights, and no channel attention, which is global."""
    network = build(config, seed=5).eval()
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, ChannelAttention):
                setattr(module, name, nn.Identity())
    return network


def manifest(config: Architecture) -> Manifest:
    return Manifest("random", config.scale, "fp32", config.reference, "none", 1e-3, "0")


def disturbed_reach(network: Network) -> int:
    """Largest distance along an axis between a disturbed sample and a restored pixel that it changes, float64."""
    scale, size = network.config.scale, 24
    network = network.double()
    generator = torch.Generator().manual_seed(6)

    def image(side: int) -> torch.Tensor:
        return torch.randn(1, 1, side, side, generator=generator, dtype=torch.float64)

    inputs = {"target": image(size)} | ({"reference": image(scale * size)} if network.guided else {})
    reach = 0
    with torch.no_grad():
        before = network(**inputs).restored
        for name, step in (("target", scale), ("reference", 1)):
            # Every phase: what a fine sample reaches depends on where it lies in its coarse one.
            for index in range(size // 2 * scale // step, size // 2 * scale // step + scale // step):
                if name not in inputs:
                    continue
                for value in (-40.0, 40.0):
                    other = inputs[name].clone()
                    other[0, 0, index, index] += value
                    changed = (network(**{**inputs, name: other}).restored != before)[0, 0].nonzero()
                    reach = max(reach, int((changed - step * index).abs().max()))
    return reach


@pytest.mark.parametrize("case", CASES)
def test_reach_is_what_a_disturbance_reaches(case: str) -> None:
    network = make(CASES[case])
    extent = extent_of(onnx_from_torch(network, manifest(network.config))["model"], network.config.scale)
    assert extent.global_parts == ()
    assert extent.reach == disturbed_reach(network)


@pytest.mark.parametrize(("name", "scale", "blocks"), [("minet-x2", 2, 4), ("minet-fast-x2", 2, 2), ("minet-x4", 4, 4)])
def test_of_the_bundled_models(name: str, scale: int, blocks: int) -> None:
    """On the target's grid: head, three groups, attention or reduction, tail; a pixel of it is ``scale`` wide."""
    path = models_folder() / name / "model.onnx"
    extent = extent_of(onnx.load(path, load_external_data=False), scale)
    assert extent.reach == scale * (1 + 3 * (2 * blocks + 1) + 1 + 1) + scale - 1
    assert extent.global_parts == ("channel attention", "affinity")


def test_bundles_record_it_in_manifest_and_graph(make_bundle: Callable[..., Bundle]) -> None:
    bundle = make_bundle(scale=2)
    assert bundle.manifest.global_parts == ("channel attention", "affinity")
    assert bundle.manifest.reach is not None
    assert bundle.manifest.bytes_per_pixel is not None
    for graph in ("model", "target"):
        model = onnx.load(bundle.graph(graph), load_external_data=False)
        text = {entry.key: entry.value for entry in model.metadata_props}["minet.manifest"]
        assert Manifest.from_json(text, "graph").reach == bundle.manifest.reach


def graph(*nodes: onnx.NodeProto, constants: dict[str, list[int]] | None = None) -> onnx.ModelProto:
    """A graph from `target` to `restored` on one grid."""
    axes = ["N", 4, "H", "W"]
    made = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("target", TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info("restored", TensorProto.FLOAT, axes)],
        [helper.make_tensor(name, TensorProto.INT64, [len(v)], v) for name, v in (constants or {}).items()]
        + [helper.make_tensor("w", TensorProto.FLOAT, [4, 4, 3, 3], [0.0] * 144)],
    )
    return helper.make_model(made)


def test_what_is_not_known_is_not_guessed() -> None:
    plain = helper.make_node("Conv", ["target", "w"], ["restored"], pads=[1, 1, 1, 1])
    assert extent_of(graph(plain), 1).reach == 1
    wide = helper.make_node("Conv", ["target", "w"], ["restored"], pads=[3, 3, 3, 3], dilations=[3, 3])
    assert extent_of(graph(wide), 1).reach == 3
    assert extent_of(graph(helper.make_node("Roll", ["target"], ["restored"])), 1).reach is None
    padded = helper.make_node("Pad", ["target", "p"], ["padded"], mode="wrap")
    inner = helper.make_node("Conv", ["padded", "w"], ["restored"])
    pads = {"p": [0, 0, 1, 1, 0, 0, 1, 1]}
    assert extent_of(graph(padded, inner, constants=pads), 1).reach is None
    padded.attribute[0].s = b"edge"
    assert extent_of(graph(padded, inner, constants=pads), 1).reach == 1


def test_memory_is_that_of_images_alive_at_once() -> None:
    """Four channels in, four out, and the input kept for the sum: three images of four floats."""
    first = helper.make_node("Conv", ["target", "w"], ["a"], pads=[1, 1, 1, 1])
    total = helper.make_node("Add", ["a", "target"], ["restored"])
    assert extent_of(graph(first, total), 1).bytes_per_pixel == 3 * 4 * 4
    chain = [helper.make_node("Relu", [a], [b]) for a, b in (("target", "a"), ("a", "b"), ("b", "restored"))]
    assert extent_of(graph(*chain), 1).bytes_per_pixel == 2 * 4 * 4
