"""An independent float64 interpreter of native programs, and small programs to run through it and the engine."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from minet_sdk.backends.native import NativeEngine, NativePlan, probe
from minet_sdk.export.native_program import Activation, Code, Kind, Operation, Program, Tensor, Weight
from minet_sdk.kernels.reference import mixing

Array = npt.NDArray[np.float64]


@pytest.fixture(autouse=True)
def _compiled() -> None:
    if reason := probe():
        pytest.skip(reason)


@dataclass
class Draft:
    """A program in the making, with random weights."""

    rng: np.random.Generator
    scale: int = 1
    weights: bytearray = field(default_factory=bytearray)
    operations: list[Operation] = field(default_factory=list[Operation])

    def weight(self, *shape: int) -> int:
        """Place of new random weights, scaled so that a convolution keeps the level of its input."""
        level = np.sqrt(1 / max(1, np.prod(shape[1:])))
        offset = len(self.weights)
        self.weights.extend((self.rng.standard_normal(shape) * level).astype("<f4").tobytes())
        return offset

    def add(self, code: Code, inputs: list[Tensor], output: Tensor, **fields: Any) -> Tensor:
        self.operations.append(Operation(code, inputs, output, **fields))
        return output

    def convolution(self, inputs: list[Tensor], outputs: int, kernel: int = 3, **fields: Any) -> Tensor:
        """A convolution with bias; Winograd or 1x1 where the channels allow it."""
        channels = sum(tensor.channels for tensor in inputs)
        shuffle = fields.get("shuffle", 1)
        panels = outputs // shuffle**2 % 16 == 0 and all(tensor.channels % 16 == 0 for tensor in inputs)
        code = {3: Code.CONVOLUTION3, 1: Code.CONVOLUTION1}.get(kernel) if panels else None
        output = Tensor(Kind.IMAGE, outputs // shuffle**2, inputs[0].multiple * shuffle)
        fields = {"kernel": kernel, "before": (kernel - 1) // 2, **fields}
        return self.add(
            Code.DIRECT if code is None else code,
            inputs,
            output,
            outputs=outputs,
            weight=Weight(self.weight(outputs, channels, kernel, kernel), channels),
            bias=self.weight(outputs),
            **fields,
        )

    def dense(self, vector: Tensor, output: Tensor, shape: tuple[int, int], activation: Activation) -> Tensor:
        weight, bias = Weight(self.weight(*shape), shape[1]), self.weight(shape[0])
        return self.add(Code.DENSE, [vector], output, outputs=shape[0], weight=weight, bias=bias, activation=activation)

    def program(self, target: Tensor, restored: Tensor, reference: Tensor | None = None) -> Program:
        return Program(self.scale, target, reference, restored, self.operations)


def _convolve(image: Array, weight: Array, before: int, repeat_edge: bool) -> Array:
    """(H, W, inputs) with (outputs, inputs, k, k) -> (H, W, outputs)."""
    after = weight.shape[2] - 1 - before
    margin = ((before, after), (before, after), (0, 0))
    padded = np.pad(image, margin, mode="edge") if repeat_edge else np.pad(image, margin)
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(0, 1))
    return np.einsum("yxcij,ocij->yxo", windows, weight, optimize=True)


def _shuffled(image: Array, factor: int) -> Array:
    height, width, channels = image.shape
    parts = image.reshape(height, width, channels // factor**2, factor, factor)
    return parts.transpose(0, 3, 1, 4, 2).reshape(height * factor, width * factor, -1)


def _unshuffled(image: Array, factor: int) -> Array:
    height, width, channels = image.shape
    parts = image.reshape(height // factor, factor, width // factor, factor, channels)
    return parts.transpose(0, 2, 1, 3, 4).reshape(height // factor, width // factor, -1)


def _floats(weights: bytes, offset: int, *shape: int) -> Array:
    return np.frombuffer(weights, "<f4", int(np.prod(shape)), offset).reshape(shape).astype(np.float64)


def _weight(operation: Operation, weights: bytes) -> Array:
    weight = operation.weight
    assert weight is not None
    kernel = {Code.CONVOLUTION3: 3, Code.DIRECT: operation.kernel}.get(operation.code, 1)
    channels = sum(tensor.channels for tensor in operation.inputs)
    whole = _floats(weights, weight.offset, operation.outputs, weight.inputs, kernel, kernel)
    return whole[:, weight.first : weight.first + channels]


def interpret(program: Program, weights: bytes, target: Array, reference: Array | None = None) -> Array:
    """What a program means: images (H, W, C) in float64."""
    values: dict[Tensor, Array] = {program.target: target.astype(np.float64)}
    stages: dict[Tensor, tuple[Array, ...]] = {}
    if program.reference is not None and reference is not None:
        values[program.reference] = reference.astype(np.float64)
    for op in program.operations:
        first = values.get(op.inputs[0], np.empty(0))
        if op.code in (Code.CONVOLUTION3, Code.CONVOLUTION1, Code.DIRECT):
            images = [values[tensor] for tensor in op.inputs]
            if op.scale is not None and op.added is not None:
                images = [images[0] * values[op.scale] + values[op.added]]
            if op.sum is not None:
                values[op.sum] = images[0]
            if op.mixing is not None:
                images = list(np.einsum("ij,jyxc->iyxc", values[op.mixing], np.stack(images)))
            before = {Code.CONVOLUTION3: 1, Code.CONVOLUTION1: 0}.get(op.code, op.before)
            value = _convolve(np.concatenate(images, axis=2), _weight(op, weights), before, op.repeat_edge)
        elif op.code is Code.DENSE:
            value = _weight(op, weights)[:, :, 0, 0] @ first
        elif op.code is Code.POOL:
            value = first.mean(axis=(0, 1))
        elif op.code is Code.SHUFFLE:
            value = _shuffled(first, op.kernel)
        elif op.code is Code.UNSHUFFLE:
            value = _unshuffled(first, op.kernel)
        elif op.code is Code.GRAM:
            stages[op.output] = tuple(values[tensor] for tensor in op.inputs)
            continue
        elif op.code is Code.AFFINITY:
            stack = np.stack(stages[op.inputs[0]]).transpose(0, 3, 1, 2)
            values[op.output] = mixing(stack, op.mode, temperature=op.temperature, gain=op.gain)  # type: ignore[arg-type]
            continue
        else:
            value = first
        if op.bias is not None:
            value = value + _floats(weights, op.bias, op.outputs)
        if op.activation is Activation.RELU:
            value = np.maximum(value, 0)
        if op.activation is Activation.SIGMOID:
            value = 1 / (1 + np.exp(-value))
        value = value * op.alpha
        if op.pooled is not None:
            values[op.pooled] = value.mean(axis=(0, 1))
        if op.shuffle > 1:
            value = _shuffled(value, op.shuffle)
        if op.gate is not None:
            value = value * values[op.gate]
        for residual in op.residuals:
            value = value + values[residual]
        values[op.output] = value
    return values[program.restored]


@pytest.fixture(name="interpret", scope="session")
def _interpret() -> Callable[..., Array]:
    return interpret


@pytest.fixture
def draft() -> Draft:
    return Draft(np.random.default_rng(5))


@pytest.fixture(scope="session")
def make_small_plan(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes the folder of a x2 model with images of one channel, like every bundle's: heads, fusion, tail."""

    def make() -> Path:
        made = Draft(np.random.default_rng(6), scale=2)
        target, reference = Tensor(Kind.IMAGE, 1), Tensor(Kind.IMAGE, 1, 2)
        pooled, factors = Tensor(Kind.VECTOR, 16), Tensor(Kind.VECTOR, 16)
        guide = made.convolution([reference], 16)
        fine = made.convolution([made.convolution([target], 16)], 64, shuffle=2)
        fused = made.convolution([guide, fine], 16, 1, residuals=[fine])
        block = made.convolution([fused], 16, pooled=pooled)
        made.dense(pooled, factors, (16, 16), Activation.SIGMOID)
        scaled = made.add(Code.POINTWISE, [block], Tensor(Kind.IMAGE, 16, 2), gate=factors, residuals=[fused])
        skip = made.convolution([target], 4, 16, before=7, repeat_edge=True, shuffle=2)
        program = made.program(target, made.convolution([scaled], 1, residuals=[skip]), reference)
        folder, weights = tmp_path_factory.mktemp("plan"), bytes(made.weights)
        (folder / "native.plan").write_bytes(program.to_bytes(weights))
        (folder / "weights.bin").write_bytes(weights)
        return folder

    return make


@pytest.fixture(scope="session")
def engine_of() -> Callable[..., NativeEngine]:
    """Makes an engine for a program."""

    def make(program: Program, weights: bytes, **options: Any) -> NativeEngine:
        plan = NativePlan(program=program.to_bytes(weights), weights=weights)
        options = {"threads": 2, **options}
        return NativeEngine(plan, **options)

    return make
