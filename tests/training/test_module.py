"""A run's steps against the same steps written out in plain PyTorch, with the plain optimiser, schedule and average."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from minet_sdk.training.config import MinetConfig
from minet_sdk.training.fit import fit
from minet_sdk.training.loading import Batch
from minet_sdk.training.module import AdversarialModule, RestorationModule
from minet_sdk.training.network import Network, build
from minet_sdk.training.objectives import Composite, make_objective
from minet_sdk.training.preparing import prepare
from minet_sdk.training.settings import Machine, TrainingSettings

SETTINGS = TrainingSettings(
    network=MinetConfig(stages=1, blocks=1, channels=16, affinity="cosine", skip="sinc"),
    method="minet",
    objective="eq6",
    data_options={"contrast": {"size": 48}},
    patch=16,
    batch_size=4,
    steps=6,
    learning_rate=2e-3,
    discriminator_learning_rate=1e-3,
    warm_up=3,
    clip_norm=0.05,
    average=0.3,
    validate_every=6,
    validation_slices=1,
    seed=5,
    precision="32-true",
)


def weights(module: nn.Module) -> list[Tensor]:
    return [parameter.detach().double().clone() for parameter in module.parameters()]


def trained(settings: TrainingSettings, labels: Path, folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """State at the end of a run, and the network that it saved."""
    fit(settings, folder, Machine(data_path=labels, accelerator="cpu"), progress=False)
    return torch.load(folder / "last.ckpt")["state_dict"], load_file(folder / "best.safetensors")


def batches(settings: TrainingSettings, labels: Path) -> list[Batch]:
    """What each step sees: two units of two patches."""
    units = prepare(settings, Machine(data_path=labels)).data.units
    pairs = [(units[2 * step], units[2 * step + 1]) for step in range(settings.steps)]
    return [Batch(*(torch.cat(parts) for parts in zip(*pair, strict=True))) for pair in pairs]


def step(optimiser: torch.optim.Optimizer, loss: Tensor, peak: float, number: int, settings: TrainingSettings) -> None:
    """One step as the settings describe it: warm-up, cosine, clipping by the norm over all weights, Adam."""
    cosine = 0.01 + 0.99 * (1 + math.cos(math.pi * number / settings.steps)) / 2
    optimiser.param_groups[0]["lr"] = peak * min(1, (number + 1) / 3) * cosine
    optimiser.zero_grad()
    loss.backward()
    gradients = [one.grad for one in optimiser.param_groups[0]["params"] if one.grad is not None]
    norm = math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))
    for gradient in gradients:
        gradient *= min(1.0, settings.clip_norm / norm)
    optimiser.step()


def averaged(history: Sequence[Sequence[Tensor]], decay: float) -> list[Tensor]:
    """Exponential average of weights from the first on, in float64."""
    average = [weight.clone() for weight in history[0]]
    for number, now in enumerate(history[1:], start=1):
        kept = min(decay, (1 + number) / (10 + number))
        average = [kept * old + (1 - kept) * new for old, new in zip(average, now, strict=True)]
    return average


def close(network: Network, expected: Sequence[Tensor], state: dict[str, Tensor], prefix: str = "") -> bool:
    names = [name for name, _ in network.named_parameters()]
    return all(
        torch.allclose(state[prefix + name].double(), value, rtol=1e-3, atol=1e-5)
        for name, value in zip(names, expected, strict=True)
    )


def test_a_run_is_what_plain_pytorch_does(labels: Path, tmp_path: Path) -> None:
    last, best = trained(SETTINGS, labels, tmp_path / "run")
    network = build(SETTINGS.network, SETTINGS.seed)
    adam = torch.optim.Adam(network.parameters(), fused=False, foreach=False)
    history = [weights(network)]
    for number, batch in enumerate(batches(SETTINGS, labels)):
        result = network(batch.target, batch.reference)
        assert result.reference is not None
        of_target = (result.restored - batch.truth).abs().mean()
        of_reference = (result.reference - batch.reference).abs().mean()
        step(adam, 0.7 * of_target + 0.3 * of_reference, SETTINGS.learning_rate, number, SETTINGS)
        history.append(weights(network))
    assert close(network, history[-1], last, "network.")
    assert close(network, averaged(history, 0.3), best)
    assert not close(network, averaged(history, 0.6), best)
    assert not close(network, history[-2], last, "network.")


def test_an_adversarial_run_is_what_plain_pytorch_does(labels: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, objective="composite", average=0.0)
    last, best = trained(settings, labels, tmp_path / "run")
    network = build(settings.network, settings.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        objective = make_objective("composite", {})
    assert isinstance(objective, Composite)
    critic = objective.discriminator
    assert critic is not None
    first = weights(critic)
    generator_adam = torch.optim.Adam(network.parameters(), fused=False, foreach=False)
    critic_adam = torch.optim.Adam(critic.parameters(), fused=False, foreach=False)
    for number, batch in enumerate(batches(settings, labels)):
        result = network(batch.target, batch.reference)
        step(generator_adam, objective.generator_loss(result, batch), settings.learning_rate, number, settings)
        loss = objective.discriminator_loss(result, batch)
        step(critic_adam, loss, settings.discriminator_learning_rate, number, settings)
    assert close(network, weights(network), last, "network.")
    assert close(network, weights(network), best)
    names = [name for name, _ in critic.named_parameters()]
    trained_critic = [last[f"objective.discriminator.{name}"].double() for name in names]
    for found, expected in zip(trained_critic, weights(critic), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    assert any(not torch.allclose(found, before) for found, before in zip(trained_critic, first, strict=True))


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_the_teacher_is_imitated_and_left_alone(weight: float, labels: Path) -> None:
    settings = replace(SETTINGS, teacher="teacher.safetensors", teacher_weight=1.0) if weight else SETTINGS
    settings = replace(settings, teacher_weight=weight)
    teacher = build(replace(SETTINGS.network, channels=32), seed=9)
    nn.init.normal_(teacher.get_parameter("target_tail.weight"), std=0.1)
    student = build(SETTINGS.network, seed=1)
    module = RestorationModule(student, make_objective("l1"), settings, teacher if weight else None)
    batch = batches(SETTINGS, labels)[0]
    losses = module.training_step(batch, 0)
    restored = student(batch.target, batch.reference).restored
    taught = teacher(batch.target, batch.reference).restored
    expected = (restored - batch.truth).abs().mean() + weight * (restored - taught).abs().mean()
    torch.testing.assert_close(losses["loss"], expected)
    losses["loss"].backward()
    assert not weight or all(parameter.grad is None for parameter in teacher.parameters())
    assert not any(name.startswith("_unregistered") for name in module.state_dict())
    assert not weight or all(name.startswith(("network.", "objective.")) for name in module.state_dict())


def test_only_adversarial_objectives_need_manual_steps(labels: Path) -> None:
    machine = Machine(data_path=labels)
    assert type(prepare(SETTINGS, machine).module) is RestorationModule
    module = prepare(replace(SETTINGS, objective="composite"), machine).module
    assert isinstance(module, AdversarialModule)
    assert not module.automatic_optimization
