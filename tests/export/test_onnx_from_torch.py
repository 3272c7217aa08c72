"""Exported graphs in ONNX Runtime against PyTorch, for every kind of network."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from minet_sdk.bundle import METADATA_KEY, Bundle, Manifest
from minet_sdk.training.model import MINet

pytestmark = pytest.mark.long


def restored_by_onnxruntime(
    model: onnx.ModelProto, target: torch.Tensor, reference: torch.Tensor
) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {"target": target.numpy(), "reference": reference.numpy()}
    return np.asarray(session.run(["restored"], {value.name: feed[value.name] for value in session.get_inputs()})[0])


def test_model_graph_is_the_network(exported: Callable[[str], tuple[MINet, Path]], kind: str) -> None:
    network, path = exported(kind)
    config, model = network.config, onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    generator = torch.Generator().manual_seed(0)
    for batch, height, width in ((1, 9, 14), (3, 12, 11)):
        target = torch.randn(batch, 1, height, width, generator=generator)
        reference = torch.randn(batch, 1, config.scale * height, config.scale * width, generator=generator)
        with torch.no_grad():
            expected = network(target, reference if config.reference else None).restored.numpy()
        restored = restored_by_onnxruntime(model, target, reference)
        np.testing.assert_allclose(restored, expected, atol=2e-5 * np.abs(expected).max())

    node, function = _integration(model)
    assert (node is not None) == (function is not None) == (config.integration == "affinity")
    domains = {entry.domain: entry.version for entry in model.opset_import}
    assert domains == ({"": 18, "minet": 1} if node else {"": 18})
    if node is not None:
        attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        temperature = np.exp(network.integration.log_temperature.item()) if config.affinity == "cosine" else 1.0
        assert attributes == {
            "mode": config.affinity.encode(),
            "stages": config.stage_features,
            "temperature": pytest.approx(temperature),
            "gain": pytest.approx(0.7 if config.affinity == "released" else 1.0),
            "plugin_namespace": b"minet",
            "plugin_version": b"1",
        }


@pytest.fixture(scope="module")
def model(bundle_of: Callable[[str], Bundle]) -> onnx.ModelProto:
    return onnx.load_model(bundle_of("fp32").graph("model"))


def test_metadata_carry_the_manifest(model: onnx.ModelProto, bundle_of: Callable[[str], Bundle]) -> None:
    (entry,) = model.metadata_props
    assert entry.key == METADATA_KEY
    assert Manifest.from_json(entry.value, "metadata") == replace(bundle_of("fp32").manifest, files={})


def test_nothing_of_this_machine_is_in_the_file(model: onnx.ModelProto) -> None:
    content = model.SerializeToString()
    assert str(Path(__file__).parents[2]).encode() not in content
    assert b"stack_trace" not in content


def test_attention_is_folded_and_pools_by_reduce_mean(model: onnx.ModelProto, network: MINet) -> None:
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    band = network.target_attention.band().detach().numpy()
    assert any(np.array_equal(weight, band) for weight in weights.values())
    operators = {node.op_type for node in model.graph.node}
    assert "ReduceMean" in operators
    assert not operators & {"GlobalAveragePool", "Einsum", "EyeLike", "If", "Loop"}
    for node in model.graph.node:
        if node.op_type == "Conv":
            assert node.input[1] in weights


def test_reference_head_is_not_exported(model: onnx.ModelProto, network: MINet) -> None:
    """By count: every parameter of the network but the reference's own head, the attention as a band."""
    exported = sum(
        onnx.numpy_helper.to_array(tensor).size for tensor in model.graph.initializer if tensor.data_type == 1
    )
    parameters = {
        name: parameter.numel()
        for name, parameter in network.named_parameters()
        if not name.startswith(("reference_tail", "reference_attention", "target_attention", "integration"))
    }
    channels = network.config.channels
    band = channels * channels * 9 + channels
    assert exported == sum(parameters.values()) + band + network.interpolate.kernel.numel()
    assert [value.name for value in model.graph.output] == ["restored"]


def _integration(model: onnx.ModelProto) -> tuple[onnx.NodeProto | None, onnx.FunctionProto | None]:
    nodes = [node for node in model.graph.node if node.domain == "minet"]
    functions = list(model.functions)
    assert len(nodes) <= 1
    assert [(f.domain, f.name) for f in functions] == [(n.domain, n.op_type) for n in nodes]
    return (nodes[0], functions[0]) if nodes else (None, None)
