"""The shipped kernels, for the device layer: the only place where this package reaches up to `minet_sdk.kernels`."""

from types import ModuleType


def ptx_for(compute_capability: tuple[int, int]) -> str:
    """PTX of the kernels for a GPU.

    Raises:
        BackendError: the GPU is too old, or the file is missing or damaged.
    """
    from minet_sdk.kernels import binaries

    return binaries.ptx(binaries.target_for(compute_capability))


def launches() -> ModuleType:
    """Launch parameters of the kernels."""
    from minet_sdk.kernels import launches

    return launches
