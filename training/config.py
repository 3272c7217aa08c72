"""What a MINet looks like, as data, and the named ones."""

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from minet_sdk.errors import TrainingError
from minet_sdk.kernels.reference import Affinity
from minet_sdk.training.architecture import SCALES, Architecture, Skip

Integration = Literal["affinity", "reduction", "none"]
Grid = Literal["restored", "target"]


@dataclass(frozen=True)
class MinetConfig(Architecture):
    """Architecture of one MINet. The defaults are the paper's (Feng et al., MICCAI 2021)."""

    kind = "minet"

    stages: int = 6
    """L, residual groups per branch."""

    blocks: int = 6
    """B, residual channel-attention blocks per group."""

    channels: int = 64
    """C; a multiple of 16, which every fast kernel wants."""

    affinity: Affinity = "paper"
    reference: bool = field(default=True, kw_only=True)
    """False removes the reference branch, its fusions and its loss: a single-contrast network."""

    integration: Integration = "affinity"
    """`affinity` is F_Int (eq. 7-8); `reduction` keeps only its 3x3 convolution; `none` drops H altogether."""

    attention: bool = True
    """F_Att, the channel-spatial attention of eq. 4."""

    skip: Skip = "none"
    """`sinc` adds the windowed-sinc interpolation of the target to eq. 5, so that the network learns only detail."""

    grid: Grid = "restored"
    """Where the stages run. `target`: on the low-resolution grid, the reference's pixels folded into channels and the
    image unfolded at the end; scale^2 times less work at equal width."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        super().__post_init__()
        if min(self.stages, self.blocks) < 1 or self.channels < 16 or self.channels % 16:
            raise TrainingError(
                f"stages {self.stages}, blocks {self.blocks}, channels {self.channels}: "
                "stages and blocks must be at least 1, channels a multiple of 16"
            )
        self.check_choices(
            affinity=get_args(Affinity), integration=get_args(Integration), skip=get_args(Skip), grid=get_args(Grid)
        )

    @property
    def stage_features(self) -> int:
        """How many stage outputs the integration weighs against each other: 2L, or L without a reference."""
        return 2 * self.stages if self.reference else self.stages


_FAST = {
    2: MinetConfig(2, 3, 2, 32, "cosine", skip="sinc", grid="target"),
    4: MinetConfig(4, 3, 2, 64, "cosine", skip="sinc", grid="target"),
}

PRESETS: dict[str, dict[int, MinetConfig]] = {
    "paper": {scale: MinetConfig(scale=scale) for scale in SCALES},
    "small": {scale: MinetConfig(scale, 3, 2, 32, "cosine", skip="sinc") for scale in SCALES},
    "fast": _FAST,
    "deep": {scale: replace(config, blocks=4) for scale, config in _FAST.items()},
}
"""Named architectures by scale. `fast` has four times fewer multiplications than `small`; at x4, where the grid alone
saves sixteen times, it is twice as wide. `deep` is `fast` with twice the blocks, and can begin with its weights."""


def preset(name: str, scale: int) -> MinetConfig:
    """A named architecture for a scale.

    Raises:
        TrainingError: no such name, or a scale that MINet is not defined for.
    """
    if name not in PRESETS:
        raise TrainingError(f"preset is {name!r}; choose one of {', '.join(PRESETS)}")
    if scale not in SCALES:
        raise TrainingError(f"scale is {scale}; MINet is defined for 2 and 4")
    return PRESETS[name][scale]
