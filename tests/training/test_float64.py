"""The float64 network against the plain one that is made float64 by force, and against float32."""

import pytest
import torch

from minet_sdk.kernels.reference import Affinity
from minet_sdk.training.config import MinetConfig
from minet_sdk.training.float64 import in_float64
from minet_sdk.training.model import build


@pytest.mark.parametrize(("mode", "grid"), [("cosine", "restored"), ("paper", "target"), ("released", "restored")])
def test_every_part_is_float64(mode: Affinity, grid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"scale": 2, "stages": 2, "blocks": 1, "channels": 16, "affinity": mode, "skip": "sinc", "grid": grid}
    network = build(MinetConfig.from_dict(fields), seed=3).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.01
    generator = torch.Generator().manual_seed(4)
    target, reference = (torch.randn(1, 1, size, size, generator=generator) for size in (12, 24))
    exact = in_float64(network)
    with torch.inference_mode():
        single = network.restore(target, network.encode_reference(reference))
        found = exact.restore(target.double(), exact.encode_reference(reference.double()))
        monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
        forced = network.double()
        expected = forced.restore(target.double(), forced.encode_reference(reference.double()))
    assert found.dtype == torch.float64
    scale = expected.abs().max()
    assert (found - expected).abs().max() / scale < 1e-13
    assert 1e-9 < (single - expected).abs().max() / scale < 1e-4
