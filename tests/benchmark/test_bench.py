"""The command on a tiny bundle, in a real process, and what its result holds."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minet_sdk.backends import names
from minet_sdk.benchmark.machine import LoadWatch, cores, environment, unquiet
from minet_sdk.benchmark.study import real_inputs
from minet_sdk.benchmark.table import HEADINGS, rows
from minet_sdk.errors import InputError
from minet_sdk.normalisation import Normalisation

pytestmark = pytest.mark.long

PEERS = {"onnxruntime-plain", "openvino-plain", "openvino-default"}
TORCH = {"torch-eager", "torch-channels-last", "torch-compile"}


def bench(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONWARNINGS",)}
    done = subprocess.run(
        [sys.executable, "-m", "minet_sdk.cli", "bench", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def check(report: dict[str, Any], size: int) -> None:
    """What every result must hold."""
    (comparison,) = report["comparisons"]
    everybody = {*comparison["peers"], *comparison["absent"], *comparison["failed"]}
    assert everybody == {*names(), *PEERS, *TORCH}
    assert all(reason for reason in {**comparison["absent"], **comparison["failed"]}.values())
    assert comparison["size"] == [size, size]
    assert set(comparison["operations"]) == {"whole", "prepare", "critical"}
    peaks = report["peaks"]["1"]
    assert peaks["gflops"] == peaks["libraries"][peaks["by"]] == max(peaks["libraries"].values()) > 0.1
    assert any(name.startswith("NumPy") for name in peaks["libraries"])
    assert peaks["gigabytes_per_second"] > 0.1
    assert report["environment"]["cores"] == cores()
    assert "numpy" in report["environment"]["versions"]
    floor = comparison["floor_ms"]["whole"]
    expected = 2e-6 * comparison["operations"]["whole"]["convolutions"] / report["peaks"]["1"]["gflops"]
    assert floor["direct"] == pytest.approx(expected, rel=1e-2)
    for name, peer in comparison["peers"].items():
        whole = peer["parts"]["whole"]
        assert 0 < whole["p50_ms"] <= whole["p95_ms"] <= whole["p99_ms"]
        assert peer["slices_per_second"] == pytest.approx(1e3 / whole["mean_ms"], rel=1e-2)
        assert peer["peak_mib"] > 10
        # One thread was asked for: a peer that takes two is one that did not listen.
        assert 0 < peer["cores_used"] < 1.3, name
        assert peer["floor_ratio"]["whole"]["direct"] == pytest.approx(whole["p50_ms"] / floor["direct"], rel=0.05)
        assert peer["relative_rms"] < (2e-2 if name == "openvino-default" else 1e-5)
        assert ("critical" in peer["parts"]) == peer["ours"] == (name in names())
        assert report["cold_starts"][0]["peers"][name]["parts"]["cold start"]["p50_ms"] > 50
    for row in rows(comparison):
        assert len(row) == len(HEADINGS)


def test_bench_measures_a_users_own_bundle(small_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    arguments = (small_bundle, "--size", 32, "--threads", 1, "--rounds", 1, "--backend", "native", "-o", output)
    done = bench(*arguments, "--plot", tmp_path / "plot.png")
    report = json.loads(output.read_text())
    check(report, 32)
    comparison = report["comparisons"][0]
    assert set(comparison["peers"]) == {"native", "onnxruntime-plain", "openvino-plain", "openvino-default"}
    assert "checkpoint" in comparison["absent"]["torch-eager"]
    assert "not float64" in comparison["accuracy"]
    assert "ONNX Runtime" in comparison["accuracy"]
    assert done.stdout.count("\n") == 2 + 4
    assert "torch-eager: the bundle's checkpoint is not known" in done.stderr
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    again = bench(*arguments, code=1)
    assert again.stderr.count("\n") == 1
    assert "--overwrite" in again.stderr


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_bench_with_a_checkpoint_brings_pytorch_and_float64(small_bundle: Path) -> None:
    checkpoint = small_bundle.parent / "random.safetensors"
    done = bench(small_bundle, "--size", 48, "--threads", 1, "--rounds", 1, "--checkpoint", checkpoint, "--json")
    report = json.loads(done.stdout)
    check(report, 48)
    comparison = report["comparisons"][0]
    assert set(comparison["peers"]) >= {"native", "onnxruntime", *PEERS, *TORCH}
    assert comparison["accuracy"] == "against PyTorch, float64"
    assert all(peer["relative_rms"] > 0 for peer in comparison["peers"].values())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("minet-x2", "--size", 33), "multiples of the model's scale"),
        (("minet-x2", "--backend", "fastest"), "choose one of"),
        (("nowhere",), "neither a bundled model"),
        (("minet-x2", "--checkpoint", "nowhere.safetensors"), "does not exist"),
    ],
)
def test_what_cannot_be_measured_is_one_line(arguments: tuple[object, ...], said: str) -> None:
    done = bench(*arguments, code=1)
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_checkpoint_of_another_network_is_refused(small_bundle: Path) -> None:
    done = bench("minet-x4", "--checkpoint", small_bundle.parent / "random.safetensors", code=1)
    assert "another network than the bundle's" in done.stderr
    assert "scale" in done.stderr


def test_inputs_are_real_slices_of_any_size() -> None:
    found = real_inputs((36, 500), 4, Normalisation(), slices=3)
    assert (found.targets.shape, found.references.shape) == ((3, 9, 125), (3, 36, 500))
    assert found.reference is not None
    assert (found.target.shape, found.reference.shape) == ((1, 1, 9, 125), (1, 1, 36, 500))
    assert found.reference.mean() == pytest.approx(0, abs=1e-5)
    assert found.reference.std() == pytest.approx(1, abs=1e-5)
    assert not np.array_equal(found.references[0], found.references[1])
    with pytest.raises(InputError, match="multiples"):
        real_inputs((35, 500), 4, Normalisation())


def test_the_machine_is_described_and_watched() -> None:
    found = environment()
    assert found["processor"]
    assert found["cores"] >= 1
    with LoadWatch() as watch:
        sum(range(10**6))
    assert watch.report["seconds"] >= 0
    assert watch.report["others_share"] is None or 0 <= watch.report["others_share"] <= 1.5
    assert unquiet(0.0, 0.01) == ""
    assert "other processes used 40% of the cores" in unquiet(0.4, 0.0)
    assert "virtual machines used 10%" in unquiet(0.0, 0.1)
