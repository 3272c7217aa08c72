"""What every engine is given, as a file between processes, and how far a restored image is from what it should be."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Inputs:
    """Slices to restore, as a caller has them and as a network gets them."""

    targets: Array
    """(slices, H, W), the study's intensity."""

    references: Array
    """(slices, scale * H, scale * W)."""

    target: Array
    """The first target, (1, 1, H, W), normalised."""

    reference: Array | None
    """The first reference, (1, 1, scale * H, scale * W), normalised; None for a model that takes none."""

    def save(self, path: Path) -> None:
        """Write as .npz."""
        arrays = {"targets": self.targets, "references": self.references, "target": self.target}
        if self.reference is not None:
            arrays["reference"] = self.reference
        np.savez(path, **arrays)  # type: ignore[arg-type] # numpy's stub takes no dict of arrays

    @classmethod
    def read(cls, path: Path) -> "Inputs":
        """Inverse of `save`."""
        with np.load(path, allow_pickle=False) as data:
            return cls(data["targets"], data["references"], data["target"], data.get("reference"))


def relative_rms(found: npt.NDArray[np.floating], expected: npt.NDArray[np.floating]) -> float:
    """Root-mean-square difference over the root mean square of what was expected."""
    exact = expected.astype(np.float64)
    return float(np.sqrt(np.mean((found.astype(np.float64) - exact) ** 2) / np.mean(exact**2)))
