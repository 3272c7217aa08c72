"""Decoded data are kept: in a folder of memory-mapped files that all workers share, or else in this process.

Decompressing and resampling a volume takes seconds, a step of a GPU milliseconds.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minet_sdk.atomic import replacing
from minet_sdk.errors import TrainingError

Array = npt.NDArray[Any]

FORMAT = 2
"""Part of every name in a cache folder: raise it when what is decoded changes."""

MEMORY_LIMIT = 2 * 1024**3
"""Bytes that one process keeps where there is no folder."""


def fingerprint(*paths: Path) -> str:
    """Names, sizes and times of files: a changed file has another fingerprint."""
    parts: list[str] = []
    for path in paths:
        status = path.stat()
        parts.append(f"{path.resolve()}:{status.st_size}:{status.st_mtime_ns}")
    return "|".join(parts)


class ArrayCache:
    """Arrays and records by key; what is missing is made.

    Args:
        folder: where to keep them; many processes may share it. None keeps the last used ones in memory.
        limit: bytes of arrays in memory; a folder grows as needed.
    """

    def __init__(self, folder: Path | None = None, limit: int = MEMORY_LIMIT) -> None:
        self.folder, self.limit = folder, limit
        self._arrays: OrderedDict[str, Array] = OrderedDict()
        self._records: dict[str, dict[str, Any]] = {}
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise TrainingError(f"cache folder {folder} cannot be made: {error.strerror or error}") from error

    def __getstate__(self) -> dict[str, Any]:
        """Workers start with an empty memory: arrays are not sent to them."""
        return {**self.__dict__, "_arrays": OrderedDict(), "_records": {}}

    def array(self, key: str, make: Callable[[], Array]) -> Array:
        """The array of a key, not to be written to."""
        if self.folder is not None:
            path = self._path(key, "npy")
            if not path.exists():
                with replacing(path) as temporary, temporary.open("wb") as file:
                    np.save(file, make())
            return np.load(path, mmap_mode="r")
        if key not in self._arrays:
            self._arrays[key] = make()
            while len(self._arrays) > 1 and sum(one.nbytes for one in self._arrays.values()) > self.limit:
                self._arrays.popitem(last=False)
        self._arrays.move_to_end(key)
        return self._arrays[key]

    def record(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A small record of a key, as JSON can hold it."""
        if key not in self._records:
            if self.folder is None:
                self._records[key] = make()
            else:
                path = self._path(key, "json")
                if not path.exists():
                    with replacing(path) as temporary:
                        temporary.write_text(json.dumps(make()))
                self._records[key] = json.loads(path.read_text())
        return self._records[key]

    def _path(self, key: str, suffix: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{hashlib.sha256(f'{FORMAT}|{key}'.encode()).hexdigest()[:32]}.{suffix}"
