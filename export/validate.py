"""Every export ends here: names, then types and shapes, then values against PyTorch; all failures are collected."""

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx.external_data_helper import load_external_data_for_model
from torch import Tensor

from minet_sdk.bundle import MANIFEST, METADATA_KEY, Bundle, Graph, Manifest, file_problems
from minet_sdk.errors import ExportError, first_line
from minet_sdk.export.accuracy import TOLERANCES, detail_level, difference, rms
from minet_sdk.export.examples import Example, example
from minet_sdk.export.execution import EXECUTION, Run, run_network, run_onnx, run_torch, runtime_errors
from minet_sdk.export.fidelity import DECIBELS, fidelity, restore
from minet_sdk.export.graphs import graphs_of
from minet_sdk.export.onnx_from_torch import OUTPUT, input_names, tensor_shapes
from minet_sdk.export.precision import DTYPES
from minet_sdk.export.quantise import Quantisation, layers_of_graph, scales_in
from minet_sdk.export.slices import Slices
from minet_sdk.export.weights import content
from minet_sdk.training.model import MINet
from minet_sdk.training.network import Network

Array = npt.NDArray[np.float32]

CASES = ((1, 24, 20), (2, 17, 23), (3, 33, 16))
"""N, H, W of the inputs that values are compared on: one slice and batches, odd sizes too."""

TEST_SLICES = 3
"""Real slices that every export restores; benchmarks/precision.py takes all of them."""


@dataclass(frozen=True)
class Check:
    """The outcome of one check."""

    subject: str
    """File or graphs that were checked."""

    question: str
    """What was checked."""

    answer: str
    """What was found, with the number and its limit where there is one."""

    passed: bool

    measured: bool = False
    """Whether graphs were run, and not only read."""


@dataclass(frozen=True)
class _Trial:
    """One way to run a graph, and the check that it is for."""

    subject: str
    question: str
    run: Run


@dataclass(frozen=True)
class _Case:
    """One input and what the float32 network makes of it."""

    inputs: Example
    features: Array | None
    restored: Array
    detail: float
    """Rms of what the network adds to the interpolated target."""

    @property
    def name(self) -> str:
        """Shape of the target."""
        return "x".join(str(size) for size in self.inputs.target.shape)

    def expected(self, output: str) -> tuple[Array, float]:
        """What a graph should give, and the level that differences from it are relative to."""
        if output == "reference_features":
            assert self.features is not None
            return self.features, rms(self.features)
        return self.restored, self.detail

    def feed(self) -> dict[str, Array]:
        """Inputs of all graphs by name; the reference features are PyTorch's."""
        feed = {"target": self.inputs.target, "reference": self.inputs.reference}
        return feed if self.features is None else {**feed, "reference_features": self.features}


def raise_failures(checks: list[Check], output: Path) -> None:
    """One error for all failed checks.

    Raises:
        ExportError: at least one failed.
    """
    failed = [f"{check.subject}: {check.question}: {check.answer}" for check in checks if not check.passed]
    if failed:
        raise ExportError(
            f"{output} was not written, {len(failed)} of {len(checks)} checks failed: {'; '.join(failed)}"
        )


def check_bundle(folder: Path, network: Network, slices: Slices | None = None) -> list[Check]:
    """Check a bundle that has just been written.

    Args:
        folder: the bundle.
        network: float32 network that it was exported from, the reference for all values.
        slices: real ones to measure what the precision costs in dB, none of which it was calibrated on; None leaves
            that out.

    Returns:
        Every check that could be made, in the order of the module's first line.
    """
    manifest = Manifest.from_json((folder / MANIFEST).read_text(encoding="utf-8"), str(folder / MANIFEST))
    problems = file_problems(Bundle(folder, manifest, ""))
    checks = [
        Check(MANIFEST, "files", ", ".join(problems) or f"{len(manifest.files)} SHA-256 match", not problems),
        _expect(MANIFEST, "architecture", manifest.architecture, network.config.to_dict()),
        _expect(MANIFEST, "scale", manifest.scale, network.config.scale),
        _expect(MANIFEST, "needs_reference", manifest.needs_reference, network.config.reference),
    ]
    for graph in graphs_of(network):
        checks += _check_form(folder, graph, network, manifest)
    return checks + _check_values(folder, network, manifest, slices)


def _check_form(folder: Path, graph: Graph, network: Network, manifest: Manifest) -> list[Check]:
    """What can be said without running the graph."""
    path = folder / f"{graph}.onnx"
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return [Check(path.name, "ONNX rules", first_line(error), False)]
    checks = [Check(path.name, "ONNX rules", "kept", True)]

    def expect(question: str, found: object, expected: object) -> None:
        checks.append(_expect(path.name, question, found, expected))

    model = onnx.load_model(path, load_external_data=False)
    expect("data files outside the bundle", _outside(model, folder), [])
    inputs, output = input_names(network, graph), OUTPUT[graph]
    expect("inputs", [value.name for value in model.graph.input], list(inputs))
    expect("outputs", [value.name for value in model.graph.output], [output])
    shapes = tensor_shapes(network)
    for value, name in zip([*model.graph.input, *model.graph.output], [*inputs, output], strict=False):
        expect(f"type and shape of {name}", _type_and_shape(value), f"FLOAT {shapes[name]}")
    carried = {entry.key: entry.value for entry in model.metadata_props}.get(METADATA_KEY)
    same = carried == replace(manifest, files={}).to_json()
    checks.append(Check(path.name, "manifest in the metadata", "the bundle's" if same else "not the bundle's", same))
    load_external_data_for_model(model, str(folder))
    expect("traces of the reference head", _reference_head(model, network, manifest), [])
    if quantisation := Quantisation.of(manifest):
        scales = {name: quantisation.scales.get(name) for name in layers_of_graph(network, graph)}
        found = scales_in(model)
        wrong = [
            f"{name} {found.get(name)}" for name in scales.keys() | found.keys() if found.get(name) != scales[name]
        ]
        expect(
            "quantised layers", sorted(wrong) or f"{len(found)} with their scales", f"{len(scales)} with their scales"
        )
    return checks


def _expect(subject: str, question: str, found: object, expected: object) -> Check:
    """A check that passes if both are equal."""
    passed = found == expected
    return Check(subject, question, str(found) if passed else f"got {found}, expected {expected}", passed)


def _check_values(folder: Path, network: Network, manifest: Manifest, slices: Slices | None) -> list[Check]:
    """Run all graphs and compare with PyTorch in float32: on examples of many shapes, then on real slices."""
    cases = [_case(network, manifest, index) for index in range(len(CASES))]
    precision = manifest.precision
    limit = TOLERANCES[precision].export
    checks: list[Check] = []
    runs: dict[Graph, Run] = {}
    for graph in graphs_of(network):
        try:
            runs[graph] = run_onnx(folder / f"{graph}.onnx", precision)
        except runtime_errors() as error:
            checks.append(Check(f"{graph}.onnx", "opens in ONNX Runtime", first_line(error), False))
    remark = f" ({EXECUTION[precision]})" if EXECUTION[precision] else ""
    for graph, run in runs.items():
        question = f"values against PyTorch{remark}"
        checks.append(_compare(_Trial(f"{graph}.onnx", question, run), OUTPUT[graph], cases, limit))
    if "target" in runs and {"model", "reference"} <= set(runs):
        checks.append(_check_bits(runs, cases))
    trials = [_Trial("model.onnx", f"PSNR on real slices{remark}", runs["model"])] if "model" in runs else []
    if precision != "fp32":
        exact = run_torch(network, "model", precision, Quantisation.of(manifest))
        checks.append(
            _compare(_Trial("model.onnx", f"values in true {precision}", exact), OUTPUT["model"], cases, limit)
        )
        trials.append(_Trial("model.onnx", f"PSNR on real slices in true {precision}", exact))
    if slices is not None:
        checks += _check_fidelity(trials, network, manifest, slices.spread(TEST_SLICES))
    return checks


def _compare(trial: _Trial, output: str, cases: list[_Case], limit: float) -> Check:
    """One check over all cases."""
    worst, faults = 0.0, list[str]()
    for case in cases:
        expected, level = case.expected(output)
        try:
            result = trial.run(case.feed())
        except (RuntimeError, *runtime_errors()) as error:
            faults.append(f"fails on {case.name}: {first_line(error)}")
            continue
        if result.shape == expected.shape:
            worst = max(worst, difference(result, expected) / level)
        else:
            faults.append(f"shape {result.shape} on {case.name}, expected {expected.shape}")
    answer = ", ".join([f"relative rms error {worst:.1e}, limit {limit:.0e}", *faults])
    return Check(trial.subject, trial.question, answer, worst <= limit and not faults, measured=True)


def _check_fidelity(trials: list[_Trial], network: Network, manifest: Manifest, slices: Slices) -> list[Check]:
    """What the precision costs in dB."""
    scale, normalisation, limit = manifest.scale, manifest.normalisation, DECIBELS[manifest.precision]
    expected = restore(run_network(network), slices, scale, normalisation)
    checks: list[Check] = []
    for trial in trials:
        try:
            found = fidelity(slices.targets, expected, restore(trial.run, slices, scale, normalisation))
        except (RuntimeError, *runtime_errors()) as error:
            checks.append(Check(trial.subject, trial.question, f"fails: {first_line(error)}", False, measured=True))
            continue
        answer = (
            f"{found.psnr:.2f} dB, {found.change:+.3f} dB against float32, limit {limit:g} dB; difference from float32 "
            f"{found.difference_psnr:.1f} dB ({slices.source}, {len(slices.targets)} slices)"
        )
        checks.append(Check(trial.subject, trial.question, answer, abs(found.change) <= limit, measured=True))
    return checks


def _check_bits(runs: dict[Graph, Run], cases: list[_Case]) -> Check:
    """A prefetched reference must give the same image to the last bit."""
    subject, question = "target.onnx", "bits of model.onnx"
    different: list[str] = []
    for case in cases:
        try:
            one = runs["model"](case.feed())
            two = runs["target"]({**case.feed(), "reference_features": runs["reference"](case.feed())})
        except runtime_errors() as error:
            return Check(subject, question, first_line(error), False, measured=True)
        if not np.array_equal(one, two):
            different.append(case.name)
    answer = f"differ on {', '.join(different)}" if different else "equal"
    return Check(subject, question, answer, not different, measured=True)


def _case(network: Network, manifest: Manifest, index: int) -> _Case:
    inputs = example(*CASES[index], network.config.scale, manifest.normalisation, seed=1 + index)
    reference = torch.from_numpy(inputs.reference) if network.guided else None
    with torch.no_grad():
        restored = network(torch.from_numpy(inputs.target), reference).restored.numpy()
        features = None if reference is None else network.encode_reference(reference).numpy()
    return _Case(inputs, features, restored, detail_level(network, inputs.target, restored))


def _outside(model: onnx.ModelProto, folder: Path) -> list[str]:
    """External-data paths that are not the plain name of a file in the bundle."""
    locations = {
        entry.value for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location"
    }
    return sorted(place for place in locations if PurePosixPath(place).name != place or not (folder / place).is_file())


def _type_and_shape(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    shape: list[Any] = [axis.dim_param or axis.dim_value for axis in tensor.shape.dim]
    return f"{onnx.TensorProto.DataType.Name(tensor.elem_type)} {shape}"


def _reference_head(model: onnx.ModelProto, network: Network, manifest: Manifest) -> list[str]:
    """Weights of a MINet's own head for the reference, which only training needs, recognised by their values."""
    if not isinstance(network, MINet) or not network.guided:
        return []
    unwanted = {"reference_tail.weight": network.reference_tail.weight}
    if network.config.attention:
        unwanted["reference_attention.weight"] = network.reference_attention.weight
        unwanted["reference_attention.weight, folded"] = network.reference_attention.band()
    dtype = DTYPES[manifest.precision]
    present = {content(tensor) for tensor in model.graph.initializer}
    return [name for name, weight in unwanted.items() if _bytes(weight.detach().to(dtype)) in present]


def _bytes(weight: Tensor) -> bytes:
    """Content of a tensor; NumPy has no bfloat16."""
    return weight.contiguous().view(torch.uint8).numpy().tobytes()
