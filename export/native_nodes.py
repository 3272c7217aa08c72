"""A graph whose nodes are read one after the other: what a node is given, as images, constants and places of weights.

`native_translation` says what becomes of it.
"""

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import onnx

from minet_sdk.errors import ExportError
from minet_sdk.export.native_program import Tensor
from minet_sdk.export.weights import WEIGHTS


@dataclass(frozen=True)
class Stack:
    """Images in a row along an axis of their own, each as its channel parts."""

    images: tuple["Parts", ...]


@dataclass(frozen=True)
class Padded:
    """An image with its edge repeated, which only a convolution can take up."""

    image: Tensor
    before: int
    after: int


@dataclass(frozen=True)
class Mixed:
    """Stages times their mixing matrix, which only a convolution can take up."""

    stages: tuple[Tensor, ...]
    matrix: Tensor


Parts = tuple[Tensor, ...]
"""An image as images whose channels follow each other; a vector as itself alone."""

Value = Parts | Stack | Padded | Mixed


class NodeReader:
    """The inputs and settings of one node at a time; what does not fit it names."""

    def __init__(self, graph: onnx.GraphProto, weights: bytes, inputs: dict[str, Tensor]) -> None:
        self._graph = graph
        self._weights = weights
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._constants: dict[str, npt.NDArray[Any]] = {}
        self._values: dict[str, Value] = {name: (image,) for name, image in inputs.items()}
        self._node = onnx.NodeProto()

    def _refuse(self, why: str) -> NoReturn:
        node = self._node
        kind = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        raise ExportError(f"the native engine cannot run node {node.name or node.output[0]} ({kind}): {why}")

    def _attributes(self) -> dict[str, Any]:
        return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in self._node.attribute}

    def _value(self, index: int) -> Value:
        name = self._node.input[index]
        if name not in self._values:
            self._refuse(f"input {name} is no image")
        return self._values[name]

    def _parts(self, index: int) -> Parts:
        value = self._value(index)
        if not isinstance(value, tuple):
            self._refuse(f"input {self._node.input[index]} is no plain image")
        return value

    def _image(self, index: int) -> Tensor:
        parts = self._parts(index)
        if len(parts) != 1:
            self._refuse(f"input {self._node.input[index]} is several images")
        return parts[0]

    def _array(self, index: int) -> npt.NDArray[Any] | None:
        """A constant input's value; None if it is computed."""
        name = self._node.input[index]
        if name in self._constants:
            return self._constants[name]
        tensor = self._initializers.get(name)
        if tensor is None:
            return None
        if not tensor.external_data:
            return onnx.numpy_helper.to_array(tensor)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        count = int(np.prod(tensor.dims))
        return np.frombuffer(self._weights, dtype, count, self._offset(tensor)).reshape(tuple(tensor.dims))

    def _numbers(self, index: int) -> list[int]:
        array = self._array(index) if index < len(self._node.input) else None
        if array is None:
            self._refuse("its settings are computed, not constant")
        return [int(number) for number in np.ravel(array)]

    def _constant(self) -> npt.NDArray[Any]:
        attributes = self._attributes()
        if "value" in attributes:
            return onnx.numpy_helper.to_array(attributes["value"])
        return np.asarray(next(iter(attributes.values())))

    def _offset(self, tensor: onnx.TensorProto) -> int:
        """Where a weight stands in weights.bin."""
        fields = {entry.key: entry.value for entry in tensor.external_data}
        if fields.get("location") != WEIGHTS or tensor.data_type != onnx.TensorProto.FLOAT:
            self._refuse(f"its weight {tensor.name} is not float32 in {WEIGHTS}")
        return int(fields.get("offset", "0"))

    def _weight(self, index: int) -> onnx.TensorProto:
        tensor = self._initializers.get(self._node.input[index])
        if tensor is None:
            self._refuse("its weight is computed, not constant")
        return tensor
