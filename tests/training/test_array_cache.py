"""What is kept is what was made, in memory up to a limit, in a folder for every process."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from minet_sdk.errors import TrainingError
from minet_sdk.training.array_cache import ArrayCache


class Maker:
    """Counts how often each array is made."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def get(self, cache: ArrayCache, key: str) -> list[int]:
        def make() -> np.ndarray[tuple[int], np.dtype[np.int64]]:
            self.made.append(key)
            return np.full(100, ord(key), dtype=np.int64)

        return cache.array(key, make).tolist()


def test_least_recently_used_arrays_are_dropped_first() -> None:
    cache, maker = ArrayCache(limit=2000), Maker()
    for key in "abacab":
        assert maker.get(cache, key) == [ord(key)] * 100
    assert maker.made == ["a", "b", "c", "b"]


def test_one_array_above_the_limit_is_still_kept() -> None:
    cache, maker = ArrayCache(limit=10), Maker()
    for key in "aab":
        maker.get(cache, key)
    assert maker.made == ["a", "b"]


def test_folders_are_shared_and_arrays_are_mapped(tmp_path: Path) -> None:
    first, second, maker = ArrayCache(tmp_path / "cache"), ArrayCache(tmp_path / "cache"), Maker()
    for cache in (first, second, pickle.loads(pickle.dumps(second))):
        assert maker.get(cache, "a") == [ord("a")] * 100
        assert cache.record("a", lambda: {"slices": [1, 2]}) == {"slices": [1, 2]}
    assert maker.made == ["a"]
    assert isinstance(first.array("a", lambda: np.zeros(1)), np.memmap)
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".json", ".npy"]


def test_what_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path)

    def fail() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        cache.array("a", fail)
    assert list(tmp_path.iterdir()) == []


def test_memory_is_not_sent_to_workers() -> None:
    cache = ArrayCache()
    cache.array("a", lambda: np.zeros(10**6))
    assert len(pickle.dumps(cache)) < 1000


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match=r"cache folder .*file/cache cannot be made"):
        ArrayCache(tmp_path / "file" / "cache")
