"""Small random networks and the bundles that the real export makes of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from minet_sdk.bundle import Bundle, Manifest, open_bundle
from minet_sdk.export.bundle import export_bundle
from minet_sdk.export.slices import Slices, bundled_slices
from minet_sdk.training.checkpoint import save_checkpoint
from minet_sdk.training.config import MinetConfig
from minet_sdk.training.model import MINet, build

Once = Callable[[str, Callable[[Path], object]], Path]


def _small_network(**changes: object) -> MINet:
    """Random weights everywhere; a fresh network with a skip would output the interpolated target alone."""
    fields = {"stages": 2, "blocks": 1, "channels": 16, "affinity": "cosine", "skip": "sinc", **changes}
    network = build(MinetConfig.from_dict(fields), seed=3).eval()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(4)
        torch.nn.init.normal_(network.target_tail.weight, std=0.1)
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
        if network.config.integration == "affinity" and network.config.affinity == "released":
            network.integration.gain.fill_(0.7)
    return network


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
def small_network() -> Callable[..., MINet]:
    """Makes a random network of the given config fields."""
    return _small_network


@pytest.fixture(scope="session")
def make_manifest() -> Callable[..., Manifest]:
    """Makes the manifest of a network."""
    return _manifest


@pytest.fixture(scope="session")
def network() -> MINet:
    """The network behind `bundle_of`."""
    return _small_network()


@pytest.fixture(scope="session")
def checkpoint(network: MINet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "random.safetensors"
    save_checkpoint(path, network, {"command": "none", "seed": 3})
    return path


@pytest.fixture(scope="session")
def slices() -> Slices:
    """The middle of the bundled study's slices, small enough to be quick."""
    whole = bundled_slices()
    targets, references = (values[::4, 88:136, 76:116] for values in (whole.targets, whole.references))
    return Slices(targets, references, "middle of the study")


@pytest.fixture(scope="session")
def bundle_of(checkpoint: Path, slices: Slices, once: Once) -> Callable[[str], Bundle]:
    """The bundle of the network in a precision, made once; tests copy it before they change it."""

    def make(precision: str) -> Bundle:
        def export(folder: Path) -> None:
            export_bundle(checkpoint, folder / precision, precision, calibration=slices)  # type: ignore[arg-type]

        return open_bundle(once(f"export {precision}", export) / precision)

    return make
