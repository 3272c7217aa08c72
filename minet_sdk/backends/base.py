"""What a runtime asks of an engine: open a bundle, encode a reference, restore a target, let go."""

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minet_sdk.bundle import Bundle
from minet_sdk.errors import BackendError

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RunnerOptions:
    """Settings that engines share."""

    threads: int | None = None
    """CPU threads; None leaves it to the engine."""


class Runner(ABC):
    """One bundle in one engine. Public methods check the state, `_impl` ones work; safe for many threads once active.

    Arrays are normalised float32: target (N, 1, H, W), reference and result (N, 1, scale * H, scale * W). Reference
    features are whatever the engine keeps; only the runner that made them understands them.
    """

    def __init__(self, provider: str, options: RunnerOptions) -> None:
        self.provider = provider
        self.options = options
        self._active = False

    def activate(self, model: str | os.PathLike[str]) -> Bundle:
        """Open a model; until `deactivate` the runner holds the engine's memory.

        Raises:
            BundleError: the model is not usable.
            BackendError: the engine refuses it.
        """
        bundle = self._activate_impl(model)
        self._active = True
        return bundle

    def deactivate(self) -> None:
        """Free everything; more than once is harmless."""
        self._active = False
        self._deactivate_impl()

    def encode(self, reference: Array) -> Any:
        """Features of a reference, to be used any number of times."""
        self._check()
        return self._encode_impl(reference)

    def restore(self, target: Array, features: Any) -> Array:
        """Restore a target with features from `encode`, or with None in a single-contrast model."""
        self._check()
        return self._restore_impl(target, features)

    @property
    @abstractmethod
    def version(self) -> str:
        """Name and version of the engine."""

    def _check(self) -> None:
        if not self._active:
            raise BackendError("this runtime is closed: open a new one")

    @abstractmethod
    def _activate_impl(self, model: str | os.PathLike[str]) -> Bundle: ...

    @abstractmethod
    def _deactivate_impl(self) -> None: ...

    @abstractmethod
    def _encode_impl(self, reference: Array) -> Any: ...

    @abstractmethod
    def _restore_impl(self, target: Array, features: Any) -> Array: ...
