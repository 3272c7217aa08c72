"""The integration as PyTorch operators, `torch.ops.minet.*`: the shipped kernels on CUDA, plain PyTorch elsewhere.

Float32 Gram matrix and affinity whatever the features are. Gradients come from plain PyTorch operators, so that each is
differentiable again.

    gram(features, stages)                                    G = F F^T                   (N, M, M) float32
    mixing_matrix(features, stages, mode, temperature, gain)  A = I + gain * softmax      (N, M, M) float32
    mix_stages(features, mixing)                              H = A F                     like features
    fold_weights(weight, mixing)                              W'_j = sum_i A_ij W_i       (N, *weight)
    integrate(features, stages, mode, temperature, gain)      H from F                    like features

features is (N, M * C, H, W), contiguous or channels_last (both are read as they lie; results have the same layout), C a
multiple of 8, M at most 32. A sample whose Gram matrix is not finite gets an A of NaN throughout, and so an H of NaN.
"""

from typing import Any, cast, get_args

import torch
from torch import Tensor

from minet_sdk.errors import InputError
from minet_sdk.kernels import torch_launch
from minet_sdk.kernels import torch_reference as plain
from minet_sdk.kernels.launches import MOST_STAGES
from minet_sdk.kernels.reference import Affinity
from minet_sdk.kernels.torch_launch import CudaLauncher, is_channels_last

CHANNEL_MULTIPLE = 8

_launch = CudaLauncher()


def integrate(
    features: Tensor, stages: int, mode: Affinity, temperature: Tensor | float = 1.0, gain: Tensor | float = 1.0
) -> Tensor:
    """H = A F, eq. 8, with gradients for everything that is a tensor.

    Args:
        features: (N, M * C, H, W), stage by stage along the channels; float32, float16 or bfloat16 (on the CPU also
            float64).
        stages: M.
        mode: see `minet_sdk.kernels.reference.affinity`.
        temperature: of ``cosine``; a number, or a tensor of one element if it is learnt.
        gain: weight of the softmax, likewise; 1 unless the mode is ``released``.

    Returns:
        Shape, dtype and memory layout of ``features``.

    Raises:
        InputError: shape, dtype, stages or mode that the operators are not made for.
        BackendError: on CUDA, the driver does not take the kernels.
    """
    if not isinstance(temperature, Tensor) and not isinstance(gain, Tensor):
        return cast(Tensor, torch.ops.minet.integrate(features, stages, mode, temperature, gain))
    # On a device, reading a learnt number for the kernel's arguments would wait for all work before it.
    gram = torch.ops.minet.gram(features, stages)
    with torch.autocast(features.device.type, enabled=False):
        mixing = plain.mixing_of(gram, mode, temperature, gain)
    return cast(Tensor, torch.ops.minet.mix_stages(features, mixing))


@torch.library.custom_op("minet::gram", mutates_args=(), schema="(Tensor features, int stages) -> Tensor")
def _gram(features: Tensor, stages: int) -> Tensor:
    _check(features, stages)
    with torch.autocast(features.device.type, enabled=False):
        return plain.gram_of(features, stages)


@torch.library.custom_op(
    "minet::mixing_matrix",
    mutates_args=(),
    schema="(Tensor features, int stages, str mode, float temperature, float gain) -> Tensor",
)
def _mixing_matrix(features: Tensor, stages: int, mode: str, temperature: float, gain: float) -> Tensor:
    _check(features, stages, mode)
    with torch.autocast(features.device.type, enabled=False):
        return plain.mixing_of(plain.gram_of(features, stages), mode, temperature, gain)


@torch.library.custom_op("minet::mix_stages", mutates_args=(), schema="(Tensor features, Tensor mixing) -> Tensor")
def _mix_stages(features: Tensor, mixing: Tensor) -> Tensor:
    _check_mixing(features, mixing)
    with torch.autocast(features.device.type, enabled=False):
        mixed = (mixing.to(features.dtype) @ plain.by_stage(features, mixing.shape[-1])).view(features.shape)
        return mixed.contiguous(memory_format=_format(features))


@torch.library.custom_op("minet::fold_weights", mutates_args=(), schema="(Tensor weight, Tensor mixing) -> Tensor")
def _fold_weights(weight: Tensor, mixing: Tensor) -> Tensor:
    _check_weight(weight, mixing)
    with torch.autocast(weight.device.type, enabled=False):
        folded = mixing.mT[:, None] @ plain.by_stage(weight, mixing.shape[-1]).to(mixing.dtype)
        return folded.to(weight.dtype).view(len(mixing), *weight.shape)


@torch.library.custom_op(
    "minet::integrate",
    mutates_args=(),
    schema="(Tensor features, int stages, str mode, float temperature, float gain) -> Tensor",
)
def _integrate(features: Tensor, stages: int, mode: str, temperature: float, gain: float) -> Tensor:
    return _mix_stages(features, _mixing_matrix(features, stages, mode, temperature, gain))


def _gram_on_cuda(features: Tensor, stages: int) -> Tensor:
    _check(features, stages)
    # The sum of a few hundred small matrices: float64 costs nothing, and its order is PyTorch's own, fixed one.
    return torch_launch.gram_partials(_launch, features, stages).sum(dim=1, dtype=torch.float64).float()


def _mixing_matrix_on_cuda(features: Tensor, stages: int, mode: str, temperature: float, gain: float) -> Tensor:
    return torch_launch.mixing_matrix(_launch, features, stages, _check(features, stages, mode), temperature, gain)


def _mix_stages_on_cuda(features: Tensor, mixing: Tensor) -> Tensor:
    _check_mixing(features, mixing)
    return torch_launch.mix_stages(_launch, features, mixing)


def _fold_weights_on_cuda(weight: Tensor, mixing: Tensor) -> Tensor:
    _check_weight(weight, mixing)
    return torch_launch.fold_weights(_launch, weight, mixing)


def _integrate_on_cuda(features: Tensor, stages: int, mode: str, temperature: float, gain: float) -> Tensor:
    return torch_launch.integrate(_launch, features, stages, _check(features, stages, mode), temperature, gain)


_gram.register_kernel("cuda", _gram_on_cuda)
_mixing_matrix.register_kernel("cuda", _mixing_matrix_on_cuda)
_mix_stages.register_kernel("cuda", _mix_stages_on_cuda)
_fold_weights.register_kernel("cuda", _fold_weights_on_cuda)
_integrate.register_kernel("cuda", _integrate_on_cuda)


@_gram.register_fake
def _(features: Tensor, stages: int) -> Tensor:
    _check(features, stages)
    return _matrices(features, stages)


@_mixing_matrix.register_fake
def _(features: Tensor, stages: int, mode: str, temperature: float, gain: float) -> Tensor:
    _check(features, stages, mode)
    return _matrices(features, stages)


@_mix_stages.register_fake
def _(features: Tensor, mixing: Tensor) -> Tensor:
    _check_mixing(features, mixing)
    return torch.empty_like(features, memory_format=_format(features))


@_fold_weights.register_fake
def _(weight: Tensor, mixing: Tensor) -> Tensor:
    _check_weight(weight, mixing)
    return weight.new_empty((mixing.shape[0], *weight.shape))


@_integrate.register_fake
def _(features: Tensor, stages: int, mode: str, temperature: float, gain: float) -> Tensor:
    _check(features, stages, mode)
    return torch.empty_like(features, memory_format=_format(features))


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """For the backward functions: the tensors and the numbers of the call, each in order."""
    ctx.save_for_backward(*(value for value in inputs if isinstance(value, Tensor)))
    ctx.numbers = tuple(value for value in inputs if not isinstance(value, Tensor))


def _gram_backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    (features,), (stages,) = ctx.saved_tensors, ctx.numbers
    with torch.autocast(features.device.type, enabled=False):
        return plain.through_gram(features, stages, gradient), None


def _mixing_matrix_backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    (features,), (stages, mode, temperature, gain) = ctx.saved_tensors, ctx.numbers
    with torch.autocast(features.device.type, enabled=False):
        gram = _gram(features, stages)
        through = plain.through_gram(features, stages, plain.through_affinity(gram, mode, temperature, gain, gradient))
    return through, None, None, None, None


def _mix_stages_backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    features, mixing = ctx.saved_tensors
    with torch.autocast(features.device.type, enabled=False):
        return plain.through_mix(features, mixing, gradient)


def _fold_weights_backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    weight, mixing = ctx.saved_tensors
    with torch.autocast(weight.device.type, enabled=False):
        folded = gradient.to(mixing.dtype).reshape(len(mixing), len(weight), mixing.shape[-1], -1)
        by_weight = (mixing[:, None] @ folded).sum(dim=0).view(weight.shape).to(weight.dtype)
        by_mixing = torch.einsum("oik,nojk->nij", plain.by_stage(weight, mixing.shape[-1]).to(mixing.dtype), folded)
        return by_weight, by_mixing


def _integrate_backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    (features,), (stages, mode, temperature, gain) = ctx.saved_tensors, ctx.numbers
    with torch.autocast(features.device.type, enabled=False):
        gram = _gram(features, stages)
        mixing = plain.mixing_of(gram, mode, temperature, gain)
        by_features, by_mixing = plain.through_mix(features, mixing, gradient)
        by_gram = plain.through_affinity(gram, mode, temperature, gain, by_mixing)
        through = by_features + plain.through_gram(features, stages, by_gram)
    return through, None, None, None, None


for _operator, _backward in (
    (_gram, _gram_backward),
    (_mixing_matrix, _mixing_matrix_backward),
    (_mix_stages, _mix_stages_backward),
    (_fold_weights, _fold_weights_backward),
    (_integrate, _integrate_backward),
):
    _operator.register_autograd(_backward, setup_context=_save_inputs)


def _matrices(features: Tensor, stages: int) -> Tensor:
    """An (N, M, M) of the type of a Gram matrix."""
    dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
    return features.new_empty((features.shape[0], stages, stages), dtype=dtype)


def _format(features: Tensor) -> torch.memory_format:
    return torch.channels_last if is_channels_last(features) else torch.contiguous_format


def _check(features: Tensor, stages: int, mode: str = "paper") -> Affinity:
    """Refuse what the kernels do not take; the mode, checked."""
    if mode not in get_args(Affinity):
        raise InputError(f"affinity mode is {mode!r}; choose one of {', '.join(get_args(Affinity))}")
    if not 1 <= stages <= MOST_STAGES:
        raise InputError(f"stages is {stages}; the integration takes 1 to {MOST_STAGES}")
    if features.ndim != 4 or features.shape[1] % stages or features.shape[1] // stages % CHANNEL_MULTIPLE:
        raise InputError(
            f"features have shape {tuple(features.shape)}; expected (N, M * C, H, W) with M = {stages} stages and C a "
            f"multiple of {CHANNEL_MULTIPLE}"
        )
    if not features.is_floating_point():
        raise InputError(f"features are {features.dtype}; expected float32, float16 or bfloat16")
    return cast(Affinity, mode)


def _check_mixing(features: Tensor, mixing: Tensor) -> None:
    batch = features.shape[0]
    if mixing.ndim != 3 or mixing.shape[0] != batch or mixing.shape[1] != mixing.shape[2]:
        raise InputError(f"mixing has shape {tuple(mixing.shape)}; expected (N, M, M) with N = {batch}")
    _check(features, mixing.shape[-1])
    _check_affinity_type(mixing)


def _check_weight(weight: Tensor, mixing: Tensor) -> None:
    if mixing.ndim != 3 or mixing.shape[1] != mixing.shape[2]:
        raise InputError(f"mixing has shape {tuple(mixing.shape)}; expected (N, M, M)")
    _check(weight, mixing.shape[-1])
    _check_affinity_type(mixing)


def _check_affinity_type(mixing: Tensor) -> None:
    if mixing.dtype not in (torch.float32, torch.float64):
        raise InputError(f"mixing is {mixing.dtype}; expected float32, as mixing_matrix gives it")
