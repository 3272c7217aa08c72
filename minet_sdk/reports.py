"""What a runtime says of itself, and what `Runtime.prepare` gives; plain data."""

from dataclasses import asdict, dataclass
from typing import Any

from minet_sdk.conditioning import Judged
from minet_sdk.errors import InputError


@dataclass(frozen=True)
class RuntimeInfo:
    """What a runtime is."""

    model: str
    model_sha256: str
    scale: int
    needs_reference: bool
    precision: str
    backend: str
    provider: str
    device: str
    """``cpu`` or ``cuda``."""

    passed_over: dict[str, str]
    """Backends that `auto` preferred but could not take, with the reason."""

    consistency: str
    tiling: str
    """What happens to a slice that does not fit at once: ``exact`` or ``approximate`` tiles, or why it is refused."""

    max_memory: int | None
    """Bytes that one slice may take; None: no limit."""

    trust: str
    """Which references are used: those of a least trust, or any, and then why."""

    memory_known_by: str
    """Where the bytes that a slice takes come from: ``engine``, ``estimate``, or empty if neither can tell."""

    golden_error: float | None
    """Relative rms difference from the golden vector at load; None for a bare .onnx file, which has none."""

    warm_up_seconds: float
    peak_memory_mib: float | None
    """Highest resident memory of this process so far; None where the system does not tell (Windows)."""

    versions: dict[str, str]
    execution: dict[str, Any]
    """On a GPU: the device, the device layer, where each plan comes from, how often CUDA graphs were replayed."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def bytes_of(features: Any) -> int | None:
    """Memory of features in a backend's own form; None where it does not tell."""
    if isinstance(features, tuple):
        sizes = [bytes_of(part) for part in features]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None
    return getattr(features, "nbytes", None)


@dataclass(frozen=True)
class PreparedReference:
    """Features of a reference, made by `Runtime.prepare`, reusable for any number of targets."""

    shape: tuple[int, ...]
    """Shape of the reference, (H, W) or (slices, H, W)."""

    model_sha256: str
    backend: str
    features: tuple[Any, ...]
    """One entry a slice, in the backend's own form."""

    seen: tuple[Judged | None, ...]
    """Of each slice what its trust is judged by, see `Conditioning.see`; None where it is not judged."""

    @property
    def nbytes(self) -> int | None:
        """Memory that the features hold, on the host or on a device; None where the backend does not tell."""
        features = bytes_of(self.features)
        return None if features is None else features + sum(one.nbytes for one in self.seen if one is not None)

    def check_origin(self, model_sha256: str, backend: str) -> None:
        """Refuse features that another model or backend made.

        Raises:
            InputError: they are.
        """
        for kind, own, other in (("model", self.model_sha256, model_sha256), ("backend", self.backend, backend)):
            if own != other:
                raise InputError(f"the prepared reference comes from another {kind}: call prepare() of this runtime")
