"""What OpenVINO is given instead of the file's graph computes the same: against float64, in every mode."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from minet_sdk.backends import openvino_graph
from minet_sdk.backends.openvino_graph import fold_mixing, read
from minet_sdk.errors import BundleError
from minet_sdk.export.integration import integration_function
from minet_sdk.export.onnx_names import DOMAIN, DOMAIN_VERSION, OPERATOR, OPSET
from minet_sdk.kernels import reference
from minet_sdk.kernels.reference import Affinity

pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")

STAGES, CHANNELS, OUTPUTS, TEMPERATURE, GAIN = 4, 16, 8, 0.3, 0.7
RNG = np.random.default_rng(5)
LEVELS = np.repeat([1.0, 0.7, -0.4, 0.2], CHANNELS)[:, None, None]
"""What the stages have in common, so that they are not all alike to each other."""

FEATURES = (LEVELS / 9 + RNG.standard_normal((1, STAGES * CHANNELS, 9, 7)) / 20).astype(np.float32)
WEIGHT = RNG.standard_normal((OUTPUTS, STAGES * CHANNELS, 3, 3)).astype(np.float32)


def graph_of(folder: Path, mode: str) -> Path:
    """Features -> integration -> 3x3 convolution."""
    attributes: dict[str, Any] = {
        "mode": mode,
        "stages": STAGES,
        "temperature": TEMPERATURE,
        "gain": GAIN if mode != "cosine" else 1.0,
    }
    shapes = ([1, STAGES * CHANNELS, "H", "W"], [1, OUTPUTS, "H", "W"])
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in zip(("features", "reduced"), shapes, strict=True)
    ]
    nodes = [
        onnx.helper.make_node(OPERATOR, ["features"], ["mixed"], domain=DOMAIN, **attributes),
        onnx.helper.make_node("Conv", ["mixed", "weight"], ["reduced"], pads=[1, 1, 1, 1]),
    ]
    weight = onnx.numpy_helper.from_array(WEIGHT, "weight")
    graph = onnx.helper.make_graph(nodes, "reduced", values[:1], values[1:], [weight])
    opsets = [onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    body = [integration_function(mode, STAGES, "fp32")] if mode in ("paper", "released", "cosine") else []  # type: ignore[arg-type]
    path = folder / "graph.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, functions=body, ir_version=10), path)
    return path


def run(model: Any) -> npt.NDArray[np.float32]:
    ov = openvino_graph.openvino()
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    return compiled.create_infer_request().infer({"features": FEATURES})[0]


def expected(mode: Affinity) -> npt.NDArray[np.float64]:
    stages = FEATURES.astype(np.float64).reshape(1, STAGES, CHANNELS, *FEATURES.shape[2:])
    gain = GAIN if mode == "released" else 1.0
    mixed = reference.integrate(stages, mode, temperature=TEMPERATURE, gain=gain).reshape(FEATURES.shape)
    return torch.nn.functional.conv2d(torch.from_numpy(mixed), torch.from_numpy(WEIGHT).double(), padding=1).numpy()


def apart(found: npt.NDArray[Any], exact: npt.NDArray[Any]) -> float:
    return float(np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2)))


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("mode", ["paper", "released", "cosine"])
def test_integration_against_float64(mode: Affinity, fold: bool, tmp_path: Path) -> None:
    path = graph_of(tmp_path, mode)
    if mode == "paper":  # its gain is 1 by definition, and the file says so in a bundle
        model = onnx.load(path)
        next(entry for entry in model.graph.node[0].attribute if entry.name == "gain").f = 1.0
        onnx.save(model, path)
    model = read(path)
    if fold:
        assert fold_mixing(model)
    kinds = [node.get_type_name() for node in model.get_ordered_ops()]
    assert kinds.count("MatMul") == 2
    assert apart(run(model), expected(mode)) < 1e-6


def test_a_transposed_mixing_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted fault: W A^T in the place of W A."""
    model, operators = read(graph_of(tmp_path, "cosine")), openvino_graph._operators()  # pyright: ignore[reportPrivateUsage]

    class Transposed:
        def __getattr__(self, name: str) -> Any:
            return getattr(operators, name)

        def matmul(self, mixing: Any, weight: Any, *_: bool) -> Any:
            return operators.matmul(mixing, weight, False, False)

    monkeypatch.setattr(openvino_graph, "_operators", Transposed)
    assert fold_mixing(model)
    assert apart(run(model), expected("cosine")) > 1e-2


def test_the_floor_of_the_norm_is_that_of_the_body() -> None:
    assert openvino_graph._GRAM_FLOOR == reference.GRAM_FLOOR  # pyright: ignore[reportPrivateUsage]
    assert (openvino_graph.DOMAIN, openvino_graph.OPERATOR) == (DOMAIN, OPERATOR)


def test_an_unknown_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"graph\.onnx cannot be loaded by openvino: .*minet\.MultiStageIntegration"):
        read(graph_of(tmp_path, "ring"))


def test_a_damaged_graph_is_named_and_nothing_else_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.onnx").write_bytes(b"\x00\x01 no protobuf")
    with pytest.raises(BundleError, match=r"other\.onnx cannot be loaded by openvino: ") as error:
        read(tmp_path / "other.onnx")
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")
