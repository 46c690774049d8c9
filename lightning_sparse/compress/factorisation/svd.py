"""A matrix as a product of two: the singular value decomposition, cut off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sparse.compress.factorisation.convolutions import conv, linear, pointwise
from lightning_sparse.compress.factorisation.product import Product


def ranks(layer: Any, of_full: Callable[[int], int]) -> tuple[int]:
    """The rank, given what to make of the full one.

    Example:
        >>> ranks(nn.Conv2d(3, 64, 5), lambda full: full)
        (64,)
    """
    outputs, *inputs = layer.weight.shape
    return (of_full(min(outputs, prod(inputs))),)


def numbers(layer: Any, ranks: Sequence[int], modes: object = ()) -> int:
    """How many numbers the factors hold.

    Example:
        >>> numbers(nn.Linear(784, 300), (10,))
        10840
    """
    outputs, *inputs = layer.weight.shape
    return int(ranks[0] * (outputs + prod(inputs)))


def build(layer: Any, ranks: Sequence[int], modes: object = ()) -> nn.Module:
    """A Linear layer as two, a convolution (of a matrix: outputs, inputs * kernel) as one and a pointwise one.

    Example:
        >>> build(nn.Conv2d(3, 64, 5, stride=2), (10,))
        Sequential(
          (0): Conv2d(3, 10, kernel_size=(5, 5), stride=(2, 2), bias=False)
          (1): Conv2d(10, 64, kernel_size=(1, 1), stride=(1, 1))
        )
    """
    outputs, inputs = layer.weight.shape[:2]
    if isinstance(layer, nn.Linear):
        return Product(linear(layer, inputs, ranks[0]), linear(layer, ranks[0], outputs, last=True))
    return nn.Sequential(conv(layer, inputs, ranks[0]), pointwise(layer, ranks[0], outputs, last=True))


def decompose(weight: Tensor, ranks: Sequence[int], modes: object = ()) -> list[Tensor]:
    """The factors nearest to a weight (Eckart and Young 1936), the singular values shared between both.

    Example:
        >>> weight = torch.arange(6.0).reshape(3, 2)
        >>> first, second = decompose(weight, (2,))
        >>> torch.allclose(second @ first, weight, atol=1e-6)
        True
    """
    left, values, right = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    roots = values[: ranks[0]].sqrt()
    first = (roots[:, None] * right[: ranks[0]]).reshape(ranks[0], *weight.shape[1:])
    second = left[:, : ranks[0]] * roots
    return [first, second.reshape(second.shape + (1,) * (weight.dim() - 2))]
