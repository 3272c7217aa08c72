"""Small real bundles, made once: random networks through the real export."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from minet_sdk.bundle import Bundle, open_bundle
from minet_sdk.export.bundle import export_bundle
from minet_sdk.training.checkpoint import save_checkpoint
from minet_sdk.training.config import MinetConfig
from minet_sdk.training.model import build

MakeBundle = Callable[..., Bundle]
Once = Callable[[str, Callable[[Path], object]], Path]


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


@pytest.fixture(scope="session")
def make_bundle(once: Once) -> MakeBundle:
    """Export a random network of the given config fields; the same arguments give the same bundle once."""

    def make(**changes: object) -> Bundle:
        def export(folder: Path) -> None:
            fields = {"stages": 2, "blocks": 1, "channels": 16, "affinity": "cosine", "skip": "sinc", **changes}
            model = build(MinetConfig.from_dict(fields), seed=7)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(8)
                torch.nn.init.normal_(model.target_tail.weight, std=0.02)
            save_checkpoint(folder / "random.safetensors", model, {"note": "random weights for tests"})
            export_bundle(folder / "random.safetensors", folder / "random", name="random")

        return open_bundle(once(f"random {sorted(changes.items())}", export) / "random")

    return make


@pytest.fixture(scope="session")
def small_bundle(make_bundle: MakeBundle) -> Path:
    """A x2 model with a reference."""
    return make_bundle(scale=2).location
