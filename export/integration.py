"""F_Int as one ONNX node: a plugin where the engine has one, a model-local function everywhere else.

The node stands in the domain `minet`; the function of the same name is its body in standard operators, which engines
without the plugin inline. Gram matrix and softmax are float32 whatever the features are.
"""

from typing import Any

import onnx
import onnx.parser
import torch
from torch import Tensor, nn

from minet_sdk.bundle import Precision
from minet_sdk.export.onnx_names import DOMAIN, DOMAIN_VERSION, OPERATOR, PLUGIN_VERSION, energy
from minet_sdk.export.precision import ELEMENT_TYPES, OPSETS
from minet_sdk.kernels.reference import Affinity
from minet_sdk.training.integration import MultiStageIntegration


def becomes_nodes() -> bool:
    """Whether the code that asks is being exported, and not run or compiled.

    Up to version 2.11, PyTorch's `is_exporting` is True for what `torch.compile` traces as well.
    """
    return torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()


class IntegrationNode(nn.Module):
    """`MultiStageIntegration` over features stacked along the channels; one node wherever it is exported."""

    def __init__(self, integration: MultiStageIntegration, stages: int) -> None:
        super().__init__()
        self.integration = integration
        self.attributes: dict[str, Any] = {
            "mode": integration.mode,
            "stages": stages,
            "temperature": integration.log_temperature.exp().item() if integration.mode == "cosine" else 1.0,
            "gain": integration.gain.item() if integration.mode == "released" else 1.0,
            "plugin_namespace": DOMAIN,
            "plugin_version": PLUGIN_VERSION,
        }

    def forward(self, features: Tensor) -> Tensor:
        """(N, M * C, H, W) -> (N, M * C, H, W), reference stages first."""
        if not becomes_nodes():
            stages = features.unflatten(1, (self.attributes["stages"], -1))
            return self.integration(stages).flatten(1, 2)
        return torch.onnx.ops.symbolic(
            f"{DOMAIN}::{OPERATOR}",
            (features,),
            self.attributes,
            dtype=features.dtype,
            shape=features.shape,
            version=DOMAIN_VERSION,
        )


def integration_function(mode: Affinity, stages: int, precision: Precision) -> onnx.FunctionProto:
    """The node's body: H = A F with A = I + gain * softmax(energy), as in `training.integration`.

    Args:
        mode: `paper`, `released` or `cosine`. ONNX functions cannot branch on an attribute, so each graph carries the
            body of its own mode, number of stages and precision.
        stages: M, how many features are stacked along the channels.
        precision: format of the features; one product A F follows in it.
    """
    identity = ", ".join("1" if row == column else "0" for row in range(stages) for column in range(stages))
    return onnx.parser.parse_function(f"""
        <domain: "{DOMAIN}", opset_import: ["": {OPSETS[precision]}]>
        {OPERATOR} <mode, stages, temperature, gain, plugin_namespace, plugin_version> (features) => (mixed) {{
            identity = Constant <value = float[{stages}, {stages}] {{{identity}}}> ()
            last = Constant <value = int64[1] {{-1}}> ()
            flat_shape = Constant <value = int64[3] {{0, {stages}, -1}}> ()
            shape = Shape (features)
            flat = Reshape (features, flat_shape)
            exact = Cast <to = {onnx.TensorProto.FLOAT}> (flat)
            exact_transposed = Transpose <perm = [0, 2, 1]> (exact)
            gram = MatMul (exact, exact_transposed)
            {energy(mode, "value_float: float = @temperature")}
            softmax = Softmax <axis = -1> (energy)
            gain = Constant <value_float: float = @gain> ()
            weights = Mul (gain, softmax)
            mixing = Add (identity, weights)
            mixing_typed = Cast <to = {ELEMENT_TYPES[precision]}> (mixing)
            mixed_flat = MatMul (mixing_typed, flat)
            mixed = Reshape (mixed_flat, shape)
        }}
    """)
