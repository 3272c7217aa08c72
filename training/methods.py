"""The compared methods as pure data: every row of the paper's tables and what goes beyond, in their order.

Command line, training, evaluation, export and tests read this one registry. A method is a network with its objective
and recipe, or an interpolation. It comes in two sizes: as published, and matched to the parameters of MINet `small`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from minet_sdk.errors import TrainingError
from minet_sdk.training.architecture import SCALES
from minet_sdk.training.config import preset

if TYPE_CHECKING:
    from minet_sdk.training.architecture import Architecture

Size = Literal["matched", "published"]
Trained = Literal["never", "once", "per volume"]
Records = Mapping[int, Mapping[str, Any]]
"""Architectures by scale, as `Architecture.to_dict` gives them; fields that are left out have their defaults."""


@dataclass(frozen=True)
class Method:
    """One row of the tables."""

    name: str
    title: str
    """As the tables show it."""

    guided: bool
    """Whether it takes a reference."""

    source: str
    adapted: str = ""
    """What differs from the publication; empty if nothing that is known of it does."""

    trained: Trained = "once"
    """`never` for interpolations, `per volume` for what learns from the volume that it restores."""

    matched: Records = field(default_factory=dict[int, Mapping[str, Any]])
    """The architectures of the comparison; empty for interpolations."""

    published: Records = field(default_factory=dict[int, Mapping[str, Any]])
    objective: str = ""
    """One of `objectives.OBJECTIVES`; empty for interpolations."""

    recipe: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Training settings of the publication; a comparison under one recipe leaves them aside."""

    changes: Mapping[str, Any] | None = None
    """Of MINet and its variants: the fields in which they differ from any preset. None for other networks."""

    def config(self, scale: int, size: Size = "matched") -> "Architecture":
        """The network's description. Needs PyTorch.

        Args:
            scale: magnification.
            size: as published, or as in the comparison.

        Raises:
            TrainingError: the method has no network, or not of this scale or size.
        """
        from minet_sdk.training.network import config_from_dict

        if size not in get_args(Size):
            raise TrainingError(f"size is {size!r}; choose one of {', '.join(get_args(Size))}")
        records = self.matched if size == "matched" else self.published
        if not records:
            raise TrainingError(f"{self.name} is an interpolation: it has no network")
        if scale not in records:
            raise TrainingError(f"scale is {scale}; {self.name} is defined for {' and '.join(map(str, records))}")
        return config_from_dict(records[scale])


def find_method(name: str) -> Method:
    """A method by name.

    Raises:
        TrainingError: there is none; the message lists all.
    """
    if name not in METHODS:
        raise TrainingError(f"method is {name!r}; choose one of {', '.join(METHODS)}")
    return METHODS[name]


def _minet(name: str, **changes: object) -> Records:
    """A preset of MINet at both scales."""
    return {scale: {**preset(name, scale).to_dict(), **changes} for scale in SCALES}


def _records(kind: str, at_x2: Mapping[str, int], at_x4: Mapping[str, int] | None = None, **common: object) -> Records:
    """One kind of network at both scales."""
    return {
        scale: {"kind": kind, "scale": scale, **common, **sizes} for scale, sizes in ((2, at_x2), (4, at_x4 or at_x2))
    }


_FENG = "Feng et al., MICCAI 2021"
_LIM = "Lim et al., CVPR Workshops 2017"
_ZHAO = "Zhao et al., IEEE Transactions on Medical Imaging 2021"
_ZENG = "Zeng et al., Computers in Biology and Medicine 2018"
_LYU = "Lyu et al., IEEE Transactions on Medical Imaging 2020"

_ONE_CHANNEL = "one channel, normalised, so no RGB mean shift"
_MATCHED = "the matched size adds the sinc skip that MINet `small` has"
_LYU_NETWORK = (
    "levels, encoders, fusion of features and decoder as described; depths and widths are ours, as are residual blocks "
    f"and sub-pixel upsampling; the first level's reference is low-passed on the FFT grid; {_MATCHED}"
)
_MINET_SMALL = "the matched size is preset `small`: cosine affinity, sinc skip"
_MINET_RECIPE = {
    "learning_rate": 1e-5,
    "schedule": "constant",
    "epochs": 50,
    "objective_settings": {"target_weight": 0.3},
}

_LYU_MATCHED = _records(
    "lyu",
    {"encoder_blocks": 5, "decoder_blocks": 8},
    {"encoder_blocks": 2, "decoder_blocks": 4},
    channels=32,
    skip="sinc",
)
_LYU_PUBLISHED = _records("lyu", {"encoder_blocks": 4, "decoder_blocks": 4}, channels=64)


def _variant(name: str, title: str, source: str = _FENG, adapted: str = _MINET_SMALL, **changes: object) -> Method:
    """MINet with some of its fields changed, in both sizes."""
    guided = bool(changes.get("reference", True))
    return Method(
        name, title, guided, source, adapted, "once", _minet("small", **changes), _minet("paper", **changes), "eq6",
        _MINET_RECIPE, changes,
    )  # fmt: skip


_ROWS = (
    Method("bicubic", "Bicubic", False, "Keys 1981", "on the FFT grid", "never"),
    Method("zero-filled", "Zero-filled k-space", False, "sinc interpolation", trained="never"),
    Method(
        "edsr", "EDSR", False, _LIM, f"{_ONE_CHANNEL}; {_MATCHED}", "once",
        _records("edsr", {"blocks": 7}, {"blocks": 6}, channels=48, skip="sinc"),
        _records("edsr", {"blocks": 16}, channels=64),
        "l1", {"learning_rate": 1e-4},
    ),
    Method(
        "edsr-large", "EDSR, large", False, _LIM,
        f"{_ONE_CHANNEL}; at matched parameters it cannot be wide: deep and narrow with the large network's residual "
        f"scaling; {_MATCHED}", "once",
        _records("edsr", {"blocks": 18}, channels=32, residual_scaling=0.1, skip="sinc"),
        _records("edsr", {"blocks": 32}, channels=256, residual_scaling=0.1),
        "l1", {"learning_rate": 1e-4},
    ),
    Method(
        "smore-2d", "SMORE-2D (adapted)", False, _ZHAO,
        "SMORE restores through-plane resolution from in-plane patches; here a network learns in-plane from each "
        "volume itself, from (low resolution degraded again, low resolution); there is no anti-aliasing step; "
        f"{_MATCHED}", "per volume",
        _records("edsr", {"blocks": 7}, {"blocks": 6}, channels=48, skip="sinc"),
        _records("edsr", {"blocks": 32}, channels=256, residual_scaling=0.1),
        "l1", {"learning_rate": 1e-4},
    ),
    Method(
        "zeng", "Zeng et al.", True, _ZENG,
        f"two halves, two images and early fusion as described; depths, widths and sub-pixel upsampling are ours; "
        f"{_MATCHED}", "once",
        _records("zeng", {"depth": 7}, {"depth": 6, "guided_depth": 7}, channels=48, skip="sinc"),
        _records("zeng", {"depth": 8, "guided_depth": 8}, channels=64),
        "mse",
    ),
    Method(
        "lyu-mse", "Lyu et al., MSE only", True, _LYU, f"without the composite's other terms; {_LYU_NETWORK}", "once",
        _LYU_MATCHED, _LYU_PUBLISHED, "mse",
    ),
    Method(
        "lyu", "Lyu et al., composite", True, _LYU,
        "perceptual and texture terms on fixed Gabor scattering features, not on VGG; adversarial term in hinge form "
        f"with a spectrally normalised critic; the terms' weights are ours; {_LYU_NETWORK}", "once",
        _LYU_MATCHED, _LYU_PUBLISHED, "composite",
    ),
    _variant("minet-no-reference", "MINet without reference", reference=False),
    _variant("minet-reduction-only", "MINet without F_Int (reduction kept)", integration="reduction"),
    _variant("minet-no-h", "MINet without F_Int (H dropped)", integration="none"),
    _variant("minet-no-attention", "MINet without F_Att", attention=False),
    _variant("minet", "MINet"),
    _variant(
        "minet-paper-affinity", "MINet, inner products as affinity", _FENG, "the matched size has the sinc skip",
        affinity="paper",
    ),
    _variant(
        "minet-released-affinity", "MINet, affinity of the released code", f"{_FENG}, the authors' code",
        "row maximum minus inner product, with a learnt gain; the matched size has the sinc skip", affinity="released",
    ),
    Method(
        "minet-fast", "MINet, fast student", True, "this project", "all stages on the target's grid", "once",
        _minet("fast"), _minet("fast"), "eq6", changes={},
    ),
)  # fmt: skip

METHODS: dict[str, Method] = {method.name: method for method in _ROWS}
"""By name, in the order of the tables."""
