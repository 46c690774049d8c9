"""A matrix as a train of small tensors (Novikov et al. 2015, arXiv 1509.06569), by tltorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod

import torch
from torch import Tensor, nn

from lightning_sparse.compress.factorisation.convolutions import levelled
from lightning_sparse.extras import need

Modes = Sequence[Sequence[int]]

_WIDE = 1024  # from here on four factors, as in the paper


def modes(layer: nn.Linear) -> tuple[tuple[int, ...], ...]:
    """How outputs and inputs are split into as many factors each, two to four; nothing if one of them is a prime.

    Example:
        >>> modes(nn.Linear(784, 300)), modes(nn.Linear(1024, 1024)), modes(nn.Linear(100, 7))
        (((5, 6, 10), (7, 8, 14)), ((4, 4, 8, 8), (4, 4, 8, 8)), ())
    """
    both = layer.out_features, layer.in_features
    most = 4 if min(both) >= _WIDE else 3
    for parts in range(most, 1, -1):
        found = [split(features, parts) for features in both]
        if all(found):
            return tuple(found)
    return ()


def ranks(layer: nn.Linear, of_full: Callable[[int], int]) -> tuple[int, ...]:
    """The rank between each two factors: one for all, but none more than the factors on either side can span.

    Example:
        >>> ranks(nn.Linear(784, 300), lambda full: 40)
        (35, 40)
    """
    sizes = [out * into for out, into in zip(*modes(layer), strict=True)]
    full = [min(prod(sizes[:at]), prod(sizes[at:])) for at in range(1, len(sizes))]
    return tuple(min(of_full(max(full)), most) for most in full)


def numbers(layer: nn.Linear, ranks: Sequence[int], modes: Modes) -> int:
    """How many numbers the factors hold.

    Example:
        >>> numbers(nn.Linear(784, 300), (4, 4), ((3, 10, 10), (4, 7, 28)))  # 3*4*4 + 4*10*7*4 + 4*10*28
        2288
    """
    return sum(before * out * into * after for before, out, into, after in _shapes(ranks, modes))


def build(layer: nn.Linear, ranks: Sequence[int], modes: Modes) -> nn.Module:
    """The factorised layer of tltorch, which multiplies its factors to the weight in each forward pass.

    That took half the time of multiplying the input with one factor after the other, at rank 4 (784 x 300, batches of 64).
    """
    out, into = (tuple(side) for side in modes)
    made = need("tltorch").FactorizedLinear(
        into,
        out,
        bias=layer.bias is not None,
        factorization="blocktt",
        rank=(1, *ranks, 1),
        implementation="reconstructed",
        device="meta",  # its values would come from the global random state
        dtype=layer.weight.dtype,
    )
    made.to_empty(device=layer.weight.device)
    made.bias = layer.bias
    module: nn.Module = made
    return module


def decompose(weight: Tensor, ranks: Sequence[int], modes: Modes) -> list[Tensor]:
    """The factors of a matrix, each cut off by a singular value decomposition (Oseledets 2011), of one size.

    Example:
        >>> first, second = decompose(torch.eye(4), (4,), ((2, 2), (2, 2)))
        >>> first.shape, second.shape
        (torch.Size([1, 2, 2, 4]), torch.Size([4, 2, 2, 1]))
        >>> torch.einsum("aoib,bpjc->opij", first, second).reshape(4, 4).round().tolist()[1]
        [0.0, 1.0, 0.0, 0.0]
    """
    out, into = modes
    pairs = [axis for pair in zip(range(len(out)), range(len(out), 2 * len(out)), strict=True) for axis in pair]
    rest = weight.reshape(*out, *into).permute(pairs)
    factors: list[Tensor] = []
    for before, outputs, inputs, after in _shapes(ranks, modes):
        rest = rest.reshape(before * outputs * inputs, -1)
        if len(factors) == len(ranks):
            factors.append(rest.reshape(before, outputs, inputs, after))
            break
        left, values, right = torch.linalg.svd(rest, full_matrices=False)
        factors.append(left[:, :after].reshape(before, outputs, inputs, after))
        rest = values[:after, None] * right[:after]
    return levelled(factors)


def _shapes(ranks: Sequence[int], modes: Modes) -> Iterator[tuple[int, int, int, int]]:
    return zip((1, *ranks), *modes, (*ranks, 1), strict=True)


def split(number: int, parts: int, least: int = 2) -> tuple[int, ...]:
    """A number as a product of ``parts`` factors in ascending order with the smallest last one, or nothing."""
    if parts == 1:
        return (number,) if number >= least else ()
    found = []
    factor = least
    while factor**parts <= number:
        if number % factor == 0 and (rest := split(number // factor, parts - 1, factor)):
            found.append((factor, *rest))
        factor += 1
    return min(found, key=lambda factors: (factors[-1], [-f for f in factors]), default=())
