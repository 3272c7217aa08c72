"""Knees made of nothing: bones, cartilage, menisci, ligaments, fluid, fat and muscle as smooth random shapes.

There are no label maps of knees. These are knee-like in what matters to super-resolution: thin bright and dark layers,
fat that one contrast shows and the other suppresses, and a different shape for every subject. They are no anatomy.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from minet_sdk.training.splits import Split

TISSUES = (
    "background", "skin", "fat", "muscle", "bone", "fatty marrow", "cartilage", "meniscus", "joint fluid", "ligament",
    "blood",
)  # fmt: skip
"""Names by tissue index; `signal` has their values."""

EDGE = 288
"""Voxels along each axis of the cube that holds a knee."""

SIZE_MM = 160.0
"""Edge of that cube."""

_FIRST: dict[Split, int] = {"train": 0, "validation": 1000, "test": 2000}
_COUNT: dict[Split, int] = {"train": 200, "validation": 12, "test": 20}

Field = npt.NDArray[np.float32]
Triple = tuple[float, float, float]
Paint = Callable[[str, npt.NDArray[np.bool_]], None]


def make_knees(split: Split) -> "list[Knee]":
    """The knees of a split; a knee's number is all that it is made from."""
    return [Knee(_FIRST[split] + index) for index in range(_COUNT[split])]


@dataclass(frozen=True)
class Knee:
    """One knee. Slices are computed when they are asked for."""

    tissues: ClassVar[tuple[str, ...]] = TISSUES
    brain: ClassVar[tuple[int, ...]] = ()

    number: int
    edge: int = EDGE
    """Voxels along each axis."""

    @property
    def name(self) -> str:
        """Like ``knee_0007``."""
        return f"knee_{self.number:04d}"

    @property
    def useful_slices(self) -> tuple[npt.NDArray[np.intp], ...]:
        """For each axis the slices near the joint."""
        along = self._axis()
        return tuple(np.nonzero(np.abs(along) < reach)[0] for reach in (0.5, 0.5, 0.7))

    def slab(self, axis: int, index: int, thickness: int) -> npt.NDArray[np.uint8]:
        """Slices as `labels.Anatomy` has them: (thickness, rows, columns), head or front upwards."""
        half = thickness // 2
        indices = np.clip(np.arange(index - half, index + half + 1), 0, self.edge - 1)
        along = self._axis()
        axes = [along[indices] if one == axis else along for one in range(3)]
        tissue = np.moveaxis(_tissue(self.number, *axes), axis, 0)
        return np.ascontiguousarray(tissue.transpose(0, 2, 1)[:, ::-1])

    def _axis(self) -> Field:
        """Positions of the voxels, -1 to 1."""
        return ((np.arange(self.edge) + 0.5) * (2 / self.edge) - 1).astype(np.float32)


@dataclass(frozen=True)
class _Place:
    """Where voxels are, warped: x to the outer side, y to the front, z to the head; 1 is half the cube."""

    x: Field
    y: Field
    z: Field

    def ellipsoid(self, centre: Triple, radii: Triple) -> Field:
        """About the distance from an ellipsoid's surface, negative inside."""
        parts = (((p - c) / r) ** 2 for p, c, r in zip((self.x, self.y, self.z), centre, radii, strict=True))
        return (np.sqrt(sum(parts)) - 1) * np.float32(min(radii))

    def rod(self, start: Triple, end: Triple, radius: float) -> Field:
        """Distance from the surface of a rod with round ends."""
        direction = np.subtract(end, start)
        offset = [p - np.float32(s) for p, s in zip((self.x, self.y, self.z), start, strict=True)]
        part = sum(o * np.float32(d) for o, d in zip(offset, direction, strict=True)) / np.float32(
            direction @ direction
        )
        part = np.clip(part, 0, 1)
        away = (o - part * np.float32(d) for o, d in zip(offset, direction, strict=True))
        return np.sqrt(sum(a**2 for a in away)) - np.float32(radius)


def _union(first: Field, second: Field, softness: float = 0.12) -> Field:
    """Two shapes with a smooth transition between them."""
    mix = np.clip(0.5 + (second - first) / (2 * softness), 0, 1).astype(np.float32, copy=False)
    return np.asarray(second + (first - second) * mix - softness * mix * (1 - mix), dtype=np.float32)


def _warped(rng: np.random.Generator, x: Field, y: Field, z: Field) -> _Place:
    """Positions bent by a few slow waves, so that no two knees have the same outlines."""
    axes = [x[:, None, None], y[None, :, None], z[None, None]]
    bent: list[Field] = []
    for own in range(3):
        position = axes[own] * np.float32(rng.uniform(0.94, 1.08))
        for other in range(3):
            if other != own:
                for frequency in rng.uniform((1.5, 4, 9), (3, 8, 16)):
                    amount, phase = rng.normal(0, 0.05 / frequency), rng.uniform(0, 2 * np.pi)
                    position = position + np.float32(amount) * np.sin(np.float32(frequency) * axes[other] + phase)
        bent.append(np.broadcast_to(position.astype(np.float32), (len(x), len(y), len(z))))
    return _Place(*bent)


def _tissue(number: int, x: Field, y: Field, z: Field) -> npt.NDArray[np.uint8]:
    """(x, y, z) tissue of a knee at the positions of three axes."""
    rng = np.random.default_rng((number, 4711))
    side = float(rng.choice((-1, 1)))
    place = _warped(rng, np.float32(side) * x, y, z)
    tissue = np.zeros(place.x.shape, dtype=np.uint8)

    def paint(name: str, where: npt.NDArray[np.bool_]) -> None:
        tissue[where] = TISSUES.index(name)

    limb = _limb(place, rng)
    fat = rng.uniform(0.06, 0.16)
    paint("fat", limb < 0)
    _paint_muscles(place, rng, limb + fat, paint)
    femur, tibia = _femur(place, rng), _tibia(place, rng)
    patella = place.ellipsoid((0, rng.uniform(0.5, 0.56), rng.uniform(0.14, 0.24)), (0.23, 0.1, 0.22))
    bones = np.minimum(np.minimum(femur, tibia), patella)
    thin, thick = np.sort(rng.uniform(0.03, 0.06, 2))
    effusion = rng.uniform(0.003, 0.03)
    capsule = place.ellipsoid((0, 0, 0.02), (0.66, 0.5, 0.4))
    paint("joint fluid", (capsule < 0) & (bones < effusion))
    paint("joint fluid", (capsule < -0.12) & (femur < thick + effusion) & (tibia < 2 * thick + effusion))
    pouch = place.ellipsoid((0, 0.38, 0.5), (0.25, 0.015 + effusion, 0.22))
    paint("joint fluid", pouch < 0)
    _paint_ligaments(place, rng, paint)
    meniscus = _meniscus(place, rng)
    paint("meniscus", (meniscus < 0) & (femur > 0) & (tibia > 0))
    faces_joint = (place.z < 0.22) & (np.abs(place.x) < 0.6)
    paint("cartilage", (femur < thick) & faces_joint & (place.z < 0.15 + 0.5 * np.abs(place.y)))
    paint("cartilage", (tibia < thin) & (place.z > -0.2) & (np.abs(place.x) < 0.56) & (np.abs(place.y) < 0.36))
    paint("cartilage", (patella < thick) & (place.y < 0.5))
    shell = rng.uniform(0.012, 0.022)
    fibula = place.rod((0.5, -0.28, -0.32), (0.46, -0.3, -1.4), rng.uniform(0.08, 0.11))
    for bone in (femur, tibia, patella, fibula):
        paint("bone", bone < 0)
        paint("fatty marrow", bone < -shell)
    for centre in (-0.03, 0.1):
        vessel = place.rod((centre, -0.55, -1.5), (centre + rng.normal(0, 0.05), -0.52, 1.5), rng.uniform(0.025, 0.045))
        paint("blood", vessel < 0)
    paint("skin", (limb < 0) & (limb > -rng.uniform(0.012, 0.025)))
    return tissue


def _limb(place: _Place, rng: np.random.Generator) -> Field:
    """The leg's outline: wider above the joint."""
    wide, deep = np.float32(rng.uniform(0.76, 0.88)), np.float32(rng.uniform(0.74, 0.86))
    grows = 1 + np.float32(rng.uniform(0.02, 0.14)) * place.z
    across, along = place.x / wide, (place.y - np.float32(rng.normal(0, 0.03))) / deep
    return np.asarray((np.hypot(across, along) / grows - 1) * min(wide, deep), dtype=np.float32)


def _paint_muscles(place: _Place, rng: np.random.Generator, inside: Field, paint: Paint) -> None:
    """Muscles behind and above the joint, parted by thin layers of fat; around the joint itself fat."""
    behind = place.y < -0.28 - 0.1 * np.cos(3 * place.z)
    reach = rng.uniform(0.36, 0.48)
    away = place.ellipsoid((0, 0.1, -0.04), (0.95, 1.2, reach)) > 0
    angle = np.arctan2(place.y + np.float32(0.1), place.x)
    parting = np.abs(np.sin(rng.integers(2, 5) * angle + rng.uniform(0, 6) + 0.8 * place.z))
    muscle = (inside < 0) & (behind | away) & (place.y < 0.45 + 0.4 * place.z)
    paint("muscle", muscle & (parting > rng.uniform(0.03, 0.1)))
    hollow = place.ellipsoid((0.03, -0.5, 0.05), (0.16, 0.12, 0.6))
    paint("fat", hollow < 0)


def _femur(place: _Place, rng: np.random.Generator) -> Field:
    """Shaft and two condyles."""
    shaft = place.rod((0, 0, 0.45), (0, 0.05, 1.6), rng.uniform(0.19, 0.24))
    apart = rng.uniform(0.27, 0.32)
    outer = place.ellipsoid((apart, 0.0, 0.24), (0.25, rng.uniform(0.34, 0.4), rng.uniform(0.25, 0.29)))
    inner = place.ellipsoid((-apart, -0.02, 0.23), (0.26, rng.uniform(0.35, 0.42), rng.uniform(0.26, 0.3)))
    return _union(_union(outer, inner), shaft, 0.2)


def _tibia(place: _Place, rng: np.random.Generator) -> Field:
    """Plateau, with its spine between the condyles, and shaft."""
    plateau = place.ellipsoid((0, -0.01, -0.36), (rng.uniform(0.56, 0.62), rng.uniform(0.37, 0.43), 0.26))
    plateau = np.maximum(plateau, place.z + np.float32(rng.uniform(0.13, 0.17)))
    shaft = place.rod((0, 0.05, -0.5), (0, 0.08, -1.6), rng.uniform(0.22, 0.27))
    spine = place.ellipsoid((0, -0.02, -0.17), (0.07, 0.12, 0.09))
    return _union(_union(plateau, shaft, 0.2), spine, 0.05)


def _meniscus(place: _Place, rng: np.random.Generator) -> Field:
    """Two wedge-shaped rings in the joint space, thick outside, open towards the middle."""
    rings: list[Field] = []
    for centre in (0.29, -0.29):
        radius = np.hypot((place.x - np.float32(centre)) / 1.0, place.y / np.float32(1.35))
        outer, width = rng.uniform(0.25, 0.29), rng.uniform(0.1, 0.15)
        inwards = (np.float32(outer) - radius) / np.float32(width)
        height = np.float32(0.1) * (1 - inwards)
        ring = np.maximum(np.maximum(radius - np.float32(outer), -height * (inwards < 1)), inwards - 1)
        ring = np.maximum(ring, np.abs(place.z + np.float32(0.09)) - np.maximum(height, 0))
        opening = (place.x * np.float32(np.sign(centre)) < 0.1) & (np.abs(place.y) < 0.12)
        rings.append(np.where(opening, np.float32(1), ring))
    return np.minimum(*rings)


def _paint_ligaments(place: _Place, rng: np.random.Generator, paint: Paint) -> None:
    """Cruciate and collateral ligaments, quadriceps and patellar tendon."""
    bands: list[tuple[Triple, Triple, float]] = [
        ((0.1, -0.12, 0.2), (-0.05, 0.18, -0.16), 0.04),
        ((-0.1, 0.1, 0.15), (0.03, -0.32, -0.2), 0.045),
        ((0.63, -0.05, 0.25), (0.56, -0.22, -0.35), 0.022),
        ((-0.64, 0.0, 0.25), (-0.58, 0.03, -0.5), 0.02),
        ((0.0, 0.55, 0.38), (0.0, 0.4, 1.4), 0.05),
        ((0.0, 0.55, 0.05), (0.02, 0.4, -0.55), 0.045),
    ]
    for start, end, radius in bands:
        moved = tuple(float(one) for one in np.add(end, rng.normal(0, 0.02, 3)))
        paint("ligament", place.rod(start, (moved[0], moved[1], moved[2]), radius * rng.uniform(0.8, 1.3)) < 0)
