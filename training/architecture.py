"""What every network's description has in common: magnification, guidance, and its plain record.

Checkpoints, manifests and the registry of methods hold such records; `training.network` builds networks from them.
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal, Self

from minet_sdk.errors import TrainingError

Skip = Literal["none", "sinc"]

SCALES = (2, 4)


@dataclass(frozen=True)
class Architecture:
    """Base of the descriptions; `kind` is the family's name in records."""

    kind: ClassVar[str]

    scale: int = 2
    """Magnification."""

    reference: bool = field(default=False, kw_only=True)
    """Whether a second contrast guides the network."""

    def __post_init__(self) -> None:
        """Refuse other scales."""
        if self.scale not in SCALES:
            raise TrainingError(f"scale is {self.scale}; the networks are defined for 2 and 4")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for checkpoints and manifests."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Inverse of `to_dict`; the kind may be missing.

        Raises:
            TrainingError: another kind, or an unknown field, as in a checkpoint of a newer version.
        """
        values = dict(data)
        if (kind := values.pop("kind", cls.kind)) != cls.kind:
            raise TrainingError(f"architecture is of kind {kind!r}, expected {cls.kind!r}")
        unknown = set(values) - {entry.name for entry in fields(cls)}
        if unknown:
            raise TrainingError(f"architecture has unknown fields {sorted(unknown)}: update minet-sdk")
        return cls(**values)

    def check_choices(self, **choices: tuple[object, ...]) -> None:
        """Refuse a field that is none of its choices.

        Raises:
            TrainingError: naming the field, what it holds and what it may hold.
        """
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                listed = ", ".join(str(choice) for choice in allowed)
                raise TrainingError(f"{name} is {getattr(self, name)!r}; choose one of {listed}")

    def check_at_least_one(self, *names: str) -> None:
        """Refuse numbers of layers or channels below 1.

        Raises:
            TrainingError: naming the fields.
        """
        small = {name: getattr(self, name) for name in names if getattr(self, name) < 1}
        if small:
            listed = ", ".join(f"{name} {value}" for name, value in small.items())
            raise TrainingError(f"{self.kind} has {listed}; must be at least 1")
