"""A convolution as a sum of separable ones: CP (Lebedev et al. 2015, arXiv 1412.6553)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sparse.compress.factorisation.convolutions import conv, pointwise
from lightning_sparse.extras import need

_STEPS = 300  # of alternating least squares, at most; 100 left some weights of low rank 4 % away
_NOT_SINGULAR = 1e-10  # added to their matrices, for a weight of norm 1


def ranks(layer: Any, of_full: Callable[[int], int]) -> tuple[int]:
    """The rank; the full one is the number of weights by the largest of their dimensions, at which any weight is exact.

    Example:
        >>> ranks(nn.Conv2d(16, 32, 3), lambda full: full)
        (144,)
    """
    return (of_full(layer.weight.numel() // max(layer.weight.shape)),)


def numbers(layer: Any, ranks: Sequence[int], modes: object = ()) -> int:
    """How many numbers the factors hold.

    Example:
        >>> numbers(nn.Conv2d(16, 32, (3, 5)), (10,))  # 10 * (16 + 3 + 5 + 32)
        560
    """
    return int(ranks[0] * sum(layer.weight.shape))


def build(layer: Any, ranks: Sequence[int], modes: object = ()) -> nn.Module:
    """A pointwise convolution, one along the height and one along the width of each channel, and a pointwise one.

    Example:
        >>> build(nn.Conv2d(16, 32, 3, stride=(1, 2)), (10,))
        Sequential(
          (0): Conv2d(16, 10, kernel_size=(1, 1), stride=(1, 1), bias=False)
          (1): Conv2d(10, 10, kernel_size=(3, 1), stride=(1, 1), groups=10, bias=False)
          (2): Conv2d(10, 10, kernel_size=(1, 3), stride=(1, 2), groups=10, bias=False)
          (3): Conv2d(10, 32, kernel_size=(1, 1), stride=(1, 1))
        )
    """
    (rank,), (outputs, inputs) = ranks, layer.weight.shape[:2]
    return nn.Sequential(
        pointwise(layer, inputs, rank),
        conv(layer, rank, rank, [0], groups=rank),
        conv(layer, rank, rank, [1], groups=rank),
        pointwise(layer, rank, outputs, last=True),
    )


def decompose(weight: Tensor, ranks: Sequence[int], modes: object = ()) -> list[Tensor]:
    """Factors near to a weight, by alternating least squares (tensorly); each term is shared evenly among its four.

    They start at the singular vectors, of which a kernel of 3 has 3 at most, and at noise from a fixed seed beside them.
    """
    (rank,), tensorly = ranks, need("tensorly")
    size = weight.norm()
    if not size > 0:
        return _as_layers([weight.new_zeros(dimension, rank) for dimension in weight.shape])
    random = torch.Generator(weight.device).manual_seed(0)
    start = []
    for dimension in range(weight.dim()):
        unfolded = weight.movedim(dimension, 0).flatten(1)
        vectors = torch.linalg.svd(unfolded, full_matrices=False)[0][:, :rank]
        missing = (len(vectors), rank - vectors.shape[1])
        noise = torch.randn(missing, generator=random, dtype=weight.dtype, device=weight.device)
        start.append(torch.cat([vectors, noise], dim=1))
    with tensorly.backend_context("pytorch"):
        _, found = need("tensorly.decomposition").parafac(
            weight / size,
            rank,
            n_iter_max=_STEPS,
            init=(weight.new_ones(rank), start),
            tol=1e-8,
            l2_reg=_NOT_SINGULAR,
        )
    lengths = torch.stack([factor.norm(dim=0) for factor in found])
    even = (size * lengths.prod(dim=0)) ** (1 / len(lengths))
    return _as_layers(
        [factor * (even / length.clamp_min(1e-30)) for factor, length in zip(found, lengths, strict=True)]
    )


def _as_layers(factors: Sequence[Tensor]) -> list[Tensor]:
    out, into, height, width = factors
    return [
        into.T[..., None, None],
        height.T[:, None, :, None],
        width.T[:, None, None, :],
        out[..., None, None],
    ]
