"""The integration's ONNX operator: its names, and the part of its body that other operators share. Needs no PyTorch."""

from minet_sdk.kernels.launches import Mode
from minet_sdk.kernels.plugin_operators import NAMESPACE, VERSION
from minet_sdk.kernels.reference import GRAM_FLOOR

DOMAIN = NAMESPACE
OPERATOR = "MultiStageIntegration"
DOMAIN_VERSION = 1
PLUGIN_VERSION = VERSION
OPSET = 18
"""The oldest that PyTorch's exporter writes as it is; TensorRT 8.6 and ONNX Runtime 1.14 read it already."""


def energy(mode: Mode, temperature: str) -> str:
    """The affinity before its softmax, in ONNX's text form.

    Args:
        mode: which affinity.
        temperature: attribute of the Constant that holds the temperature.

    Returns:
        Nodes from `gram`, float32 (N, M, M), `identity` and `last`, the index of the last axis, to `energy`.
    """
    return {
        "paper": "energy = Identity (gram)",
        "released": """
            top = ReduceMax (gram, last)
            energy = Sub (top, gram)
        """,
        "cosine": f"""
            diagonal = Mul (gram, identity)
            squared_norm = ReduceSum (diagonal, last)
            floor = Constant <value = float[1] {{{GRAM_FLOOR}}}> ()
            clamped_norm = Max (squared_norm, floor)
            norm = Sqrt (clamped_norm)
            norm_transposed = Transpose <perm = [0, 2, 1]> (norm)
            norms = Mul (norm, norm_transposed)
            cosine = Div (gram, norms)
            temperature = Constant <{temperature}> ()
            energy = Div (cosine, temperature)
        """,
    }[mode]
