"""The batches of a run do not depend on the number of devices or on where it was interrupted."""

import pytest
import torch

from minet_sdk.errors import TrainingError
from minet_sdk.training.loading import Batch
from minet_sdk.training.stream import StepBatches, StepLoader, joined


class Numbers:
    """A stream whose unit is two patches that hold the unit's number."""

    def __getitem__(self, index: int, /) -> Batch:
        return Batch(*(torch.full((2, 1, 4, 4), float(index)) for _ in range(3)))


def shown(batch: Batch) -> list[float]:
    return batch.truth[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("devices", [1, 2, 3, 6])
def test_devices_share_a_step(devices: int) -> None:
    whole = StepBatches(Numbers(), 6)
    parts = [StepBatches(Numbers(), 6, rank, devices) for rank in range(devices)]
    for step in (0, 1, 7):
        assert [number for part in parts for number in shown(part[step])] == shown(whole[step])
    assert shown(whole[1]) == [number for number in range(6, 12) for _ in range(2)]


def test_a_step_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(TrainingError, match="a step has 3 slices, which 2 devices cannot share evenly"):
        StepBatches(Numbers(), 3, 0, 2)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_goes_on_where_its_state_says(workers: int) -> None:
    """However far its workers were ahead; its length stays the whole run's."""
    loader = StepLoader(StepBatches(Numbers(), 1), 8, num_workers=workers)
    batches = iter(loader)
    seen = [shown(next(batches))[0] for _ in range(3)]
    resumed = StepLoader(StepBatches(Numbers(), 1), 8, num_workers=workers)
    resumed.load_state_dict(loader.state_dict())
    seen += [shown(batch)[0] for batch in resumed]
    assert seen == list(range(8))
    assert len(resumed) == 8
    assert resumed.state_dict() == {"position": 8}


def test_slices_of_different_sizes_cannot_share_a_step() -> None:
    small, large = (Batch(*(torch.zeros(1, 1, size, size) for _ in range(3))) for size in (8, 10))
    with pytest.raises(TrainingError, match=r"slices of \(8, 8\) and \(10, 10\) cannot share a step: train on patches"):
        joined([small, large])
