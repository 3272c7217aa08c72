"""Which models, sizes and peers meet in which section: pure data.

A section takes a few minutes on two quiet cores. Peers that would make it longer sit out, and the result says so.
"""

from dataclasses import dataclass

NATIVE, OPENVINO, ONNX_RUNTIME = "native", "openvino", "onnxruntime"
PLAIN = ("onnxruntime-plain", "openvino-plain")
EAGER = "torch-eager"

MAIN = (NATIVE, OPENVINO, *PLAIN, EAGER)
MORE = (NATIVE, ONNX_RUNTIME, "openvino-default", "torch-channels-last", "torch-compile")
ALL = (*MAIN, *MORE[1:])
WITHOUT_COMPILING = tuple(name for name in ALL if name != "torch-compile")
FEW = (NATIVE, "onnxruntime-plain", EAGER)

SIZES = (160, 320, 512, 640, 1024)
"""Edges of restored images, pixels."""


@dataclass(frozen=True)
class Plan:
    """One comparison."""

    preset: str
    scale: int
    size: int
    peers: tuple[str, ...]
    rounds: int = 5
    seconds: float = 300.0
    """After these no further round starts, once there are two."""

    one_thread: bool = False


@dataclass(frozen=True)
class Series:
    """A series in a scanner's order of events."""

    preset: str
    scale: int
    slices: int
    backends: tuple[str, ...]
    without_prefetch: tuple[str, ...] = ()
    rounds: int = 2
    size: int = 320


def _small(preset: str, scale: int) -> tuple[Plan, ...]:
    """A network that takes milliseconds: everybody at 320, some at the other sizes."""
    return (
        Plan(preset, scale, 320, ALL, rounds=9, seconds=60),
        Plan(preset, scale, 320, (*MAIN, ONNX_RUNTIME), rounds=5, seconds=25, one_thread=True),
        Plan(preset, scale, 160, MAIN, rounds=7, seconds=15),
        Plan(preset, scale, 512, MAIN, rounds=5, seconds=20),
        Plan(preset, scale, 640, MAIN, rounds=5, seconds=25),
        Plan(preset, scale, 1024, FEW, rounds=2),
    )


COMPARISONS: dict[str, tuple[Plan, ...]] = {
    "paper-320": (Plan("paper", 2, 320, MAIN, rounds=5),),
    "paper-320-more": (Plan("paper", 2, 320, MORE, rounds=2),),
    "paper-160": (Plan("paper", 2, 160, WITHOUT_COMPILING, rounds=3),),
    "paper-one-thread": (Plan("paper", 2, 160, MAIN, rounds=2, one_thread=True),),
    # All peers at once would need more than the memory of an ordinary machine.
    "paper-512": (Plan("paper", 2, 512, FEW, rounds=2),),
    "paper-640": (Plan("paper", 2, 640, FEW[:2], rounds=2),),
    "small-x2": _small("small", 2),
    "small-x4": (Plan("small", 4, 320, WITHOUT_COMPILING, rounds=7, seconds=40),),
    "deep-x2": (Plan("deep", 2, 320, WITHOUT_COMPILING, rounds=7, seconds=40),),
    "deep-x4": (Plan("deep", 4, 320, WITHOUT_COMPILING, rounds=7, seconds=40),),
    "fast-x2": _small("fast", 2),
    "fast-x4": (Plan("fast", 4, 320, WITHOUT_COMPILING, rounds=9, seconds=30),),
}
"""By section."""

LINEARITY = (("paper", 2, 5), ("small", 2, 9), ("fast", 2, 15))
"""Preset, scale, rounds; the native engine at all sizes."""

SERIES = (
    Series("paper", 2, 6, (NATIVE,)),
    Series("small", 2, 20, (NATIVE, OPENVINO, ONNX_RUNTIME), without_prefetch=(NATIVE,)),
    Series("fast", 2, 20, (NATIVE, OPENVINO, ONNX_RUNTIME), without_prefetch=(NATIVE,)),
)

OVERHEAD = (("paper", 2, 3), ("small", 2, 15), ("deep", 2, 15), ("fast", 2, 15))
"""Preset, scale, rounds."""

SECTIONS = ("machine", "start", *COMPARISONS, "linearity", "scanner", "overhead")
"""In the order in which they run."""
