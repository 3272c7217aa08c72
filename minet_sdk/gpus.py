"""What a GPU can do, as far as a plan depends on it: compute capability, precision, driver."""

from collections.abc import Iterable
from dataclasses import dataclass

from minet_sdk.bundle import Precision
from minet_sdk.errors import InputError

Capability = tuple[int, int]
"""Compute capability of a GPU: major, minor."""

LEAST_CAPABILITY: dict[Precision, Capability] = {
    "fp32": (7, 5),
    "fp16": (7, 5),
    "bf16": (8, 0),
    "int8": (7, 5),
    "fp8": (8, 9),
}
"""The oldest GPUs whose arithmetic has each precision."""


@dataclass(frozen=True)
class Gpu:
    """The GPU that a plan is wanted for."""

    name: str
    compute_capability: Capability
    driver: str
    """Newest CUDA version that its driver supports, such as ``13.0``."""

    @property
    def label(self) -> str:
        """As it stands in the key of a plan that was built on it."""
        return f"{self.name}, compute capability {format_capability(self.compute_capability)}"


def format_capability(capability: Capability) -> str:
    """``8.9``."""
    return f"{capability[0]}.{capability[1]}"


def parse_capability(text: str) -> Capability:
    """Inverse of `format_capability`.

    Raises:
        InputError: not two numbers with a dot between them.
    """
    major, dot, minor = text.partition(".")
    if not dot or not (major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit()):
        raise InputError(f"compute capability is {text!r}; give major.minor, such as 8.9")
    return int(major), int(minor)


def lacks_precision(precision: Precision, capabilities: Iterable[Capability]) -> str:
    """Why GPUs of these capabilities cannot compute in the precision; empty if all can."""
    least = LEAST_CAPABILITY[precision]
    old = [format_capability(capability) for capability in sorted(capabilities) if capability < least]
    if not old:
        return ""
    return f"{precision} needs compute capability {format_capability(least)} or newer, not {', '.join(old)}"
