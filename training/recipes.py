"""Named ways to train, as pure data: each gives some settings, the rest keep their defaults."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """Settings under a name."""

    title: str
    settings: dict[str, Any]
    """By the names of `settings.TrainingSettings` and `settings.Machine`, and of `assembling.Choices`."""


RECIPES: dict[str, Recipe] = {
    "paper": Recipe(
        "The paper's: the network as published, Adam at a constant 1e-5, 50 epochs, eq. 6 with 0.3 / 0.7, whole slices "
        "(four a step; it names no batch size)",
        {
            "size": "published",
            "epochs": 50,
            "learning_rate": 1e-5,
            "schedule": "constant",
            "warm_up": 0,
            "clip_norm": 0.0,
            "objective_settings": {"target_weight": 0.3},
            "patch": 0,
            "batch_size": 4,
            "precision": "32-true",
        },
    ),
    "small": Recipe(
        "Some hundred thousand parameters, which two CPU cores train in a night",
        {"size": "matched", "steps": 20_000, "learning_rate": 1e-3, "warm_up": 50, "schedule": "cosine"},
    ),
    "fast": Recipe(
        "The fast student: at least four times fewer multiplications than small; give it a teacher",
        {
            "method": "minet-fast",
            "size": "matched",
            "steps": 20_000,
            "learning_rate": 1e-3,
            "warm_up": 50,
            "schedule": "cosine",
        },
    ),
    "quick": Recipe(
        "Minutes, to see that everything works; no quality",
        {
            "size": "matched",
            "steps": 200,
            "validation_slices": 6,
            "batch_size": 4,
            "patch": 64,
            "learning_rate": 1e-3,
            "warm_up": 20,
        },
    ),
}

DEFAULT = "small"
