"""The batches of a run: the same whatever the number of devices and workers, and wherever the run was interrupted.

Step k takes the units k * n ... k * n + n - 1 of an endless stream; each of d devices takes n / d neighbours of them.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch.utils.data import Dataset, Sampler

from minet_sdk.errors import TrainingError
from minet_sdk.training.loading import Batch, BatchLoader


class Units(Protocol):
    """The endless stream: a unit is the same at every call, a batch of always the same number of samples."""

    def __getitem__(self, index: int, /) -> Batch:
        """Unit ``index``."""
        ...


class StepBatches(Dataset[Batch]):
    """What one device sees of every step."""

    def __init__(self, units: Units, per_step: int, rank: int = 0, devices: int = 1) -> None:
        if per_step % devices:
            raise TrainingError(
                f"a step has {per_step} slices, which {devices} devices cannot share evenly: change batch_size"
            )
        self.units = units
        self.per_step, self.mine = per_step, per_step // devices
        self.first = rank * self.mine

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step."""
        start = step * self.per_step + self.first
        return joined([self.units[number] for number in range(start, start + self.mine)])


class Remaining(Sampler[int]):
    """Steps from ``first`` to the end; its length is the whole run's, which is how Lightning counts."""

    def __init__(self, steps: int) -> None:
        self.first, self.steps = 0, steps

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.steps))

    def __len__(self) -> int:
        return self.steps


class StepLoader(BatchLoader):
    """Loads the steps of a run in order and knows how far it is; Lightning keeps that with the checkpoint."""

    def __init__(self, batches: StepBatches, steps: int, **loading: Any) -> None:
        self.remaining = Remaining(steps)
        self.position = 0
        super().__init__(batches, sampler=self.remaining, **loading)

    def __iter__(self) -> Any:
        """Batches, counted as they leave, however far workers are ahead."""
        position = self.remaining.first
        for batch in super().__iter__():
            position += 1
            self.position = position
            yield batch

    def state_dict(self) -> dict[str, int]:
        """How many steps have left the loader."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Start after them."""
        self.position = self.remaining.first = state["position"]


def joined(batches: Sequence[Batch]) -> Batch:
    """One batch from several.

    Raises:
        TrainingError: their sizes differ.
    """
    if len(batches) == 1:
        return batches[0]
    sizes = sorted({tuple(batch.truth.shape[-2:]) for batch in batches})
    if len(sizes) > 1:
        raise TrainingError(f"slices of {sizes[0]} and {sizes[1]} cannot share a step: train on patches")
    return Batch(*(torch.cat(tensors) for tensors in zip(*batches, strict=True)))
