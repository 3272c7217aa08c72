"""What a runtime asks of an engine: open a bundle, encode a reference, restore a target, let go."""

from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from minet_sdk.bundle import Bundle, Graph, Precision
from minet_sdk.conditioning import Conditioning
from minet_sdk.errors import BackendError
from minet_sdk.normalisation import Normalisation

if TYPE_CHECKING:
    from minet_sdk.cuda.layer import Buffer, DeviceLayer, LayerName, Stream

Array = npt.NDArray[np.float32]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class RunnerOptions:
    """Settings that engines share."""

    threads: int | None = None
    """CPU threads; None leaves it to the engine."""

    device: int = 0
    """Ordinal of the GPU, for backends that use one."""

    device_layer: "LayerName" = "cuda-core"
    cuda_graphs: bool = True
    """Capture the engine's work as CUDA graphs and replay it, where engine and device layer can."""

    memory_limit: int | None = None
    """Bytes that the engine may hold for one call, prepared features included; None sets no limit. The native engine
    refuses what would need more; for engines that cannot, the runtime estimates before it runs."""


class Runner(ABC):
    """One bundle in one engine. Public methods check the state, `_impl` ones work; safe for many threads once active.

    Arrays are normalised float32: target (N, 1, H, W), reference and result (N, 1, scale * H, scale * W). Reference
    features are whatever the engine keeps; only the runner that made them understands them.
    """

    def __init__(self, provider: str, precisions: tuple[Precision, ...], options: RunnerOptions) -> None:
        self.provider = provider
        self.precisions = precisions
        self.options = options
        self._active = False

    def activate(self, model: Bundle | Path) -> Bundle:
        """Take an opened bundle, or open a bare .onnx file; until `deactivate` the runner holds the engine's memory.

        Raises:
            BundleError: the model is not usable.
            BackendError: the engine refuses it, or cannot run its precision.
        """
        try:
            bundle = self._activate_impl(model)
            if bundle.manifest.precision not in self.precisions:
                raise BackendError(
                    f"model {bundle.manifest.name} is {bundle.manifest.precision}; {self.provider} runs "
                    f"{', '.join(self.precisions)} only"
                )
        except BaseException:
            self._deactivate_impl()
            raise
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

    def memory(self, height: int, width: int) -> int | None:
        """Bytes that preparing and restoring a low-resolution target of this size takes; None: the engine cannot tell.

        Weights, features and workspace, as `RunnerOptions.memory_limit` counts them.
        """
        return None

    def conditioning(self, normalisation: Normalisation, scale: int) -> Conditioning:
        """What is done to a slice before and after this engine."""
        return Conditioning(normalisation, scale)

    @property
    def prepares_beside(self) -> bool:
        """Whether references are best prepared while a target is restored: where both only wait for a device."""
        return False

    @property
    def restores_beside(self) -> bool:
        """Whether two slices are best restored at the same time: where each then takes its share of the threads."""
        return False

    @property
    @abstractmethod
    def version(self) -> str:
        """Name and version of the engine."""

    def details(self) -> dict[str, Any]:
        """What else a person would want to know of how it runs; plain data."""
        return {}

    def _check(self) -> None:
        if not self._active:
            raise BackendError("this runtime is closed: open a new one")

    @abstractmethod
    def _activate_impl(self, model: Bundle | Path) -> Bundle: ...

    @abstractmethod
    def _deactivate_impl(self) -> None: ...

    @abstractmethod
    def _encode_impl(self, reference: Array) -> Any: ...

    @abstractmethod
    def _restore_impl(self, target: Array, features: Any) -> Array: ...


class Work(Protocol):
    """A graph of the bundle, bound to one shape and to fixed buffers, in the hands of one thread."""

    @property
    def inputs(self) -> "dict[str, Buffer]":
        """Where the inputs go, by tensor name."""
        ...

    @property
    def outputs(self) -> "dict[str, Buffer]":
        """Where the outputs come, by tensor name."""
        ...

    @property
    def shapes(self) -> dict[str, Shape]:
        """Of inputs and outputs."""
        ...

    def send(self, name: str, array: Array, stream: "Stream") -> None:
        """Copy a host array into an input; the array may be reused at once."""
        ...

    def run(self, stream: "Stream") -> None:
        """Enqueue the graph."""
        ...

    def fetch(self, name: str, stream: "Stream") -> Array:
        """A copy of an output in host memory; blocks until it is there."""
        ...


@dataclass(frozen=True)
class Features:
    """Features of one reference in device memory."""

    buffer: "Buffer"
    shape: Shape
    ready: Any
    """Event after which they can be read."""

    @property
    def nbytes(self) -> int:
        """Size in device memory."""
        return self.buffer.size


class DeviceRunner(Runner):
    """A runner whose inputs, outputs and features can stay in device memory; everything is ordered by streams."""

    def enter(self) -> "DeviceLayer":
        """The device, ready for the calling thread.

        Raises:
            BackendError: the runtime is closed.
        """
        self._check()
        self.layer.enter()
        return self.layer

    @property
    def prepares_beside(self) -> bool:
        """A GPU does: features have a stream of their own."""
        return True

    @property
    @abstractmethod
    def layer(self) -> "DeviceLayer":
        """The device."""

    @abstractmethod
    def own_stream(self) -> "Stream":
        """The calling thread's stream for targets."""

    @abstractmethod
    def prefetch_stream(self) -> "Stream":
        """The calling thread's stream for references."""

    @abstractmethod
    def work(self, graph: Graph, shapes: dict[str, Shape], stream: "Stream") -> AbstractContextManager[Work]:
        """A graph for these input shapes, free for use on ``stream`` from here to the end of the block.

        Raises:
            InputError: the plan does not cover the shapes.
        """

    @abstractmethod
    def features_of(self, work: Work, stream: "Stream") -> Features:
        """What the reference graph just gave, in memory of its own."""

    @abstractmethod
    def keep(self, stream: "Stream", *objects: Any) -> None:
        """Hold objects until everything that is now on the stream is done."""

    def _encode_impl(self, reference: Array) -> Features:
        """Returns before the work is done; `Features.ready` says when."""
        self.enter()
        stream = self.prefetch_stream()
        with self.work("reference", {"reference": reference.shape}, stream) as work:
            work.send("reference", reference, stream)
            work.run(stream)
            return self.features_of(work, stream)

    def _restore_impl(self, target: Array, features: Features | None) -> Array:
        self.enter()
        stream = self.own_stream()
        with self.restoring(target.shape, features, stream) as work:
            work.send("target", target, stream)
            work.run(stream)
            return work.fetch("restored", stream)

    @contextmanager
    def restoring(self, target: Shape, features: Features | None, stream: "Stream") -> Generator[Work]:
        """The graph that restores a target of shape (N, 1, H, W), with the features already in it."""
        if features is None:
            with self.work("model", {"target": target}, stream) as work:
                yield work
            return
        with self.work("target", {"target": target, "reference_features": features.shape}, stream) as work:
            self.layer.wait(stream, features.ready)
            inside = work.inputs["reference_features"]
            self.layer.copy(inside.address, features.buffer.address, features.buffer.size, stream)
            # Dropped features must not become somebody else's memory before they are read.
            self.keep(stream, features)
            yield work
