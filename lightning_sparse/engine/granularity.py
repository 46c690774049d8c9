"""What lives or dies as one: single weights, N of every M weights, blocks of a weight, whole channels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_sparse.engine.allocation import global_, uniform
from lightning_sparse.errors import SparsityError


@dataclass(frozen=True)
class Granularity:
    """Single weights, the finest granularity, and what the others are kinds of."""

    def check(
        self,
        parameters: Mapping[str, Tensor],
        sparsities: Sequence[float],
        turnovers: Sequence[float] = (),
        allocation: object = "global",
        redistribute: bool = False,
    ) -> None:
        """Refuse what cannot be done at this granularity, before training.

        Args:
            parameters: what is made sparse, by name.
            sparsities: every value that the sparsity goes to or starts from.
            turnovers: every value of the turnover, likewise.
            allocation: the recipe's choice, a name or an object.
            redistribute: whether turnover moves connections between layers.

        Raises:
            SparsityError: naming every parameter whose shape does not fit, or the choice that does not.
        """

    def size(self, shape: torch.Size) -> int:
        """How many weights of a parameter of this shape live or die as one."""
        return 1

    def __str__(self) -> str:
        return "weights"


WEIGHTS = Granularity()


@dataclass(frozen=True)
class Groups(Granularity):
    """N:M: of every M consecutive inputs of an output, at each kernel position, N live; such as 2:4.

    A group is M connections in a row along dimension 1 of the weight, as sparse tensor cores want it: Mishra et al. 2021
    (arXiv 2104.08378). In each group the N best living connections are protected, so that one dies only while N others of
    its group live: at sparsity 1 - N/M every group has exactly N, and on the way there the mask is an ordinary one.

    Args:
        n: how many of a group live in the end, at least 1.
        m: size of a group, more than ``n``.

    Example:
        >>> scores, mask = torch.tensor([[4.0, 3.0, 2.0, 1.0, 0.1, 0.4, 0.2, 0.3]]), torch.ones(1, 8, dtype=torch.bool)
        >>> Groups(2, 4).protected(scores, mask).int().tolist()
        [[1, 1, 0, 0, 0, 1, 0, 1]]
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        if not 1 <= self.n < self.m:
            raise SparsityError(
                f"granularity='{self}' is no N:M: write how many live of how many, 1 <= N < M, such as '2:4'"
            )

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    def protected(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Mark the N best living connections of every group; of equal ones the later, as everywhere.

        Args:
            scores: drop scores, of the weight's shape.
            mask: which connections live, likewise.
        """
        grouped = (scores.shape[0], -1, self.m, *scores.shape[2:])
        places, alive = scores.reshape(grouped).unbind(2), mask.reshape(grouped).unbind(2)
        better = [
            torch.zeros_like(place, dtype=torch.int16) for place in places
        ]  # living ones of the group ahead of it
        for i in range(self.m):
            for j in range(i + 1, self.m):
                later_wins = places[j] >= places[i]
                better[i] += alive[j] & later_wins
                better[j] += alive[i] & ~later_wins
        kept = [here & (ahead < self.n) for here, ahead in zip(alive, better, strict=True)]
        return torch.stack(kept, 2).flatten(1, 2)

    def check(
        self,
        parameters: Mapping[str, Tensor],
        sparsities: Sequence[float],
        turnovers: Sequence[float] = (),
        allocation: object = "global",
        redistribute: bool = False,
    ) -> None:
        """Refuse shapes without whole groups, a sparsity beyond 1 - N/M, turnover, and layers with shares of their own."""
        misfits = [name for name, w in parameters.items() if w.dim() < 2 or w.shape[1] % self.m]
        _refuse(self, f"groups of {self.m} along dimension 1 (the inputs)", misfits, parameters)
        total, top = sum(weight.numel() for weight in parameters.values()), max(sparsities)
        if round(top * total) > total - total * self.n // self.m:
            raise SparsityError(
                f"sparsity {top} is more than granularity='{self}' can give: {self.n} of every {self.m} live, so write at "
                f"most {1 - self.n / self.m}, or another N:M"
            )
        if any(turnover > 0.0 for turnover in turnovers):
            raise SparsityError(
                f"turnover={max(turnovers)} and granularity='{self}': a connection born elsewhere would break the groups; "
                "write turnover=0.0, or granularity='weights'"
            )
        if allocation not in ("global", "uniform", global_, uniform):
            raise SparsityError(
                f"allocation={allocation!r} and granularity='{self}': the groups give every layer the same density in the "
                "end; write 'global' or 'uniform' (which is the way there), and exclude=[...] for layers to leave dense"
            )


@dataclass(frozen=True)
class Blocks(Granularity):
    """Blocks of the weight seen as a matrix (shape[0], everything else): all of a block lives or dies, and is born, as one.

    A block's score is the mean of its weights' scores, so that its size does not decide: under one ranking of the network
    a wide layer's channels are not better than a narrow one's for having more weights. With magnitudes that is the L1 norm
    per weight; channels by their L1 norm are those of Li et al. 2017 (arXiv 1608.08710).

    Args:
        rows: height of a block.
        columns: width of a block; None makes it a whole row: an output channel or unit (of a transposed convolution, an
            input channel).

    Example:
        >>> Blocks(1, 2).means(torch.tensor([[1.0, 3.0, 5.0, 7.0]])).tolist()
        [[2.0, 6.0]]
        >>> Blocks(1, 2).spread(torch.tensor([[True, False]]), torch.Size([1, 4])).tolist()
        [[True, True, False, False]]
    """

    rows: int = 1
    columns: int | None = None

    def __post_init__(self) -> None:
        if self.rows < 1 or (self.columns is not None and self.columns < 1):
            raise SparsityError(
                f"granularity='{self}' is no block: write rows x columns, each at least 1, such as '1x4'"
            )

    def __str__(self) -> str:
        return "channels" if self.columns is None and self.rows == 1 else f"{self.rows}x{self.columns}"

    def size(self, shape: torch.Size) -> int:
        """How many weights of a parameter of this shape are one block."""
        return self.rows * (self.columns or shape[1:].numel())

    def means(self, scores: Tensor) -> Tensor:
        """Mean score of each block, shape (rows of blocks, columns of blocks)."""
        return self._blocks(scores).mean((1, 3), dtype=_at_least_single(scores.dtype))

    def alive(self, mask: Tensor) -> Tensor:
        """Which blocks live, likewise: those of which anything lives."""
        return self._blocks(mask).any(3).any(1)

    def spread(self, blocks: Tensor, shape: torch.Size) -> Tensor:
        """The other way: every weight gets what stands for its block."""
        columns = shape[1:].numel() // blocks.shape[1]
        return blocks[:, None, :, None].expand(-1, self.rows, -1, columns).reshape(shape)

    def _blocks(self, tensor: Tensor) -> Tensor:
        matrix = tensor.reshape(tensor.shape[0], -1)
        columns = self.columns or matrix.shape[1]
        return matrix.reshape(matrix.shape[0] // self.rows, self.rows, matrix.shape[1] // columns, columns)

    def check(
        self,
        parameters: Mapping[str, Tensor],
        sparsities: Sequence[float],
        turnovers: Sequence[float] = (),
        allocation: object = "global",
        redistribute: bool = False,
    ) -> None:
        """Refuse shapes that blocks do not fill, a sparsity that leaves a layer without one, and moves between layers."""
        misfits = [
            name
            for name, w in parameters.items()
            if w.dim() == 0 or w.shape[0] % self.rows or w.shape[1:].numel() % (self.columns or 1)
        ]
        _refuse(self, f"whole blocks of {self} in the weight as a matrix (shape[0], the rest)", misfits, parameters)
        total, top = sum(weight.numel() for weight in parameters.values()), max(sparsities)
        least, living = sum(self.size(weight.shape) for weight in parameters.values()), total - round(top * total)
        if living < least:
            raise SparsityError(
                f"sparsity {top} leaves {living} of {total} connections, and granularity='{self}' keeps at least one whole "
                f"unit in each of {len(parameters)} layers, {least} connections: ask for at most "
                f"{(total - least) * 10**6 // total / 1e6}, or exclude layers"
            )
        if redistribute:
            raise SparsityError(
                f"redistribute=True and granularity='{self}': units of different sizes cannot be exchanged one for one; "
                "write redistribute=False, or granularity='weights'"
            )


def parse_granularity(choice: str | Granularity) -> Granularity:
    """Return the granularity that a string stands for.

    Args:
        choice: ``"weights"``; ``"N:M"`` such as ``"2:4"``; ``"RxC"``, blocks of R rows and C columns, such as ``"1x4"``;
            ``"channels"``; or an object of this module.

    Raises:
        SparsityError: for anything else.

    Example:
        >>> parse_granularity("2:4"), parse_granularity("4x4"), parse_granularity("channels")
        (Groups(n=2, m=4), Blocks(rows=4, columns=4), Blocks(rows=1, columns=None))
        >>> parse_granularity("2:2")
        Traceback (most recent call last):
        lightning_sparse.SparsityError: granularity='2:2' is no N:M: write how many live of how many, 1 <= N < M, such as '2:4'
    """  # noqa: E501
    if isinstance(choice, Granularity):
        return choice
    text = str(choice)
    if text == "weights":
        return WEIGHTS
    if text == "channels":
        return Blocks()
    for pattern, kind in ((r"(\d+):(\d+)", Groups), (r"(\d+)x(\d+)", Blocks)):
        found = re.fullmatch(pattern, text)
        if found:
            return kind(int(found[1]), int(found[2]))
    quote = ""
    if isinstance(choice, int) and choice > 60:  # YAML 1.1 has sexagesimal numbers
        quote = (
            f" (YAML reads {choice // 60}:{choice % 60} without quotes as the number {choice}: write it with quotes)"
        )
    raise SparsityError(
        f"granularity={choice!r} does not exist: write 'weights', 'N:M' such as '2:4', 'RxC' such as '1x4' or '4x4', or "
        f"'channels'{quote}"
    )


def whole_units(count: int, size: int) -> int:
    """How many units of ``size`` connections are nearest to ``count``: at least one, and of two equally near the more.

    Example:
        >>> [whole_units(count, 4) for count in (0, 5, 6, 7)]
        [1, 1, 2, 2]
    """
    return max(1, (2 * count + size) // (2 * size))


def _refuse(granularity: Granularity, what: str, misfits: Sequence[str], parameters: Mapping[str, Tensor]) -> None:
    if misfits:
        shapes = ", ".join(f"{name!r} {tuple(parameters[name].shape)}" for name in misfits)
        raise SparsityError(
            f"granularity='{granularity}' needs {what}, and these do not divide: {shapes}; leave them out with "
            f"exclude={list(misfits)!r}"
        )


def _at_least_single(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
