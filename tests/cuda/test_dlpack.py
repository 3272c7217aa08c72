"""DLPack read and written by hand, against NumPy and PyTorch on the host, where both speak it too."""

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from minet_sdk.cuda import dlpack
from minet_sdk.errors import InputError

ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4)


class Exporter:
    """An object whose memory is exported as it is on a GPU, but on the host."""

    def __init__(self, array: NDArray[np.float32]) -> None:
        self.array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return (dlpack.CPU, 0)

    def __dlpack__(self, **options: Any) -> Any:
        return dlpack.export(self.array.ctypes.data, self.array.shape, self.__dlpack_device__(), self)


@pytest.mark.parametrize("options", [{}, {"max_version": (1, 0)}], ids=["plain", "versioned"])
@pytest.mark.parametrize(
    "source",
    [ARRAY, ARRAY[1:], ARRAY[:, ::2], ARRAY.T, ARRAY.astype(np.float64), ARRAY.astype(np.uint16), ARRAY[:, :0]],
)
def test_reads_what_numpy_exports(source: NDArray[Any], options: dict[str, Any]) -> None:
    content = dlpack.read(source.__dlpack__(**options), "target")
    assert content.shape == source.shape
    assert content.dtype == source.dtype.name
    assert content.device == (dlpack.CPU, 0)
    if source.size:
        assert content.address == source.ctypes.data
        assert content.strides == tuple(stride // source.itemsize for stride in source.strides)


def test_reads_what_pytorch_exports() -> None:
    tensor = torch.arange(24.0).reshape(2, 3, 4)[:, 1:]
    content = dlpack.read(tensor.__dlpack__(), "target")
    assert (content.address, content.shape, content.strides) == (tensor.data_ptr(), (2, 2, 4), (12, 4, 1))
    assert dlpack.read(torch.zeros(2, dtype=torch.bfloat16).__dlpack__(), "target").dtype.startswith("DLPack code 4")


def test_a_used_capsule_and_no_capsule_are_refused() -> None:
    capsule = ARRAY.__dlpack__()

    class Holder(Exporter):
        def __dlpack__(self, **options: Any) -> Any:
            return capsule

    np.from_dlpack(Holder(ARRAY))
    for wrong in (capsule, "capsule", None):
        with pytest.raises(InputError, match="expected an unused DLPack capsule"):
            dlpack.read(wrong, "target")


@pytest.mark.parametrize("consume", [np.from_dlpack, torch.from_dlpack])
def test_consumers_see_the_same_memory(consume: Any) -> None:
    array = ARRAY.copy()
    seen = consume(Exporter(array))
    assert tuple(seen.shape) == (3, 4)
    array[1, 2] = -5
    assert float(seen[1, 2]) == -5


@pytest.mark.parametrize("consume", [np.from_dlpack, torch.from_dlpack])
def test_the_owner_lives_as_long_as_a_consumer_and_no_longer(consume: Any) -> None:
    exporter = Exporter(ARRAY.copy())
    alive = weakref.ref(exporter)
    first, second = consume(exporter), consume(exporter)
    del exporter, first
    gc.collect()
    assert alive() is not None
    del second
    gc.collect()
    assert alive() is None


def test_an_unused_capsule_lets_go_too() -> None:
    exporter = Exporter(ARRAY.copy())
    alive = weakref.ref(exporter)
    capsule = exporter.__dlpack__()
    del exporter
    gc.collect()
    assert alive() is not None
    del capsule
    gc.collect()
    assert alive() is None
