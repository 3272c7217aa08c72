"""A bundle's ONNX graphs as OpenVINO wants them, rewritten in memory: the files stay one set for all engines.

OpenVINO inlines no model-local functions, so the integration node is converted here. Its mixing is then folded into the
reduction behind it, which spares the mixed features, and what OpenVINO computes wrongly in 8 bits is kept from it.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minet_sdk.errors import BundleError
from minet_sdk.requirements import require

DOMAIN, OPERATOR = "minet", "MultiStageIntegration"
_MIXING, _MIXED = "minet_mixing", "minet_mixed"
_GRAM_FLOOR = 1e-12
"""Of a squared norm, as in the node's own body."""


def openvino() -> Any:
    """The package, whose import reports to nobody: see `minet_sdk.requirements`."""
    return require("openvino", "the openvino backend")


def cause(error: Exception) -> str:
    """OpenVINO puts places in its source first and what happened last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def read(path: Path) -> Any:
    """A graph of a bundle as an OpenVINO model, for any batch and size.

    Raises:
        BundleError: OpenVINO cannot read it.
    """
    # By name, because the core would try the readers of other formats too, and these write to stderr.
    reader = require("openvino.frontend", "the openvino backend").FrontEndManager().load_by_framework("onnx")
    extensions = require("openvino.frontend.onnx", "the openvino backend")
    reader.add_extension(extensions.ConversionExtension(OPERATOR, DOMAIN, _integration))
    try:
        return reader.convert(reader.load(os.fspath(path)))
    except Exception as error:
        # The readers' exceptions share no base class of their own.
        raise BundleError(f"{path} cannot be loaded by openvino: {cause(error)}") from error


def fold_mixing(model: Any) -> bool:
    """Give the reduction weights W A instead of mixed features A F, in place; one slice at a time.

    Returns:
        False if the graph has no integration, or its reduction has no plain weights: int8 rounds the mixed features.
    """
    ov, op = openvino(), _operators()
    named = {node.get_friendly_name(): node for node in model.get_ordered_ops()}
    if _MIXED not in named:
        return False
    behind = list(_users(next(_users(named[_MIXED]))))
    if [node.get_type_name() for node in behind] != ["Convolution"]:
        return False
    (reduction,) = behind
    weight = reduction.input_value(1)
    if weight.get_node().get_type_name() != "Constant":
        return False
    mixing, features = named[_MIXING], named[_MIXED].input_value(1).get_node().input_value(0)
    outputs, stages, kind = weight.get_shape()[0], mixing.get_output_partial_shape(0)[1].get_length(), ov.Type.f32
    by_stage = op.reshape(op.convert(weight, kind), np.array([outputs, stages, -1]), False)
    folded = op.reshape(op.matmul(mixing, by_stage, True, False), np.array(weight.get_shape()), False)
    reduction.input(0).replace_source_output(features)
    reduction.input(1).replace_source_output(op.convert(folded, weight.get_element_type()).output(0))
    model.validate_nodes_and_infer_types()
    return True


def widen_fusions(model: Any) -> int:
    """Give quantised convolutions of a concatenation their 8-bit weights as numbers, so that they run in float32.

    Their inputs stay rounded to 8 bits, so the values are those of the graph. OpenVINO 2026.4 makes 8-bit convolutions
    of them whose results are wrong: the bundled models come out at 32 dB from float32, with this at 53 dB. They are the
    1x1 fusions, a few percent of the work.

    Returns:
        How many there were.

    Raises:
        BundleError: weights that do not follow from constants alone.
    """
    ov, op = openvino(), _operators()
    count = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Convolution" or node.input_value(1).get_node().get_type_name() == "Constant":
            continue
        kinds = [source.get_type_name() for source in _sources(node)]
        if "FakeQuantize" in kinds and kinds[-1] == "Concat":
            weight = node.input_value(1)
            values = ov.Tensor(ov.Type.f32, weight.get_shape())
            if not ov.Model([op.convert(weight, ov.Type.f32)], [], "weight").evaluate([values], []):
                raise BundleError(f"openvino cannot read the 8-bit weights of {node.get_friendly_name()}: use fp32")
            constant = op.convert(op.constant(values.data.copy()), weight.get_element_type())
            node.input(1).replace_source_output(constant.output(0))
            count += 1
    model.validate_nodes_and_infer_types()
    return count


def _operators() -> Any:
    """The oldest set of operators that has all that is used here."""
    return require("openvino.opset13", "the openvino backend")


def _users(node: Any) -> Iterator[Any]:
    """The nodes that take a node's first output."""
    return (user.get_node() for user in node.output(0).get_target_inputs())


def _sources(node: Any) -> Iterator[Any]:
    """What stands before a node's first input, back to the first operator that does more than change numbers' form."""
    while True:
        node = node.input_value(0).get_node()
        yield node
        if node.get_type_name() not in ("Multiply", "Subtract", "Convert", "FakeQuantize"):
            return


def _integration(context: Any) -> list[Any]:
    """F_Int: H = A F, A = I + gain * softmax(energy), as `export.integration` writes it; A is float32 always."""
    ov, op = openvino(), _operators()
    features = context.get_input(0)
    kind, stages = features.get_element_type(), int(context.get_attribute("stages"))
    identity = op.constant(np.eye(stages, dtype=np.float32))
    flat = op.reshape(features, np.array([0, stages, -1]), True)
    exact = op.convert(flat, ov.Type.f32)
    gram = op.matmul(exact, exact, False, True)
    mode, last = context.get_attribute("mode"), np.array([-1])
    if mode == "cosine":
        norm = op.reduce_sum(op.multiply(gram, identity), last, True)
        norm = op.sqrt(op.maximum(norm, op.constant(np.float32(_GRAM_FLOOR))))
        cosine = op.divide(gram, op.multiply(norm, op.transpose(norm, np.array([0, 2, 1]))))
        energy = op.divide(cosine, op.constant(np.float32(context.get_attribute("temperature"))))
    elif mode == "released":
        energy = op.subtract(op.reduce_max(gram, last, True), gram)
    elif mode == "paper":
        energy = gram
    else:
        raise ValueError(f"the integration's mode is {mode!r}; expected paper, released or cosine")
    weights = op.multiply(op.constant(np.float32(context.get_attribute("gain"))), op.softmax(energy, -1))
    mixing = op.add(identity, weights)
    mixing.set_friendly_name(_MIXING)
    mixed = op.matmul(op.convert(mixing, kind), flat, False, False)
    mixed.set_friendly_name(_MIXED)
    return op.reshape(mixed, op.shape_of(features), False).outputs()
