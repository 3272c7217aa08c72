"""The kernels as TensorRT plugins of the quick-deployable, ahead-of-time kind: a plan carries their PTX itself.

Nothing but a plan is needed at run time: no plugin library, no Python. TensorRT is imported by whoever builds the plan.
"""

import importlib
import inspect
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from minet_sdk.errors import BackendError, InputError
from minet_sdk.kernels.binaries import Target, ptx
from minet_sdk.kernels.launches import Element, Layout, Size
from minet_sdk.kernels.plugin_operators import (
    ATTRIBUTES,
    FOLD_WEIGHTS,
    MIX_STAGES,
    NAMESPACE,
    OPERATORS,
    STAGE_GRAM,
    Operator,
    Settings,
    Shapes,
)

_ENTRY = ".visible .entry "
_TYPE_NAMES: dict[Element, str] = {"f32": "FP32", "f16": "FP16", "bf16": "BF16"}


def register(trt: ModuleType, target: Target = "sm80") -> None:
    """Make the plugins known to TensorRT, so that its ONNX parser finds them; a second time does nothing.

    Args:
        trt: the module ``tensorrt``, 10.16 or newer.
        target: of `minet_sdk.kernels.binaries.target_for` the GPU that the plan is built on.

    Raises:
        BackendError: this TensorRT has no ahead-of-time plugins, or they are registered for another target already.
    """
    layer = _plugin_layer(trt)
    for operator in OPERATORS:
        known = getattr(getattr(layer.op, NAMESPACE, None), operator.name, None)
        if known is None:
            _register(trt, layer, operator, target)
        elif known.aot_impl_func.target != target:
            raise BackendError(
                f"the plugins are registered for {known.aot_impl_func.target}, which TensorRT cannot change; asked for "
                f"{target}: build the plans of each GPU generation in a process of its own"
            )


def kernel_text(target: Target, entry: str) -> str:
    """PTX of one kernel alone, so that a plan carries, and a driver compiles, no kernel that it does not run.

    Raises:
        BackendError: the target has no such kernel.
    """
    header, *kernels = ptx(target).split(_ENTRY)
    for kernel in kernels:
        if kernel.startswith(f"{entry}("):
            return header + _ENTRY + kernel
    raise BackendError(f"target {target} has no kernel {entry}: install minet-sdk again")


def _plugin_layer(trt: ModuleType) -> ModuleType:
    """TensorRT's module of quick-deployable plugins, which warns on import that its interface may change."""
    name, version = trt.__name__, getattr(trt, "__version__", "of unknown version")
    try:
        layer = importlib.import_module(f"{name}.plugin")
    except ModuleNotFoundError:
        layer = None
    if layer is None or not hasattr(layer, "aot_impl"):
        raise BackendError(
            f"{name} {version} has no ahead-of-time plugins: use TensorRT 10.16 or newer, or build the bundle's own "
            "graph, which needs no plugin"
        )
    return layer


def _register(trt: ModuleType, layer: ModuleType, operator: Operator, target: Target) -> None:
    """Declare one plugin: what it returns, which formats it takes, how it is launched."""
    count = len(operator.inputs)
    descriptor = layer.TensorDesc

    def describe(*inputs: Any, **attributes: Any) -> Any:
        settings = Settings.from_attributes(operator.name, attributes)
        shapes = [tuple(tensor.shape_expr) for tensor in inputs]
        _check_shapes(operator, shapes, settings)
        dtype = inputs[0].dtype if operator.output != "exact" else trt.float32
        _element(trt, operator, inputs, target)
        return layer.from_shape_expr(operator.shape(shapes, settings), dtype)

    def autotune(*arguments: Any) -> list[Any]:
        element = _element(trt, operator, arguments[:count], target)
        typed = _TYPE_NAMES[element]
        # A bar couples the choices of all tensors, where an asterisk would multiply them: 2 formats, not 2 to the 32.
        layouts = "LINEAR" if element == "f32" else "LINEAR|HWC8"
        return [
            layer.AutoTuneCombination(
                ", ".join("FP32" if role == "exact" else typed for role in operator.roles),
                ", ".join(layouts if role == "features" else "LINEAR" for role in operator.roles),
            )
        ]

    def implement(*arguments: Any) -> tuple[str, str, Any, Any]:
        inputs, values = arguments[:count], arguments[count : count + len(operator.settings)]
        settings = Settings.from_attributes(operator.name, dict(zip(operator.settings, values, strict=True)))
        element = _element(trt, operator, inputs, target)
        layout: Layout = "hwc8" if inputs[0].format == trt.TensorFormat.HWC8 else "linear"
        # Expressions cannot be compared with the kernels' limits, but the largest shapes of the profile can.
        operator.launch(element, layout, [_largest(tensor.shape) for tensor in inputs], settings)
        launch = operator.launch(element, layout, [tuple(tensor.shape_expr) for tensor in inputs], settings)
        parameters = layer.KernelLaunchParams()
        parameters.grid_x, parameters.grid_y, parameters.grid_z = launch.grid
        parameters.block_x = launch.block
        integers = layer.SymIntExprs.from_tuple([layer.SymInt32(value) for value in launch.integers])
        return launch.entry, kernel_text(target, launch.entry), parameters, integers

    # The signatures are what TensorRT reads; 32 tensors are declared in a loop rather than written out.
    tensors = {name: descriptor for name, _ in operator.inputs}
    settings = {name: ATTRIBUTES[name] for name in operator.settings}
    outputs = {"outputs": tuple[descriptor]}
    returned = tuple[str | bytes, str | bytes, layer.KernelLaunchParams, layer.SymExprs]
    _declare(describe, {**tensors, **settings}, descriptor)
    _declare(autotune, {**tensors, **outputs}, list[layer.AutoTuneCombination])
    _declare(implement, {**tensors, **settings, **outputs, "tactic": int}, returned)
    compiled: Any = implement
    compiled.target = target

    name = f"{NAMESPACE}::{operator.name}"
    layer.register(name)(describe)
    layer.autotune(name)(autotune)
    layer.aot_impl(name)(compiled)


def _declare(function: Any, parameters: Mapping[str, Any], returned: Any) -> None:
    """Give a function the signature that it would have if it were written out."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    function.__signature__ = inspect.Signature(
        [inspect.Parameter(name, kind, annotation=annotation) for name, annotation in parameters.items()],
        return_annotation=returned,
    )


def _element(trt: ModuleType, operator: Operator, inputs: Sequence[Any], target: Target) -> Element:
    """The graph's number format, from the first tensor."""
    elements: dict[Any, Element] = {trt.float32: "f32", trt.float16: "f16", trt.bfloat16: "bf16"}
    element = elements.get(inputs[0].dtype)
    if element is None or (element != "f32" and operator.inputs[0][1] == "exact"):
        raise InputError(f"{operator.name} got {inputs[0].dtype}; expected float32, float16 or bfloat16 features")
    if element == "bf16" and target == "sm75":
        raise InputError(f"{operator.name} got bfloat16, which GPUs before Ampere (8.0) do not have: export fp16")
    return element


def _check_shapes(operator: Operator, shapes: Shapes, settings: Settings) -> None:
    """What would otherwise be a wrong image: sizes that do not fit together, as far as they are known.

    Raises:
        InputError: the message names operator, tensor and sizes.
    """
    known = [[_constant(size) for size in shape] for shape in shapes]
    for (name, role), shape in zip(operator.inputs, known, strict=True):
        axes = 4 if role != "exact" or name == "partials" else 3
        if len(shape) != axes:
            raise InputError(f"{operator.name}: {name} has {len(shape)} axes; expected {axes}")
        if role == "exact" and not {shape[-2], shape[-1]} <= {settings.stages, None}:
            raise InputError(f"{operator.name}: {name} has shape {shape}; expected {settings.stages} stages")
        if role == "features" and shape != known[0]:
            raise InputError(f"{operator.name}: {name} has shape {shape}; expected that of the first, {known[0]}")
    total = known[0][1]
    if operator in (STAGE_GRAM, MIX_STAGES, FOLD_WEIGHTS) and total is not None and total % settings.stages:
        raise InputError(f"{operator.name}: {total} channels; {settings.stages} stages do not divide them evenly")
    if operator is FOLD_WEIGHTS and not _is_fake(shapes[1][0]) and known[1][0] != 1:
        raise InputError(
            "FoldWeights: the batch is not fixed to 1, but all slices would share one weight: use MixStages"
        )


def _constant(size: Size) -> int | None:
    """A size if TensorRT knows it already."""
    if isinstance(size, int):
        return size
    return size.constant_value() if not size.is_fake and size.is_constant else None


def _is_fake(size: Size) -> bool:
    """TensorRT asks for data types before it knows any shape; it passes empty sizes then."""
    return not isinstance(size, int) and size.is_fake


def _largest(shape: Any) -> tuple[int, ...]:
    """A tensor's largest shape in the optimisation profile, 1 where TensorRT does not tell."""
    return tuple(max(size, 1) for size in (shape.max if shape.is_dynamic else shape))
