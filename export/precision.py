"""Number formats of an exported graph: plain float32, or float16 with float32 where float16 would be wrong.

The types stand in the graph itself (TensorRT calls that strongly typed), so every engine computes in the same formats.
Float32 stay the graph's inputs and outputs, the Gram matrix and softmax of the integration, and the interpolated image.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from minet_sdk.bundle import Precision
from minet_sdk.errors import ExportError

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16}
"""Format of features and weights outside the float32 islands."""


def cast_weights(module: nn.Module, precision: Precision) -> None:
    """Convert all floating-point parameters and buffers in place.

    Raises:
        ExportError: values that are not finite in the new format; the message names all such tensors.
    """
    dtype = DTYPES[precision]
    tensors = [*module.named_parameters(), *module.named_buffers()]
    bad = [name for name, tensor in tensors if not bool(torch.isfinite(tensor.to(dtype)).all())]
    if bad:
        raise ExportError(
            f"weights {', '.join(bad)} have values that are not finite in {precision} "
            f"(largest {torch.finfo(dtype).max:g}): export with --precision fp32, or check the checkpoint"
        )
    module.to(dtype)


class TensorCoreConvolutions(TorchFunctionMode):
    """While active, float16 convolutions are what tensor cores make of them: summed in float32, then rounded.

    With it a module cast by `cast_weights` runs in true float16 on any CPU, as fast as float32. ONNX Runtime cannot
    show that there: it has no float16 convolution and keeps float32 from one operator to the next.
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.conv2d and args[0].dtype is torch.float16:
            wide = [value.float() if isinstance(value, Tensor) else value for value in args]
            return func(*wide, **(kwargs or {})).half()
        return func(*args, **(kwargs or {}))
