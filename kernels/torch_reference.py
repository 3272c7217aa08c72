"""The integration and its gradients in plain PyTorch operators, over features stacked along the channels.

Where the kernels do not run this is the forward pass; it is the backward pass everywhere. Every function is
differentiable again, and none cares for autocast: callers switch it off.
"""

import torch
from torch import Tensor

from minet_sdk.kernels.reference import GRAM_FLOOR


def gram_of(features: Tensor, stages: int) -> Tensor:
    """G = F F^T: (N, M * C, H, W) -> (N, M, M)."""
    flat = exact(by_stage(features, stages))
    return flat @ flat.mT


def _cosine(gram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cosine of every pair of stages, the clamped squared norms and the norms, (N, M, M), (N, M), (N, M)."""
    squared = gram.diagonal(dim1=1, dim2=2).clamp(min=GRAM_FLOOR)
    norm = squared.sqrt()
    return gram / (norm[:, :, None] * norm[:, None, :]), squared, norm


def _softmax(gram: Tensor, mode: str, temperature: Tensor | float) -> Tensor:
    """S of eq. 7; see `minet_sdk.kernels.reference.affinity`."""
    if mode == "cosine":
        energy = _cosine(gram)[0] / temperature
    elif mode == "released":
        energy = gram.amax(dim=-1, keepdim=True) - gram
    else:
        energy = gram
    return energy.softmax(dim=-1)


def mixing_of(gram: Tensor, mode: str, temperature: Tensor | float, gain: Tensor | float) -> Tensor:
    """A = I + gain * S; NaN throughout a sample whose Gram matrix is not finite."""
    weights = gain * _softmax(gram, mode, temperature)
    mixing = torch.eye(gram.shape[-1], device=gram.device, dtype=gram.dtype) + weights
    finite = gram.isfinite().flatten(1).all(dim=1)[:, None, None]
    return torch.where(finite, mixing, torch.nan)


def through_mix(features: Tensor, mixing: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of H = A F for F and for A."""
    flat, outer = by_stage(features, mixing.shape[-1]), by_stage(gradient, mixing.shape[-1])
    by_features = (mixing.mT.to(features.dtype) @ outer).view(features.shape)
    return by_features, (exact(outer) @ exact(flat).mT).to(mixing.dtype)


def through_gram(features: Tensor, stages: int, gradient: Tensor) -> Tensor:
    """Gradient of G = F F^T for F."""
    flat = exact(by_stage(features, stages))
    return ((gradient + gradient.mT) @ flat).to(features.dtype).view(features.shape)


def through_affinity(gram: Tensor, mode: str, temperature: float, gain: float, gradient: Tensor) -> Tensor:
    """Gradient of A for G."""
    weights = _softmax(gram, mode, temperature)
    by_weights = gain * gradient
    by_energy = weights * (by_weights - (by_weights * weights).sum(dim=-1, keepdim=True))
    if mode == "released":
        return -by_energy  # a row of by_energy sums to 0, so nothing goes through the row's maximum
    if mode == "paper":
        return by_energy
    cosine, squared, norm = _cosine(gram)
    by_cosine = by_energy / temperature
    paired = by_cosine * cosine
    by_squared = -(paired.sum(dim=-1) + paired.sum(dim=-2)) / (2 * squared)
    by_squared = torch.where(gram.diagonal(dim1=1, dim2=2) > GRAM_FLOOR, by_squared, 0)
    return by_cosine / (norm[:, :, None] * norm[:, None, :]) + torch.diag_embed(by_squared)


def by_stage(tensor: Tensor, stages: int) -> Tensor:
    """Features (N, M * C, H, W) -> (N, M, C * H * W), weights (Cout, M * C, 3, 3) -> (Cout, M, C * 3 * 3)."""
    return tensor.reshape(tensor.shape[0], stages, -1)


def exact(tensor: Tensor) -> Tensor:
    """Float32, or float64 if it is that already."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
