"""Small real bundles, made once: random networks through the real export.

PyTorch is imported where it is used: the process that hands out the tests loads this file too, and exports nothing.
"""

import functools
import hashlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from minet_sdk.bundle import Bundle, Precision, open_bundle

if TYPE_CHECKING:
    from minet_sdk.export.slices import Slices
    from minet_sdk.training.model import MINet
    from minet_sdk.volume import Volume

MakeBundle = Callable[..., Bundle]
Once = Callable[[str, Callable[[Path], object]], Path]


def pytest_collection_finish() -> None:
    """Let PyTorch's exporter parse its 500 operators once a process instead of for every graph, which takes 0.4 s.

    It makes the same registry every time, and only reads it; the graphs have the same bytes.
    """
    if "minet_sdk.export.onnx_from_torch" in sys.modules:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))  # type: ignore[method-assign]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Every test draws the same random numbers from PyTorch, whichever ran before it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Once:
    """Fill a folder once for all workers of a run; the same name gives the same folder. Nobody may change it."""
    base = tmp_path_factory.getbasetemp()
    root = base if worker_id == "master" else base.parent

    def fill(name: str, make: Callable[[Path], object]) -> Path:
        folder = root / f"once-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        done = folder / "done"
        with FileLock(f"{folder}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # what an earlier failure left
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return fill


def _small_network(**changes: object) -> "MINet":
    """Random weights everywhere; a fresh network with a skip would output the interpolated target alone."""
    import torch

    from minet_sdk.training.config import MinetConfig
    from minet_sdk.training.model import build

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


@pytest.fixture(scope="session")
def small_network() -> "Callable[..., MINet]":
    """Makes a random network of the given config fields."""
    return _small_network


@pytest.fixture(scope="session")
def slices() -> "Slices":
    """The middle of the bundled study's slices, small enough to be quick."""
    from minet_sdk.export.slices import Slices, bundled_slices

    whole = bundled_slices()
    targets, references = (values[::4, 88:136, 76:116] for values in (whole.targets, whole.references))
    return Slices(targets, references, "middle of the study")


@pytest.fixture(scope="session")
def make_bundle(once: Once, slices: "Slices") -> MakeBundle:
    """Export a `small_network` of the given config fields; the same arguments give the same bundle once.

    Its checkpoint, random.safetensors, lies beside it.
    """

    def make(precision: Precision = "fp32", missing_reference: float = 0, **changes: object) -> Bundle:
        from minet_sdk.export.bundle import export_bundle
        from minet_sdk.training.checkpoint import save_checkpoint

        network = _small_network(**changes)

        def export(folder: Path) -> None:
            record: dict[str, object] = {"command": "none", "seed": 3}
            if missing_reference:
                record["augmentation"] = {"missing_reference": missing_reference}
            save_checkpoint(folder / "random.safetensors", network, record)
            export_bundle(folder / "random.safetensors", folder / "random", precision, calibration=slices)

        config = sorted(network.config.to_dict().items())
        return open_bundle(once(f"random {precision} {missing_reference} {config}", export) / "random")

    return make


@pytest.fixture(scope="session")
def study_slices() -> "Callable[[int, int], tuple[Volume, Volume]]":
    """Cuts slices from one to before another out of the bundled pair: reference and truth, 128 x 128 in the middle."""
    import numpy as np

    from minet_sdk.demo import study_folder
    from minet_sdk.dicom.read import load
    from minet_sdk.dicom.scan import scan
    from minet_sdk.volume import Grid, Volume

    def cut(name: str, first: int, last: int) -> Volume:
        whole = load(scan(study_folder() / name).series[0]).volume
        assert whole.grid is not None
        values = np.ascontiguousarray(whole.values[first:last, 40:168, 40:168])
        grid = Grid((last - first, 128, 128), whole.grid.positions((first, 40, 40)), whole.grid.steps)
        return Volume(values, grid)

    return lambda first, last: (cut("t1", first, last), cut("t2", first, last))


@pytest.fixture(scope="session")
def judging_bundle(make_bundle: MakeBundle) -> Path:
    """A x2 model whose training left references out now and then, so that the runtime may do without one."""
    return make_bundle(missing_reference=0.1, scale=2).location


@pytest.fixture(scope="session")
def small_bundle(make_bundle: MakeBundle) -> Path:
    """A x2 model with a reference."""
    return make_bundle(scale=2).location
