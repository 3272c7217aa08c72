"""What the kernels should give, in float64 on the same device, piece by piece so that it fits beside the features."""

import torch
from torch import Tensor

PIECE = 1 << 20
"""Elements of one stage that are held in float64 at once."""


def random_features(
    shape: tuple[int, int, int, int], dtype: torch.dtype, device: str, layout: str, seed: int = 0
) -> Tensor:
    """(N, M * C, H, W), correlated between stages as real ones are, in the layout `linear` or `hwc8`."""
    generator = torch.Generator(device).manual_seed(seed)
    features = torch.randn(shape, generator=generator, device=device)
    features += torch.randn((shape[0], 1, *shape[2:]), generator=generator, device=device)
    memory = torch.channels_last if layout == "hwc8" else torch.contiguous_format
    return features.to(dtype).contiguous(memory_format=memory)


def gram(features: Tensor, stages: int) -> Tensor:
    """G = F F^T, (N, M, M) float64."""
    flat = features.contiguous().view(features.shape[0], stages, -1)
    total = torch.zeros((len(flat), stages, stages), dtype=torch.float64, device=flat.device)
    for piece in flat.split(PIECE, dim=2):
        exact = piece.double()
        total += exact @ exact.mT
    return total


def gram_error(found: Tensor, exact: Tensor) -> float:
    """Largest difference, relative to the norms of the two stages."""
    norm = exact.diagonal(dim1=1, dim2=2).sqrt()
    return float(((found.double() - exact).abs() / (norm[:, :, None] * norm[:, None, :])).max())


def mix_error(found: Tensor, features: Tensor, mixing: Tensor) -> float:
    """Largest difference of H from A F, relative to the largest value of H."""
    stages = mixing.shape[-1]
    pairs = (tensor.contiguous().view(len(mixing), stages, -1).split(PIECE, dim=2) for tensor in (found, features))
    worst = largest = 0.0
    for piece, source in zip(*pairs, strict=True):
        exact = mixing.double() @ source.double()
        worst = max(worst, _largest(piece.double() - exact))
        largest = max(largest, _largest(exact))
    return worst / largest


def fold_error(found: Tensor, weight: Tensor, mixing: Tensor) -> float:
    """Largest difference of W' from its definition, relative to the largest value."""
    outputs = weight.shape[0]
    by_stage = weight.double().reshape(outputs, mixing.shape[-1], -1)
    exact = (mixing.double().mT[:, None] @ by_stage).view(found.shape)
    return _largest(found.double() - exact) / _largest(exact)


def _largest(values: Tensor) -> float:
    """Largest magnitude; NaN if there is one."""
    return float(values.abs().max())
