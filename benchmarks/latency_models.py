"""The models that latency is measured with: the bundled one of a preset, or the preset with random, seeded weights."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from minet_sdk.bundle import Bundle, bundled_names, open_bundle
from minet_sdk.errors import BundleError
from minet_sdk.export.bundle import export_bundle
from minet_sdk.export.slices import Slices, bundled_slices
from minet_sdk.training.checkpoint import save_checkpoint
from minet_sdk.training.config import MinetConfig, preset
from minet_sdk.training.model import build

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = "checkpoint.safetensors"
SEED = 0

TAIL_DEVIATION = 0.02
"""Of the last convolution's random weights where training starts from zero: zeros would hide what is before them."""

_CHECKED_PIXELS = 32
"""Edge of the slices that the export is validated on; the whole study would take minutes."""


@dataclass(frozen=True)
class Model:
    """A bundle and what it was exported from."""

    bundle: Bundle
    checkpoint: Path
    weights: str
    """``trained`` or ``random, seed 0``."""


def model_of(name: str, scale: int, work: Path) -> Model:
    """The model of a preset.

    Args:
        name: of the preset.
        scale: 2 or 4.
        work: existing folder, where exported bundles stay for the next section.
    """
    config = preset(name, scale)
    for bundled in bundled_names():
        bundle = open_bundle(bundled)
        checkpoint = bundle.location / CHECKPOINT
        if checkpoint.is_file() and bundle.manifest.precision == "fp32" and _is_of(bundle, config):
            return Model(bundle, checkpoint, "trained")
    return _random(config, work / f"{name}-x{scale}-{_sources()}", f"{name}-x{scale}")


def _is_of(bundle: Bundle, config: MinetConfig) -> bool:
    return {**config.to_dict(), **bundle.manifest.architecture} == config.to_dict()


def _random(config: MinetConfig, folder: Path, name: str) -> Model:
    checkpoint = folder / CHECKPOINT
    weights = f"random, seed {SEED}"
    try:
        return Model(open_bundle(folder), checkpoint, weights)
    except BundleError:
        folder.mkdir(exist_ok=True)
    network = build(config, SEED)
    if config.skip == "sinc":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            torch.nn.init.normal_(network.target_tail.weight, std=TAIL_DEVIATION)
    save_checkpoint(checkpoint, network, {"note": f"weights are {weights}: for measuring time only"})
    # The checkpoint is none of the bundle's own files, so the folder may hold both, as a bundled model's does.
    exported = export_bundle(checkpoint, folder / "bundle", name=name, calibration=_few_slices())
    for path in exported.location.iterdir():
        path.rename(folder / path.name)
    exported.location.rmdir()
    return Model(open_bundle(folder), checkpoint, weights)


def _few_slices() -> Slices:
    every = bundled_slices()
    middle, window = len(every.targets) // 2, slice(64, 64 + _CHECKED_PIXELS)
    pick = (slice(middle, middle + 2), window, window)
    return Slices(every.targets[pick], every.references[pick], every.source)


def _sources() -> str:
    """Digest of the code that makes a bundle: what other code exported is not used again."""
    digest = hashlib.sha256()
    for folder in ("export", "training"):
        for path in sorted((ROOT / folder).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
