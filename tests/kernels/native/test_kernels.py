"""Every kernel against float64, on sizes that fit no tile, with both instruction sets and any number of threads."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from minet_sdk.backends.native import NativeEngine, probe
from minet_sdk.backends.native_library import ISAS, library
from minet_sdk.export.native_program import Activation, Code, Kind, Program, Tensor

Array = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]
WAYS = (("avx2", 1), ("avx2", 2), ("avx512", 1), ("avx512", 2), ("avx512", 3))
SIZES = ((1, 1), (2, 7), (4, 4), (5, 33), (19, 6), (35, 35))
TOLERANCE = 3e-6


def error(result: npt.NDArray[Any], expected: Array) -> float:
    """Root-mean-square difference, relative."""
    return float(np.sqrt(np.mean((result - expected) ** 2) / np.mean(expected**2)))


@pytest.fixture
def run(engine_of: Callable[..., NativeEngine]) -> Callable[..., Image]:
    """Runs a program in every way, all of which must give the same bits."""

    def run(program: Program, weights: bytes, target: Image, reference: Image | None = None) -> Image:
        results: list[Image] = []
        target, reference = _plain(target), None if reference is None else _plain(reference)
        for isa, threads in WAYS:
            if isa == "avx512" and not _has_avx512():
                continue
            engine = engine_of(program, weights, isa=isa, threads=threads)
            assert (engine.isa, engine.threads) == (isa, threads)
            results.append(engine.run(target, reference))
            features = None if reference is None else engine.prepare(reference)
            np.testing.assert_array_equal(engine.restore(target, features), results[0])
        for result in results:
            np.testing.assert_array_equal(result, results[0])
        return results[0] if results[0].ndim == 3 else results[0][..., None]

    return run


def _plain(image: Image) -> Image:
    """An image of one channel without its axis, as the engine takes it."""
    return image[..., 0] if image.shape[2] == 1 else image


def _has_avx512() -> bool:
    return not probe() and bool(library().minet_supports(ISAS.index("avx512")))


def noise(size: tuple[int, int], channels: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).standard_normal((*size, channels)).astype(np.float32)


@pytest.mark.parametrize("channels", [16, 32, 48, 64, 80])
@pytest.mark.parametrize("size", SIZES)
def test_winograd_convolution(draft: Any, run: Any, interpret: Any, channels: int, size: tuple[int, int]) -> None:
    target = Tensor(Kind.IMAGE, channels)
    restored = draft.convolution([target], channels)
    program, weights, image = draft.program(target, restored), bytes(draft.weights), noise(size, channels)
    assert [operation.code for operation in program.operations] == [Code.CONVOLUTION3]
    assert error(run(program, weights, image), interpret(program, weights, image)) < TOLERANCE


@pytest.mark.parametrize(("inputs", "outputs"), [((16, 64), 16), ((64, 32, 16), 48), ((128,), 16), ((16,), 144)])
@pytest.mark.parametrize("kernel", [1, 3])
def test_convolution_of_several_images(
    draft: Any, run: Any, interpret: Any, inputs: tuple[int, ...], outputs: int, kernel: int
) -> None:
    target = Tensor(Kind.IMAGE, inputs[0])
    images = [target, *(draft.convolution([target], channels, 1) for channels in inputs[1:])]
    program = draft.program(target, draft.convolution(images, outputs, kernel))
    weights, image = bytes(draft.weights), noise((9, 13), inputs[0])
    assert error(run(program, weights, image), interpret(program, weights, image)) < TOLERANCE


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("channels", [16, 3])
def test_every_step_of_the_epilogue(draft: Any, run: Any, interpret: Any, kernel: int, channels: int) -> None:
    target = Tensor(Kind.IMAGE, channels)
    other = draft.convolution([target], channels, 1, activation=Activation.SIGMOID)
    third = draft.convolution([target], channels, kernel, activation=Activation.RELU, alpha=0.3, residuals=[target])
    gated = draft.convolution([third], channels, kernel, gate=other, residuals=[target, third, other])
    output = Tensor(Kind.IMAGE, channels)
    draft.add(Code.POINTWISE, [gated], output, activation=Activation.RELU, alpha=-0.7, gate=third, residuals=[other])
    program, weights, image = draft.program(target, output), bytes(draft.weights), noise((21, 34), channels)
    assert error(run(program, weights, image), interpret(program, weights, image)) < TOLERANCE


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel", [1, 3])
def test_channel_attention(draft: Any, run: Any, interpret: Any, size: tuple[int, int], kernel: int) -> None:
    target, vector = Tensor(Kind.IMAGE, 32), Tensor(Kind.VECTOR, 32)
    image = draft.convolution([target], 32, kernel, pooled=vector)
    squeezed, factors = Tensor(Kind.VECTOR, 2), Tensor(Kind.VECTOR, 32)
    for source, result, activation in ((vector, squeezed, Activation.RELU), (squeezed, factors, Activation.SIGMOID)):
        shape = (result.channels, source.channels)
        draft.dense(source, result, shape, activation)
    output = draft.add(Code.POINTWISE, [image], Tensor(Kind.IMAGE, 32), gate=factors, residuals=[target])
    program, weights, pixels = draft.program(target, output), bytes(draft.weights), noise(size, 32) + 1
    assert error(run(program, weights, pixels), interpret(program, weights, pixels)) < TOLERANCE


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [16, 64, 80])
@pytest.mark.parametrize("wanted", [True, False])
def test_convolution_of_a_scaled_sum(
    draft: Any, run: Any, interpret: Any, size: tuple[int, int], channels: int, wanted: bool
) -> None:
    target, vector, total = Tensor(Kind.IMAGE, channels), Tensor(Kind.VECTOR, channels), Tensor(Kind.IMAGE, channels)
    image = draft.convolution([target], channels, pooled=vector)
    fields = {"scale": vector, "added": target, "sum": total if wanted else None}
    convolved = draft.convolution([image], 64, **fields)
    output = draft.convolution([convolved, total] if wanted else [convolved], channels)
    program, weights, pixels = draft.program(target, output), bytes(draft.weights), noise(size, channels) + 1
    assert error(run(program, weights, pixels), interpret(program, weights, pixels)) < TOLERANCE


def test_images_too_large_for_the_caches(draft: Any, run: Any, interpret: Any) -> None:
    """With AVX-512 they are written past them, by every kind of operation."""
    size = (190, 183)
    assert size[0] * size[1] * 16 * 4 > 2 << 20
    target, vector, total = Tensor(Kind.IMAGE, 16), Tensor(Kind.VECTOR, 16), Tensor(Kind.IMAGE, 16)
    image = draft.convolution([target], 16, pooled=vector)
    convolved = draft.convolution([image], 16, scale=vector, added=target, sum=total, activation=Activation.RELU)
    fused = draft.convolution([convolved, total], 16, 1, residuals=[image])
    wide = draft.convolution([fused], 16, 5, residuals=[total])
    output = draft.add(Code.POINTWISE, [wide], Tensor(Kind.IMAGE, 16), gate=vector, residuals=[fused])
    program, weights, pixels = draft.program(target, output), bytes(draft.weights), noise(size, 16) + 1
    assert error(run(program, weights, pixels), interpret(program, weights, pixels)) < TOLERANCE


@pytest.mark.parametrize("channels", [1, 5, 16])
def test_pooling_by_itself(draft: Any, run: Any, interpret: Any, channels: int) -> None:
    target, vector = Tensor(Kind.IMAGE, channels), Tensor(Kind.VECTOR, channels)
    draft.add(Code.POOL, [target], vector)
    output = draft.add(Code.POINTWISE, [target], Tensor(Kind.IMAGE, channels), gate=vector)
    program, pixels = draft.program(target, output), noise((77, 90), channels) + 2
    assert error(run(program, b"", pixels), interpret(program, b"", pixels)) < TOLERANCE


@pytest.mark.parametrize("size", [(1, 1), (3, 18), (20, 7), (16, 37)])
@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "fields"),
    [
        (1, 64, 3, {}),
        (2, 32, 3, {"activation": Activation.RELU}),
        (64, 1, 3, {}),
        (16, 3, 3, {"activation": Activation.SIGMOID}),
        (3, 5, 5, {}),
        (1, 7, 3, {}),
        (32, 32, 7, {}),
        (1, 4, 16, {"before": 7, "repeat_edge": True, "shuffle": 2}),
        (1, 16, 16, {"before": 7, "repeat_edge": True, "shuffle": 4}),
        (32, 4, 3, {"shuffle": 2, "activation": Activation.RELU}),
    ],
)
def test_direct_convolution(
    draft: Any,
    run: Any,
    interpret: Any,
    size: tuple[int, int],
    inputs: int,
    outputs: int,
    kernel: int,
    fields: dict[str, Any],
) -> None:
    target = Tensor(Kind.IMAGE, inputs)
    draft.scale = fields.get("shuffle", 1)
    program = draft.program(target, draft.convolution([target], outputs, kernel, **fields))
    assert program.operations[0].code is Code.DIRECT
    weights, image = bytes(draft.weights), noise(size, inputs)
    assert error(run(program, weights, image), interpret(program, weights, image)) < TOLERANCE


@pytest.mark.parametrize("outputs", [64, 128, 256])
def test_convolution_that_shuffles(draft: Any, run: Any, interpret: Any, outputs: int) -> None:
    draft.scale = 2
    target = Tensor(Kind.IMAGE, 32)
    restored = draft.convolution([target], outputs, shuffle=2, activation=Activation.RELU)
    program, weights, image = draft.program(target, restored), bytes(draft.weights), noise((7, 10), 32)
    assert error(run(program, weights, image), interpret(program, weights, image)) < TOLERANCE


def test_shuffles_by_themselves(draft: Any, run: Any, interpret: Any) -> None:
    draft.scale = 2
    target, coarse = Tensor(Kind.IMAGE, 12), Tensor(Kind.IMAGE, 12)
    fine = draft.add(Code.SHUFFLE, [target], Tensor(Kind.IMAGE, 3, 2), kernel=2)
    draft.add(Code.UNSHUFFLE, [fine], coarse, kernel=2)
    output = draft.add(Code.SHUFFLE, [coarse], Tensor(Kind.IMAGE, 3, 2), kernel=2)
    program, image = draft.program(target, output), noise((5, 6), 12)
    np.testing.assert_array_equal(run(program, b"", image), interpret(program, b"", image))


@pytest.mark.parametrize("mode", ["paper", "released", "cosine"])
@pytest.mark.parametrize(("stages", "known"), [(1, 0), (4, 2), (5, 3), (7, 0), (12, 6)])
def test_integration(draft: Any, run: Any, interpret: Any, mode: str, stages: int, known: int) -> None:
    target, reference = Tensor(Kind.IMAGE, 16), Tensor(Kind.IMAGE, 16)
    features = [draft.convolution([reference], 16, 1, alpha=0.02) for _ in range(known)]
    features += [draft.convolution([target], 16, 1, alpha=0.02) for _ in range(stages - known)]
    first = draft.add(Code.GRAM, features[:known], Tensor(Kind.MATRIX, known)) if known else None
    gram = draft.add(Code.GRAM, features, Tensor(Kind.MATRIX, stages), known=first)
    settings = {"mode": mode, "temperature": 0.2, "gain": 0.8 if mode == "released" else 1.0}
    matrix = draft.add(Code.AFFINITY, [gram], Tensor(Kind.MATRIX, stages), **settings)
    program = draft.program(target, draft.convolution(features, 16, mixing=matrix), reference)
    weights, image, guide = bytes(draft.weights), noise((67, 71), 16), noise((67, 71), 16, seed=1)
    assert error(run(program, weights, image, guide), interpret(program, weights, image, guide)) < TOLERANCE


def test_gram_matrix_is_summed_in_double_precision(draft: Any, run: Any, interpret: Any) -> None:
    """A large common level: differences between products are lost where a long sum is kept in float32."""
    target = Tensor(Kind.IMAGE, 16)
    features = [draft.convolution([target], 16, 1, alpha=1e-3) for _ in range(3)]
    gram = draft.add(Code.GRAM, features, Tensor(Kind.MATRIX, 3))
    matrix = draft.add(Code.AFFINITY, [gram], Tensor(Kind.MATRIX, 3), mode="paper")
    program = draft.program(target, draft.convolution(features, 16, mixing=matrix))
    weights, image = bytes(draft.weights), noise((130, 140), 16) + 3
    assert error(run(program, weights, image), interpret(program, weights, image)) < TOLERANCE


def test_the_comparison_sees_one_wrong_weight(draft: Any, run: Any, interpret: Any) -> None:
    target = Tensor(Kind.IMAGE, 16)
    program = draft.program(target, draft.convolution([target], 16))
    weights, image = bytes(draft.weights), noise((9, 9), 16)
    wrong = bytearray(weights)
    wrong[400:404] = np.float32(np.frombuffer(weights, "<f4", 1, 400)[0] * 1.01).tobytes()
    assert error(run(program, bytes(wrong), image), interpret(program, weights, image)) > 3 * TOLERANCE


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_so(draft: Any, run: Any, value: float) -> None:
    target = Tensor(Kind.IMAGE, 16)
    first = draft.convolution([target], 16, activation=Activation.RELU)
    gram = draft.add(Code.GRAM, [first, target], Tensor(Kind.MATRIX, 2))
    matrix = draft.add(Code.AFFINITY, [gram], Tensor(Kind.MATRIX, 2), mode="cosine")
    program = draft.program(target, draft.convolution([first, target], 16, mixing=matrix))
    image = noise((9, 9), 16)
    image[4, 4, 3] = value
    assert np.isnan(run(program, bytes(draft.weights), image)).all()


def test_nothing_of_an_earlier_call_is_seen(draft: Any, engine_of: Any) -> None:
    target, vector = Tensor(Kind.IMAGE, 16), Tensor(Kind.VECTOR, 16)
    image = draft.convolution([target], 16, pooled=vector)
    output = draft.add(Code.POINTWISE, [image], Tensor(Kind.IMAGE, 16), gate=vector, residuals=[target])
    program, weights = draft.program(target, output), bytes(draft.weights)
    engine = engine_of(program, weights)
    first = engine.run(noise((13, 17), 16))
    engine.run(noise((40, 30), 16, seed=3))
    engine.run(np.full((13, 17, 16), np.nan, np.float32))
    np.testing.assert_array_equal(engine.run(noise((13, 17), 16)), first)
