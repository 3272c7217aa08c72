"""Image quality of the bundled models against interpolation and against their own single-contrast variants.

    python benchmarks/quality.py --labels FOLDER --output benchmarks/results/quality.json

Test sets: slices synthesised from the test subjects 14-16, under clinical protocols and under random contrast, and the
real T1/T2 pair of the bundled study, which no training sees. Every slice is one sample; differences are paired.
"""

import argparse
import json
import platform
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from minet_sdk import Runtime, __version__
from minet_sdk.demo import study_folder
from minet_sdk.dicom.read import load
from minet_sdk.dicom.scan import scan
from minet_sdk.export.bundle import export_bundle
from minet_sdk.kspace import bicubic, degrade, zero_filled
from minet_sdk.measures import measure
from minet_sdk.runtime import ConsistencyOption
from minet_sdk.training.contrast import CLINICAL, ContrastSettings, random_pair
from minet_sdk.training.labels import read_split

Array = npt.NDArray[np.float32]
Method = Callable[[Array, Array], Array]
"""Low-resolution target and reference, one slice each, to the restored slice."""

CHECKPOINTS = Path(__file__).parent / "checkpoints"
TEST_SEED = 2
BASELINE = "zero-filled"
RESAMPLES = 10_000


def synthetic_slices(labels: Path, settings: ContrastSettings, per_subject: int) -> tuple[Array, Array, list[str]]:
    """References, targets (slices, H, W) and the subject of each slice, from the test subjects."""
    references: list[Array] = []
    targets: list[Array] = []
    names: list[str] = []
    for number, subject in enumerate(read_split(labels, "test")):
        for index in range(per_subject):
            pair = random_pair(subject, np.random.default_rng((TEST_SEED, number, index)), settings)
            references.append(pair.reference)
            targets.append(pair.target)
            names.append(subject.name)
    return np.stack(references), np.stack(targets), names


def study_slices() -> tuple[Array, Array, list[str]]:
    """The bundled ICBM152 T1 and T2."""
    reference, target = (load(scan(study_folder() / name).series[0]).volume.values for name in ("t1", "t2"))
    return reference, target, ["ICBM152"] * len(target)


def interval(differences: npt.NDArray[np.float64]) -> list[float]:
    """95 % bootstrap interval of the mean over slices."""
    rng = np.random.default_rng(0)
    picks = rng.integers(len(differences), size=(RESAMPLES, len(differences)))
    return [round(float(v), 3) for v in np.percentile(differences[picks].mean(axis=1), (2.5, 97.5))]


def evaluate(
    methods: dict[str, Method], reference: Array, truth: Array, names: list[str], scale: int
) -> dict[str, Any]:
    """Mean measures of every method, and its paired gain in PSNR over zero-filled k-space."""
    rows: dict[str, list[dict[str, float]]] = {method: [] for method in methods}
    for guide, image in zip(reference, truth, strict=True):
        low = degrade(image, scale)
        for method, restore in methods.items():
            rows[method].append(asdict(measure(image[None], restore(low, guide)[None])))
    psnr = {method: np.array([row["psnr"] for row in rows[method]]) for method in methods}
    result: dict[str, Any] = {}
    for method, measured in rows.items():
        gain = psnr[method] - psnr[BASELINE]
        result[method] = {
            **{key: round(float(np.mean([row[key] for row in measured])), 5) for key in measured[0]},
            "gain_db": round(float(gain.mean()), 3),
            "gain_db_interval": interval(gain),
            "gain_db_by_subject": {
                name: round(float(gain[[n == name for n in names]].mean()), 3) for name in sorted(set(names))
            },
        }
    if "MINet, soft" in psnr:
        guided = psnr["MINet, soft"] - psnr["single-contrast, soft"]
        result["MINet over single-contrast"] = {
            "gain_db": round(float(guided.mean()), 3),
            "gain_db_interval": interval(guided),
        }
    return result


def methods_of(scale: int, folder: Path) -> dict[str, Method]:
    """Interpolation, the bundled model and its single-contrast variant, each under every consistency."""
    single = export_bundle(CHECKPOINTS / f"minet-x{scale}-single.safetensors", folder / f"single-x{scale}")
    methods: dict[str, Method] = {
        "bicubic": lambda low, guide: bicubic(low, scale),
        "zero-filled": lambda low, guide: zero_filled(low, scale),
    }
    for consistency in ("off", "soft", "hard"):
        option = cast(ConsistencyOption, consistency)
        alone, guided = Runtime(single.location, consistency=option), Runtime(f"minet-x{scale}", consistency=option)
        methods[f"single-contrast, {consistency}"] = lambda low, guide, run=alone: run(low)
        methods[f"MINet, {consistency}"] = lambda low, guide, run=guided: run(low, guide)
    return methods


def main() -> None:
    """Evaluate everything and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, help="folder with the label maps")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--slices", type=int, default=16, help="synthetic slices per subject")
    arguments = parser.parse_args()
    sets = {
        "synthetic, clinical protocols (subjects 14-16)": synthetic_slices(
            arguments.labels, CLINICAL, arguments.slices
        ),
        "synthetic, random contrast (subjects 14-16)": synthetic_slices(
            arguments.labels, ContrastSettings(), arguments.slices
        ),
        "real, ICBM152 T1 to T2": study_slices(),
    }
    report: dict[str, Any] = {
        "what": "mean over slices; gain is paired against zero-filled k-space, with its 95 % bootstrap interval",
        "environment": {"minet-sdk": __version__, "python": platform.python_version(), "numpy": np.__version__},
        "slices": {name: len(names) for name, (_, _, names) in sets.items()},
        "models": {},
        "results": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for scale in (2, 4):
            methods = methods_of(scale, Path(folder))
            with Runtime(f"minet-x{scale}") as runtime:
                report["models"][f"x{scale}"] = runtime.info.model_sha256
            report["results"][f"x{scale}"] = {
                name: evaluate(methods, reference, truth, names, scale)
                for name, (reference, truth, names) in sets.items()
            }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for scale, by_set in report["results"].items():
        for name, by_method in by_set.items():
            print(f"{scale}  {name}")
            for method, values in by_method.items():
                low, high = values["gain_db_interval"]
                psnr = f"{values['psnr']:6.2f} dB  " if "psnr" in values else " " * 11
                print(f"    {method:28s} {psnr} gain {values['gain_db']:+.2f} [{low:+.2f}, {high:+.2f}]")


if __name__ == "__main__":
    main()
