"""The plugins through NVIDIA's own Python layer, two versions of it, to kernels that the PTX interpreter runs."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest
from numpy.typing import NDArray

from minet_sdk.errors import BackendError
from minet_sdk.export.onnx_names import DOMAIN, OPSET
from minet_sdk.export.plugin_graph import Inputs, Route, rewrite
from minet_sdk.kernels import launches
from minet_sdk.kernels.binaries import Target
from minet_sdk.kernels.launches import SLOTS, SPLITS, Element, Launch, Layout
from minet_sdk.kernels.plugin_operators import OPERATORS
from minet_sdk.kernels.ptx import In, Out, PtxError, launch, parse
from minet_sdk.kernels.reference import Affinity, folded_weights, mixing
from minet_sdk.kernels.tensorrt_plugin import kernel_text, register
from minet_sdk.requirements import require

pytestmark = pytest.mark.long

VERSIONS = ("10.16.1.11", "11.4.0.106")
STUBS = Path(__file__).parent / "stub_tensorrt"
LIBRARIES = {"nvinfer": "infer.c", "nvonnxparser": "parser.c", "nvinfer_plugin": "plugin.c"}

MODES: tuple[Affinity, ...] = get_args(Affinity)
STAGES, CHANNELS, OUTPUTS = 5, 8, 3
MANY_STAGES = 19
"""Beyond what the first form of each kernel takes."""

TEMPERATURE, GAIN = 0.25, -0.75
SIZES = {"N": 2, "H": 5, "W": 7}
"""Odd, and more than one slice; the last vector of a row is not where a row ends."""

CLINICAL = {"N": 3, "H": 640, "W": 512}
PROFILE = {"N": [1, 1, 4], "H": [4, 320, 640], "W": [4, 320, 640]}

TYPES: dict[Element, str] = {"f32": "FLOAT", "f16": "HALF", "bf16": "BF16"}
DTYPES: dict[str, Any] = {"FLOAT": np.float32, "HALF": np.float16, "BF16": ml_dtypes.bfloat16}
TOLERANCES: dict[Element, float] = {"f32": 2e-6, "f16": 1e-3, "bf16": 8e-3}
"""Of the largest value: a little more than half a unit in the last place of the result's format."""

FORMS: list[tuple[Element, Layout]] = [
    ("f32", "linear"),
    ("f16", "linear"),
    ("bf16", "linear"),
    ("f16", "hwc8"),
    ("bf16", "hwc8"),
]
ROUTES: list[tuple[Route, Inputs]] = [("mix", "stacked"), ("mix", "separate"), ("fold", "stacked")]
"""Between them they use every plugin."""

RUNS: list[tuple[str, Target]] = [*((version, "sm80") for version in VERSIONS), (VERSIONS[-1], "sm75")]


Tensor = tuple[str, list[str | int]]
"""TensorRT's name of a type, and a shape."""


class Problem(NamedTuple):
    """One plugin in one format."""

    operator: str
    element: Element = "f32"
    layout: Layout = "linear"
    stages: int = STAGES
    mode: Affinity = "paper"


class Driven(NamedTuple):
    """What one version of TensorRT made of everything."""

    facts: dict[str, Any]
    results: dict[Problem, dict[str, Any]]
    refusals: dict[str, dict[str, Any]]


def graph(mode: str, *, batch: str = "N", stages: int = STAGES) -> onnx.ModelProto:
    """Concat, integration, reduction: the smallest graph that the plugins stand in."""
    names = [f"stage_{index}" for index in range(stages)]
    channels = stages * CHANNELS
    weight = np.zeros((OUTPUTS, channels, 3, 3), np.float32)
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": {OPSET}, "{DOMAIN}": 1]>
        graph ({", ".join(f"float[{batch}, {CHANNELS}, H, W] {name}" for name in names)}) => (float[N, K, H, W] reduced)
        {{
            features = Concat <axis = 1> ({", ".join(names)})
            mixed = {DOMAIN}.MultiStageIntegration <
                mode = "{mode}", stages = {stages}, temperature = {TEMPERATURE}, gain = {GAIN},
                plugin_namespace = "{DOMAIN}", plugin_version = "1"
            > (features)
            reduced = Conv <pads = [1, 1, 1, 1]> (mixed, weight)
        }}
    """)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "weight"))
    return model


def nodes(mode: str, route: Route, inputs: Inputs, stages: int = STAGES) -> dict[str, dict[str, Any]]:
    """Attributes of the plugin nodes by operator, as they stand in the graph that TensorRT's parser reads."""
    found: dict[str, dict[str, Any]] = {}
    for node in rewrite(graph(mode, stages=stages), route, inputs).graph.node:
        if node.domain == DOMAIN:
            values = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
            found[node.op_type] = {
                name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()
            }
    return found


def shapes(operator: str, element: Element, stages: int = STAGES) -> list[Tensor]:
    """TensorRT type and shape of a plugin's inputs, sizes of the image symbolic."""
    kind = TYPES[element]
    stacked: Tensor = (kind, ["N", stages * CHANNELS, "H", "W"])
    separate: Tensor = (kind, ["N", CHANNELS, "H", "W"])
    matrix: Tensor = ("FLOAT", ["N", stages, stages])
    tensors: dict[str, list[Tensor]] = {
        "StageGram": [stacked],
        "StageGramSeparate": [separate] * SLOTS,
        "StageAffinity": [("FLOAT", ["N", SPLITS, stages, stages])],
        "FoldWeights": [(kind, [OUTPUTS, stages * CHANNELS, 3, 3]), ("FLOAT", [1, stages, stages])],
        "MixStages": [stacked, matrix],
        "MixStagesSeparate": [*[separate] * SLOTS, matrix],
    }
    return tensors[operator]


def case(operator: str, attributes: dict[str, Any], inputs: list[Tensor], layout: Layout = "linear") -> dict[str, Any]:
    """One plugin for the driver."""
    return {
        "operator": operator,
        "attributes": attributes,
        "inputs": [{"type": kind, "shape": shape} for kind, shape in inputs],
        "layout": layout.upper(),
        "profile": PROFILE,
        "sizes": [SIZES, CLINICAL],
    }


def problems() -> dict[Problem, dict[str, Any]]:
    """Every plugin in every format, and each mode of the one that has modes."""
    cases: dict[Problem, dict[str, Any]] = {}
    for stages in (STAGES, MANY_STAGES):
        found: dict[str, dict[str, Any]] = {}
        for route, inputs in ROUTES:
            found |= nodes("paper", route, inputs, stages)
        del found["StageAffinity"]
        for operator, attributes in found.items():
            for element, layout in FORMS:
                if operator != "FoldWeights" or layout == "linear":
                    tensors = shapes(operator, element, stages)
                    cases[Problem(operator, element, layout, stages)] = case(operator, attributes, tensors, layout)
        for mode in MODES:
            attributes = nodes(mode, "mix", "stacked", stages)["StageAffinity"]
            tensors = shapes("StageAffinity", "f32", stages)
            cases[Problem("StageAffinity", stages=stages, mode=mode)] = case("StageAffinity", attributes, tensors)
    return cases


def refusals() -> dict[str, dict[str, Any]]:
    """What the plugins must not build, by what the error says."""
    gram, fold = nodes("paper", "mix", "stacked")["StageGram"], nodes("paper", "fold", "stacked")["FoldWeights"]
    mix = nodes("paper", "mix", "stacked")["MixStages"]
    weight = shapes("FoldWeights", "f32")[0]
    features = shapes("MixStages", "f32")[0]
    huge = {"N": [1, 1, 1], "H": [4, 9, 20000], "W": [4, 9, 20000]}
    return {
        "the batch is not fixed to 1": case("FoldWeights", fold, [weight, ("FLOAT", ["N", STAGES, STAGES])]),
        "5 stages do not divide": case("StageGram", gram, [("HALF", ["N", 42, "H", "W"])]),
        "expected a positive multiple of 8": case("StageGram", gram, [("HALF", ["N", 20, "H", "W"])]),
        "expected 5 stages": case("MixStages", mix, [features, ("FLOAT", ["N", 6, 6])]),
        "expected 3": case("MixStages", mix, [features, ("FLOAT", ["N", 1, STAGES, STAGES])]),
        "expected float32, float16 or bfloat16": case("StageGram", gram, [("INT8", ["N", 40, "H", "W"])]),
        "attributes {'stages': ": case("StageGram", gram | {"stages": "5"}, shapes("StageGram", "f32")),
        "expected that of the first": case(
            "StageGramSeparate",
            gram,
            [*shapes("StageGramSeparate", "f16")[:-1], ("HALF", ["N", 2 * CHANNELS, "H", "W"])],
        ),
        "cut the image into tiles": case("StageGram", gram, shapes("StageGram", "f32")) | {"profile": huge},
        "affinity mode is 'sideways'": case(
            "StageAffinity",
            nodes("paper", "mix", "stacked")["StageAffinity"] | {"mode": "sideways"},
            shapes("StageAffinity", "f32"),
        ),
    }


def bindings(version: str, root: Path = Path(sys.prefix) / "tensorrt") -> Path:
    """The folder with one version of NVIDIA's bindings; without it nothing here would prove anything."""
    folder = root / version
    if not (folder / "tensorrt_bindings").is_dir():
        pytest.fail(
            f"no TensorRT bindings in {folder}: run make .venv/.tensorrt, or "
            f"pip install --no-deps --target {folder} tensorrt-cu13-bindings=={version}",
            pytrace=False,
        )
    return folder


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, Target], Driven]:
    """Each run in a process of its own: versions share the name of their module, and a process has one target."""
    folder = tmp_path_factory.mktemp("stubs")
    cases, refused = problems(), refusals()
    for version in VERSIONS:
        for library, source in LIBRARIES.items():
            name = f"lib{library}.so.{version.split('.')[0]}"
            command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", STUBS / source, "-o", folder / name]
            subprocess.run(command, check=True)
    outcome: dict[tuple[str, Target], Driven] = {}
    for version, target in RUNS:
        output = folder / f"{version}-{target}.json"
        script = [STUBS / "driver.py", bindings(version), folder, target, output]
        subprocess.run(
            [sys.executable, "-W", "error", *script],
            input=json.dumps([*cases.values(), *refused.values()]),
            stdout=subprocess.DEVNULL,
            text=True,
            check=True,
        )
        content = json.loads(output.read_text(encoding="utf-8"))
        results = content["results"]
        outcome[version, target] = Driven(
            content["facts"],
            dict(zip(cases, results[: len(cases)], strict=True)),
            dict(zip(refused, results[len(cases) :], strict=True)),
        )
    return outcome


@pytest.fixture(scope="module")
def results(driven: dict[tuple[str, Target], Driven]) -> dict[Problem, dict[str, Any]]:
    """Of either version: the next test shows that they are the same."""
    return driven[RUNS[0]].results


def test_versions_agree(driven: dict[tuple[str, Target], Driven]) -> None:
    old, new = (driven[version, "sm80"] for version in VERSIONS)
    assert old.results == new.results
    assert old.refusals == new.refusals


@pytest.mark.parametrize(("version", "target"), RUNS)
def test_registration(driven: dict[tuple[str, Target], Driven], version: str, target: Target) -> None:
    facts = driven[version, target].facts
    assert facts["version"] == version
    assert facts["registry_of_stub"] == "None"
    assert facts["register"] is None
    assert facts["register_again"] is None
    assert facts["creators_after"] == len(OPERATORS) == len(facts["creators"])
    assert facts["creators"] == [[operator.name, "1", "minet", list(operator.settings)] for operator in OPERATORS]
    refused = f"BackendError: the plugins are registered for {target}, which TensorRT cannot change"
    assert facts["register_for_another"]["error"].startswith(refused)


def test_why_numbers_are_arrays(driven: dict[tuple[str, Target], Driven]) -> None:
    """Declared as plain numbers they never arrive with 10.16 and this NumPy."""
    old, new = (driven[version, "sm80"].facts["other_attributes"] for version in VERSIONS)
    assert "only 0-dimensional arrays can be converted" in old["int"]["error"]
    assert "only 0-dimensional arrays can be converted" in old["float"]["error"]
    assert new == {"int": "12", "float": "12.0"}


def test_refusals(driven: dict[tuple[str, Target], Driven]) -> None:
    for message, result in driven[RUNS[0]].refusals.items():
        assert result["error"].startswith("InputError: ")
        assert message in result["error"]


def test_bfloat16_is_refused_before_ampere(driven: dict[tuple[str, Target], Driven]) -> None:
    for problem, result in driven[VERSIONS[-1], "sm75"].results.items():
        assert ("error" in result) == (problem.element == "bf16")
        assert "got bfloat16, which GPUs before Ampere" in result.get("error", "got bfloat16, which GPUs before Ampere")


def test_nodes_carry_what_the_parser_looks_for() -> None:
    found: dict[str, dict[str, Any]] = {}
    for route, inputs in ROUTES:
        found |= nodes("cosine", route, inputs)
    common = {"plugin_namespace": "minet", "plugin_version": "1", "aot": 1, "stages": STAGES}
    assert set(found) == {operator.name for operator in OPERATORS}
    assert found.pop("StageAffinity") == {**common, "mode": "cosine", "temperature": TEMPERATURE, "gain": GAIN}
    assert all(attributes == common for attributes in found.values())


def test_formats(results: dict[Problem, dict[str, Any]]) -> None:
    for problem, result in results.items():
        kind = TYPES[problem.element]
        features = [[kind, layout] for layout in (["LINEAR"] if problem.element == "f32" else ["LINEAR", "HWC8"])]
        exact, weight = ["FLOAT", "LINEAR"], [kind, "LINEAR"]
        expected = {
            "StageGram": [[one, exact] for one in features],
            "StageGramSeparate": [[*[one] * SLOTS, exact] for one in features],
            "StageAffinity": [[exact, exact]],
            "FoldWeights": [[weight, exact, weight]],
            "MixStages": [[one, exact, one] for one in features],
            "MixStagesSeparate": [[*[one] * SLOTS, exact, one] for one in features],
        }[problem.operator]
        assert result["combinations"] == expected
        assert result["output_type"] == (kind if problem.operator.startswith(("Mix", "Fold")) else "FLOAT")
        assert result["tactics"] == []


def expected_launch(problem: Problem, sizes: dict[str, int]) -> Launch:
    """The launch from plain numbers."""
    if problem.operator == "StageAffinity":
        return launches.affinity(
            problem.mode, stages=problem.stages, batch=sizes["N"], temperature=TEMPERATURE, gain=GAIN
        )
    if problem.operator == "FoldWeights":
        return launches.fold(problem.element, stages=problem.stages, batch=1, outputs=OUTPUTS, inner=CHANNELS * 9)
    kernel = launches.gram if problem.operator.startswith("StageGram") else launches.mix
    return kernel(
        problem.element,
        problem.layout,
        stages=problem.stages,
        batch=sizes["N"],
        channels=CHANNELS,
        pixels=sizes["H"] * sizes["W"],
        separate=problem.operator.endswith("Separate"),
    )


def test_launches_follow_the_size_of_the_image(results: dict[Problem, dict[str, Any]]) -> None:
    """TensorRT evaluates expressions where everything else computes with numbers."""
    for problem, result in results.items():
        for sizes, made in zip((SIZES, CLINICAL), result["launches"], strict=True):
            expected = expected_launch(problem, sizes)
            assert result["entry"] == expected.entry
            assert tuple(made["grid"]) == expected.grid
            assert made["block"] == [expected.block, 1, 1]
            assert tuple(made["integers"]) == expected.integers
            assert made["shared"] == 0
            assert (
                made["output_shape"]
                == {
                    "StageGram": [sizes["N"], SPLITS, problem.stages, problem.stages],
                    "StageAffinity": [sizes["N"], problem.stages, problem.stages],
                    "FoldWeights": [OUTPUTS, problem.stages * CHANNELS, 3, 3],
                    "MixStages": [sizes["N"], problem.stages * CHANNELS, sizes["H"], sizes["W"]],
                }[problem.operator.removesuffix("Separate")]
            )


parsed = cache(parse)
"""Many problems share a kernel."""


def run(result: dict[str, Any], inputs: list[NDArray[Any]]) -> NDArray[Any]:
    """Launch a plugin's kernel as TensorRT would: its PTX, its parameters, pointers first and last."""
    made = result["launches"][0]
    output = np.zeros(made["output_shape"], DTYPES[result["output_type"]])
    launch(
        parsed(result["ptx"])[result["entry"]],
        grid=tuple(made["grid"]),
        block=made["block"][0],
        arguments=(*(In(np.ascontiguousarray(array)) for array in inputs), *made["integers"], Out(output)),
    )
    return output


class Data(NamedTuple):
    """Stage features (N, M, C, H, W) and a reduction's weight, rounded to a format, and as they lie in memory."""

    stages: NDArray[Any]
    weight: NDArray[Any]
    layout: Layout

    def stacked(self) -> NDArray[Any]:
        return self.arrange(self.stages.reshape(len(self.stages), -1, *self.stages.shape[3:]))

    def separate(self) -> list[NDArray[Any]]:
        each = [self.arrange(self.stages[:, index]) for index in range(self.stages.shape[1])]
        return each + each[:1] * (SLOTS - len(each))

    def arrange(self, features: NDArray[Any]) -> NDArray[Any]:
        """HWC8 is (N, H, W, C), the channels being a multiple of 8."""
        return features.transpose(0, 2, 3, 1) if self.layout == "hwc8" else features

    def restore(self, memory: NDArray[Any]) -> NDArray[np.float64]:
        """A stacked result as (N, M, C, H, W), from what a kernel wrote."""
        batch, stages, channels, height, width = self.stages.shape
        if self.layout == "hwc8":
            memory = memory.reshape(batch, height, width, stages * channels).transpose(0, 3, 1, 2)
        return memory.reshape(self.stages.shape).astype(np.float64)


def data(element: Element, layout: Layout, stages: int = STAGES) -> Data:
    """Stages that differ by little, so that no softmax is one-hot."""
    rng = np.random.default_rng(3)
    shape = (SIZES["N"], stages, CHANNELS, SIZES["H"], SIZES["W"])
    common = rng.normal(size=(shape[0], 1, *shape[2:]))
    dtype = DTYPES[TYPES[element]]
    features = (0.1 * (common + 0.3 * rng.normal(size=shape))).astype(dtype)
    return Data(features, rng.normal(size=(OUTPUTS, stages * CHANNELS, 3, 3)).astype(dtype), layout)


def reference_mixing(values: Data, mode: Affinity) -> NDArray[np.float64]:
    """A with the gain that the test sets: it weighs the softmax in every mode, in the network only in one."""
    identity = np.eye(values.stages.shape[1])
    softmax = mixing(values.stages.astype(np.float64), mode, temperature=TEMPERATURE, gain=1.0) - identity
    return identity + GAIN * softmax


def error(found: NDArray[Any], expected: NDArray[np.float64]) -> float:
    return float(np.abs(found.astype(np.float64) - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(("stages", "inputs"), [(STAGES, "stacked"), (STAGES, "separate"), (MANY_STAGES, "stacked")])
@pytest.mark.parametrize(("element", "layout"), FORMS)
def test_values(
    results: dict[Problem, dict[str, Any]], element: Element, layout: Layout, inputs: Inputs, stages: int
) -> None:
    """From the features to H and W' every kernel on what the one before wrote; where that is quick, in each mode."""
    values = data(element, layout, stages)
    suffix = "" if inputs == "stacked" else "Separate"
    features = [values.stacked()] if inputs == "stacked" else values.separate()
    flat = values.stages.astype(np.float64).reshape(SIZES["N"], stages, -1)
    partials = run(results[Problem(f"StageGram{suffix}", element, layout, stages)], features)
    for mode in MODES if (element, inputs, stages) == ("f16", "stacked", STAGES) else MODES[-1:]:
        matrix = run(results[Problem("StageAffinity", stages=stages, mode=mode)], [partials])
        expected = reference_mixing(values, mode)
        assert error(matrix, expected) < 2e-5
        mixed = run(results[Problem(f"MixStages{suffix}", element, layout, stages)], [*features, matrix])
        assert error(values.restore(mixed), (expected @ flat).reshape(values.stages.shape)) < TOLERANCES[element]
        if layout == "linear" and inputs == "stacked":
            folded = run(results[Problem("FoldWeights", element, layout, stages)], [values.weight, matrix[:1]])
            wanted = folded_weights(values.weight.astype(np.float64), expected[0])
            assert error(folded, wanted) < TOLERANCES[element]


def test_values_of_the_older_target(driven: dict[tuple[str, Target], Driven]) -> None:
    older, values = driven[VERSIONS[-1], "sm75"].results, data("f16", "hwc8")
    partials = run(older[Problem("StageGram", "f16", "hwc8")], [values.stacked()])
    matrix = run(older[Problem("StageAffinity", mode="cosine")], [partials])
    assert error(matrix, reference_mixing(values, "cosine")) < 2e-5


def changed(result: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The same plugin with other launch parameters."""
    return {**result, "launches": [{**result["launches"][0], **changes}]}


def test_planted_faults(results: dict[Problem, dict[str, Any]]) -> None:
    """Each of them gives a wrong number or breaks a rule of the machine; without them `test_values` passes."""
    values = data("f16", "hwc8")
    gram = results[Problem("StageGram", "f16", "hwc8")]
    mix = results[Problem("MixStagesSeparate", "f16", "hwc8")]
    affinity = results[Problem("StageAffinity", mode="cosine")]
    fold = results[Problem("FoldWeights", "f16")]
    expected = reference_mixing(values, "cosine")
    exact = expected.astype(np.float32)
    flat = values.stages.astype(np.float64).reshape(SIZES["N"], STAGES, -1)
    products = flat @ flat.transpose(0, 2, 1)
    mixed = (expected @ flat).reshape(values.stages.shape)
    folded = folded_weights(values.weight.astype(np.float64), expected[0])
    features = values.separate()
    partials = np.zeros((SIZES["N"], SPLITS, STAGES, STAGES), np.float32)
    partials[:, :: SPLITS // 2] = products[:, None] / 2

    def gram_error(result: dict[str, Any]) -> float:
        return error(run(result, [values.stacked()]).sum(1), products)

    def mix_error(result: dict[str, Any], stages: list[NDArray[Any]]) -> float:
        return error(values.restore(run(result, [*stages, exact])), mixed)

    def affinity_error(result: dict[str, Any]) -> float:
        return error(run(result, [partials]), expected)

    def fold_error(matrix: NDArray[Any]) -> float:
        return error(run(fold, [values.weight, matrix]), folded)

    def integers(result: dict[str, Any], index: int, value: int) -> dict[str, Any]:
        numbers = list(result["launches"][0]["integers"])
        assert numbers[index] != value
        numbers[index] = value
        return changed(result, integers=numbers)

    sound: list[Callable[[], float]] = [
        lambda: gram_error(gram),
        lambda: mix_error(mix, features),
        lambda: affinity_error(affinity),
        lambda: fold_error(exact[:1]),
    ]
    faults: dict[str, Callable[[], float]] = {
        "distance between pixels": lambda: gram_error(integers(gram, -1, CHANNELS)),
        "HWC8 taken for linear": lambda: gram_error(results[Problem("StageGram", "f16")]),
        "wrong format": lambda: gram_error(results[Problem("StageGram", "bf16", "hwc8")]),
        "two stages swapped": lambda: mix_error(mix, [features[1], features[0], *features[2:]]),
        "one slice of two": lambda: mix_error(changed(mix, grid=[mix["launches"][0]["grid"][0], 1, 1]), features),
        "half of the partial sums": lambda: affinity_error(integers(affinity, 1, SPLITS // 2)),
        "temperature as a number, not as bits": lambda: affinity_error(integers(affinity, 2, 1)),
        "mixing matrix transposed": lambda: fold_error(np.ascontiguousarray(exact[:1].transpose(0, 2, 1))),
    }
    assert all(check() < TOLERANCES["f16"] for check in sound)
    for name, check in faults.items():
        try:
            found = check()
        except PtxError:
            continue
        assert not found < 4 * TOLERANCES["f16"], name


def test_plan_carries_one_kernel(results: dict[Problem, dict[str, Any]]) -> None:
    for result in results.values():
        assert parse(result["ptx"]).entries == (result["entry"],)
    with pytest.raises(BackendError, match="target sm75 has no kernel minet_gram_stacked_bf16"):
        kernel_text("sm75", "minet_gram_stacked_bf16")


def test_missing_bindings_fail_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"pip install --no-deps --target \S+ tensorrt-cu13-bindings==10.1"):
        bindings("10.1", tmp_path)


def test_tensorrt_without_ahead_of_time_plugins_is_refused() -> None:
    with pytest.raises(BackendError, match=r"tensorrt_rtx 1\.\S+ has no ahead-of-time plugins: use TensorRT 10.16"):
        register(require("tensorrt_rtx", "this test"))


def test_import_needs_no_tensorrt() -> None:
    program = "import sys, minet_sdk.kernels.tensorrt_plugin; sys.exit(any('tensorrt' == name for name in sys.modules))"
    subprocess.run([sys.executable, "-c", program], check=True)
