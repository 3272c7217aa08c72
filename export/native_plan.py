"""A bundle's graph as the native engine's program, and the file that holds it.

Only model.onnx is read: what depends on the reference alone is found in it, so that the engine can compute it early.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

import onnx

from minet_sdk.atomic import replacing
from minet_sdk.bundle import MANIFEST, METADATA_KEY, NATIVE_PLAN, Bundle, Manifest, open_bundle
from minet_sdk.errors import ExportError
from minet_sdk.export.native_fusion import fuse
from minet_sdk.export.native_program import Kind, Program, Tensor
from minet_sdk.export.native_translation import Translator
from minet_sdk.export.weights import WEIGHTS

_GRAPH = "model.onnx"


def write_native_plan(folder: Path) -> Path:
    """Write native.plan beside a bundle's model.onnx and weights.bin.

    Args:
        folder: holds both; the manifest is read from the graph.

    Returns:
        The file's path.

    Raises:
        ExportError: the model is not float32, or has a node that the native engine does not know; nothing is written.
    """
    model = onnx.load(folder / _GRAPH, load_external_data=False)
    text = {prop.key: prop.value for prop in model.metadata_props}.get(METADATA_KEY, "")
    manifest = Manifest.from_json(text, str(folder / _GRAPH))
    if manifest.precision != "fp32":
        raise ExportError(f"model {manifest.name} is {manifest.precision}; the native engine runs fp32")
    weights = (folder / WEIGHTS).read_bytes()
    content = native_program(model, weights, manifest.scale).to_bytes(weights)
    path = folder / NATIVE_PLAN
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return path


def add_native_plan(bundle: Bundle) -> Bundle:
    """Write native.plan into a bundle that was exported without it, and list it in the manifest.

    Raises:
        ExportError: see `write_native_plan`.
        BundleError: the bundle was changed meanwhile.
    """
    path = write_native_plan(bundle.location)
    files = {**bundle.manifest.files, NATIVE_PLAN: hashlib.sha256(path.read_bytes()).hexdigest()}
    with replacing(bundle.location / MANIFEST) as temporary:
        temporary.write_text(replace(bundle.manifest, files=dict(sorted(files.items()))).to_json(), encoding="utf-8")
    return open_bundle(bundle.location)


def native_program(model: onnx.ModelProto, weights: bytes, scale: int) -> Program:
    """Translate a graph from `target` (and `reference`) to `restored`.

    Args:
        model: float32, its weights outside in weights.bin.
        weights: content of that file.
        scale: magnification.

    Raises:
        ExportError: a node that the native engine does not know, or a known one in an unknown form.
    """
    inputs = {value.name: _channels(value) for value in model.graph.input}
    if "target" not in inputs or not set(inputs) <= {"target", "reference"} or len(model.graph.output) != 1:
        raise ExportError(f"the native engine takes target and reference and gives one image; got {sorted(inputs)}")
    target = Tensor(Kind.IMAGE, inputs["target"])
    reference = Tensor(Kind.IMAGE, inputs["reference"], scale) if "reference" in inputs else None
    translator = Translator(model.graph, weights, target, reference)
    restored = translator.run()
    return Program(scale, target, reference, restored, fuse(translator.operations, target, restored))


def _channels(value: onnx.ValueInfoProto) -> int:
    dimensions = value.type.tensor_type.shape.dim
    if len(dimensions) != 4 or dimensions[1].dim_value < 1:
        raise ExportError(f"the native engine wants {value.name} as (N, channels, H, W)")
    return dimensions[1].dim_value
