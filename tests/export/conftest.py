"""Graphs of small random networks, exported once for all tests here; their bundles come from `make_bundle`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from minet_sdk.bundle import Bundle, Manifest
from minet_sdk.export.bundle import export_bundle
from minet_sdk.export.onnx_from_torch import onnx_from_torch
from minet_sdk.training.checkpoint import save_checkpoint
from minet_sdk.training.model import MINet

Once = Callable[[str, Callable[[Path], object]], Path]

KINDS: dict[str, dict[str, Any]] = {
    "cosine x2": {},
    "paper x4, no skip, two blocks": {"scale": 4, "affinity": "paper", "skip": "none", "stages": 1, "blocks": 2},
    "released x2, no attention": {"affinity": "released", "attention": False, "channels": 32},
    "reduction x2": {"integration": "reduction"},
    "no integration x4, no skip": {"integration": "none", "scale": 4, "skip": "none", "stages": 1, "channels": 48},
    "single contrast x4": {"reference": False, "scale": 4},
}
"""Config fields of networks that have every option of a MINet at least once."""


def _manifest(network: MINet, precision: str = "fp32") -> Manifest:
    """A manifest as far as exporting a single graph needs one."""
    return Manifest(
        name="random",
        scale=network.config.scale,
        precision=precision,  # type: ignore[arg-type]
        needs_reference=network.config.reference,
        affinity=network.config.affinity,
        golden_tolerance=1e-3,
        version="0",
    )


@pytest.fixture(scope="session")
def make_manifest() -> Callable[..., Manifest]:
    """Makes the manifest of a network."""
    return _manifest


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each of the networks that `exported` knows."""
    return request.param


@pytest.fixture(scope="session")
def exported(
    once: Once, small_network: Callable[..., MINet], bundle_of: Callable[[str], Bundle]
) -> Callable[[str], tuple[MINet, Path]]:
    """A network by its kind, and the file of its model graph, whose weights may lie beside it."""

    def make(kind: str) -> tuple[MINet, Path]:
        network = small_network(**KINDS[kind])
        if not KINDS[kind]:
            return network, bundle_of("fp32").graph("model")

        def export(folder: Path) -> None:
            onnx.save(onnx_from_torch(network, _manifest(network))["model"], folder / "model.onnx")

        return network, once(f"graph {kind}", export) / "model.onnx"

    return make


@pytest.fixture(scope="session")
def network(small_network: Callable[..., MINet]) -> MINet:
    """The network behind `bundle_of`."""
    return small_network()


@pytest.fixture(scope="session")
def bundle_of(make_bundle: Callable[..., Bundle]) -> Callable[[str], Bundle]:
    """The bundle of the network in a precision, made once; tests copy it before they change it."""
    return make_bundle


@pytest.fixture(scope="session")
def simple_checkpoint(small_network: Callable[..., MINet], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that exports fast: one graph, few operators."""
    path = tmp_path_factory.mktemp("simple") / "simple.safetensors"
    network = small_network(reference=False, stages=1, integration="none", attention=False)
    save_checkpoint(path, network, {"seed": 3})
    return path


@pytest.fixture(scope="session")
def simple_bundle(simple_checkpoint: Path, once: Once) -> Path:
    """What the whole export makes of it, alone in its folder."""

    def export(folder: Path) -> None:
        (folder / "output").mkdir()
        export_bundle(simple_checkpoint, folder / "output" / "simple", name="other")

    return once("simple", export) / "output" / "simple"
