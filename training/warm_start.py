"""Start a network from the weights of another checkpoint, as far as they fit, and say how far that is."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from minet_sdk.errors import TrainingError
from minet_sdk.training.checkpoint import load_checkpoint
from minet_sdk.training.layers import ResidualGroup
from minet_sdk.training.provenance import fingerprint


def initialise(network: nn.Module, path: Path) -> dict[str, Any]:
    """Copy the weights that have the same name and shape in both networks.

    A residual block that goes beyond those of the other network's group begins as the identity: a network that differs
    only in more blocks starts with the other's images.

    Args:
        network: changed in place.
        path: a checkpoint that `minet-sdk train` wrote, of the same or a related architecture.

    Returns:
        For the record: the file, how many tensors were taken, and which of the network's were not.

    Raises:
        TrainingError: no such checkpoint, or nothing in it fits.
    """
    source = load_checkpoint(path).model.state_dict()
    own = network.state_dict()
    fitting = {name: source[name] for name in own if name in source and source[name].shape == own[name].shape}
    if not fitting:
        raise TrainingError(f"{path}: no weight fits this network; initialise from a checkpoint of the same kind")
    network.load_state_dict(fitting, strict=False)
    for name, module in network.named_modules():
        if isinstance(module, ResidualGroup):
            _deepen(name, module, fitting)
    return {**fingerprint(path), "taken": len(fitting), "left_as_made": [name for name in own if name not in fitting]}


def _deepen(name: str, group: ResidualGroup, fitting: dict[str, Tensor]) -> None:
    """Let the blocks that have no weights in ``fitting`` begin as the identity, if others of the group have."""
    parameters = dict(group.blocks.named_parameters())
    new = [one for one in parameters if f"{name}.blocks.{one}" not in fitting]
    if len(new) < len(parameters):
        for parameter in (parameters[one] for one in new if ".second." in one):
            nn.init.zeros_(parameter)
