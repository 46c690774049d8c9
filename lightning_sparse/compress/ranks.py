"""Ranks at which layers take a share of their numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import ceil
from typing import Any, NamedTuple

from lightning_sparse.compress.factorisation.kinds import FACTORISATIONS
from lightning_sparse.compress.factors import Factors
from lightning_sparse.errors import SparsityError, check_count, check_share


class Choice(NamedTuple):
    """A layer that can be factorised, and how."""

    name: str
    place: int
    layer: Any
    kind: str
    modes: tuple[tuple[int, ...], ...]

    def factors(self, of_full: Callable[[int], int]) -> Factors | None:
        """The ranks, or None where they would take no fewer numbers than the layer."""
        ranks = FACTORISATIONS[self.kind].ranks(self.layer, of_full)
        numbers = FACTORISATIONS[self.kind].numbers(self.layer, ranks, self.modes)
        return Factors(self.name, self.place, self.kind, ranks, self.modes) if numbers < self.size else None

    @property
    def size(self) -> int:
        """Numbers of the dense weight."""
        return int(self.layer.weight.numel())

    def numbers(self, of_full: Callable[[int], int]) -> int:
        """How many the layer then takes."""
        found = self.factors(of_full)
        return FACTORISATIONS[self.kind].numbers(self.layer, found.ranks, self.modes) if found else self.size


def ranks_of(choices: Sequence[Choice], share: float | None, rank: int | None) -> list[Callable[[int], int]]:
    """What is to be made of the full ranks of each layer, so that all take at most ``share``, or have ``rank``.

    By ``share`` all layers have one rank, and some of them one more, the largest first, as far as that fits.

    Raises:
        SparsityError: if both or neither are given, or none will do; it names one that does.

    Example:
        >>> from torch import nn
        >>> (of_full,) = ranks_of([Choice("0", 0, nn.Linear(784, 300), "svd", ())], 0.1, None)
        >>> of_full(300)  # 21 * 1084 of 235200 numbers
        21
    """
    if (share is None) == (rank is None):
        raise SparsityError(f"share={share} and rank={rank}: write one of them, share=0.1 or rank=8")
    if rank is not None:
        return [_given(choices, check_count("rank", rank, write=8))] * len(choices)
    assert share is not None
    if not check_share("share", share, one_allowed=False):
        raise SparsityError("share=0 leaves no weight: write share=0.1")
    total = sum(choice.size for choice in choices)

    def taken(ranks: Sequence[int]) -> int:
        return sum(choice.numbers(partial(min, each)) for choice, each in zip(choices, ranks, strict=True))

    ones = [1] * len(choices)
    least = taken(ones) / total
    if least > share:
        write = f"write share={ceil(1000 * least) / 1000}" if least < 0.999 else "leave them dense"
        raise SparsityError(f"share={share} is less than ranks of 1 take: the smallest share is {least:.4g}; {write}")
    low, high = 1, max(choice.size for choice in choices)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if taken([middle * one for one in ones]) <= share * total else (low, middle)
    ranks = [low * one for one in ones]
    for place in sorted(range(len(choices)), key=lambda place: -choices[place].size):
        more = [rank + (at == place) for at, rank in enumerate(ranks)]
        ranks = more if taken(more) <= share * total else ranks
    return [partial(min, each) for each in ranks]


def _given(choices: Sequence[Choice], rank: int) -> Callable[[int], int]:
    """A rank as it is, if some layer is then smaller."""

    def fits(rank: int) -> bool:
        return any(choice.factors(partial(min, rank)) for choice in choices)

    if not fits(rank):
        low, high = 0, rank
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        largest = f"the largest rank that does is {low}; write rank={low}" if low else "no rank does; leave them dense"
        raise SparsityError(f"rank={rank} makes no layer smaller: {largest}")
    return partial(min, rank)
