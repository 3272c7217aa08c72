"""The native engine's program: tensors, operations with fused epilogues, and the flat file that holds them.

Weights are places in the bundle's weights.bin. The C++ side of the file is `kernels/native/src/plan.h`.
"""

import struct
import zlib
from dataclasses import dataclass, field
from enum import IntEnum

from minet_sdk.errors import ExportError

FORMAT = 1
PANEL = 16
"""Channels of a vector: Winograd and 1x1 convolutions want multiples of it."""

MOST_RESIDUALS = 4

_MAGIC = b"MINETPLN"
_NONE = 0xFFFFFFFF
_NO_BIAS = 0xFFFFFFFFFFFFFFFF
_HEADER = struct.Struct("<8s10IQ")
_CHECKED_FROM = 16
_TENSOR = struct.Struct("<3I")
_OPERATION = struct.Struct("<2If15I4xI2f4I2Q")


class Kind(IntEnum):
    """What a tensor is."""

    IMAGE = 0
    VECTOR = 1
    MATRIX = 2


class Code(IntEnum):
    """What an operation does."""

    CONVOLUTION3 = 0
    CONVOLUTION1 = 1
    DIRECT = 2
    DENSE = 3
    POINTWISE = 4
    POOL = 5
    SHUFFLE = 6
    UNSHUFFLE = 7
    GRAM = 8
    AFFINITY = 9


class Activation(IntEnum):
    """What a convolution's result passes through first."""

    NONE = 0
    RELU = 1
    SIGMOID = 2


MODES = ("paper", "released", "cosine")
"""Affinity modes in the order of their numbers."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value of the program; two are the same only if they are one object."""

    kind: Kind
    channels: int
    """Of an image or a vector; rows of a matrix."""

    multiple: int = 1
    """Height and width of an image, in those of the target."""


@dataclass(frozen=True)
class Weight:
    """A convolution's weight (outputs, inputs, kernel, kernel) in weights.bin, or some inputs of it."""

    offset: int
    """Bytes."""

    inputs: int
    """That the whole weight has."""

    first: int = 0
    """The first input that is used."""


@dataclass(eq=False)
class Operation:
    """One step: activation(kernel(inputs) + bias) * alpha [* gate] [+ residuals], pooled before the gate."""

    code: Code
    inputs: list[Tensor]
    output: Tensor
    name: str = ""
    """Of the graph's node, for errors."""

    activation: Activation = Activation.NONE
    alpha: float = 1.0
    kernel: int = 1
    """Rows and columns of a direct convolution, or the factor of a shuffle."""

    before: int = 0
    """Rows of padding above, as many columns to the left; the rest of kernel - 1 lies on the other side."""

    repeat_edge: bool = False
    shuffle: int = 1
    """Pixel shuffle of a convolution's result."""

    outputs: int = 0
    """Of a convolution, before the shuffle."""

    weight: Weight | None = None
    bias: int | None = None
    """Place in weights.bin, bytes."""

    residuals: list[Tensor] = field(default_factory=list[Tensor])
    gate: Tensor | None = None
    """An image of the output's shape, or a vector with one factor for each channel."""

    pooled: Tensor | None = None
    """Vector that receives the mean over the pixels."""

    mixing: Tensor | None = None
    """Matrix A: the convolution is of A F instead of its inputs F."""

    known: Tensor | None = None
    """Gram matrix of the first inputs of a Gram matrix."""

    scale: Tensor | None = None
    """Vector: a 3x3 convolution is of input * scale + added instead of its input."""

    added: Tensor | None = None
    sum: Tensor | None = None
    """Image that receives input * scale + added; None if nothing else reads it."""

    mode: str = "paper"
    temperature: float = 1.0
    gain: float = 1.0

    def uses(self) -> list[Tensor]:
        """Every tensor that is read."""
        single = (self.gate, self.mixing, self.known, self.scale, self.added)
        return [*self.inputs, *self.residuals, *(tensor for tensor in single if tensor is not None)]

    def makes(self) -> list[Tensor]:
        """Every tensor that is written."""
        return [tensor for tensor in (self.output, self.pooled, self.sum) if tensor is not None]


@dataclass
class Program:
    """Operations in order, from the target (and a reference) to the restored image."""

    scale: int
    target: Tensor
    reference: Tensor | None
    restored: Tensor
    operations: list[Operation]

    def to_bytes(self, weights: bytes) -> bytes:
        """The file's content.

        Args:
            weights: content of weights.bin.

        Raises:
            ExportError: an operation uses a tensor that none before it makes.
        """
        numbers = self._numbers()
        items: list[int] = []
        operations = b"".join(_operation_bytes(operation, numbers, items) for operation in self.operations)
        tensors = b"".join(_TENSOR.pack(t.kind, t.channels, t.multiple) for t in numbers)
        body = tensors + operations + struct.pack(f"<{len(items)}I", *items)
        fields = (
            self.scale,
            numbers[self.target],
            _NONE if self.reference is None else numbers[self.reference],
            numbers[self.restored],
            len(numbers),
            len(self.operations),
            len(items),
            zlib.crc32(weights),
            len(weights),
        )
        checked = _HEADER.pack(_MAGIC, FORMAT, 0, *fields)[_CHECKED_FROM:] + body
        return struct.pack("<8s2I", _MAGIC, FORMAT, zlib.crc32(checked)) + checked

    def _numbers(self) -> dict[Tensor, int]:
        """Every tensor's place in the file, in the order in which they are made."""
        numbers: dict[Tensor, int] = {self.target: 0}
        if self.reference is not None:
            numbers[self.reference] = 1
        for operation in self.operations:
            missing = [tensor for tensor in operation.uses() if tensor not in numbers]
            if missing:
                raise ExportError(
                    f"the native program uses a value in {operation.name or operation.code.name} too early"
                )
            for tensor in operation.makes():
                numbers[tensor] = len(numbers)
        if self.restored not in numbers:
            raise ExportError("the native program never makes its restored image")
        return numbers


def _operation_bytes(operation: Operation, numbers: dict[Tensor, int], items: list[int]) -> bytes:
    """One record; its lists go to the end of ``items``."""

    def number(tensor: Tensor | None) -> int:
        return _NONE if tensor is None else numbers[tensor]

    first_input = len(items)
    items.extend(numbers[tensor] for tensor in operation.inputs)
    first_residual = len(items)
    items.extend(numbers[tensor] for tensor in operation.residuals)
    weight = operation.weight or Weight(0, 0)
    return _OPERATION.pack(
        operation.code,
        operation.activation,
        operation.alpha,
        operation.kernel,
        operation.before,
        operation.repeat_edge,
        operation.shuffle,
        weight.inputs,
        weight.first,
        operation.outputs,
        numbers[operation.output],
        number(operation.pooled),
        number(operation.gate),
        number(operation.mixing),
        number(operation.known),
        number(operation.scale),
        number(operation.added),
        number(operation.sum),
        MODES.index(operation.mode),
        operation.temperature,
        operation.gain,
        first_input,
        len(operation.inputs),
        first_residual,
        len(operation.residuals),
        weight.offset,
        _NO_BIAS if operation.bias is None else operation.bias,
    )
