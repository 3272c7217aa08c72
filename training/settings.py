"""What determines a run, as data, and the machine it may run on.

One flat vocabulary: a field's name is its key in a settings file and, with dashes, its option on the command line.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from minet_sdk.errors import TrainingError
from minet_sdk.training.architecture import Architecture
from minet_sdk.training.pairs import Kind
from minet_sdk.training.schedule import Schedule

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
Accelerator = Literal["auto", "cpu", "gpu"]

SEEDS = 2**64
"""How many seeds PyTorch's generators have."""


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that determines the weights; recorded in every checkpoint."""

    network: Architecture
    method: str
    """Row of the comparison that this run belongs to, see `methods.METHODS`."""

    objective: str
    """What is minimised, see `objectives.make_objective`."""

    objective_settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    data: Kind = "synthetic"
    data_options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Options of this kind of data, see `pairs.open_source`."""

    augmentation: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What is done to training pairs, see `loading.Augmentation`."""

    patch: int = 80
    """Edge of a training patch, high-resolution pixels; 0 trains on whole slices."""

    batch_size: int = 6
    """Patches (or slices) of a step, over all devices: the run does not depend on how many there are."""

    steps: int = 0
    """Length of the run; 0 where ``epochs`` tells it."""

    epochs: int = 0
    """Length of the run in passes over the data; 0 where ``steps`` tells it."""

    learning_rate: float = 1e-3
    """Peak learning rate of Adam."""

    discriminator_learning_rate: float = 1e-4
    """That of an adversarial objective's discriminator."""

    schedule: Schedule = "cosine"
    warm_up: int = 50
    """Steps over which the learning rate rises from 0."""

    final_part: float = 0.01
    """The cosine ends at this part of the learning rate."""

    clip_norm: float = 1.0
    """Largest norm of the gradient; 0 does not clip."""

    average: float = 0.0
    """Decay of the moving average of the weights, which is then what is validated and saved; 0 for none."""

    validate_every: int = 0
    """Steps between validations; 0 is once an epoch, or, in a run that is told in steps, up to ten times."""

    validation_slices: int = 24
    patience: int = 0
    """Validations without a better gain after which the run ends; 0 for none."""

    seed: int = 0
    precision: Precision = "32-true"
    """`assembling.assemble` takes `bf16-mixed` where the machine has the instructions and nothing else is asked for."""

    initialise: str = ""
    """Checkpoint whose weights the run starts from."""

    teacher: str = ""
    """Checkpoint of a network whose images are imitated besides the truth."""

    teacher_weight: float = 0.0
    """Weight of the mean absolute difference from the teacher's image."""

    def __post_init__(self) -> None:
        """Refuse what no run could follow."""
        self._check_numbers()
        choices = (("precision", Precision), ("schedule", Schedule), ("data", Kind))
        for name, allowed in choices:
            if getattr(self, name) not in get_args(allowed):
                listed = ", ".join(get_args(allowed))
                raise TrainingError(f"{name} is {getattr(self, name)!r}; expected one of {listed}")
        if self.patch % self.network.scale:
            raise TrainingError(f"patch is {self.patch}; it must be a multiple of the scale {self.network.scale}")
        if bool(self.steps) == bool(self.epochs):
            raise TrainingError(f"steps is {self.steps} and epochs {self.epochs}; give one of them")
        if self.steps and self.validate_every and self.steps % self.validate_every:
            raise TrainingError(
                f"{self.steps} steps are not a multiple of {self.validate_every}, the steps between validations;"
                " change steps or validate_every"
            )
        if bool(self.teacher) != bool(self.teacher_weight):
            raise TrainingError(
                f"teacher is {self.teacher or 'none'} and teacher_weight {self.teacher_weight}; give both or neither"
            )

    def _check_numbers(self) -> None:
        least = {"batch_size": 1, "validation_slices": 1}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, int | float) and not value >= least.get(entry.name, 0):
                raise TrainingError(f"{entry.name} is {value}; it must be at least {least.get(entry.name, 0)}")
            if value == math.inf:
                raise TrainingError(f"{entry.name} is {value}; it must be finite")
        if self.seed >= SEEDS:
            raise TrainingError(f"seed is {self.seed}; it must be below 2^64")
        if self.learning_rate == 0:
            raise TrainingError("learning_rate is 0; nothing would be learnt")
        for name in ("average", "final_part"):
            if getattr(self, name) >= 1:
                raise TrainingError(f"{name} is {getattr(self, name)}; it must be below 1")

    def in_steps(self, steps_an_epoch: int) -> "TrainingSettings":
        """The same run told in steps, with the steps between validations settled.

        Args:
            steps_an_epoch: steps of one pass over the data; 0 for data without an end.

        Raises:
            TrainingError: the run is told in epochs and the data have none.
        """
        if self.epochs and not steps_an_epoch:
            raise TrainingError(f"{self.data} data are made on the fly and have no epochs: give steps, not epochs")
        steps = self.steps or self.epochs * steps_an_epoch
        often = steps_an_epoch if self.epochs else steps // max(n for n in range(1, 11) if steps % n == 0)
        return replace(self, steps=steps, epochs=0, validate_every=self.validate_every or often)

    def to_dict(self) -> dict[str, Any]:
        """As JSON and YAML can hold them."""
        plain = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        nested = {name: dict(value) for name, value in plain.items() if isinstance(value, Mapping)}
        return {**plain, **nested, "network": self.network.to_dict()}


@dataclass(frozen=True)
class Machine:
    """Where a run takes place. It may change between interruption and resumption."""

    data_path: Path | None = None
    """Where the data lie; None for data that need no files."""

    accelerator: Accelerator = "auto"
    devices: int = 1
    """Devices of each node; 0 takes all."""

    nodes: int = 1
    strategy: str = "auto"
    """How devices share the work, by Lightning's name; auto is data parallel (DDP) where there are several."""

    workers: int = 0
    """Processes that prepare batches, for each device."""

    threads: int = 0
    """CPU threads of each process; 0 leaves it to PyTorch."""

    checkpoint_every: int = 500
    """Steps after which the state to resume from is saved, besides every validation."""

    deterministic: bool = True
    """On a GPU, use slower operations where the fast ones differ from run to run."""

    tensorboard: bool = False
    """Log for TensorBoard besides the CSV file."""

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        least = {"nodes": 1, "checkpoint_every": 1}
        for name in ("devices", "nodes", "workers", "threads", "checkpoint_every"):
            if getattr(self, name) < least.get(name, 0):
                raise TrainingError(f"{name} is {getattr(self, name)}; it must be at least {least.get(name, 0)}")
        if self.accelerator not in get_args(Accelerator):
            raise TrainingError(
                f"accelerator is {self.accelerator!r}; expected one of {', '.join(get_args(Accelerator))}"
            )
