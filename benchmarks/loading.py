"""How fast training data are made: slices per second for each number of worker processes, as JSON.

    python benchmarks/loading.py --kind synthetic --path LABELS --workers 0 1 2 4 8 --output loading.json

A GPU is kept fed if batches come faster than it takes them: compare batches_per_second with the steps of a training
log. Synthetic brains need label maps, knees (--options '{"anatomy": "knee"}') nothing.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minet_sdk import __version__
from minet_sdk.training.loading import PREFETCH, SliceBatches, default_augmentation, make_loader
from minet_sdk.training.pairs import KINDS, open_source


def measure(batches: SliceBatches, workers: int, seconds: float) -> dict[str, float]:
    """Batches of an endless stream for some time.

    The clock starts after as many batches as the workers keep ready, so that what they made ahead does not count.
    """
    started = time.perf_counter()
    stream = iter(make_loader(batches, workers))
    next(stream)
    first = time.perf_counter() - started
    for _ in range(PREFETCH * workers):
        next(stream)
    count = 0
    begun = time.perf_counter()
    while (elapsed := time.perf_counter() - begun) < seconds:
        next(stream)
        count += 1
    slices = -(-batches.batch_size // batches.patches_per_slice)
    return {
        "workers": workers,
        "batches_per_second": round(count / elapsed, 3),
        "slices_per_second": round(count * slices / elapsed, 3),
        "seconds_to_first_batch": round(first, 3),
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print and, if asked to, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=list(KINDS), default="synthetic")
    parser.add_argument("--path", type=Path, help="where the data lie")
    parser.add_argument("--options", type=json.loads, default={}, help="of this kind of data, as JSON")
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--patch", type=int, default=80, help="0 for whole slices")
    parser.add_argument("--batch-size", type=int, default=6)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=10, help="for each number of workers")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(arguments)
    opened = time.perf_counter()
    source = open_source(given.kind, given.path, "train", given.options)
    opened = time.perf_counter() - opened
    batches = SliceBatches(
        source,
        scale=given.scale,
        patch=given.patch,
        batch_size=given.batch_size,
        seed=0,
        augmentation=default_augmentation(source),
    )
    report: dict[str, Any] = {
        "kind": given.kind,
        "options": given.options,
        "subjects": len(source.subjects),
        "seconds_to_open": round(opened, 3),
        "batches": {"scale": given.scale, "patch": given.patch, "batch_size": given.batch_size},
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {"minet-sdk": __version__, "numpy": np.__version__, "torch": torch.__version__},
        "results": [measure(batches, workers, given.seconds) for workers in given.workers],
    }
    text = json.dumps(report, indent=2)
    print(text)
    if given.output is not None:
        given.output.write_text(text + "\n")
    return report


if __name__ == "__main__":
    main()
