"""What `minet-sdk bench` measures: every size with every number of threads, and the cold start."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minet_sdk.benchmark.cold_start import cold_starts
from minet_sdk.benchmark.comparison import Pace, Tell
from minet_sdk.benchmark.process import Place
from minet_sdk.benchmark.study import real_inputs
from minet_sdk.benchmark.suite import Subject, add_floors, add_peaks, measure, new_report

COLD_STARTS = Pace(rounds=5, seconds=60.0, least=1)


def bench_bundle(
    subject: Subject,
    sizes: Sequence[tuple[int, int]],
    threads: Sequence[int],
    pace: Pace,
    work: Path,
    tell: Tell = lambda text: None,
) -> dict[str, Any]:
    """Measure one bundle.

    Args:
        subject: the bundle and its peers.
        sizes: rows and columns of restored images.
        threads: numbers of threads.
        pace: for each size and number of threads.
        work: existing folder for files between processes.
        tell: told what happens.

    Returns:
        Plain data for JSON: environment, peaks, comparisons, cold starts of the first size.

    Raises:
        InputError: a size is not a multiple of the model's scale.
    """
    manifest = subject.bundle.manifest
    # All sizes are checked before minutes have passed.
    inputs = [real_inputs(size, manifest.scale, manifest.normalisation) for size in sizes]
    report = new_report(f"minet-sdk bench of {manifest.name}")
    report["models"] = {manifest.name: {"sha256": subject.bundle.sha256, "architecture": manifest.architecture}}
    for count in threads:
        gflops = add_peaks(report, count, tell)
        for size in sizes:
            tell(f"{manifest.name}, {size[0]} x {size[1]}, {count} threads")
            comparison = measure(subject, size, count, pace, work, tell)
            add_floors(comparison, gflops)
            report["comparisons"].append(comparison)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        path = Path(folder) / "inputs.npz"
        inputs[0].save(path)
        place = Place(subject.bundle.location, path, threads[0], work)
        starts = cold_starts(subject.peers, place, Pace(min(pace.rounds, 5), COLD_STARTS.seconds, 1), tell)
    report["cold_starts"] = [
        {"model": manifest.name, "size": list(sizes[0]), "threads": threads[0], "peers": starts},
    ]
    return report
