"""Drives NVIDIA's real plugin layer over stub libraries: run as a script, one process for each version of TensorRT.

The bindings module, its enumerations, descriptors, fields and plugin base classes are NVIDIA's. Stand-ins take the
place of what only libnvinfer makes: expressions of sizes, the registry, and where launch parameters go.
"""

import ctypes
import dataclasses
import importlib
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

LIBRARIES = ("nvinfer", "nvonnxparser", "nvinfer_plugin")


def load_bindings(bindings: str, stubs: str) -> types.ModuleType:
    """Import the bindings as `tensorrt`, a module that re-exports them, as in NVIDIA's own wheel."""
    major = Path(bindings).name.split(".")[0]
    for library in LIBRARIES:
        ctypes.CDLL(str(Path(stubs) / f"lib{library}.so.{major}"), mode=ctypes.RTLD_GLOBAL)
    sys.path.insert(0, bindings)
    real = importlib.import_module("tensorrt_bindings")
    trt = types.ModuleType("tensorrt")
    trt.__dict__.update({name: value for name, value in vars(real).items() if not name.startswith("_")})
    trt.__dict__.update(__version__=real.__version__)
    sys.modules["tensorrt"] = trt
    return trt


def load_plugin_layer() -> types.ModuleType:
    """Import NVIDIA's plugin layer as `tensorrt.plugin`; it takes the classes that it needs from `tensorrt`."""
    real = importlib.import_module("tensorrt_bindings.plugin")
    layer = types.ModuleType("tensorrt.plugin")
    layer.__dict__.update({name: getattr(real, name) for name in real.__all__})
    sys.modules["tensorrt.plugin"] = layer
    return layer


@dataclasses.dataclass(frozen=True)
class Expression:
    """A size: a number, a symbol, or an operation on two of them, folded where both are numbers."""

    value: int | str | tuple[str, "Expression", "Expression"]

    def is_constant(self) -> bool:
        return isinstance(self.value, int)

    def is_size_tensor(self) -> bool:
        return False

    def get_constant_value(self) -> int:
        assert isinstance(self.value, int)
        return self.value

    def at(self, sizes: dict[str, int]) -> int:
        """The number that TensorRT computes once the sizes are known."""
        if isinstance(self.value, int):
            return self.value
        if isinstance(self.value, str):
            return sizes[self.value]
        name, left, right = self.value
        return compute(name, left.at(sizes), right.at(sizes))


def compute(name: str, left: int, right: int) -> int:
    """TensorRT's operations on sizes."""
    return {
        "SUM": lambda: left + right,
        "SUB": lambda: left - right,
        "PROD": lambda: left * right,
        "MAX": lambda: max(left, right),
        "MIN": lambda: min(left, right),
        "EQUAL": lambda: int(left == right),
        "LESS": lambda: int(left < right),
        "FLOOR_DIV": lambda: left // right,
        "CEIL_DIV": lambda: -(-left // right),
    }[name]()


class ExpressionBuilder:
    """TensorRT's IExprBuilder."""

    def constant(self, value: int) -> Expression:
        return Expression(int(value))

    def operation(self, operation: Any, left: Expression, right: Expression) -> Expression:
        if isinstance(left.value, int) and isinstance(right.value, int):
            return Expression(compute(operation.name, left.value, right.value))
        return Expression((operation.name, left, right))


class DimsExprs(list[Any]):
    """TensorRT's shape of expressions."""

    def __init__(self, length: int) -> None:
        super().__init__([None] * length)


class Registry:
    """TensorRT's plugin registry."""

    def __init__(self) -> None:
        self.creators: dict[tuple[str, str, str], Any] = {}

    def register_creator(self, creator: Any, namespace: str) -> bool:
        key = (creator.name, creator.plugin_version, namespace)
        assert key not in self.creators
        self.creators[key] = creator
        return True

    def get_creator(self, name: str, version: str, namespace: str) -> Any:
        return self.creators[name, version, namespace]


class SymbolicArguments(dict[int, Any]):
    """Where a plugin puts its integer arguments."""

    nbSymExprs = 0  # noqa: N815


def replace_native_half(trt: types.ModuleType, registry: Registry) -> None:
    """What cannot work without libnvinfer: classes without a constructor, and the registry behind its pointer."""

    class SymbolicExpression(trt.ISymExpr):  # type: ignore[misc, name-defined]
        """NVIDIA's class, which can be written but not read: what is written is also kept."""

        def __setattr__(self, name: str, value: Any) -> None:
            self.__dict__[name] = value
            if name != "expr":
                super().__setattr__(name, value)

    trt.__dict__.update(
        IDimensionExpr=Expression,
        IExprBuilder=ExpressionBuilder,
        DimsExprs=DimsExprs,
        ISymExpr=SymbolicExpression,
        get_plugin_registry=lambda: registry,
    )


def field_data(trt: types.ModuleType, value: str | int | float) -> tuple[Any, Any]:
    """An attribute as the parser hands it over: numbers in arrays, strings with C's end-of-string character."""
    if isinstance(value, str):
        return value.encode() + b"\0", trt.PluginFieldType.CHAR
    if isinstance(value, int):
        return np.array([value], np.int32), trt.PluginFieldType.INT32
    return np.array([value], np.float32), trt.PluginFieldType.FLOAT32


def plugin_of(trt: types.ModuleType, registry: Registry, case: dict[str, Any]) -> Any:
    """Create a plugin as TensorRT's ONNX parser does from a node's attributes."""
    attributes = case["attributes"]
    creator = registry.get_creator(
        case["operator"], attributes.get("plugin_version", "1"), attributes.get("plugin_namespace", "")
    )
    fields = [
        trt.PluginField(field.name, *field_data(trt, attributes[field.name]))
        for field in creator.field_names
        if field.name in attributes
    ]
    request = trt.QuickPluginCreationRequest
    return creator.create_plugin(
        case["operator"],
        attributes["plugin_namespace"],
        trt.PluginFieldCollection(fields),
        trt.TensorRTPhase.BUILD,
        request.STRICT_AOT if attributes.get("aot") else request.UNKNOWN,
    )


def described(trt: types.ModuleType, kind: Any, layout: str, shape: list[Any], profile: dict[str, list[int]]) -> Any:
    """A tensor as TensorRT describes it to a plugin while it builds: symbolic sizes are -1, with their range."""
    tensor = trt.DynamicPluginTensorDesc()
    desc = trt.PluginTensorDesc()
    desc.dims = tuple(-1 if isinstance(size, str) else size for size in shape)
    desc.type, desc.format, desc.scale = kind, getattr(trt.TensorFormat, layout), 1.0
    tensor.desc = desc
    for index, name in enumerate(("min", "opt", "max")):
        setattr(tensor, name, tuple(profile[size][index] if isinstance(size, str) else size for size in shape))
    return tensor


def drive(trt: types.ModuleType, registry: Registry, case: dict[str, Any]) -> dict[str, Any]:
    """One plugin from creation to kernel, in the order in which TensorRT's builder calls it."""
    plugin, builder = plugin_of(trt, registry, case), ExpressionBuilder()
    shapes, profile = [tensor["shape"] for tensor in case["inputs"]], case.get("profile", {})
    kinds = [getattr(trt.DataType, tensor["type"]) for tensor in case["inputs"]]
    (output_kind,) = plugin.get_output_data_types(kinds, [len(shape) for shape in shapes])
    expressions: list[DimsExprs] = []
    for shape in shapes:
        dims = DimsExprs(len(shape))
        dims[:] = [Expression(size) for size in shape]
        expressions.append(dims)
    (output_shape,) = plugin.get_output_shapes(expressions, [], builder)

    output = [-1 if not size.is_constant() else size.get_constant_value() for size in output_shape]
    largest = [size.at({name: bounds[2] for name, bounds in profile.items()}) for size in output_shape]

    def tensors(layouts: list[str]) -> list[Any]:
        described_inputs = [
            described(trt, kind, layout, shape, profile)
            for kind, layout, shape in zip(kinds, layouts, shapes, strict=False)
        ]
        result = described(trt, output_kind, layouts[-1], output, {})
        result.max = tuple(largest)
        return [*described_inputs, result]

    count = len(shapes)
    flat = plugin.get_supported_format_combinations(tensors(["LINEAR"] * (count + 1)), count)
    combinations = [
        [[desc.type.name, desc.format.name] for desc in flat[start : start + count + 1]]
        for start in range(0, len(flat), count + 1)
    ]
    chosen = next(
        combination
        for combination in combinations
        if combination[0][1] == case["layout"] or combination[-1][1] == case["layout"]
    )
    inputs_outputs = tensors([layout for _, layout in chosen])
    plugin.configure_plugin(inputs_outputs[:count], inputs_outputs[count:])
    tactics = plugin.get_valid_tactics()
    plugin.set_tactic(tactics[0] if tactics else 0)
    launch, arguments = types.SimpleNamespace(), SymbolicArguments()
    plugin.get_launch_params(expressions, inputs_outputs, count, launch, arguments, builder)
    descs = [tensor.desc for tensor in inputs_outputs]
    entry, ptx = plugin.get_kernel(descs[:count], descs[count:])
    integers = [vars(arguments[index]) for index in range(arguments.nbSymExprs)]
    kinds_of_integers = {(value["type"].name, value["dtype"].name) for value in integers}
    assert kinds_of_integers == {("INT", "INT32")}

    def values(names: str, sizes: dict[str, int]) -> list[int]:
        return [vars(getattr(launch, name))["expr"].at(sizes) for name in names.split()]

    return {
        "output_type": output_kind.name,
        "combinations": combinations,
        "tactics": list(tactics),
        "entry": entry,
        "ptx": ptx.decode(),
        "launches": [
            {
                "output_shape": [size.at(sizes) for size in output_shape],
                "grid": values("grid_x grid_y grid_z", sizes),
                "block": values("block_x block_y block_z", sizes),
                "shared": values("shared_mem", sizes)[0],
                "integers": [value["expr"].at(sizes) for value in integers],
            }
            for sizes in case["sizes"]
        ],
    }


def attempt(function: Any, *arguments: Any) -> Any:
    """A result, or the error in words."""
    try:
        return function(*arguments)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def declare_other_attributes(trt: types.ModuleType, layer: types.ModuleType, registry: Registry) -> dict[str, Any]:
    """What becomes of attributes that are declared as plain numbers."""

    def declare(kind: Any) -> str:
        name = f"Probe{len(registry.creators)}"

        def describe(tensor: Any, size: Any) -> Any:
            return tensor.like()

        def implement(tensor: Any, size: Any, outputs: Any, tactic: Any) -> Any:
            raise AssertionError("nobody asks this plugin for a kernel")

        implement.__annotations__ = {
            "return": tuple[str, bytes, layer.KernelLaunchParams, layer.SymExprs],
        }
        describe.__annotations__ = {"tensor": layer.TensorDesc, "size": kind, "return": layer.TensorDesc}
        layer.register(f"probe::{name}")(describe)
        layer.aot_impl(f"probe::{name}")(implement)
        plugin = plugin_of(trt, registry, {"operator": name, "attributes": {"plugin_namespace": "probe", "size": 12}})
        return repr(plugin.attrs["size"])

    return {kind.__name__: attempt(declare, kind) for kind in (int, float)}


def main() -> None:
    """Arguments: folders of bindings and stubs, target of the kernels, file of results. Cases come on stdin."""
    bindings, stubs, target, output = sys.argv[1:]
    trt = load_bindings(bindings, stubs)
    registry = Registry()
    registry_of_stub = str(trt.get_plugin_registry())
    replace_native_half(trt, registry)
    layer = load_plugin_layer()
    tensorrt_plugin = importlib.import_module("minet_sdk.kernels.tensorrt_plugin")
    first = attempt(tensorrt_plugin.register, trt, target)
    creators = [[*key, [field.name for field in creator.field_names]] for key, creator in registry.creators.items()]
    facts = {
        "version": trt.__version__,
        "registry_of_stub": registry_of_stub,
        "register": first,
        "register_again": attempt(tensorrt_plugin.register, trt, target),
        "register_for_another": attempt(tensorrt_plugin.register, trt, "sm80" if target == "sm75" else "sm75"),
        "creators": creators,
        "creators_after": len(registry.creators),
        "network_flags": list(trt.NetworkDefinitionCreationFlag.__members__),
    }
    cases = json.load(sys.stdin)
    results = [attempt(drive, trt, registry, case) for case in cases]
    facts["other_attributes"] = attempt(declare_other_attributes, trt, layer, registry)
    Path(output).write_text(json.dumps({"facts": facts, "results": results}), encoding="utf-8")


if __name__ == "__main__":
    main()
