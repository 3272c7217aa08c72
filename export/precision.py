"""Number formats of an exported graph: plain float32, or a smaller format with float32 where that would be wrong.

The types stand in the graph itself (TensorRT calls that strongly typed), so every engine computes in the same formats.
Float32 stay the graph's inputs and outputs, the Gram matrix and softmax of the integration, and the interpolated image.
"""

from collections.abc import Sequence
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from minet_sdk.bundle import Precision
from minet_sdk.errors import ExportError
from minet_sdk.export.onnx_names import OPSET

DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "int8": torch.float16,
    "fp8": torch.float16,
}
"""Format of features and weights outside the float32 islands; int8 and fp8 are float16 around the quantised layers."""

ELEMENT_TYPES: dict[Precision, int] = {
    "fp32": onnx.TensorProto.FLOAT,
    "fp16": onnx.TensorProto.FLOAT16,
    "bf16": onnx.TensorProto.BFLOAT16,
    "int8": onnx.TensorProto.FLOAT16,
    "fp8": onnx.TensorProto.FLOAT16,
}
"""The same as `DTYPES`, in ONNX's numbering."""

OPSETS: dict[Precision, int] = {"fp32": OPSET, "fp16": OPSET, "bf16": 22, "int8": 19, "fp8": 19}
"""The oldest that has the types: float16 scales and float8 came with 19, convolutions in bfloat16 with 22."""


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
    """While active, 16-bit convolutions are what tensor cores make of them: summed in float32, then rounded.

    With it a module cast by `cast_weights` runs in true float16 or bfloat16 on any CPU, as fast as float32. ONNX
    Runtime cannot show that there: it has no convolution in these formats and keeps float32 from one operator to the
    next.
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.conv2d and args[0].dtype in (torch.float16, torch.bfloat16):
            wide = [value.float() if isinstance(value, Tensor) else value for value in args]
            return func(*wide, **(kwargs or {})).to(args[0].dtype)
        return func(*args, **(kwargs or {}))
