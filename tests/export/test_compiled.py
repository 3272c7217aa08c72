"""The modules behind the graphs, compiled by PyTorch: the same network, whatever a version calls exporting."""

from collections.abc import Callable

import pytest
import torch

from minet_sdk.export.graphs import ModelGraph
from minet_sdk.training.model import MINet


@pytest.mark.parametrize("says_exporting", [False, True])
def test_a_compiled_graph_is_the_network(
    small_network: Callable[..., MINet], monkeypatch: pytest.MonkeyPatch, says_exporting: bool
) -> None:
    """Up to PyTorch 2.11 `is_exporting` is True in what `torch.compile` traces; then ONNX nodes would stand there."""
    graph = ModelGraph(small_network(grid="target"), "fp32").eval()
    generator = torch.Generator().manual_seed(0)
    target, reference = (torch.randn((1, 1, side, side), generator=generator) for side in (16, 32))
    with torch.no_grad():
        expected = graph(target, reference)
        torch.compiler.reset()
        compiled = torch.compile(graph, backend="aot_eager", dynamic=False)
        # The call traces.
        monkeypatch.setattr(torch.compiler, "_is_exporting_flag", says_exporting)
        found = compiled(target, reference)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
