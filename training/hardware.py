"""Which number format this machine trains fast in."""

from minet_sdk.benchmark.machine import instruction_sets
from minet_sdk.requirements import require
from minet_sdk.training.settings import Precision

BF16_INSTRUCTIONS = frozenset(("avx512_bf16", "amx_bf16"))


def fast_precision(accelerator: str) -> Precision:
    """`bf16-mixed` where the processor or the GPU has instructions for it, else `32-true`.

    PyTorch takes bfloat16 on any processor, but without instructions for it a convolution lasts up to a hundred times
    longer than in float32.

    Args:
        accelerator: `cpu`, `gpu`, or `auto` for a GPU if there is one.
    """
    cuda = require("torch", "training").cuda
    if accelerator != "cpu" and cuda.is_available():
        return "bf16-mixed" if cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if BF16_INSTRUCTIONS & set(instruction_sets()) else "32-true"
