"""The integration kernels on PyTorch tensors: which launch, on which memory, in which order.

What executes a launch is a `Launcher`: the CUDA device here, or anything else that runs the same PTX.
"""

import threading
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from minet_sdk.cuda.layer import DeviceLayer, make_layer
from minet_sdk.errors import BackendError, InputError
from minet_sdk.kernels import binaries, launches
from minet_sdk.kernels.launches import Element, Launch, Layout
from minet_sdk.kernels.reference import Affinity

ELEMENTS: dict[torch.dtype, Element] = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
"""What the kernels read and write; affinities are float32 always."""

ALIGNMENT = 16
"""Bytes: the kernels load vectors of this size."""


class Launcher(Protocol):
    """Executes one launch; the kernel's arguments are the inputs, the launch's integers, the outputs."""

    def __call__(self, launch: Launch, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Enqueue it on the tensors' device."""
        ...


class CudaLauncher:
    """Runs the shipped PTX through cuda-core on PyTorch's current stream; safe for many threads.

    Each device gets its own copy of the module, loaded at its first launch.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._layers: dict[int, DeviceLayer] = {}

    def __call__(self, launch: Launch, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Enqueue a launch on the current stream of the tensors' device.

        Raises:
            MissingPackageError: cuda-core is not installed.
            BackendError: the driver does not take the PTX, or the launch.
        """
        index = outputs[0].device.index
        with torch.cuda.device(index):
            layer = self._layer(index)
            if layer.gpu.compute_capability < (8, 0) and launch.entry.endswith("bf16"):
                raise BackendError(f"{layer.gpu} has no bfloat16 arithmetic (Ampere and newer do): use float16")
            # A thread that PyTorch has not used yet has no context, which the driver's own calls need.
            layer.enter()
            stream = layer.caller_stream(torch.cuda.current_stream())
            layer.launch(launch, _addresses(inputs), _addresses(outputs), stream)

    def _layer(self, index: int) -> DeviceLayer:
        with self._lock:
            if index not in self._layers:
                self._layers[index] = make_layer("cuda-core", index, _ptx_for)
            return self._layers[index]


def gram_partials(launch: Launcher, features: Tensor, stages: int) -> Tensor:
    """Parts of G = F F^T: (N, M * C, H, W) -> (N, SPLITS, M, M) float32, to be summed over the splits."""
    features, layout = _addressable(features)
    batch, channels, pixels = _sizes(features, stages)
    partials = features.new_empty((batch, launches.SPLITS, stages, stages), dtype=torch.float32)
    parameters = launches.gram(
        _element(features),
        layout,
        stages=stages,
        batch=batch,
        channels=channels,
        pixels=pixels,
        splits=launches.SPLITS,
    )
    launch(parameters, [features], [partials])
    return partials


def mixing_matrix(
    launch: Launcher, features: Tensor, stages: int, mode: Affinity, temperature: float, gain: float
) -> Tensor:
    """A = I + gain * softmax(energy): (N, M * C, H, W) -> (N, M, M) float32."""
    partials = gram_partials(launch, features, stages)
    batch = len(partials)
    mixing = partials.new_empty((batch, stages, stages))
    parameters = launches.affinity(
        mode, stages=stages, batch=batch, splits=partials.shape[1], temperature=temperature, gain=gain
    )
    launch(parameters, [partials], [mixing])
    return mixing


def mix_stages(launch: Launcher, features: Tensor, mixing: Tensor) -> Tensor:
    """H = A F in the features' own layout: (N, M * C, H, W) and (N, M, M) -> (N, M * C, H, W)."""
    features, layout = _addressable(features)
    stages = mixing.shape[-1]
    batch, channels, pixels = _sizes(features, stages)
    mixed = torch.empty_like(features)
    parameters = launches.mix(_element(features), layout, stages=stages, batch=batch, channels=channels, pixels=pixels)
    launch(parameters, [features, _matrices(mixing, features)], [mixed])
    return mixed


def fold_weights(launch: Launcher, weight: Tensor, mixing: Tensor) -> Tensor:
    """W'_j = sum_i A_ij W_i: (Cout, M * C, 3, 3) and (N, M, M) -> (N, Cout, M * C, 3, 3)."""
    weight, stages = _aligned(weight.contiguous()), mixing.shape[-1]
    outputs, inner = weight.shape[0], weight[0].numel() // stages
    folded = weight.new_empty((len(mixing), *weight.shape))
    parameters = launches.fold(_element(weight), stages=stages, batch=len(mixing), outputs=outputs, inner=inner)
    launch(parameters, [weight, _matrices(mixing, weight)], [folded])
    return folded


def integrate(
    launch: Launcher, features: Tensor, stages: int, mode: Affinity, temperature: float, gain: float
) -> Tensor:
    """H from F, all three launches: (N, M * C, H, W) -> (N, M * C, H, W)."""
    features = _addressable(features)[0]
    return mix_stages(launch, features, mixing_matrix(launch, features, stages, mode, temperature, gain))


def _ptx_for(compute_capability: tuple[int, int]) -> str:
    return binaries.ptx(binaries.target_for(compute_capability))


def _addresses(tensors: Sequence[Tensor]) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]


def is_channels_last(features: Tensor) -> bool:
    """Whether the memory is (N, H, W, M * C), the kernels' HWC8; a tensor that is both ways contiguous is not."""
    return not features.is_contiguous() and features.is_contiguous(memory_format=torch.channels_last)


def _addressable(tensor: Tensor) -> tuple[Tensor, Layout]:
    """The tensor in memory that a kernel can read, copied only if it is neither layout or badly aligned."""
    if tensor.ndim == 4 and is_channels_last(tensor):
        return _aligned(tensor), "hwc8"
    return _aligned(tensor.contiguous()), "linear"


def _matrices(mixing: Tensor, beside: Tensor) -> Tensor:
    """The A of every sample as kernels read it."""
    if mixing.device != beside.device:
        raise InputError(f"mixing is on {mixing.device}, what it mixes on {beside.device}: move it there")
    return _aligned(mixing.float().contiguous())


def _aligned(tensor: Tensor) -> Tensor:
    return tensor if tensor.data_ptr() % ALIGNMENT == 0 else tensor.clone()


def _element(tensor: Tensor) -> Element:
    if tensor.dtype not in ELEMENTS:
        raise InputError(f"the integration kernels have no {tensor.dtype}: use float32, float16 or bfloat16")
    return ELEMENTS[tensor.dtype]


def _sizes(features: Tensor, stages: int) -> tuple[int, int, int]:
    """N, C, H * W."""
    batch, stacked, height, width = features.shape
    return batch, stacked // stages, height * width
