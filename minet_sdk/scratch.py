"""Arrays that a thread fills again and again: fresh pages of the system cost more than most arithmetic on them."""

import threading

import numpy as np
import numpy.typing as npt


class Scratch(threading.local):
    """Arrays by name, of each thread its own; each is kept until another shape is asked for under its name."""

    def __init__(self) -> None:
        self._arrays: dict[str, npt.NDArray[np.float32]] = {}

    def __call__(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """An array of float32 with anything in it, nobody else's until this thread asks for the name again."""
        array = self._arrays.get(name)
        if array is None or array.shape != shape:
            array = self._arrays[name] = np.empty(shape, np.float32)
        return array
