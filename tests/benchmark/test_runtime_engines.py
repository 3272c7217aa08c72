"""What a call of `Runtime` is split into, in a process of its own as the benchmark has it."""

from pathlib import Path

import pytest

from minet_sdk.backends import BACKENDS, availability
from minet_sdk.benchmark.peers import runtime_peer
from minet_sdk.benchmark.process import PeerProcess, Place
from minet_sdk.benchmark.study import real_inputs
from minet_sdk.bundle import open_bundle


@pytest.mark.parametrize("backend", ["native", "onnxruntime"])
@pytest.mark.parametrize("consistency", ["soft", "off"])
def test_the_parts_are_the_whole(tmp_path: Path, backend: str, consistency: str) -> None:
    (spec,) = (spec for spec in BACKENDS if spec.name == backend)
    if reason := availability(spec).reason:
        pytest.skip(reason)
    bundle = open_bundle("minet-fast-x2")
    real_inputs((64, 64), 2, bundle.manifest.normalisation).save(tmp_path / "inputs.npz")
    place = Place(bundle.location, tmp_path / "inputs.npz", 1, tmp_path)
    with PeerProcess(runtime_peer(backend, consistency), place) as process:
        process.open()
        times: dict[str, list[float]] = process.ask("run", calls=1, uncounted=2)["times"]
        parts = {name: seconds for name, (seconds,) in times.items()}
    assert parts["runtime"] == pytest.approx(parts["engine"] + parts["conditioning"] + parts["glue"])
    assert parts["difference"] == pytest.approx(parts["conditioning"] + parts["glue"])
    assert all(seconds > 0 for seconds in parts.values())
    assert parts["conditioning"] < parts["engine"]
