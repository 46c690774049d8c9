"""A convolution as a thin one between two pointwise ones: Tucker-2 (Kim et al. 2016, arXiv 1511.06530)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from torch import Tensor, nn

from lightning_sparse.compress.factorisation.convolutions import conv, levelled, pointwise
from lightning_sparse.extras import need


def ranks(layer: Any, of_full: Callable[[int], int]) -> tuple[int, int]:
    """How many channels come out of the thin convolution, and go in; neither is more than the other can span.

    Example:
        >>> ranks(nn.Conv2d(1, 64, 3), lambda full: full)
        (9, 1)
    """
    outputs, inputs, *kernel = layer.weight.shape
    out, into = of_full(outputs), of_full(inputs)
    return min(out, into * prod(kernel)), min(into, out * prod(kernel))


def numbers(layer: Any, ranks: Sequence[int], modes: object = ()) -> int:
    """How many numbers the factors hold.

    Example:
        >>> numbers(nn.Conv2d(16, 32, 3), (8, 4))  # 16 * 4 + 4 * 8 * 9 + 8 * 32
        608
    """
    outputs, inputs, *kernel = layer.weight.shape
    out, into = ranks
    return int(inputs * into + into * out * prod(kernel) + out * outputs)


def build(layer: Any, ranks: Sequence[int], modes: object = ()) -> nn.Module:
    """Three convolutions, the middle one with the kernel of the layer.

    Example:
        >>> build(nn.Conv2d(16, 32, 3, padding=1, bias=False), (8, 4))
        Sequential(
          (0): Conv2d(16, 4, kernel_size=(1, 1), stride=(1, 1), bias=False)
          (1): Conv2d(4, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)
          (2): Conv2d(8, 32, kernel_size=(1, 1), stride=(1, 1), bias=False)
        )
    """
    outputs, inputs = layer.weight.shape[:2]
    out, into = ranks
    return nn.Sequential(
        pointwise(layer, inputs, into), conv(layer, into, out), pointwise(layer, out, outputs, last=True)
    )


def decompose(weight: Tensor, ranks: Sequence[int], modes: object = ()) -> list[Tensor]:
    """Factors near to a weight, by alternating singular value decompositions from the higher-order one (tensorly)."""
    tensorly = need("tensorly")
    with tensorly.backend_context("pytorch"):
        (core, (out, into)), _ = need("tensorly.decomposition").partial_tucker(weight, rank=list(ranks), modes=[0, 1])
    return levelled([into.T[..., None, None], core, out[..., None, None]])
