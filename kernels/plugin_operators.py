"""The kernels as operators of a graph: tensors, settings, shapes, launches; the same for every engine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from minet_sdk.errors import InputError
from minet_sdk.kernels import launches
from minet_sdk.kernels.launches import SLOTS, SPLITS, Element, Launch, Layout, Mode, Size

NAMESPACE = "minet"
VERSION = "1"
"""TensorRT gives every quick-deployable plugin this version."""

ATTRIBUTES: dict[str, type] = {
    "mode": str,
    "stages": np.ndarray[Any, np.dtype[np.int32]],
    "temperature": np.ndarray[Any, np.dtype[np.float32]],
    "gain": np.ndarray[Any, np.dtype[np.float32]],
}
"""Types of the attributes as a plugin declares them.

Numbers are declared as arrays because TensorRT 10.16 makes a plain number of the one-element array that its parser
sends in a way that NumPy 2.4 refuses.
"""

Role = Literal["features", "weight", "exact"]
"""Of a tensor: features are linear or HWC8, a weight is linear, both in the graph's format; exact is linear float32."""

Shapes = Sequence[Sequence[Size]]
"""Shapes of all inputs: numbers, or TensorRT's expressions of sizes that are not known yet."""


@dataclass(frozen=True)
class Settings:
    """The attributes of a node."""

    stages: int
    mode: Mode = "paper"
    temperature: float = 1.0
    gain: float = 1.0

    @classmethod
    def from_attributes(cls, operator: str, attributes: Mapping[str, Any]) -> "Settings":
        """Read the attributes as TensorRT's ONNX parser hands them to a plugin.

        Args:
            operator: for the error message.
            attributes: by name; a number is an array of one, a string ends with the NUL that ends it in C.

        Raises:
            InputError: not what `attributes` gives.
        """
        numbers = {name: value for name, value in attributes.items() if name != "mode"}
        try:
            return cls(
                **{name: value.item() for name, value in numbers.items()},
                mode=cast(Mode, attributes["mode"].rstrip("\0") if "mode" in attributes else "paper"),
            )
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError(
                f"{operator} has the attributes {dict(attributes)}; expected {', '.join(ATTRIBUTES)}, each number as "
                "an array of one: let minet_sdk.export.plugin_graph write the node"
            ) from error

    def attributes(self, operator: "Operator") -> dict[str, str | int | float]:
        """The attributes of an ONNX node of this operator."""
        return {name: getattr(self, name) for name in operator.settings}


@dataclass(frozen=True)
class Operator:
    """One plugin: tensors, settings, the shape of its output, and the kernel launch that fills it."""

    name: str
    inputs: tuple[tuple[str, Role], ...]
    output: Role
    shape: Callable[[Shapes, Settings], tuple[Size, ...]]
    launch: Callable[[Element, Layout, Shapes, Settings], Launch]
    settings: tuple[str, ...] = ("stages",)

    @property
    def roles(self) -> tuple[Role, ...]:
        """Of all inputs, then the output."""
        return (*(role for _, role in self.inputs), self.output)


_SLOTS: tuple[tuple[str, Role], ...] = tuple((f"features_{index}", "features") for index in range(SLOTS))
_FEATURES: tuple[tuple[str, Role], ...] = (("features", "features"),)
_MIXING: tuple[tuple[str, Role], ...] = (("mixing", "exact"),)


def _gram_shape(shapes: Shapes, settings: Settings) -> tuple[Size, ...]:
    return (shapes[0][0], SPLITS, settings.stages, settings.stages)


def _affinity_shape(shapes: Shapes, settings: Settings) -> tuple[Size, ...]:
    return (shapes[0][0], settings.stages, settings.stages)


def _mix_separate_shape(shapes: Shapes, settings: Settings) -> tuple[Size, ...]:
    batch, channels, height, width = shapes[0]
    return (batch, channels * settings.stages, height, width)


def _gram_stacked(element: Element, layout: Layout, shapes: Shapes, settings: Settings) -> Launch:
    return launches.gram(element, layout, **_stacked_sizes(shapes[0], settings))


def _gram_separate(element: Element, layout: Layout, shapes: Shapes, settings: Settings) -> Launch:
    return launches.gram(element, layout, **_separate_sizes(shapes[0], settings), separate=True)


def _affinity(element: Element, layout: Layout, shapes: Shapes, settings: Settings) -> Launch:
    return launches.affinity(
        settings.mode,
        stages=settings.stages,
        batch=shapes[0][0],
        temperature=settings.temperature,
        gain=settings.gain,
    )


def _fold(element: Element, layout: Layout, shapes: Shapes, settings: Settings) -> Launch:
    outputs, inputs, height, width = shapes[0]
    inner = inputs // settings.stages * height * width
    return launches.fold(element, stages=settings.stages, batch=1, outputs=outputs, inner=inner)


def _mix_stacked(element: Element, layout: Layout, shapes: Shapes, settings: Settings) -> Launch:
    return launches.mix(element, layout, **_stacked_sizes(shapes[0], settings))


def _mix_separate(element: Element, layout: Layout, shapes: Shapes, settings: Settings) -> Launch:
    return launches.mix(element, layout, **_separate_sizes(shapes[0], settings), separate=True)


def _stacked_sizes(shape: Sequence[Size], settings: Settings) -> dict[str, Size]:
    return {**_separate_sizes(shape, settings), "channels": shape[1] // settings.stages}


def _separate_sizes(shape: Sequence[Size], settings: Settings) -> dict[str, Size]:
    batch, channels, height, width = shape
    return {"stages": settings.stages, "batch": batch, "channels": channels, "pixels": height * width}


STAGE_GRAM = Operator("StageGram", _FEATURES, "exact", _gram_shape, _gram_stacked)
STAGE_GRAM_SEPARATE = Operator("StageGramSeparate", _SLOTS, "exact", _gram_shape, _gram_separate)
STAGE_AFFINITY = Operator(
    "StageAffinity",
    (("partials", "exact"),),
    "exact",
    _affinity_shape,
    _affinity,
    settings=("mode", "stages", "temperature", "gain"),
)
FOLD_WEIGHTS = Operator(
    "FoldWeights", (("weight", "weight"), *_MIXING), "weight", lambda shapes, settings: tuple(shapes[0]), _fold
)
MIX_STAGES = Operator(
    "MixStages", (*_FEATURES, *_MIXING), "features", lambda shapes, settings: tuple(shapes[0]), _mix_stacked
)
MIX_STAGES_SEPARATE = Operator("MixStagesSeparate", (*_SLOTS, *_MIXING), "features", _mix_separate_shape, _mix_separate)

OPERATORS = (STAGE_GRAM, STAGE_GRAM_SEPARATE, STAGE_AFFINITY, FOLD_WEIGHTS, MIX_STAGES, MIX_STAGES_SEPARATE)
