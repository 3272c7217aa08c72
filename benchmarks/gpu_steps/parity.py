"""Step: what every engine and precision makes of real slices, against the float32 network and against the truth."""

from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gpu_steps.engines import built_bundles, usable_backends
from gpu_steps.networks import CHECKPOINT
from gpu_steps.results import Context
from minet_sdk.backends import Need, availability
from minet_sdk.bundle import open_bundle
from minet_sdk.export.execution import run_torch
from minet_sdk.export.fidelity import DECIBELS, fidelity, restore
from minet_sdk.export.slices import Slices, bundled_slices
from minet_sdk.kspace import degrade
from minet_sdk.runtime import Runtime
from minet_sdk.training.checkpoint import load_checkpoint

Array = npt.NDArray[np.float32]

SLICES = 6
LEAST_SECONDS = 5.0
"""Left for another engine to load and run."""


def run(context: Context) -> None:
    """Each bundle of minet-x2 on each backend that runs it here; the runtime checks the golden vector itself."""
    backends = usable_backends(context)
    if not backends:
        context.skip("no engine here runs on the GPU: see backends")
        return
    network = load_checkpoint(CHECKPOINT).minet
    slices = bundled_slices().spread(1 if context.tiny else SLICES)
    if context.tiny:
        slices = Slices(slices.targets[:, 80:144, 64:128], slices.references[:, 80:144, 64:128], slices.source)
    built = {} if context.tiny else built_bundles(context)
    bundles = {name: entry for name, entry in built.items() if name.startswith("minet-x2 ")}
    bundles = bundles or {"minet-x2 fp32": {"path": "minet-x2", "precision": "fp32"}}
    routed = {entry["precision"] for entry in bundles.values() if "route" in entry}
    first = open_bundle("minet-x2")
    expected = restore(run_torch(network, "model", "fp32"), slices, first.manifest.scale, first.manifest.normalisation)
    context.record("slices", {"source": slices.source, "count": len(slices.targets)})
    for (name, entry), spec in product(bundles.items(), backends):
        # Where TensorRT has a plan of each route, the bundle without one has only its reference graph.
        if ("route" in entry) != (entry["precision"] in routed and spec.name == "tensorrt"):
            continue
        what = f"{spec.name} {name}"
        if reason := availability(spec, Need(precision=open_bundle(entry["path"]).manifest.precision)).reason:
            context.skip(f"{what}: {reason}")
        elif context.remaining() < LEAST_SECONDS:
            context.skip(f"{what}: no time left")
        else:
            with context.attempt(what):
                _compare(context, what, Path(entry["path"]), spec.name, slices, expected)


def _compare(
    context: Context,
    what: str,
    bundle: Path,
    backend: str,
    slices: Slices,
    expected: Array,
) -> None:
    pairs = zip(slices.targets, slices.references, strict=True)
    with Runtime(bundle, backend=backend, consistency="off") as runtime:
        restored = np.stack([runtime(degrade(truth, runtime.scale), guide) for truth, guide in pairs])
        again = runtime(degrade(slices.targets[0], runtime.scale), slices.references[0])
        golden, precision = runtime.info.golden_error, runtime.bundle.manifest.precision
    found = fidelity(slices.targets, expected, restored)
    within = abs(found.change) <= DECIBELS[precision]
    context.record(
        f"engines/{what}",
        {
            "loss_db": found.change,
            "psnr_db": found.psnr,
            "difference_psnr_db": found.difference_psnr,
            "golden_error": golden,
            "within": within,
            "repeatable": bool((again == restored[0]).all()),
        },
    )
    if not within:
        context.problem(f"{what}: {found.change:+.3f} dB against fp32, {DECIBELS[precision]} dB are allowed")
    if not (again == restored[0]).all():
        context.problem(f"{what}: the same slice gives other bits the second time")
