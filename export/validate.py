"""Every export ends here: names, then types and shapes, then values against PyTorch; all failures are collected."""

from collections.abc import Callable
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
from minet_sdk.export.graphs import ModelGraph, graphs_of
from minet_sdk.export.onnx_from_torch import OUTPUT, input_names, tensor_shapes
from minet_sdk.export.precision import DTYPES, TensorCoreConvolutions
from minet_sdk.requirements import require
from minet_sdk.training.model import MINet

Array = npt.NDArray[np.float32]

CASES = ((1, 24, 20), (2, 17, 23), (3, 33, 16))
"""N, H, W of the inputs that values are compared on: one slice and batches, odd sizes too."""


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


def check_bundle(folder: Path, network: MINet) -> list[Check]:
    """Check a bundle that has just been written.

    Args:
        folder: the bundle.
        network: float32 network that it was exported from, the reference for all values.

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
    return checks + _check_values(folder, network, manifest)


def _check_form(folder: Path, graph: Graph, network: MINet, manifest: Manifest) -> list[Check]:
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
    shapes = tensor_shapes(network.config)
    for value, name in zip([*model.graph.input, *model.graph.output], [*inputs, output], strict=False):
        expect(f"type and shape of {name}", _type_and_shape(value), f"FLOAT {shapes[name]}")
    carried = {entry.key: entry.value for entry in model.metadata_props}.get(METADATA_KEY)
    same = carried == replace(manifest, files={}).to_json()
    checks.append(Check(path.name, "manifest in the metadata", "the bundle's" if same else "not the bundle's", same))
    load_external_data_for_model(model, str(folder))
    expect("traces of the reference head", _reference_head(model, network, manifest), [])
    return checks


def _expect(subject: str, question: str, found: object, expected: object) -> Check:
    """A check that passes if both are equal."""
    passed = found == expected
    return Check(subject, question, str(found) if passed else f"got {found}, expected {expected}", passed)


def _check_values(folder: Path, network: MINet, manifest: Manifest) -> list[Check]:
    """Run all graphs on all cases and compare with PyTorch in float32."""
    cases = [_case(network, manifest, index) for index in range(len(CASES))]
    limit = TOLERANCES[manifest.precision].export
    checks: list[Check] = []
    runs: dict[Graph, Callable[[dict[str, Array]], Array]] = {}
    for graph in graphs_of(network):
        try:
            runs[graph] = _session(folder / f"{graph}.onnx")
        except _runtime_errors() as error:
            checks.append(Check(f"{graph}.onnx", "opens in ONNX Runtime", first_line(error), False))

    def compare(subject: str, question: str, compute: Callable[[_Case], Array], output: str = "restored") -> None:
        """One check over all cases."""
        worst, faults = 0.0, list[str]()
        for case in cases:
            expected, level = case.expected(output)
            try:
                result = compute(case)
            except (RuntimeError, *_runtime_errors()) as error:
                faults.append(f"fails on {case.name}: {first_line(error)}")
                continue
            if result.shape == expected.shape:
                worst = max(worst, difference(result, expected) / level)
            else:
                faults.append(f"shape {result.shape} on {case.name}, expected {expected.shape}")
        passed = worst <= limit and not faults
        answer = ", ".join([f"relative rms error {worst:.1e}, limit {limit:.0e}", *faults])
        checks.append(Check(subject, question, answer, passed, measured=True))

    for graph, run in runs.items():
        compare(f"{graph}.onnx", "values against PyTorch", lambda case, run=run: run(case.feed()), OUTPUT[graph])
    if "target" in runs and {"model", "reference"} <= set(runs):
        checks.append(_check_bits(runs, cases))
    if manifest.precision != "fp32":
        half = ModelGraph(network, manifest.precision)
        compare("model.onnx", f"values in true {manifest.precision}", lambda case: _torch(half, case))
    return checks


def _check_bits(runs: dict[Graph, Callable[[dict[str, Array]], Array]], cases: list[_Case]) -> Check:
    """A prefetched reference must give the same image to the last bit."""
    subject, question = "target.onnx", "bits of model.onnx"
    different: list[str] = []
    for case in cases:
        try:
            one = runs["model"](case.feed())
            two = runs["target"]({**case.feed(), "reference_features": runs["reference"](case.feed())})
        except _runtime_errors() as error:
            return Check(subject, question, first_line(error), False, measured=True)
        if not np.array_equal(one, two):
            different.append(case.name)
    answer = f"differ on {', '.join(different)}" if different else "equal"
    return Check(subject, question, answer, not different, measured=True)


def _case(network: MINet, manifest: Manifest, index: int) -> _Case:
    inputs = example(*CASES[index], network.config.scale, manifest.normalisation, seed=1 + index)
    reference = torch.from_numpy(inputs.reference) if network.config.reference else None
    with torch.no_grad():
        restored = network(torch.from_numpy(inputs.target), reference).restored.numpy()
        features = None if reference is None else network.encode_reference(reference).numpy()
    return _Case(inputs, features, restored, detail_level(network, inputs.target, restored))


def _session(path: Path) -> Callable[[dict[str, Array]], Array]:
    """The graph in ONNX Runtime: takes the inputs that it knows by name, gives its first output."""
    ort = require("onnxruntime", "validating an export")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = {value.name for value in session.get_inputs()}
    return lambda feed: session.run(None, {name: value for name, value in feed.items() if name in names})[0]


def _runtime_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: its exceptions share no base class of their own, a missing input is a ValueError."""
    state = require("onnxruntime.capi.onnxruntime_pybind11_state", "validating an export")
    return (ValueError, state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NoSuchFile,
            state.NotImplemented, state.RuntimeException)  # fmt: skip


def _torch(module: ModelGraph, case: _Case) -> Array:
    """The graph's own operators in PyTorch, rounded to the graph's precision after each."""
    reference: Tensor | None = None if case.features is None else torch.from_numpy(case.inputs.reference)
    with torch.no_grad(), TensorCoreConvolutions():
        return module(torch.from_numpy(case.inputs.target), reference).numpy()


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


def _reference_head(model: onnx.ModelProto, network: MINet, manifest: Manifest) -> list[str]:
    """Weights of the reference's own head, which only training needs, recognised by their values."""
    if not network.config.reference:
        return []
    unwanted = {"reference_tail.weight": network.reference_tail.weight}
    if network.config.attention:
        unwanted["reference_attention.weight"] = network.reference_attention.weight
        unwanted["reference_attention.weight, folded"] = network.reference_attention.band()
    dtype = DTYPES[manifest.precision]
    present = {onnx.numpy_helper.to_array(tensor).tobytes() for tensor in model.graph.initializer}
    return [name for name, weight in unwanted.items() if weight.detach().to(dtype).numpy().tobytes() in present]
