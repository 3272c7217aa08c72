"""One external-data file for all graphs of a bundle: every distinct weight stands in it once."""

import hashlib
from pathlib import Path

import onnx
from onnx.external_data_helper import set_external_data

WEIGHTS = "weights.bin"

_ALIGNMENT = 64
"""Bytes: a cache line, and what vector instructions ask for when the file is mapped."""

_WEIGHT_TYPES = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
    onnx.TensorProto.INT8,
    onnx.TensorProto.FLOAT8E4M3FN,
)


def content(tensor: onnx.TensorProto) -> bytes:
    """Bytes of a tensor that is not stored outside, as ONNX lays them out."""
    return tensor.raw_data if tensor.HasField("raw_data") else onnx.numpy_helper.to_array(tensor).tobytes()


class SharedWeights:
    """Collects the weights of several graphs.

    Only the types of weights move out: shapes and axes are int64 and must be readable without the weights.
    """

    def __init__(self) -> None:
        self._content = bytearray()
        self._offsets: dict[bytes, int] = {}

    def take_from(self, model: onnx.ModelProto) -> None:
        """Replace the weights of a graph, in place, by references into `WEIGHTS` beside it."""
        for tensor in model.graph.initializer:
            if tensor.data_type in _WEIGHT_TYPES:
                data = content(tensor)
                for field in ("raw_data", "float_data", "int32_data"):
                    tensor.ClearField(field)
                # onnx wants the field to be there, if empty, before it fills in the rest.
                tensor.raw_data = b""
                set_external_data(tensor, WEIGHTS, offset=self._place(data), length=len(data))
                tensor.ClearField("raw_data")

    def write(self, folder: Path) -> None:
        """Write the file."""
        (folder / WEIGHTS).write_bytes(self._content)

    def _place(self, data: bytes) -> int:
        """Offset of ``data``, appended if it is not there yet."""
        digest = hashlib.sha256(data).digest()
        if digest not in self._offsets:
            self._content.extend(bytes(-len(self._content) % _ALIGNMENT))
            self._offsets[digest] = len(self._content)
            self._content.extend(data)
        return self._offsets[digest]
