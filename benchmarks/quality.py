"""Image quality of the bundled models against interpolation and against their own single-contrast variants.

    python benchmarks/quality.py --labels FOLDER --output benchmarks/results/quality.json [--pair NAME REF TARGET ...]

Test sets: slices synthesised from the test subjects 14-16, under clinical protocols and under random contrast, the real
T1/T2 pair of the bundled study, which no training sees, and any real pairs that are given as image files. Every slice
is one sample; differences are paired.
"""

import argparse
import json
import platform
import tempfile
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from minet_sdk import Runtime, __version__
from minet_sdk.bundle import sha256
from minet_sdk.demo import study_folder
from minet_sdk.dicom.read import load
from minet_sdk.dicom.scan import scan
from minet_sdk.export.bundle import export_bundle
from minet_sdk.kspace import Consistency, bicubic, degrade, enforce_consistency, zero_filled
from minet_sdk.measures import measure
from minet_sdk.requirements import require
from minet_sdk.training.contrast import CLINICAL, ContrastSettings, random_pair
from minet_sdk.training.labels import read_split

Array = npt.NDArray[np.float32]
CHECKPOINTS = Path(__file__).parent / "checkpoints"
TEST_SEED = 2
BASELINE = "zero-filled"
RESAMPLES = 10_000
FEWEST_FOR_INTERVAL = 10
SCALES = (2, 4)


@dataclass(frozen=True)
class TestSet:
    """Slices to restore."""

    references: Array
    """(slices, H, W)."""

    truths: Array
    """(slices, H, W), degraded by the benchmark."""

    subjects: list[str]
    """Who each slice is of."""


def synthetic_set(labels: Path, settings: ContrastSettings, per_subject: int) -> TestSet:
    """Slices of the test subjects in synthetic contrast."""
    references: list[Array] = []
    truths: list[Array] = []
    names: list[str] = []
    for number, subject in enumerate(read_split(labels, "test")):
        for index in range(per_subject):
            pair = random_pair(subject, np.random.default_rng((TEST_SEED, number, index)), settings)
            references.append(pair.reference)
            truths.append(pair.target)
            names.append(subject.name)
    return TestSet(np.stack(references), np.stack(truths), names)


def study_set() -> TestSet:
    """The bundled ICBM152 T1 and T2."""
    reference, truth = (load(scan(study_folder() / name).series[0]).volume.values for name in ("t1", "t2"))
    return TestSet(reference, truth, ["ICBM152"] * len(truth))


def read_pairs(pairs: list[tuple[str, str, str]]) -> dict[str, TestSet]:
    """Test sets by name, from image files of one size a set; cropped to multiples of 4."""
    imread = require("matplotlib.image", "reading image files").imread
    sets: dict[str, list[tuple[Array, Array]]] = defaultdict(list)
    for name, *paths in pairs:
        images = [np.asarray(imread(path), np.float32) for path in paths]
        grey = [image if image.ndim == 2 else image[..., 0] for image in images]
        rows, columns = (size // 4 * 4 for size in grey[0].shape)
        sets[name].append((grey[0][:rows, :columns], grey[1][:rows, :columns]))
    return {
        name: TestSet(np.stack([r for r, _ in rows]), np.stack([t for _, t in rows]), [name] * len(rows))
        for name, rows in sets.items()
    }


def interval(differences: npt.NDArray[np.float64]) -> list[float] | None:
    """95 % bootstrap interval of the mean over slices; None for too few to say anything."""
    if len(differences) < FEWEST_FOR_INTERVAL:
        return None
    rng = np.random.default_rng(0)
    picks = rng.integers(len(differences), size=(RESAMPLES, len(differences)))
    return [round(float(v), 3) for v in np.percentile(differences[picks].mean(axis=1), (2.5, 97.5))]


def restorations(low: Array, guide: Array, guided: Runtime, alone: Runtime) -> dict[str, Array]:
    """One slice restored by every method; consistency is applied to one and the same restoration."""
    scale = guided.scale
    images = {"bicubic": bicubic(low, scale), BASELINE: zero_filled(low, scale)}
    for name, restored in (("single-contrast", alone(low)), ("MINet", guided(low, guide))):
        for mode in get_args(Consistency):
            images[f"{name}, {mode}"] = enforce_consistency(restored, low, scale, mode)
    return images


def evaluate(test_set: TestSet, guided: Runtime, alone: Runtime) -> dict[str, Any]:
    """Mean measures of every method, and its paired gain in PSNR over zero-filled k-space."""
    rows: dict[str, list[dict[str, float]]] = defaultdict(list)
    for guide, image in zip(test_set.references, test_set.truths, strict=True):
        for method, restored in restorations(degrade(image, guided.scale), guide, guided, alone).items():
            rows[method].append(asdict(measure(image[None], restored[None])))
    psnr = {method: np.array([row["psnr"] for row in measured]) for method, measured in rows.items()}
    result: dict[str, Any] = {}
    for method, measured in rows.items():
        gain = psnr[method] - psnr[BASELINE]
        by_subject = {
            name: round(float(gain[[subject == name for subject in test_set.subjects]].mean()), 3)
            for name in sorted(set(test_set.subjects))
        }
        means = {key: round(float(np.mean([row[key] for row in measured])), 5) for key in measured[0]}
        result[method] = {**means, **_gain(gain), "gain_db_by_subject": by_subject}
    result["MINet over single-contrast"] = _gain(psnr["MINet, soft"] - psnr["single-contrast, soft"])
    return result


def _gain(differences: npt.NDArray[np.float64]) -> dict[str, Any]:
    return {"gain_db": round(float(differences.mean()), 3), "gain_db_interval": interval(differences)}


def main() -> None:
    """Evaluate everything and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, help="folder with the label maps")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--slices", type=int, default=16, help="synthetic slices per subject")
    parser.add_argument(
        "--pair",
        nargs=3,
        action="append",
        default=[],
        metavar=("NAME", "REFERENCE", "TARGET"),
        help="a real slice in two contrasts, aligned; pairs of one NAME are one test set",
    )
    arguments = parser.parse_args()
    labels, count = arguments.labels, arguments.slices
    sets = {
        "synthetic, clinical protocols (subjects 14-16)": synthetic_set(labels, CLINICAL, count),
        "synthetic, random contrast (subjects 14-16)": synthetic_set(labels, ContrastSettings(), count),
        "real, ICBM152 T1 to T2": study_set(),
        **read_pairs(arguments.pair),
    }
    report: dict[str, Any] = {
        "what": "mean over slices; gain is paired against zero-filled k-space, with its 95 % bootstrap interval",
        "environment": {"minet-sdk": __version__, "python": platform.python_version(), "numpy": np.__version__},
        "slices": {name: len(test_set.subjects) for name, test_set in sets.items()},
        "models": {},
        "results": {},
    }
    for scale in SCALES:
        with tempfile.TemporaryDirectory() as folder:
            single = export_bundle(CHECKPOINTS / f"minet-x{scale}-single.safetensors", Path(folder) / "single")
            with (
                Runtime(f"minet-x{scale}", consistency="off") as guided,
                Runtime(single.location, consistency="off") as alone,
            ):
                report["models"][f"x{scale}"] = sha256(guided.bundle.location / "checkpoint.safetensors")
                report["results"][f"x{scale}"] = {
                    name: evaluate(test_set, guided, alone) for name, test_set in sets.items()
                }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for scale, by_set in report["results"].items():
        for name, by_method in by_set.items():
            print(f"{scale}  {name}")
            for method, values in by_method.items():
                psnr = f"{values['psnr']:6.2f} dB  " if "psnr" in values else " " * 11
                print(f"    {method:28s} {psnr} gain {values['gain_db']:+.2f} {values['gain_db_interval'] or ''}")


if __name__ == "__main__":
    main()
