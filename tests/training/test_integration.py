"""F_Int: what each affinity mode does to gradients, what precision it needs, and that kernels' reference agrees."""

from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from minet_sdk.errors import InputError
from minet_sdk.kernels import reference
from minet_sdk.kernels.reference import START_TEMPERATURE, Affinity
from minet_sdk.training.config import MinetConfig
from minet_sdk.training.integration import MultiStageIntegration
from minet_sdk.training.model import build


def head(size: int, seed: int) -> Tensor:
    """(1, 1, size, size) normalised: nested rings of random grey value with a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    radius = np.hypot(y, x)
    image = np.select([radius < r for r in (0.4, 0.6, 0.75, 0.9)], list(rng.uniform(0.2, 1, 4)), 0.0)
    image = image + 0.02 * rng.standard_normal(image.shape)
    return torch.from_numpy((image - image.mean()) / image.std()).float()[None, None]


def realistic_stages(size: int) -> Tensor:
    """(1, 12, 64, size, size): what F_Int receives in a network of the paper's width and stages."""
    network = build(MinetConfig(stages=6, blocks=1), seed=0)
    received: list[Tensor] = []
    network.integration.register_forward_pre_hook(lambda _, inputs: received.append(inputs[0]))
    with torch.no_grad():
        network(head(size, 2)[..., ::2, ::2], head(size, 1))
    return received[0]


def random_stages(count: int = 4, seed: int = 0) -> Tensor:
    """(2, count, 16, 6, 5) of small, correlated features, so that no mode saturates."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(2, 1, 16, 6, 5, generator=generator)
    return 0.05 * (common + torch.randn(2, count, 16, 6, 5, generator=generator))


def module_for(mode: Affinity) -> MultiStageIntegration:
    """With parameters away from their start."""
    module = MultiStageIntegration(mode)
    with torch.no_grad():
        if mode == "cosine":
            module.log_temperature.fill_(np.log(0.3))
        if mode == "released":
            module.gain.fill_(0.6)
    return module


def sensitivity(module: MultiStageIntegration, stages: Tensor) -> float:
    """How much S follows the features: norm of a random directional gradient, relative to the features' norm."""
    leaf = stages.clone().requires_grad_()
    affinity = module.affinity(leaf)
    direction = torch.randn(affinity.shape, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((affinity * direction).sum(), leaf)
    return float(gradient.double().norm() * stages.double().norm())


@pytest.mark.parametrize("size", [24, 48])
def test_paper_affinity_saturates(size: int) -> None:
    """Eq. 7 as printed: S is one-hot to rounding and nothing is learnt through it; `cosine` has neither fault."""
    stages = realistic_stages(size)
    paper, cosine = MultiStageIntegration("paper"), MultiStageIntegration("cosine")
    assert float(paper.affinity(stages).detach().amax(dim=-1).min()) > 1 - 1e-6
    assert sensitivity(paper, stages) < 1e-9
    assert float(cosine.affinity(stages).detach().amax(dim=-1).min()) < 0.9
    assert sensitivity(cosine, stages) > 1


def test_cosine_temperature_learns() -> None:
    module = MultiStageIntegration("cosine")
    assert float(module.log_temperature.detach().exp()) == pytest.approx(START_TEMPERATURE)
    module(realistic_stages(24)).square().mean().backward()
    assert module.log_temperature.grad is not None
    assert abs(float(module.log_temperature.grad)) > 1e-3


def test_cosine_ignores_the_size_of_a_stage() -> None:
    stages = random_stages()
    scaled = stages * torch.tensor([1.0, 10.0, 0.1, 3.0])[None, :, None, None, None]
    module = MultiStageIntegration("cosine")
    torch.testing.assert_close(module.affinity(scaled), module.affinity(stages))


def test_cosine_of_an_empty_stage_is_finite() -> None:
    stages = random_stages()
    stages[:, 1] = 0
    stages.requires_grad_()
    result = MultiStageIntegration("cosine")(stages)
    result.sum().backward()
    assert stages.grad is not None
    assert torch.isfinite(result).all()
    assert torch.isfinite(stages.grad).all()


def test_released_starts_as_the_identity_and_prefers_the_least_similar() -> None:
    module = MultiStageIntegration("released")
    stages = random_stages()
    assert torch.equal(module(stages), stages)
    gram = stages.flatten(2) @ stages.flatten(2).transpose(1, 2)
    assert torch.equal(module.affinity(stages).argmax(dim=-1), gram.argmin(dim=-1))


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mode", get_args(Affinity))
def test_half_precision_features_stay_finite(mode: Affinity, precision: torch.dtype) -> None:
    """A stage of unit variance has a squared norm of C * H * W, here 65536: more than float16 holds."""
    stages = torch.randn(1, 3, 64, 32, 33, generator=torch.Generator().manual_seed(0)).to(precision)
    module = module_for(mode)
    with torch.autocast("cpu", dtype=precision):
        affinity, result = module.affinity(stages), module(stages)
    assert affinity.dtype == torch.float32
    assert result.dtype == precision
    assert torch.isfinite(result).all()
    settings = {"temperature": 0.3, "gain": 0.6}
    expected = reference.integrate(stages.double().numpy(), mode, **settings)
    tolerance = 4 * torch.finfo(precision).eps
    np.testing.assert_allclose(result.detach().double().numpy(), expected, rtol=tolerance, atol=tolerance)


def test_a_naive_half_precision_gram_overflows() -> None:
    """The planted fault of the test above: the same features, the Gram matrix in their own precision."""
    flat = torch.randn(1, 3, 64, 32, 33, generator=torch.Generator().manual_seed(0)).half().flatten(2)
    gram = flat @ flat.transpose(1, 2)
    assert torch.isinf(gram.diagonal(dim1=1, dim2=2)).all()
    assert torch.isnan(gram.softmax(dim=-1)).any()


@pytest.mark.parametrize("mode", get_args(Affinity))
def test_agrees_with_the_reference_of_the_kernels(mode: Affinity) -> None:
    stages, module = random_stages(), module_for(mode)
    features = stages.double().numpy()
    with torch.no_grad():
        affinity, mixing, result = module.affinity(stages), module.mixing(stages), module(stages)
    settings = {"temperature": 0.3, "gain": 0.6}
    np.testing.assert_allclose(affinity, reference.affinity(features, mode, 0.3), atol=1e-6)
    np.testing.assert_allclose(mixing, reference.mixing(features, mode, **settings), atol=1e-6)
    np.testing.assert_allclose(result, reference.integrate(features, mode, **settings), atol=1e-6)
    if mode == "cosine":
        assert not np.allclose(affinity, reference.affinity(features, mode, 0.1), atol=1e-3)


@pytest.mark.parametrize("mode", get_args(Affinity))
def test_folded_weights_equal_h_then_convolution(mode: Affinity) -> None:
    stages = random_stages(count=4).double()
    weight = torch.randn(16, 64, 3, 3, generator=torch.Generator().manual_seed(5)).double()
    settings = {"temperature": 0.3, "gain": 0.6}
    for sample in stages:
        features = sample.numpy()
        mixed = torch.from_numpy(reference.integrate(features, mode, **settings))
        expected = functional.conv2d(mixed.flatten(0, 1)[None], weight, padding=1)
        mixing = reference.mixing(features, mode, **settings)
        flat = sample.flatten(0, 1)[None]
        folded = torch.from_numpy(reference.folded_weights(weight.numpy(), mixing))
        torch.testing.assert_close(functional.conv2d(flat, folded, padding=1), expected, atol=1e-11, rtol=1e-11)
        if mode != "paper":
            transposed = torch.from_numpy(reference.folded_weights(weight.numpy(), mixing.T))
            assert not torch.allclose(functional.conv2d(flat, transposed, padding=1), expected, rtol=1e-3, atol=1e-4)


def test_folding_a_batch_of_mixings_folds_each() -> None:
    stages = random_stages(count=2).double().numpy()
    weight = np.random.default_rng(0).standard_normal((4, 32, 3, 3))
    mixing = reference.mixing(stages, "cosine")
    folded = reference.folded_weights(weight, mixing)
    assert folded.shape == (2, 4, 32, 3, 3)
    for sample in range(2):
        np.testing.assert_array_equal(folded[sample], reference.folded_weights(weight, mixing[sample]))


def test_reference_refuses_what_does_not_fit() -> None:
    with pytest.raises(InputError, match="3 stages do not divide evenly"):
        reference.folded_weights(np.zeros((4, 32, 3, 3)), np.eye(3))
    with pytest.raises(InputError, match=r"expected \(\.\.\., M, C, H, W\)"):
        reference.gram(np.zeros((4, 8, 8)))
