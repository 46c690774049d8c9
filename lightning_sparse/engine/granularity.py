"""What lives or dies as one: single weights, N of every M weights, blocks of a weight tensor, whole channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_sparse.anatomy.parameters import outputs_first
from lightning_sparse.engine.allocation import global_, uniform
from lightning_sparse.errors import SparsityError


@dataclass(frozen=True)
class Granularity:
    """Single weights, the finest granularity, and the base class of the others."""

    def check(
        self,
        parameters: Mapping[str, Tensor],
        sparsities: Sequence[float],
        turnovers: Sequence[float] = (),
        allocation: object = "global",
        redistribute: bool = False,
    ) -> None:
        """Raise a SparsityError before training if these choices of a recipe cannot be followed at this granularity.

        ``sparsities`` and ``turnovers`` are all the values that their curves start from or go to. The weight of a Conv1D
        is taken as (outputs, inputs).
        """
        parameters = outputs_first(parameters)
        misfits = [name for name, weight in parameters.items() if not self._divides(weight.shape)]
        if misfits:
            found = ", ".join(f"{name!r} {tuple(parameters[name].shape)}" for name in misfits)
            raise SparsityError(
                f"granularity='{self}' needs {self._unit_text}, and these shapes do not divide: {found}; leave them out with "
                f"exclude={misfits!r}"
            )
        shapes = [weight.shape for weight in parameters.values()]
        total, least = sum(map(torch.Size.numel, shapes)), sum(map(self._least, shapes))
        living = total - round(max(sparsities) * total)
        if living < least:
            raise SparsityError(
                f"sparsity {max(sparsities)} of {total} connections leaves {living} for {len(parameters)} layers, and "
                f"granularity='{self}' keeps at least {least} connections: ask for at most "
                f"{(total - least) * 10**6 // total / 1e6}, or change granularity= or exclude="
            )
        self._check_choices(max(turnovers, default=0.0), allocation, redistribute)

    def size(self, shape: torch.Size) -> int:
        """How many weights of a parameter of this shape live or die as one."""
        return 1

    def __str__(self) -> str:
        return "weights"

    @property
    def _unit_text(self) -> str:
        return "single weights"

    def _divides(self, shape: torch.Size) -> bool:
        return True

    def _least(self, shape: torch.Size) -> int:
        return self.size(shape)  # no layer is emptied

    def _check_choices(self, turnover: float, allocation: object, redistribute: bool) -> None:
        """Refuse what contradicts this granularity."""


WEIGHTS = Granularity()


@dataclass(frozen=True)
class Groups(Granularity):
    """N:M sparsity, such as 2:4: of every M consecutive inputs of an output, at each kernel position, N live.

    A group is M connections in a row along dimension 1 of the weight (0 of a Conv1D's), as sparse tensor cores require:
    Mishra et al. 2021 (arXiv 2104.08378). The N best living connections of each group are protected, so that one dies only
    while N others of its group live. At sparsity 1 - N/M every group has exactly N; on the way there the mask has no pattern.

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
                f"granularity='{self}' is not N:M: write how many live of how many, 1 <= N < M, such as '2:4'"
            )

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    def protected(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Mark the N living connections of every group with the highest drop scores; of equal ones, the later."""
        grouped = (scores.shape[0], -1, self.m, *scores.shape[2:])
        places, alive = scores.reshape(grouped).unbind(2), mask.reshape(grouped).unbind(2)
        better = [torch.zeros_like(place, dtype=torch.int16) for place in places]  # how many of the group rank above it
        for i in range(self.m):
            for j in range(i + 1, self.m):
                later_wins = places[j] >= places[i]
                better[i] += alive[j] & later_wins
                better[j] += alive[i] & ~later_wins
        kept = [here & (ahead < self.n) for here, ahead in zip(alive, better, strict=True)]
        return torch.stack(kept, 2).flatten(1, 2)

    @property
    def _unit_text(self) -> str:
        return f"groups of {self.m} along dimension 1 (the inputs)"

    def _divides(self, shape: torch.Size) -> bool:
        return len(shape) >= 2 and shape[1] % self.m == 0

    def _least(self, shape: torch.Size) -> int:
        return shape.numel() * self.n // self.m

    def _check_choices(self, turnover: float, allocation: object, redistribute: bool) -> None:
        if turnover > 0.0:
            raise SparsityError(
                f"turnover={turnover} and granularity='{self}': a connection born elsewhere would break the groups; write "
                "turnover=0.0, or granularity='weights'"
            )
        if allocation not in ("global", "uniform", global_, uniform):
            raise SparsityError(
                f"allocation={allocation!r} and granularity='{self}': the groups give every layer the same density in the "
                "end; write 'global' or 'uniform', which differ on the way there, and exclude=[...] to leave layers dense"
            )


@dataclass(frozen=True)
class Blocks(Granularity):
    """Blocks of the weight as a matrix (shape[0], everything else): a block is born and dies as a whole.

    A block's score is the mean of its weights' scores, so that a wide layer's channels do not rank above a narrow one's for
    having more weights. With magnitudes that is the L1 norm per weight; channels by their L1 norm are those of Li et al.
    2017 (arXiv 1608.08710).

    The weight of transformers' Conv1D is (inputs, outputs); its blocks and channels are those of its transpose.

    Args:
        rows: height of a block.
        columns: width of a block; None makes it a whole row: an output channel or unit (in a transposed convolution, an
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
                f"granularity='{self}' is not a block: write rows x columns, each at least 1, such as '1x4'"
            )

    def __str__(self) -> str:
        return "channels" if self.columns is None and self.rows == 1 else f"{self.rows}x{self.columns}"

    def size(self, shape: torch.Size) -> int:
        """How many weights of a parameter of this shape are one block."""
        return self.rows * (self.columns or shape[1:].numel())

    def means(self, scores: Tensor) -> Tensor:
        """Mean score of each block, shape (rows of blocks, columns of blocks), in single precision or better."""
        dtype = torch.float64 if scores.dtype == torch.float64 else torch.float32
        return self._blocks(scores).mean((1, 3), dtype=dtype)

    def alive(self, mask: Tensor) -> Tensor:
        """Which blocks have a living connection, of the same shape."""
        return self._blocks(mask).any(3).any(1)

    def spread(self, blocks: Tensor, shape: torch.Size) -> Tensor:
        """Give every weight of a parameter the value of its block."""
        columns = shape[1:].numel() // blocks.shape[1]
        return blocks[:, None, :, None].expand(-1, self.rows, -1, columns).reshape(shape)

    def _blocks(self, tensor: Tensor) -> Tensor:
        matrix = tensor.reshape(tensor.shape[0], -1)
        columns = self.columns or matrix.shape[1]
        return matrix.reshape(matrix.shape[0] // self.rows, self.rows, matrix.shape[1] // columns, columns)

    @property
    def _unit_text(self) -> str:
        return f"whole blocks of {self} in the weight as a matrix (shape[0], the rest)"

    def _divides(self, shape: torch.Size) -> bool:
        return len(shape) > 0 and shape[0] % self.rows == 0 and shape[1:].numel() % (self.columns or 1) == 0

    def _check_choices(self, turnover: float, allocation: object, redistribute: bool) -> None:
        if redistribute:
            raise SparsityError(
                f"redistribute=True and granularity='{self}': units of different sizes cannot be exchanged one for one; "
                "write redistribute=False, or granularity='weights'"
            )


def whole_units(count: int, size: int) -> int:
    """The number of units of ``size`` connections nearest to ``count``, at least one; halves are rounded up.

    Example:
        >>> [whole_units(count, 4) for count in (0, 5, 6, 7)]
        [1, 1, 2, 2]
    """
    return max(1, (2 * count + size) // (2 * size))
