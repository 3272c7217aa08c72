"""The registry of networks, their checkpoints, and the count of what they cost."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from minet_sdk.errors import TrainingError
from minet_sdk.training.architecture import Architecture
from minet_sdk.training.checkpoint import load_checkpoint, save_checkpoint
from minet_sdk.training.config import MinetConfig, preset
from minet_sdk.training.cost import cost
from minet_sdk.training.edsr import EdsrConfig
from minet_sdk.training.lyu import LyuConfig
from minet_sdk.training.model import MINet
from minet_sdk.training.network import build, config_from_dict, kinds
from minet_sdk.training.zeng import ZengConfig

CONFIGS = (
    MinetConfig(4, 1, 1, 16, "cosine", reference=False),
    EdsrConfig(2, 1, 16, 0.1),
    ZengConfig(4, 1, 2, 16, "sinc"),
    LyuConfig(4, 1, 2, 16),
)


def test_every_kind_is_covered_here() -> None:
    assert {config.kind for config in CONFIGS} == set(kinds())


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
def test_description_survives_plain_data_and_a_checkpoint(config: Architecture, tmp_path: Path) -> None:
    assert config_from_dict(config.to_dict()) == config
    assert config.to_dict()["kind"] == config.kind
    network = build(config, seed=5)
    save_checkpoint(tmp_path / "network.safetensors", network, {"seed": 5})
    loaded = load_checkpoint(tmp_path / "network.safetensors")
    assert type(loaded.model) is type(network)
    assert loaded.model.config == config
    assert not loaded.model.training
    again = build(config, seed=5).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in loaded.model.state_dict().items())
    if config.kind == "minet":
        assert isinstance(loaded.minet, MINet)
    else:
        with pytest.raises(TrainingError, match=f"holds a network of kind '{config.kind}', expected a MINet"):
            _ = loaded.minet


def test_record_without_a_kind_is_of_a_minet() -> None:
    record = {"scale": 4, "stages": 3, "blocks": 2, "channels": 32, "affinity": "cosine", "skip": "sinc"}
    assert config_from_dict(record) == preset("small", 4)


def test_unknown_record_is_refused() -> None:
    with pytest.raises(TrainingError, match="kind 'unet', this SDK knows minet, edsr, zeng, lyu"):
        config_from_dict({"kind": "unet"})
    with pytest.raises(TrainingError, match="kind 'edsr', expected 'zeng'"):
        ZengConfig.from_dict(EdsrConfig().to_dict())
    with pytest.raises(TrainingError, match=r"unknown fields \['width'\]"):
        config_from_dict({"kind": "edsr", "width": 3})


def test_cost_is_what_the_sums_say() -> None:
    """The paper's network at x2: 647.3 GMAC of convolutions and 1.9 of F_Int, less the reference's own head."""
    paper = preset("paper", 2)
    found = cost(paper)
    pixels = 320 * 320
    head = 9 * 64 * pixels + 27 * 64 * pixels
    assert found.parameters == 6_481_626
    assert found.giga == pytest.approx(647.3 + 2 * 12**2 * 64 * pixels / 1e9 - head / 1e9, abs=0.06)
    attention = 6 * 6 * 2 * 64 * 4
    assert found.reference_multiplications == 9 * 64 * pixels + 6 * (13 * 9 * 64**2 * pixels) + attention
    assert cost(replace(paper, reference=False)).reference_multiplications == 0


def test_cost_of_a_single_contrast_network() -> None:
    """EDSR's baseline at x2: everything but the tail on the target's grid."""
    low, high = 160 * 160, 320 * 320
    expected = low * 9 * (64 + 33 * 64**2 + 4 * 64**2) + high * 9 * 64
    assert cost(EdsrConfig()).target_multiplications == expected
