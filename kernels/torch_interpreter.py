"""The integration kernels on CPU tensors through the PTX interpreter: the shipped instructions, without a GPU.

Slow (a thousandth of a GPU and less) and exact; for tests of everything that stands between a tensor and a kernel.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from minet_sdk.kernels import ptx
from minet_sdk.kernels.binaries import Target
from minet_sdk.kernels.emulation import module
from minet_sdk.kernels.launches import Launch


class InterpreterLauncher:
    """A `minet_sdk.kernels.torch_launch.Launcher` for the CPU.

    Args:
        target: whose PTX runs.
    """

    def __init__(self, target: Target = "sm80") -> None:
        self._module = module(target)

    def __call__(self, launch: Launch, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Run a launch to its end.

        Raises:
            PtxError: the kernel does something that a GPU would not survive, or leaves part of its output unwritten.
        """
        arguments = [
            *(ptx.In(memory(tensor)) for tensor in inputs),
            *launch.integers,
            *(ptx.Out(memory(tensor)) for tensor in outputs),
        ]
        ptx.launch(self._module[launch.entry], grid=launch.grid, block=launch.block, arguments=arguments)


def memory(tensor: Tensor) -> npt.NDArray[Any]:
    """A tensor's memory as a flat array that shares it, in the order in which it lies there; bfloat16 as uint16.

    Args:
        tensor: contiguous, or channels_last.
    """
    lying = tensor if tensor.is_contiguous() else tensor.permute(0, 2, 3, 1)
    flat = lying.detach().view(-1)
    return flat.view(torch.uint16).numpy() if tensor.dtype == torch.bfloat16 else np.asarray(flat.numpy())
