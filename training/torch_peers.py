"""MINet in PyTorch as a peer of the latency benchmark, and in float64 as the reference for everybody's accuracy."""

import importlib.util
import os
import time
from pathlib import Path
from typing import Any

from minet_sdk.benchmark.engines import Called, Task
from minet_sdk.benchmark.process import Peer
from minet_sdk.requirements import require

_MAKER = "minet_sdk.training.torch_peers:TorchEngine"

FORMS = {"eager": "PyTorch, eager", "channels-last": "PyTorch, channels_last", "compile": "PyTorch, torch.compile"}
"""Titles by name; all float32 in inference mode."""

FLOAT64 = "float64"


def torch_peers(checkpoint: Path | None) -> tuple[list[Peer], dict[str, str]]:
    """PyTorch in all its forms, and the reasons of those that are absent, by name.

    Args:
        checkpoint: that the bundle was exported from; None if it is not known.
    """
    absence = ""
    if importlib.util.find_spec("torch") is None:
        absence = "not installed: torch"
    elif checkpoint is None:
        absence = "the bundle's checkpoint is not known: give it with --checkpoint"
    if checkpoint is None or absence:
        return [], {f"torch-{form}": absence for form in FORMS}
    return [_peer(form, title, checkpoint) for form, title in FORMS.items()], {}


def float64_peer(checkpoint: Path) -> Peer:
    """The reference."""
    return _peer(FLOAT64, "PyTorch, float64", checkpoint)


def _peer(form: str, title: str, checkpoint: Path) -> Peer:
    return Peer(f"torch-{form}", title, _MAKER, {"form": form, "checkpoint": str(checkpoint.resolve())})


class TorchEngine:
    """The network as it was trained, without the head that only training needs."""

    def __init__(self, task: Task) -> None:
        self._form = task.options["form"]
        if self._form == "compile":
            # What was compiled is found again by the next process of the same benchmark.
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(task.work / "inductor")
        self._torch: Any = require("torch", "the PyTorch peer")
        from minet_sdk.training.checkpoint import load_checkpoint

        torch = self._torch
        if task.threads is not None:
            torch.set_num_threads(task.threads)
        network: Any = load_checkpoint(Path(task.options["checkpoint"])).model.eval()
        self._inputs: list[Any] = [torch.from_numpy(task.inputs.target)]
        if task.inputs.reference is not None:
            self._inputs.append(torch.from_numpy(task.inputs.reference))
        if self._form == FLOAT64:
            from minet_sdk.training.float64 import in_float64

            network = in_float64(network)
            self._inputs = [image.double() for image in self._inputs]
        if self._form == "channels-last":
            # The one convolution in three dimensions knows no such format.
            for layer in network.modules():
                if isinstance(layer, torch.nn.Conv2d):
                    layer.to(memory_format=torch.channels_last)
            self._inputs = [image.to(memory_format=torch.channels_last) for image in self._inputs]

        def restore(target: Any, reference: Any = None) -> Any:
            return network.restore(target, None if reference is None else network.encode_reference(reference))

        self._restore: Any = torch.compile(restore, dynamic=False) if self._form == "compile" else restore

    def describe(self) -> dict[str, Any]:
        """See `minet_sdk.benchmark.engines.Engine`."""
        return {"engine": f"torch {self._torch.__version__}", "threads": self._torch.get_num_threads()}

    def call(self) -> Called:
        """See `minet_sdk.benchmark.engines.Engine`."""
        with self._torch.inference_mode():
            started = time.perf_counter()
            restored = self._restore(*self._inputs)
            return Called({"whole": [time.perf_counter() - started]}, restored.numpy())
