"""Checkpoints: what is written comes back, and what is no checkpoint is refused in one line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from minet_sdk.errors import TrainingError
from minet_sdk.training.checkpoint import load_checkpoint, save_checkpoint
from minet_sdk.training.config import MinetConfig
from minet_sdk.training.model import build

CONFIG = MinetConfig(stages=1, blocks=1, channels=16, affinity="cosine", skip="sinc")
RECORD = {"seed": 4, "curve": [{"step": 10, "gain_db": 1.5}]}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "network.safetensors"
    save_checkpoint(path, build(CONFIG, 4), RECORD)
    return path


def test_network_and_record_come_back(saved: Path) -> None:
    checkpoint = load_checkpoint(saved)
    assert checkpoint.model.config == CONFIG
    assert not checkpoint.model.training
    assert checkpoint.record == {**RECORD, "storage": "float32"}
    for name, tensor in build(CONFIG, 4).state_dict().items():
        assert torch.equal(checkpoint.model.state_dict()[name], tensor)
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_float16_storage_rounds_once_and_says_so(tmp_path: Path, saved: Path) -> None:
    path, again = tmp_path / "half.safetensors", tmp_path / "again.safetensors"
    save_checkpoint(path, build(CONFIG, 4), RECORD, "float16")
    checkpoint = load_checkpoint(path)
    assert checkpoint.record["storage"] == "float16"
    assert path.stat().st_size < 0.6 * saved.stat().st_size
    for name, tensor in build(CONFIG, 4).state_dict().items():
        got = checkpoint.model.state_dict()[name]
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, tensor, rtol=2**-11, atol=2**-25)
    save_checkpoint(again, checkpoint.model, checkpoint.record, "float16")
    first, second = load_file(path), load_file(again)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path: Path, saved: Path) -> None:
    text = tmp_path / "text.safetensors"
    text.write_text("weights\nmore weights\n")
    empty = tmp_path / "empty.safetensors"
    empty.touch()
    truncated = tmp_path / "truncated.safetensors"
    truncated.write_bytes(saved.read_bytes()[:-100])
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, foreign, metadata={"format": "pt"})
    other = tmp_path / "other.safetensors"
    wide = json.dumps({"architecture": replace(CONFIG, channels=32).to_dict(), "record": {}})
    save_file(load_file(saved), other, metadata={"minet": wide})
    newer = tmp_path / "newer.safetensors"
    unknown = json.dumps({"architecture": {**CONFIG.to_dict(), "depth": 3}, "record": {}})
    save_file(load_file(saved), newer, metadata={"minet": unknown})
    incomplete = tmp_path / "incomplete.safetensors"
    save_file(load_file(saved), incomplete, metadata={"minet": "{}"})
    bad = {
        tmp_path / "missing.safetensors": "no such checkpoint",
        tmp_path: "no such checkpoint",
        text: "not a minet-sdk checkpoint",
        empty: "not a minet-sdk checkpoint",
        truncated: "not a minet-sdk checkpoint",
        foreign: "not a minet-sdk checkpoint",
        incomplete: "not a minet-sdk checkpoint",
        other: "weights do not fit",
        newer: "unknown fields",
    }
    for path, message in bad.items():
        with pytest.raises(TrainingError, match=message) as caught:
            load_checkpoint(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


def test_a_failed_save_keeps_the_last_checkpoint(saved: Path) -> None:
    before = saved.read_bytes()
    with pytest.raises(TypeError):
        save_checkpoint(saved, build(CONFIG, 5), {"path": Path("not plain data")})
    assert saved.read_bytes() == before
