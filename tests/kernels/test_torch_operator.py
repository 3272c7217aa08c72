"""The PyTorch operators: the CPU form against the training code, the CUDA form by running its launches as PTX."""

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import product
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.library import opcheck

from minet_sdk.cuda.driver import Gpu
from minet_sdk.errors import BackendError, InputError, TrainingError
from minet_sdk.kernels import launches, reference, torch_launch
from minet_sdk.kernels.launches import Launch
from minet_sdk.kernels.ptx import PtxError
from minet_sdk.kernels.reference import Affinity
from minet_sdk.kernels.torch_interpreter import InterpreterLauncher
from minet_sdk.kernels.torch_operator import integrate
from minet_sdk.training.config import MinetConfig
from minet_sdk.training.integration import MultiStageIntegration, use_kernels
from minet_sdk.training.model import build

pytestmark = pytest.mark.long

MODES = get_args(Affinity)
SETTINGS = {"temperature": 0.3, "gain": 0.6}
FORMATS = {"linear": torch.contiguous_format, "hwc8": torch.channels_last}
ROUNDING = {torch.float32: 4e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
"""Largest error of a result, relative to its largest value: float32 sums, rounded once."""


def features_of(
    stages: int = 3,
    dtype: torch.dtype = torch.float32,
    layout: str = "linear",
    batch: int = 2,
    size: tuple[int, int] = (3, 2),
    channels: int = 8,
) -> Tensor:
    """(batch, stages * channels, H, W), correlated and small enough that no mode saturates."""
    generator = torch.Generator().manual_seed(stages)
    common = torch.randn(batch, 1, channels, *size, generator=generator)
    stacked = 0.1 * (common + torch.randn(batch, stages, channels, *size, generator=generator))
    return stacked.flatten(1, 2).to(dtype).contiguous(memory_format=FORMATS[layout])


def by_stage(features: Tensor, stages: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """For the float64 reference: (N, M, C, H, W)."""
    return features.detach().double().unflatten(1, (stages, -1)).numpy()


def settings_of(mode: Affinity) -> dict[str, float]:
    """The reference has a gain in `released` only."""
    return {"temperature": 0.3, "gain": 0.6 if mode == "released" else 1.0}


def error(found: Tensor, expected: np.ndarray[Any, Any]) -> float:
    return float(np.abs(found.detach().double().numpy() - expected).max() / np.abs(expected).max())


# The operators where there is no kernel: plain PyTorch.


@pytest.mark.parametrize("mode", MODES)
def test_cpu_form_is_bitwise_the_training_code(mode: Affinity) -> None:
    module = MultiStageIntegration(mode)
    for dtype in (torch.float32, torch.bfloat16):
        stages = features_of(dtype=dtype).unflatten(1, (3, -1))
        plain = module(stages)
        use_kernels(module)
        assert torch.equal(module(stages), plain)
        use_kernels(module, enabled=False)
        assert torch.equal(module(stages), plain)


def test_training_through_the_operators_takes_the_same_step() -> None:
    """Gradients of the whole network, learnt temperature included; under autocast too."""
    network = build(MinetConfig(stages=2, blocks=1, channels=16, affinity="cosine"))
    target, guide = torch.randn(2, 1, 8, 8), torch.randn(2, 1, 16, 16)
    for enabled in (False, True):
        gradients: list[dict[str, Tensor]] = []
        for through in (False, True):
            use_kernels(network, through)
            network.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                network(target, guide).restored.float().square().mean().backward()
            gradients.append({name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None})
        plain, found = gradients
        assert plain.keys() == found.keys()
        assert float(plain["integration.log_temperature"].abs()) > 0
        tolerance = 2e-2 if enabled else 1e-4
        for name, gradient in plain.items():
            scale = float(gradient.abs().max())
            torch.testing.assert_close(found[name], gradient, rtol=tolerance, atol=tolerance * scale, msg=name)


def test_a_network_without_integration_is_refused() -> None:
    with pytest.raises(TrainingError, match="MINet has no multi-stage integration"):
        use_kernels(build(MinetConfig(stages=1, blocks=1, channels=16, integration="reduction")))


CALLS: dict[str, Callable[[Tensor], tuple[Any, ...]]] = {
    "gram": lambda features: (features, 3),
    "mixing_matrix": lambda features: (features, 3, "cosine", 0.3, 0.6),
    "mix_stages": lambda features: (features, torch.rand(2, 3, 3, dtype=features.dtype).requires_grad_()),
    "fold_weights": lambda features: (features, torch.rand(2, 3, 3, dtype=features.dtype).requires_grad_()),
    "integrate": lambda features: (features, 3, "released", 0.3, 0.6),
}


@pytest.mark.parametrize("name", CALLS)
def test_operators_keep_the_rules_of_pytorch(name: str) -> None:
    """Schema, autograd registration, shape and layout of the fake results."""
    for layout in FORMATS if name in ("mix_stages", "integrate") else ("linear",):
        arguments = CALLS[name](features_of(layout=layout).requires_grad_())
        tests = ("test_schema", "test_autograd_registration", "test_faketensor")
        opcheck(getattr(torch.ops.minet, name).default, arguments, test_utils=tests)


def test_operators_trace_with_symbolic_shapes() -> None:
    arguments = CALLS["integrate"](features_of().requires_grad_())
    opcheck(torch.ops.minet.integrate.default, arguments, test_utils="test_aot_dispatch_dynamic")


def _call(operator: Callable[..., Tensor], mode: Affinity, features: Tensor) -> Tensor:
    return operator(features, 3, mode, 0.3, 0.6)


@pytest.mark.parametrize("mode", MODES)
def test_gradients_are_those_of_finite_differences(mode: Affinity) -> None:
    features = features_of(dtype=torch.float64, batch=1, size=(2, 1)).requires_grad_()
    for operator in (torch.ops.minet.integrate, torch.ops.minet.mixing_matrix):
        assert torch.autograd.gradcheck(partial(_call, operator, mode), features)

    def learnt(features: Tensor, temperature: Tensor, gain: Tensor) -> Tensor:
        return integrate(features, 3, mode, temperature, gain)

    numbers = [torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (0.3, 0.6)]
    assert torch.autograd.gradcheck(learnt, (features, *numbers))


def test_gradients_of_the_pieces() -> None:
    features = features_of(dtype=torch.float64, batch=2, size=(2, 1)).requires_grad_()
    mixing = torch.rand(2, 3, 3, dtype=torch.float64).requires_grad_()
    weight = torch.rand(2, 24, 1, 1, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(torch.ops.minet.mix_stages, (features, mixing))
    assert torch.autograd.gradcheck(torch.ops.minet.fold_weights, (weight, mixing))
    assert torch.autograd.gradcheck(partial(torch.ops.minet.gram, stages=3), features)
    assert torch.autograd.gradgradcheck(partial(_call, torch.ops.minet.integrate, "cosine"), features)


def test_a_cosine_of_an_empty_stage_has_a_gradient() -> None:
    features = features_of()
    features[:, :8] = 0
    features.requires_grad_()
    torch.ops.minet.integrate(features, 3, "cosine", 0.3, 1.0).sum().backward()
    assert features.grad is not None
    assert bool(features.grad.isfinite().all())


def test_compiles_as_one_graph() -> None:
    def function(features: Tensor, temperature: Tensor) -> Tensor:
        return integrate(2 * features, 3, "cosine", temperature).square().sum()

    features, temperature = features_of().requires_grad_(), torch.tensor(0.3, requires_grad=True)
    expected = torch.autograd.grad(function(features, temperature), (features, temperature))
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(compiled(features, temperature), (features, temperature))
    torch.testing.assert_close(found, expected)


def test_the_module_compiles_with_kernels() -> None:
    module = MultiStageIntegration("cosine")
    use_kernels(module)
    stages = features_of().unflatten(1, (3, -1))
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(stages), module(stages))


@pytest.mark.parametrize("layout", FORMATS)
def test_layout_of_the_result_is_that_of_the_features(layout: str) -> None:
    features = features_of(layout=layout)
    result = torch.ops.minet.integrate(features, 3, "paper", 1.0, 1.0)
    assert result.stride() == features.stride()
    assert result.is_contiguous(memory_format=FORMATS[layout])
    torch.testing.assert_close(result, torch.ops.minet.integrate(features.contiguous(), 3, "paper", 1.0, 1.0))


@pytest.mark.parametrize("mode", MODES)
def test_overflow_makes_the_whole_sample_nan_and_no_other(mode: Affinity) -> None:
    features = features_of()
    features[1, 0, 0, 0] = 3e19  # its square is beyond float32
    for result in (
        torch.ops.minet.integrate(features, 3, mode, 0.3, 0.6),
        integrate(features, 3, mode, torch.tensor(0.3), torch.tensor(0.6)),
    ):
        assert bool(result[1].isnan().all())
        assert bool(result[0].isfinite().all())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: integrate(torch.zeros(1, 12, 2, 2), 3, "paper"), r"\(1, 12, 2, 2\).*C a multiple of 8"),
        (lambda: integrate(torch.zeros(1, 24, 2, 2), 5, "paper"), "M = 5 stages"),
        (lambda: integrate(torch.zeros(24, 2, 2), 3, "paper"), r"expected \(N, M \* C, H, W\)"),
        (lambda: integrate(torch.zeros(1, 33 * 8, 2, 2), 33, "paper"), "stages is 33; the integration takes 1 to 32"),
        (lambda: integrate(torch.zeros(1, 24, 2, 2), 3, "softmax"), "mode is 'softmax'; choose one of paper"),  # pyright: ignore[reportArgumentType]
        (lambda: integrate(torch.zeros(1, 24, 2, 2, dtype=torch.int32), 3, "paper"), "features are torch.int32"),
        (lambda: torch.ops.minet.mix_stages(torch.zeros(2, 24, 2, 2), torch.zeros(1, 3, 3)), "with N = 2"),
        (lambda: torch.ops.minet.mix_stages(torch.zeros(1, 24, 2, 2), torch.zeros(1, 3, 3).half()), "expected float32"),
        (lambda: torch.ops.minet.fold_weights(torch.zeros(4, 20, 3, 3), torch.zeros(1, 3, 3)), "M = 3 stages"),
        (lambda: torch.ops.minet.fold_weights(torch.zeros(4, 24, 3, 3), torch.zeros(3, 3)), r"expected \(N, M, M\)"),
    ],
)  # fmt: skip
def test_what_kernels_do_not_take_is_refused_everywhere(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


# What the CUDA form launches, executed by the PTX interpreter.


@pytest.fixture(scope="module")
def interpreter() -> Generator[InterpreterLauncher]:
    """With fewer parts of the Gram sum than on a GPU, where they cost nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launches, "SPLITS", 3)
        yield InterpreterLauncher()


CASES = list(product((torch.float32, torch.float16, torch.bfloat16), FORMATS))


@pytest.mark.parametrize(("dtype", "layout"), CASES)
def test_launches_integrate(interpreter: InterpreterLauncher, dtype: torch.dtype, layout: str) -> None:
    stages, mode = 3, MODES[CASES.index((dtype, layout)) % 3]
    features = features_of(stages, dtype, layout)
    gain = settings_of(mode)["gain"]
    result = torch_launch.integrate(interpreter, features, stages, mode, 0.3, gain)
    assert (result.shape, result.dtype, result.stride()) == (features.shape, dtype, features.stride())
    expected = reference.integrate(by_stage(features, stages), mode, **settings_of(mode)).reshape(features.shape)
    assert error(result, expected) < ROUNDING[dtype]


@pytest.mark.parametrize("dtype", ROUNDING)
def test_launches_fold(interpreter: InterpreterLauncher, dtype: torch.dtype) -> None:
    weight = torch.randn(4, 24, 3, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    mixing = torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(1))
    folded = torch_launch.fold_weights(interpreter, weight, mixing)
    assert folded.shape == (2, 4, 24, 3, 3)
    expected = reference.folded_weights(weight.double().numpy(), mixing.double().numpy())
    assert error(folded, expected) < ROUNDING[dtype]


@pytest.mark.parametrize("stages", [1, 12, 17, 32])
def test_launches_of_any_number_of_stages(interpreter: InterpreterLauncher, stages: int) -> None:
    features = features_of(stages, torch.float16, "hwc8", batch=1)
    result = torch_launch.integrate(interpreter, features, stages, "cosine", 0.3, 1.0)
    expected = reference.integrate(by_stage(features, stages), "cosine", temperature=0.3).reshape(features.shape)
    assert error(result, expected) < ROUNDING[torch.float16]


class Watched:
    """A launcher that notes which memory the kernels are given."""

    def __init__(self, launch: InterpreterLauncher) -> None:
        self.launch = launch
        self.addresses: list[int] = []

    def __call__(self, launch: Launch, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        self.addresses += [tensor.data_ptr() for tensor in inputs]
        self.launch(launch, inputs, outputs)


def test_both_layouts_are_read_where_they_lie(interpreter: InterpreterLauncher) -> None:
    for layout in FORMATS:
        features = features_of(layout=layout)
        watched = Watched(interpreter)
        torch_launch.gram_partials(watched, features, 3)
        assert watched.addresses == [features.data_ptr()]


@pytest.mark.parametrize("unfit", ["strided", "misaligned"])
def test_other_memory_is_copied_first(interpreter: InterpreterLauncher, unfit: str) -> None:
    features = features_of()
    if unfit == "strided":
        view = features.repeat_interleave(2, dim=3)[..., ::2]
    else:
        view = torch.cat([torch.zeros(1), features.flatten()])[1:].view(features.shape)
        assert view.data_ptr() % torch_launch.ALIGNMENT
    result = torch_launch.integrate(interpreter, view, 3, "cosine", 0.3, 1.0)
    assert torch.equal(result, torch_launch.integrate(interpreter, features, 3, "cosine", 0.3, 1.0))


def test_a_wrong_stride_or_order_of_arguments_shows(interpreter: InterpreterLauncher) -> None:
    """The planted faults of the tests above: the layout misread, and A given where F belongs."""
    features = features_of(layout="hwc8")
    expected = reference.gram(by_stage(features, 3))
    good = torch_launch.gram_partials(interpreter, features, 3).sum(dim=1)
    assert error(good, expected) < ROUNDING[torch.float32]
    misread = features.permute(0, 2, 3, 1).view(features.shape)
    assert error(torch_launch.gram_partials(interpreter, misread, 3).sum(dim=1), expected) > 0.1

    def swapped(launch: Launch, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        interpreter(launch, inputs[::-1], outputs)

    with pytest.raises(PtxError):
        torch_launch.mix_stages(swapped, features, torch.eye(3).repeat(2, 1, 1))


def test_a_matrix_on_another_device_is_refused(interpreter: InterpreterLauncher) -> None:
    with pytest.raises(InputError, match="mixing is on meta"):
        torch_launch.mix_stages(interpreter, features_of(), torch.empty(2, 3, 3, device="meta"))


# Between the operators and the device.


class FakeLayer:
    """Stands in for the device: notes what it is asked to launch."""

    def __init__(self, ordinal: int, capability: tuple[int, int]) -> None:
        self.gpu = Gpu(ordinal, "GPU", capability)
        self.launched: list[tuple[str, list[int], list[int], int]] = []
        self.entered = 0

    def enter(self) -> None:
        self.entered += 1

    def caller_stream(self, stream: int) -> int:
        return stream

    def launch(self, launch: Launch, inputs: list[int], outputs: list[int], stream: int) -> None:
        self.launched.append((launch.entry, inputs, outputs, stream))


@pytest.fixture
def layers(monkeypatch: pytest.MonkeyPatch) -> list[FakeLayer]:
    """Every layer that the launcher makes; there is no device, so a CPU tensor stands on device None."""
    made: list[FakeLayer] = []

    def make_layer(_name: str, ordinal: int, ptx_for: Callable[[tuple[int, int]], str]) -> FakeLayer:
        time.sleep(0.01)  # so that threads meet here
        assert ".target sm_75" in ptx_for((7, 5))
        assert ".target sm_80" in ptx_for((9, 0))
        made.append(FakeLayer(ordinal, (7, 5)))
        return made[-1]

    monkeypatch.setattr(torch_launch, "make_layer", make_layer)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: 77)
    return made


def test_cuda_launcher_passes_addresses_and_the_current_stream(layers: list[FakeLayer]) -> None:
    first, second, output = torch.zeros(4), torch.zeros(4), torch.zeros(4)
    launch = Launch("minet_mix_stacked_f16", (1, 1, 1), 32, (5,))
    torch_launch.CudaLauncher()(launch, [first, second], [output])
    addresses = [first.data_ptr(), second.data_ptr()]
    assert layers[0].launched == [("minet_mix_stacked_f16", addresses, [output.data_ptr()], 77)]
    assert layers[0].entered == 1


def test_cuda_launcher_loads_once_for_all_threads(layers: list[FakeLayer]) -> None:
    launcher, launch = torch_launch.CudaLauncher(), Launch("minet_mix_stacked_f16", (1, 1, 1), 32, ())
    threads = [threading.Thread(target=launcher, args=(launch, [], [torch.zeros(4)])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(layers) == 1
    assert layers[0].entered == len(layers[0].launched) == 8


def test_bfloat16_needs_ampere(layers: list[FakeLayer]) -> None:
    launch = Launch("minet_mix_stacked_bf16", (1, 1, 1), 32, ())
    with pytest.raises(BackendError, match=r"compute capability 7\.5.*no bfloat16.*use float16"):
        torch_launch.CudaLauncher()(launch, [], [torch.zeros(4)])
    assert not layers[0].launched


# On a GPU.


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "layout"), CASES)
def test_on_a_gpu(dtype: torch.dtype, layout: str) -> None:
    features = features_of(12, dtype, layout, size=(61, 47), channels=64)
    on_gpu = features.cuda().contiguous(memory_format=FORMATS[layout])
    for mode in MODES:
        gain = settings_of(mode)["gain"]
        result = torch.ops.minet.integrate(on_gpu, 12, mode, 0.3, gain)
        assert result.stride() == features.stride()
        assert torch.equal(result, torch.ops.minet.integrate(on_gpu, 12, mode, 0.3, gain))
        stages = by_stage(features, 12)
        expected = reference.integrate(stages, mode, **settings_of(mode)).reshape(features.shape)
        assert error(result.cpu(), expected) < ROUNDING[dtype] + conditioning(stages, mode)


def conditioning(stages: np.ndarray[Any, np.dtype[np.float64]], mode: Affinity) -> float:
    """What a Gram matrix that is exact but for its rounding to float32 can do to weights: they are exp of its entries.

    Cosines are at most 1, so that theirs is nothing beside `ROUNDING`.
    """
    if mode == "cosine":
        return 0.0
    flat = stages.reshape(*stages.shape[:2], -1)
    return float(np.finfo(np.float32).eps * (flat**2).sum(axis=-1).max())


@pytest.mark.gpu
def test_gradients_on_a_gpu_are_those_of_the_cpu() -> None:
    gradients: list[tuple[Tensor, ...]] = []
    for device in ("cpu", "cuda"):
        features = features_of().to(device).requires_grad_()
        temperature = torch.tensor(0.3, device=device, requires_grad=True)
        result = integrate(features, 3, "cosine", temperature).square().sum()
        gradients.append(tuple(g.cpu() for g in torch.autograd.grad(result, (features, temperature))))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
def test_streams_threads_and_graphs_on_a_gpu() -> None:
    features = features_of(size=(64, 64)).cuda()
    expected = torch.ops.minet.integrate(features, 3, "cosine", 0.3, 1.0)
    results: list[Tensor] = []

    def work() -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.default_stream())
        with torch.cuda.stream(stream):
            results.append(torch.ops.minet.integrate(features, 3, "cosine", 0.3, 1.0))
        stream.synchronize()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(torch.equal(result, expected) for result in results)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = torch.ops.minet.integrate(features, 3, "cosine", 0.3, 1.0)
    captured.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(captured, expected)
