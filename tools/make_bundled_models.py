"""Make the bundled models from finished training runs, with their model cards.

    python tools/make_bundled_models.py RUN [RUN ...] --single RUN_X2_SINGLE RUN_X4_SINGLE
    python tools/make_bundled_models.py --again     # the same weights through today's export

Weights are rounded to float16 first, so that checkpoint and graphs hold the same numbers.
"""

import argparse
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minet_sdk.bundle import models_folder
from minet_sdk.export.bundle import export_bundle
from minet_sdk.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from minet_sdk.training.config import PRESETS, MinetConfig

BEST = "best.safetensors"
CARD_NAME = "MODEL_CARD.md"
SINGLE_CHECKPOINTS = Path(__file__).resolve().parent.parent / "benchmarks" / "checkpoints"

CARD = """# {name}

MINet (Feng et al., MICCAI 2021), preset `{preset}`: {parameters:,} parameters (the reference
head, which only training has, not counted), {stages} stages of {blocks} blocks,
{channels} channels, {affinity} affinity. Restores a target contrast at {scale} times the resolution, guided by a
reference contrast that was acquired at the full resolution.

## Intended use
Research. **Not a medical device**: not for diagnosis, treatment or any clinical decision.
Input: magnitude (or complex) MR slices of a head, in-plane low resolution as the centre of k-space, and a reference
of the same anatomy on the restored grid. Any intensity scale.

## Training
- data: synthetic pairs in randomised contrast, made on the fly from the label maps of ten heads (subjects 01-10 of the
  SynthSeg training label maps, Apache-2.0); {clinical:.0%} of the pairs follow clinical protocols. No real image was
  seen.
- selection: best validation gain on subjects 11-13, at step {step}.
- command: `{command}`; every setting stands in `manifest.json` under `training`
- seed {seed}, commit {commit}, {versions}
- weights are stored as float16.{note}

| step | seconds | validation PSNR dB | SSIM | gain over zero-filled dB |
|---|---|---|---|---|
{curve}

## Measures
On synthetic test subjects 14-16 and on real pairs, without k-space consistency and with it: PSNR, SSIM, gain over
zero-filled k-space in dB with its 95 % interval; then what wrong, moved and missing references do, over the right one
and over none, with the runtime's trust gate and without it. Made by `make quality`, explained in docs/quality.md.

<!-- measures: written by benchmarks/readme.py -->
<!-- end of measures -->

## Known limits
- Trained on heads at about 1 mm; other anatomy, other resolutions and strong artefacts were not tested.
- What the reference does not show and the low resolution does not hold cannot be restored; what only the reference
  shows may leave traces. The runtime does without a reference that does not show what the target shows, slice by slice;
  one that is a little displaced passes, and lowers quality by what the table says.
- Anatomy came from label maps of ten subjects. Rare pathology is represented by random spots only.
"""


def parameters(checkpoint: Checkpoint) -> int:
    """Weights that inference uses: without the reference head, which only training has."""
    return sum(
        value.numel()
        for name, value in checkpoint.model.named_parameters()
        if not name.startswith(("reference_tail", "reference_attention"))
    )


def card(name: str, checkpoint: Checkpoint) -> str:
    """Text of MODEL_CARD.md."""
    record: dict[str, Any] = checkpoint.record
    config = checkpoint.minet.config
    curve = "\n".join(
        f"| {p['step']} | {p['seconds']:.0f} | {p['psnr']:.2f} | {p['ssim']:.4f} | {p['gain_db']:+.2f} |"
        for p in record["curve"]
    )
    return CARD.format(
        name=name,
        preset=preset_of(config),
        parameters=parameters(checkpoint),
        stages=config.stages,
        blocks=config.blocks,
        channels=config.channels,
        affinity=config.affinity,
        scale=config.scale,
        step=record["selected_step"],
        clinical=record["data"]["contrast"]["physics"],
        command=record["command"],
        seed=record["settings"]["seed"],
        commit=record["commit"],
        versions=", ".join(f"{key} {value}" for key, value in record["versions"].items()),
        curve=curve,
        note=f"\n- note: {record['note']}" if record["note"] else "",
    )


def preset_of(config: MinetConfig) -> str:
    """The name of an architecture."""
    return next(name for name, configs in PRESETS.items() if configs[config.scale] == config)


def bundle_name(checkpoint: Checkpoint) -> str:
    """Of a bundled model: minet-x2, minet-fast-x4, ..."""
    config = checkpoint.minet.config
    return f"minet-{'fast-' if preset_of(config) == 'fast' else ''}x{config.scale}"


def store(run: Path, path: Path, note: str) -> Checkpoint:
    """Copy a run's best network to ``path`` with float16 weights and a note; returns it as read back.

    Folders of the machine that trained it do not belong into what is published: its command and its settings keep the
    last two names of a path.
    """
    best = load_checkpoint(run / BEST)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, best.model, {**_without_folders(best.record), "note": note}, storage="float16")
    return load_checkpoint(path)


def _without_folders(value: Any) -> Any:
    """A record whose paths say no more than a file and the folder that it is in."""
    if isinstance(value, Mapping):
        return {name: _without_folders(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(inner) for inner in value]
    if isinstance(value, str):
        return " ".join(
            "/".join(word.rstrip("/").split("/")[-2:]) if "/" in word else word for word in value.split(" ")
        )
    return value


def export_again() -> None:
    """Export the bundled models anew from the checkpoints that they hold; cards and weights stay."""
    for kept in sorted(models_folder().glob("*/checkpoint.safetensors")):
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = shutil.copy(kept, folder)
            card_text = (kept.parent / CARD_NAME).read_bytes()
            bundle = export_bundle(Path(checkpoint), kept.parent, name=kept.parent.name, overwrite=True)
            shutil.copy(checkpoint, bundle.location / kept.name)
            (bundle.location / CARD_NAME).write_bytes(card_text)
        print(f"{kept.parent.name}: {bundle.sha256}")


def main() -> None:
    """Make every model that was named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="folders of runs with a reference")
    parser.add_argument("--single", nargs="*", type=Path, default=[], help="folders of runs without one")
    parser.add_argument("--note", default="", help="what the record of the runs does not tell")
    parser.add_argument("--again", action="store_true", help="only export the bundled models anew")
    arguments = parser.parse_args()
    if arguments.again:
        export_again()
        return
    for run in arguments.runs:
        with tempfile.TemporaryDirectory() as folder:
            stored = Path(folder) / "checkpoint.safetensors"
            checkpoint = store(run, stored, arguments.note)
            name = bundle_name(checkpoint)
            bundle = export_bundle(stored, models_folder() / name, name=name, overwrite=True)
            shutil.copy(stored, bundle.location / stored.name)
        (bundle.location / CARD_NAME).write_text(card(name, checkpoint), encoding="utf-8")
        print(f"{name}: {bundle.sha256}")
    for run in arguments.single:
        checkpoint = load_checkpoint(run / BEST)
        path = SINGLE_CHECKPOINTS / f"minet-x{checkpoint.model.config.scale}-single.safetensors"
        store(run, path, "")
        print(path.name)


if __name__ == "__main__":
    main()
