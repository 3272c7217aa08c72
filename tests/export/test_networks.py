"""Every kind of network through the one export path: graphs against PyTorch in float64, bundles in the runtime."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from minet_sdk import Runtime
from minet_sdk.bundle import Bundle, Manifest, Precision, open_bundle
from minet_sdk.errors import ExportError
from minet_sdk.export.bundle import export_bundle
from minet_sdk.export.graphs import graph_module
from minet_sdk.export.onnx_from_torch import onnx_from_torch, tensor_shapes
from minet_sdk.export.slices import Slices
from minet_sdk.kernels.reference import Affinity
from minet_sdk.training.architecture import Architecture
from minet_sdk.training.checkpoint import save_checkpoint
from minet_sdk.training.config import MinetConfig
from minet_sdk.training.edsr import EdsrConfig
from minet_sdk.training.layers import SincDownsampler, SincUpsampler
from minet_sdk.training.lyu import LyuConfig
from minet_sdk.training.network import Network, build, kinds
from minet_sdk.training.zeng import ZengConfig

pytestmark = pytest.mark.long

Array = NDArray[np.float32]
Once = Callable[[str, Callable[[Path], object]], Path]

COSINE: Affinity = "cosine"
CONFIGS: dict[str, Architecture] = {
    "edsr x2, no skip": EdsrConfig(2, 2, 16, 0.1),
    "edsr x4": EdsrConfig(4, 2, 16, skip="sinc"),
    "zeng x2, no skip": ZengConfig(2, 2, 2, 16),
    "zeng x4": ZengConfig(4, 2, 2, 16, "sinc"),
    "lyu x2": LyuConfig(2, 1, 1, 16, "sinc"),
    "lyu x4, no skip": LyuConfig(4, 1, 1, 16),
    "lyu x4": LyuConfig(4, 1, 1, 16, "sinc"),
    "minet fast x2": MinetConfig(2, 1, 1, 16, COSINE, skip="sinc", grid="target"),
    "minet fast x4, no skip": MinetConfig(4, 2, 1, 16, COSINE, grid="target"),
}
WITHOUT_NATIVE_PLAN = {"lyu x4, no skip", "lyu x4"}
"""The native engine has no strided convolution, which thins the reference."""


def random_network(config: Architecture) -> Network:
    """No parameter is zero or special."""
    network = build(config, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


def manifest_of(network: Network) -> Manifest:
    """As far as exporting a single graph needs one."""
    return Manifest("random", network.config.scale, "fp32", network.guided, "none", 1e-3, "0")


def inputs(config: Architecture, batch: int, height: int, width: int) -> dict[str, Array]:
    generator = torch.Generator().manual_seed(batch)
    target = torch.randn(batch, 1, height, width, generator=generator).numpy()
    size = (batch, 1, config.scale * height, config.scale * width)
    reference = torch.randn(size, generator=generator).numpy()
    return {"target": target, "reference": reference} if config.reference else {"target": target}


def in_float64(network: Network, feed: dict[str, Array]) -> NDArray[np.float64]:
    """What the network would give without rounding; the fixed interpolations stay in float32, as they are."""
    exact = copy.deepcopy(network).double()
    for module in exact.modules():
        if isinstance(module, SincUpsampler | SincDownsampler):
            module.float()
    with torch.no_grad():
        return exact(*(torch.from_numpy(value).double() for value in feed.values())).restored.numpy()


def run(model: onnx.ModelProto, feed: dict[str, Array]) -> Array:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {value.name: feed[value.name] for value in session.get_inputs()})[0])


def test_every_kind_is_covered_here() -> None:
    assert {config.kind for config in CONFIGS.values()} == set(kinds())


def sweep(*ordinary: str) -> list[object]:
    """All networks; those that are not named wait for the slow suite, since an export takes seconds."""
    return [name if name in ordinary else pytest.param(name, marks=pytest.mark.slow) for name in CONFIGS]


@pytest.mark.parametrize("name", sweep("lyu x4"))
def test_model_graph_is_the_network(name: str) -> None:
    network = random_network(CONFIGS[name])
    model = onnx_from_torch(network, manifest_of(network))["model"]
    onnx.checker.check_model(model, full_check=True)
    for size in ((1, 9, 14), (3, 12, 11)):
        feed = inputs(network.config, *size)
        expected = in_float64(network, feed)
        np.testing.assert_allclose(run(model, feed), expected, atol=2e-5 * np.abs(expected).max())


@pytest.fixture
def bundle_of(once: Once) -> Callable[[str], Bundle]:
    """Exports a network whole; done, the export itself has compared all graphs with PyTorch at several sizes."""

    def make(name: str) -> Bundle:
        def export(folder: Path) -> None:
            save_checkpoint(folder / "random.safetensors", random_network(CONFIGS[name]), {"method": "a test"})
            export_bundle(folder / "random.safetensors", folder / "bundle")

        return open_bundle(once(f"network {name}", export) / "bundle")

    return make


@pytest.mark.parametrize("name", sweep("zeng x2, no skip"))
def test_bundle_runs_in_the_runtime(name: str, bundle_of: Callable[[str], Bundle]) -> None:
    """Images in, image out, with the reference given or prepared, on each engine that the bundle is for."""
    bundle, network = bundle_of(name), random_network(CONFIGS[name])
    manifest, config = bundle.manifest, network.config
    assert manifest.architecture == config.to_dict()
    assert manifest.needs_reference == config.reference
    assert manifest.affinity == ("cosine" if config.kind == "minet" else "none")
    assert manifest.training["method"] == "a test"
    assert ("native.plan" in manifest.files) == (name not in WITHOUT_NATIVE_PLAN)
    target, *guide = (100 + 20 * value[0, 0] for value in inputs(config, 1, 17, 18).values())
    normal = [manifest.normalisation.apply(image)[None, None] for image in (target, *guide)]
    exact = in_float64(network, dict(zip(("target", "reference"), normal, strict=False)))[0, 0]
    expected = manifest.normalisation.undo(exact.astype(np.float32), manifest.normalisation.statistics(target))
    for backend in ("onnxruntime", "native") if "native.plan" in manifest.files else ("onnxruntime",):
        with Runtime(bundle.location, backend=backend, consistency="off", threads=1) as runtime:
            restored = runtime(target, *guide)
            np.testing.assert_allclose(restored, expected, atol=1e-4 * np.abs(expected).max())
            if guide:
                assert np.array_equal(runtime(target, runtime.prepare(guide[0])), restored)


@pytest.mark.parametrize("name", CONFIGS)
def test_two_graphs_are_the_one(name: str) -> None:
    """As modules, before any export: what is traced is right, and the features have the shape that the file says."""
    network = random_network(CONFIGS[name])
    feed = {key: torch.from_numpy(value) for key, value in inputs(network.config, 2, 7, 9).items()}
    with torch.no_grad():
        expected = network(*feed.values()).restored
        whole = graph_module(network, "model", "fp32")(*feed.values())
        torch.testing.assert_close(whole, expected, rtol=1e-5, atol=1e-5)
        if not network.guided:
            return
        features = graph_module(network, "reference", "fp32")(feed["reference"])
        torch.testing.assert_close(features, network.encode_reference(feed["reference"]), rtol=1e-5, atol=1e-5)
        assert torch.equal(graph_module(network, "target", "fp32")(feed["target"], features), whole)
    sizes = {"N": 2, "H": 7, "W": 9, "2*H": 14, "2*W": 18, "4*H": 28, "4*W": 36}
    shape = tensor_shapes(network)["reference_features"]
    assert list(features.shape) == [sizes[axis] if isinstance(axis, str) else axis for axis in shape]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_image_passes_in_float32_whatever_the_precision(precision: Precision) -> None:
    """With a first step of no detail at all, nothing is left but the interpolation, and that is exact."""
    for name in ("edsr x4", "zeng x4", "lyu x4"):
        network = build(CONFIGS[name])
        feed = {key: torch.from_numpy(value) for key, value in inputs(network.config, 1, 8, 8).items()}
        with torch.no_grad():
            restored = graph_module(network, "model", precision)(*feed.values())
            expected = network.interpolated(feed["target"])
        assert expected is not None
        assert restored.dtype == torch.float32
        assert torch.equal(restored, expected)
        assert all(torch.isfinite(restored.flatten()))


def test_training_goes_on_with_the_network_that_was_exported() -> None:
    """Graphs are copies: casting them must not touch the network."""
    network = random_network(CONFIGS["lyu x4"])
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    graph_module(network, "model", "fp16")
    after = network.state_dict()
    assert all(
        torch.equal(after[name], tensor) and after[name].dtype == tensor.dtype for name, tensor in before.items()
    )


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_eight_bits_are_for_minet(precision: Precision, tmp_path: Path, slices: Slices) -> None:
    save_checkpoint(tmp_path / "edsr.safetensors", random_network(CONFIGS["edsr x2, no skip"]), {})
    with pytest.raises(ExportError, match=f"kind 'edsr' has no {precision} form: choose fp16"):
        export_bundle(tmp_path / "edsr.safetensors", tmp_path / "bundle", precision, calibration=slices)
    assert not (tmp_path / "bundle").exists()
