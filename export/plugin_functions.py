"""What each plugin computes, as an ONNX function of standard operators: its body in every engine without the plugin."""

import onnx
import onnx.parser

from minet_sdk.export.onnx_names import DOMAIN, OPSET, energy
from minet_sdk.kernels.launches import SPLITS
from minet_sdk.kernels.plugin_operators import (
    FOLD_WEIGHTS,
    MIX_STAGES,
    MIX_STAGES_SEPARATE,
    STAGE_AFFINITY,
    STAGE_GRAM,
    STAGE_GRAM_SEPARATE,
    Operator,
    Settings,
)


def function_of(operator: Operator, settings: Settings, opset: int = OPSET) -> onnx.FunctionProto:
    """The body of a plugin in standard operators.

    Args:
        operator: which plugin.
        settings: of one graph; its numbers stand in the body.
        opset: of that graph.
    """
    stages = settings.stages
    identity = ", ".join("1" if row == column else "0" for row in range(stages) for column in range(stages))
    names = [name for name, _ in operator.inputs]
    stack = f"features = Concat <axis = 1> ({', '.join(names[:stages])})"
    gram = f"""
        batch_axis_kept = Constant <value = int64[3] {{0, {stages}, -1}}> ()
        flat = Reshape (features, batch_axis_kept)
        exact = Cast <to = {onnx.TensorProto.FLOAT}> (flat)
        transposed = Transpose <perm = [0, 2, 1]> (exact)
        product = MatMul (exact, transposed)
        splits = Constant <value = int64[1] {{1}}> ()
        whole = Unsqueeze (product, splits)
        other_splits = Constant <value = int64[8] {{0, 0, 0, 0, 0, {SPLITS - 1}, 0, 0}}> ()
        partials = Pad (whole, other_splits)
    """
    mix = f"""
        batch_axis_kept = Constant <value = int64[3] {{0, {stages}, -1}}> ()
        shape = Shape (features)
        flat = Reshape (features, batch_axis_kept)
        typed = CastLike (mixing, features)
        mixed_flat = MatMul (typed, flat)
        mixed = Reshape (mixed_flat, shape)
    """
    bodies = {
        STAGE_GRAM: ("partials", gram),
        STAGE_GRAM_SEPARATE: ("partials", stack + gram),
        # Zero times infinity is NaN: one Gram entry that is not finite spoils its whole sample, as in the kernel.
        STAGE_AFFINITY: (
            "mixing",
            f"""
                identity = Constant <value = float[{stages}, {stages}] {{{identity}}}> ()
                last = Constant <value = int64[1] {{-1}}> ()
                splits = Constant <value = int64[1] {{1}}> ()
                gram = ReduceSum <keepdims = 0> (partials, splits)
                {energy(settings.mode, f"value = float {{{settings.temperature}}}")}
                softmax = Softmax <axis = -1> (energy)
                gain = Constant <value = float {{{settings.gain}}}> ()
                weights = Mul (gain, softmax)
                finite_mixing = Add (identity, weights)
                zero = Constant <value = float {{0.0}}> ()
                zeros = Mul (gram, zero)
                matrix_axes = Constant <value = int64[2] {{1, 2}}> ()
                zero_or_nan = ReduceSum (zeros, matrix_axes)
                mixing = Add (finite_mixing, zero_or_nan)
            """,
        ),
        # Reshaping A to one matrix is what refuses a batch.
        FOLD_WEIGHTS: (
            "folded",
            f"""
                one_matrix = Constant <value = int64[2] {{{stages}, {stages}}}> ()
                matrix = Reshape (mixing, one_matrix)
                transposed = Transpose <perm = [1, 0]> (matrix)
                outputs_kept = Constant <value = int64[3] {{0, {stages}, -1}}> ()
                by_stage = Reshape (weight, outputs_kept)
                exact = Cast <to = {onnx.TensorProto.FLOAT}> (by_stage)
                product = MatMul (transposed, exact)
                typed = CastLike (product, weight)
                shape = Shape (weight)
                folded = Reshape (typed, shape)
            """,
        ),
        MIX_STAGES: ("mixed", mix),
        MIX_STAGES_SEPARATE: ("mixed", stack + mix),
    }
    output, body = bodies[operator]
    attributes = ", ".join((*operator.settings, "plugin_namespace", "plugin_version", "aot"))
    return onnx.parser.parse_function(f"""
        <domain: "{DOMAIN}", opset_import: ["": {opset}]>
        {operator.name} <{attributes}> ({", ".join(names)}) => ({output}) {{ {body} }}
    """)
