"""Objectives against sums made by hand and in float64, and whose weights their gradients reach."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from minet_sdk.errors import TrainingError
from minet_sdk.kspace import degrade, degrade_complex, enforce_consistency
from minet_sdk.training.loading import Batch
from minet_sdk.training.lyu import LyuConfig
from minet_sdk.training.network import Restoration, build
from minet_sdk.training.objectives import OBJECTIVES, Composite, ObjectiveSettings, beyond_measured, make_objective
from minet_sdk.training.perception import GaborScattering, texture


def image(*values: float) -> Tensor:
    return torch.tensor(values).reshape(1, 1, 2, -1)


TRUTH = image(1.0, 2.0, 3.0, 4.0)
GUIDE = image(0.0, 1.0, 0.0, 1.0)
BATCH = Batch(torch.zeros(1, 1, 1, 1), GUIDE, TRUTH)


def test_eq6_by_hand() -> None:
    """L1 of the target is (1 + 0 + 2 + 0) / 4, of the reference (0.5 + 0 + 0 + 0.3) / 4."""
    result = Restoration(image(2.0, 2.0, 1.0, 4.0), image(0.5, 1.0, 0.0, 0.7))
    for weight in (0.3, 0.7):
        loss = make_objective("eq6", {"target_weight": weight}).generator_loss(result, BATCH)
        assert float(loss) == pytest.approx(weight * 0.75 + (1 - weight) * 0.2)
    alone = result._replace(reference=None)
    assert float(make_objective("eq6").generator_loss(alone, BATCH)) == pytest.approx(0.75)
    assert float(make_objective("l1").generator_loss(result, BATCH)) == pytest.approx(0.75)


@pytest.mark.parametrize("scale", [2, 4])
def test_detail_is_the_error_that_k_space_consistency_leaves(scale: int) -> None:
    """Against NumPy: the error after the measured centre of k-space has been put back; odd numbers of lines."""
    rng = np.random.default_rng(scale)
    truth, restored = rng.random((2, 13 * scale, 11 * scale)).astype(np.float32)
    left = enforce_consistency(restored, degrade_complex(truth, scale).real, scale, "hard") - truth
    tensors = [torch.from_numpy(array)[None, None] for array in (truth, restored)]
    found = beyond_measured(tensors[1] - tensors[0], scale)[0, 0].numpy()
    np.testing.assert_allclose(found, left, atol=1e-5)
    batch = Batch(torch.zeros(1, 1, 13, 11), tensors[0], tensors[0])
    loss = make_objective("eq6", {"detail_weight": 0.25}).generator_loss(Restoration(tensors[1]), batch)
    assert float(loss) == pytest.approx(0.75 * np.abs(restored - truth).mean() + 0.25 * np.abs(left).mean(), rel=1e-5)


def test_mean_square_of_two_images_by_hand() -> None:
    """(1 + 0 + 4 + 0) / 4 of the restored image, (0 + 1 + 0 + 9) / 4 of the intermediate one."""
    result = Restoration(image(2.0, 2.0, 1.0, 4.0), intermediates=(image(1.0, 1.0, 3.0, 1.0),))
    assert float(make_objective("mse").generator_loss(result, BATCH)) == pytest.approx(1.25 + 2.5)
    half = make_objective("mse", {"intermediate_weight": 0.5})
    assert float(half.generator_loss(result, BATCH)) == pytest.approx(1.25 + 1.25)


def smooth(size: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Two waves over the image, one of them beyond what half the resolution can show."""
    y, x = np.meshgrid(np.arange(size) / size, np.arange(size) / size, indexing="ij")
    return 5 + np.sin(2 * np.pi * (5 * y + 3 * x)) + 0.5 * np.cos(2 * np.pi * (size // 2 - 2) * x)


def test_intermediate_of_a_lower_resolution_is_compared_there() -> None:
    """In the middle of the image, the truth in half the resolution is the centre of its k-space."""
    truth = smooth(96)
    expected = degrade(truth, 2)
    middle = (slice(12, -12), slice(12, -12))
    objective = make_objective("mse")
    found = objective.get_submodule("halve")(torch.from_numpy(truth).float()[None, None])[0, 0].numpy()
    assert np.abs(found - expected)[middle].max() < 5e-3
    assert np.abs(truth[::2, ::2] - expected)[middle].max() > 0.4

    batch = Batch(torch.zeros(1), torch.zeros(1), torch.from_numpy(truth).float()[None, None])
    restored = batch.truth.clone()
    right = Restoration(restored, intermediates=(torch.from_numpy(found)[None, None],))
    shifted = Restoration(restored, intermediates=(torch.from_numpy(found)[None, None].roll(1, -1),))
    assert float(objective.generator_loss(right, batch)) == 0
    assert float(objective.generator_loss(shifted, batch)) > 1e-2


def batch_of(scale: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(0)

    def noise(size: int) -> Tensor:
        return torch.randn(2, 1, size, size, generator=generator)

    return Batch(noise(8), noise(8 * scale), noise(8 * scale))


def gradients(module: nn.Module) -> list[bool]:
    return [p.grad is not None and bool(p.grad.any()) for p in module.parameters()]


def test_each_step_of_the_composite_reaches_its_own_weights_only() -> None:
    objective = make_objective("composite")
    critic = objective.discriminator
    assert critic is not None
    network = build(LyuConfig(4, 1, 1, 16), seed=1)
    batch = batch_of(4)
    result = network(batch.target, batch.reference)
    objective.generator_loss(result, batch).backward()
    assert all(gradients(network))
    assert not any(gradients(critic))
    assert all(parameter.requires_grad for parameter in critic.parameters())

    network.zero_grad()
    loss = objective.discriminator_loss(network(batch.target, batch.reference), batch)
    assert loss is not None
    loss.backward()
    assert not any(gradients(network))
    # The last bias raises true and restored images alike: inside both margins its gradient is zero.
    without = [name for name, p in critic.named_parameters() if p.grad is None or not p.grad.any()]
    assert without in ([], ["layers.6.bias"])
    assert {name for name, _ in objective.named_parameters()} == {
        f"discriminator.{name}" for name, _ in critic.named_parameters()
    }


def test_adversarial_term_alone_moves_the_image_where_the_critic_points() -> None:
    """The gradient of the image is the critic's own, times the term's weight."""
    nothing = {"perceptual_weight": 0.0, "texture_weight": 0.0}
    objective = make_objective("composite", {**nothing, "adversarial_weight": 0.25}).eval()
    batch = batch_of()
    restored = batch.truth.clone().requires_grad_()
    (found,) = torch.autograd.grad(objective.generator_loss(Restoration(restored), batch), restored)
    assert objective.discriminator is not None
    (expected,) = torch.autograd.grad(-0.25 * objective.discriminator(restored).mean(), restored)
    torch.testing.assert_close(found, expected)
    assert float(found.abs().max()) > 0


def test_critic_learns_to_tell_two_kinds_of_image_apart() -> None:
    objective = make_objective("composite")
    assert objective.discriminator is not None
    adam = torch.optim.Adam(objective.discriminator.parameters(), lr=2e-3)
    batch = batch_of()
    blurred = Restoration(nn.functional.avg_pool2d(batch.truth, 5, 1, 2))
    losses: list[float] = []
    for _ in range(25):
        loss = objective.discriminator_loss(blurred, batch)
        assert loss is not None
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 1.5
    assert losses[-1] < 0.7 * losses[0]


def test_composite_is_the_sum_of_its_terms() -> None:
    objective = make_objective("composite").eval()
    assert isinstance(objective, Composite)
    assert objective.discriminator is not None
    batch, settings = batch_of(), objective.settings
    result = Restoration(0.8 * batch.truth)
    features = [GaborScattering()(tensor) for tensor in (result.restored, batch.truth)]
    perceptual, gram = 0.0, 0.0
    for found, expected in zip(*features, strict=True):
        a, b = (tensor.detach().double().numpy() for tensor in (found, expected))
        perceptual += np.mean((a - b) ** 2) / 2
        grams = [np.einsum("nchw,ndhw->ncd", x, x) / x[0].size for x in (a, b)]
        gram += np.mean(np.sum((grams[0] - grams[1]) ** 2, axis=(1, 2))) / 2
    adversarial = -float(objective.discriminator(result.restored).detach().mean())
    mean_square = float(np.mean((0.2 * batch.truth.double().numpy()) ** 2))
    expected = (
        mean_square
        + settings.adversarial_weight * adversarial
        + settings.perceptual_weight * perceptual
        + settings.texture_weight * gram
    )
    assert float(objective.generator_loss(result, batch)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_loss_is_float32_under_autocast(name: str) -> None:
    objective, batch = make_objective(name), batch_of()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = objective.generator_loss(Restoration(batch.truth.bfloat16(), batch.reference.bfloat16()), batch)
    assert loss.dtype == torch.float32
    assert (objective.discriminator_loss(Restoration(batch.truth), batch) is None) == (name != "composite")


def test_settings_are_checked() -> None:
    with pytest.raises(TrainingError, match="objective is 'ssim'; choose one of eq6, l1, mse, composite"):
        make_objective("ssim")
    with pytest.raises(TrainingError, match="objective_settings has no texture; expected some of target_weight"):
        make_objective("composite", {"texture": 1})
    with pytest.raises(TrainingError, match="texture_weight is -1"):
        replace(ObjectiveSettings(), texture_weight=-1)
    with pytest.raises(TrainingError, match="between 0 and 1"):
        ObjectiveSettings(target_weight=1.5)


def test_texture_is_the_gram_matrix() -> None:
    features = torch.randn(2, 5, 7, 3, generator=torch.Generator().manual_seed(1))
    exact = features.double().numpy().reshape(2, 5, 21)
    expected = np.stack([sample @ sample.T / (5 * 21) for sample in exact])
    np.testing.assert_allclose(texture(features).numpy(), expected, rtol=1e-5, atol=1e-7)
    # Texture knows what is there, not where.
    torch.testing.assert_close(texture(features.flatten(2)[:, :, torch.randperm(21)][..., None]), texture(features))
