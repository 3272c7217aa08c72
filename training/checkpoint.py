"""A trained network as one file: weights and everything that made them, in safetensors.

The metadata field ``minet`` is JSON: the architecture and the training record. Values may be stored as float16, which
the record then says; they are float32 in memory.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from minet_sdk.atomic import replacing
from minet_sdk.errors import TrainingError
from minet_sdk.requirements import require
from minet_sdk.training.model import MINet
from minet_sdk.training.network import Network, build, config_from_dict

Storage = Literal["float32", "float16"]


@dataclass(frozen=True)
class Checkpoint:
    """A network and where it comes from."""

    model: Network
    record: dict[str, Any]
    """Command, settings, seed, data, commit, versions, validation curve."""

    @property
    def minet(self) -> MINet:
        """The network, for what only a MINet has.

        Raises:
            TrainingError: it is of another kind.
        """
        if not isinstance(self.model, MINet):
            raise TrainingError(f"the checkpoint holds a network of kind {self.model.config.kind!r}, expected a MINet")
        return self.model


def save_checkpoint(path: Path, model: Network, record: dict[str, Any], storage: Storage = "float32") -> None:
    """Write a checkpoint under a temporary name, then rename it.

    Args:
        path: ends in ``.safetensors``.
        model: a network of any kind.
        record: plain data that tells how it was trained.
        storage: number format of the weights in the file.
    """
    save_file = require("safetensors.torch", "saving a checkpoint").save_file
    dtype = getattr(torch, storage)
    tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in model.state_dict().items()}
    content = json.dumps({"architecture": model.config.to_dict(), "record": {**record, "storage": storage}})
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"minet": content})
        temporary.chmod(0o644)  # safetensors makes files that nobody else may read


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint that `save_checkpoint` wrote.

    Raises:
        TrainingError: no such file, not a checkpoint of this project, or weights that do not fit the architecture.
    """
    if not path.is_file():
        raise TrainingError(f"{path}: no such checkpoint; `minet-sdk train` writes one as best.safetensors")
    safetensors = require("safetensors", "reading a checkpoint")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            content = json.loads((file.metadata() or {})["minet"])
            architecture, record = content["architecture"], content["record"]
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - not a dict
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise TrainingError(f"{path}: not a minet-sdk checkpoint ({error}); expected a .safetensors file") from error
    try:
        model = build(config_from_dict(architecture))
        model.load_state_dict(tensors)
    except TrainingError as error:
        raise TrainingError(f"{path}: {error}") from error
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise TrainingError(f"{path}: weights do not fit the architecture they name: {reason}") from error
    return Checkpoint(model.eval(), record)
