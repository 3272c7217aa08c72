"""Validation passes what the export wrote and names every planted fault."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest

from minet_sdk.bundle import MANIFEST, METADATA_KEY, Bundle, Graph, Manifest, Precision, sha256
from minet_sdk.errors import ExportError
from minet_sdk.export.slices import Slices
from minet_sdk.export.validate import Check, check_bundle, raise_failures
from minet_sdk.training.model import MINet

pytestmark = pytest.mark.long


@pytest.fixture
def quantised(bundle_of: Callable[[str], Bundle], tmp_path: Path) -> Path:
    """A copy of the int8 bundle to damage."""
    return Path(shutil.copytree(bundle_of("int8").location, tmp_path / "int8"))


@pytest.fixture
def folder(bundle_of: Callable[[str], Bundle], tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(bundle_of("fp32").location, tmp_path / "bundle"))


def change(folder: Path, graph: Graph, edit: Callable[[onnx.ModelProto], None]) -> None:
    """Edit a graph and make the manifest's hashes right again, so that only the fault itself is found."""
    path = folder / f"{graph}.onnx"
    model = onnx.load_model(path, load_external_data=False)
    edit(model)
    path.write_bytes(model.SerializeToString())
    manifest = Manifest.from_json((folder / MANIFEST).read_text(), "manifest")
    files = manifest.files | {path.name: sha256(path)}
    (folder / MANIFEST).write_text(replace(manifest, files=files).to_json())


def failures(folder: Path, network: MINet, slices: Slices | None = None) -> list[str]:
    return [f"{c.subject}: {c.question}: {c.answer}" for c in check_bundle(folder, network, slices) if not c.passed]


def wrong_weight(model: onnx.ModelProto) -> None:
    """Two biases of the target's branch exchanged."""
    first, second = (
        t for t in model.graph.initializer if t.name.endswith(("groups.0.last.bias", "groups.1.last.bias"))
    )
    data = list(first.external_data), list(second.external_data)
    for tensor, other in ((first, data[1]), (second, data[0])):
        entries = [onnx.StringStringEntryProto(key=e.key, value=e.value) for e in other]
        del tensor.external_data[:]
        tensor.external_data.extend(entries)


def renamed_output(model: onnx.ModelProto) -> None:
    (output,) = model.graph.output
    for node in model.graph.node:
        node.output[:] = ["image" if name == output.name else name for name in node.output]
    output.name = "image"


def swapped_references(model: onnx.ModelProto) -> None:
    """The two reference stages enter the integration in the wrong order."""
    integration = next(node for node in model.graph.node if node.domain == "minet")
    stack = next(node for node in model.graph.node if integration.input[0] in node.output)
    stack.input[0], stack.input[1] = stack.input[1], stack.input[0]


def wrong_size(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 24


def half_output(model: onnx.ModelProto) -> None:
    cast = onnx.helper.make_node("Cast", ["wide"], ["restored"], to=onnx.TensorProto.FLOAT16)
    for node in model.graph.node:
        node.output[:] = ["wide" if name == "restored" else name for name in node.output]
    model.graph.node.append(cast)
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16


def foreign_metadata(model: onnx.ModelProto) -> None:
    model.metadata_props[0].key = METADATA_KEY + ".old"


def path_outside(model: onnx.ModelProto) -> None:
    next(e for e in model.graph.initializer[0].external_data if e.key == "location").value = "../weights.bin"


def broken_temperature(model: onnx.ModelProto) -> None:
    """The node's attribute off by one part in a hundred."""
    node = next(node for node in model.graph.node if node.domain == "minet")
    attribute = next(a for a in node.attribute if a.name == "temperature")
    attribute.f *= 1.01


FAULTS: dict[str, tuple[Graph, Callable[[onnx.ModelProto], None], tuple[str, ...]]] = {
    "wrong weight": ("target", wrong_weight, ("target.onnx: values against PyTorch", "bits of model.onnx: differ")),
    "renamed output": ("model", renamed_output, ("model.onnx: outputs: got ['image'], expected ['restored']",)),
    "swapped references": ("target", swapped_references, ("target.onnx: values against PyTorch", "bits of model.onnx")),
    "fixed size": ("model", wrong_size, ("type and shape of target: got FLOAT ['N', 1, 24, 'W']",)),
    "half output": ("model", half_output, ("got FLOAT16",)),
    "metadata": ("reference", foreign_metadata, ("reference.onnx: manifest in the metadata",)),
    "path outside": ("reference", path_outside, ("reference.onnx: ", "../weights.bin")),
    "temperature": ("model", broken_temperature, ("model.onnx: values against PyTorch",)),
}


@pytest.mark.parametrize("precision", get_args(Precision))
def test_what_was_exported_passes(bundle_of: Callable[[str], Bundle], network: MINet, precision: str) -> None:
    checks = check_bundle(bundle_of(precision).location, network)
    assert not [check for check in checks if not check.passed]
    measured = [(check.subject, check.question) for check in checks if check.measured]
    assert len(measured) == (4 if precision == "fp32" else 5)


@pytest.mark.parametrize("name", FAULTS)
def test_planted_fault_is_found(folder: Path, network: MINet, name: str) -> None:
    graph, edit, expected = FAULTS[name]
    change(folder, graph, edit)
    found = " | ".join(failures(folder, network))
    for text in expected:
        assert text in found


def wrong_scale(model: onnx.ModelProto) -> None:
    """Of the input of one layer."""
    scale = next(t for t in model.graph.initializer if t.name.endswith("fusions.1.input_scale"))
    scale.CopyFrom(onnx.numpy_helper.from_array(np.array(0.125, np.float16), scale.name))


def unrounded_input(model: onnx.ModelProto) -> None:
    """One convolution that takes its input from before the rounding."""
    sources = {node.output[0]: node.input[0] for node in model.graph.node}
    convolution = next(
        node for node in model.graph.node if node.op_type == "Conv" and "reduction.weight" in node.input[1]
    )
    convolution.input[0] = sources[sources[convolution.input[0]]]


@pytest.mark.parametrize(("fault", "layer"), [(wrong_scale, "fusions.1 0.125"), (unrounded_input, "reduction None")])
def test_fault_in_the_quantisation_is_found(
    quantised: Path, network: MINet, fault: Callable[[onnx.ModelProto], None], layer: str
) -> None:
    change(quantised, "target", fault)
    found = " | ".join(failures(quantised, network))
    assert f"target.onnx: quantised layers: got ['{layer}'], expected 9 with their scales" in found
    assert "bits of model.onnx: differ" in found


def test_what_a_bundle_costs_in_decibels(folder: Path, network: MINet, slices: Slices) -> None:
    (check,) = [c for c in check_bundle(folder, network, slices) if c.question.startswith("PSNR")]
    assert check.passed
    assert "dB against float32, limit 0.01 dB" in check.answer
    assert "(middle of the study, 3 slices)" in check.answer
    change(folder, "model", swapped_references)
    assert any("model.onnx: PSNR on real slices" in failure for failure in failures(folder, network, slices))


def test_emulated_numbers_say_so(bundle_of: Callable[[str], Bundle], network: MINet, slices: Slices) -> None:
    checks = check_bundle(bundle_of("bf16").location, network, slices)
    questions = [check.question for check in checks if check.measured and check.subject == "model.onnx"]
    assert questions == [
        "values against PyTorch (bfloat16 emulated: float32, every operator's output rounded)",
        "values in true bf16",
        "PSNR on real slices (bfloat16 emulated: float32, every operator's output rounded)",
        "PSNR on real slices in true bf16",
    ]


def test_reference_head_is_found(folder: Path, network: MINet) -> None:
    def add(model: onnx.ModelProto) -> None:
        weight = network.reference_tail.weight.detach().numpy()
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "spare"))

    change(folder, "model", add)
    (failure,) = failures(folder, network)
    assert "traces of the reference head: got ['reference_tail.weight']" in failure


def test_bundle_of_another_scale_is_found(
    folder: Path, small_network: Callable[..., MINet], bundle_of: Callable[[str], Bundle]
) -> None:
    found = " | ".join(failures(folder, small_network(scale=4)))
    assert "scale: got 2, expected 4" in found
    assert "got FLOAT ['N', 1, '2*H', '2*W'], expected FLOAT ['N', 1, '4*H', '4*W']" in found
    assert "model.onnx: values against PyTorch" in found


def test_several_faults_are_collected_into_one_line(folder: Path, network: MINet) -> None:
    change(folder, "target", wrong_weight)
    change(folder, "model", renamed_output)
    (folder / "reference.onnx").write_bytes((folder / "reference.onnx").read_bytes()[:1000])
    checks = check_bundle(folder, network)
    with pytest.raises(ExportError) as error:
        raise_failures(checks, Path("output"))
    message = str(error.value)
    assert "\n" not in message
    for text in (
        "reference.onnx does not match its SHA-256",
        "model.onnx: outputs: got ['image']",
        "reference.onnx: ONNX rules",
        "reference.onnx: opens in ONNX Runtime",
        "target.onnx: values against PyTorch",
    ):
        assert text in message


def test_values_that_are_not_finite_fail(folder: Path, network: MINet) -> None:
    weights = np.fromfile(folder / "weights.bin", np.float32)
    weights[:] = np.nan
    weights.tofile(folder / "weights.bin")
    assert any("relative rms error inf" in failure for failure in failures(folder, network))


def test_no_failure_raises_nothing() -> None:
    raise_failures([Check("model.onnx", "names", "right", True)], Path("output"))
