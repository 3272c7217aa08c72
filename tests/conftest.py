"""Small real bundles, made once: random networks through the real export."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from minet_sdk.bundle import Bundle
from minet_sdk.export.bundle import export_bundle
from minet_sdk.training.checkpoint import save_checkpoint
from minet_sdk.training.config import MinetConfig
from minet_sdk.training.model import build

MakeBundle = Callable[..., Bundle]


@pytest.fixture(scope="session")
def make_bundle(tmp_path_factory: pytest.TempPathFactory) -> MakeBundle:
    """Export a random network of the given config fields; the same arguments give the same bundle once."""
    made: dict[str, Bundle] = {}

    def make(**changes: object) -> Bundle:
        key = repr(sorted(changes.items()))
        if key not in made:
            fields = {"stages": 2, "blocks": 1, "channels": 16, "affinity": "cosine", "skip": "sinc", **changes}
            model = build(MinetConfig.from_dict(fields), seed=7)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(8)
                torch.nn.init.normal_(model.target_tail.weight, std=0.02)
            folder = tmp_path_factory.mktemp("bundle")
            save_checkpoint(folder / "random.safetensors", model, {"note": "random weights for tests"})
            made[key] = export_bundle(folder / "random.safetensors", folder / "random", name="random")
        return made[key]

    return make


@pytest.fixture(scope="session")
def small_bundle(make_bundle: MakeBundle) -> Path:
    """A x2 model with a reference."""
    return make_bundle(scale=2).location
