"""What an earlier call found at other eps, so that a new eps repeats no attack that is not needed."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_sparse.errors import SparsityError
from lightning_sparse.results.records import Measured, Record


@dataclass(frozen=True)
class Known:
    """What an earlier call found: its rows and, by eps, which images nothing had broken, (n,), bool, on the CPU."""

    survives: dict[float, Tensor] = field(default_factory=dict)
    rows: list[Record] = field(default_factory=list)

    def standing(self, eps: float) -> list[Tensor]:
        """Give which images stood at each smaller eps: what breaks in a ball is broken in every larger one."""
        return [survives for radius, survives in self.survives.items() if radius < eps]

    def in_words(self, eps: float, survives: Tensor) -> str:
        """Say how the earlier numbers bear on the one at ``eps``, which left ``survives`` (n,).

        Attacks may break in a small ball what they could not break in a larger one before. That number stays as it is, and
        the new row says by how much it is too high.
        """
        smaller = [f"{radius:.4g}" for radius in sorted(self.survives) if radius < eps]
        said = f"; what broke before at eps {', '.join(smaller)} is broken here and was not attacked" if smaller else ""
        for radius in sorted(self.survives):
            missed = int((self.survives[radius] & ~survives).sum())
            if radius > eps and missed:
                said += f"; {missed} broken here stood before at eps {radius:.4g}, whose number is too high by as many"
        return said


def read_known(found: Measured | None, labels: Tensor) -> Known:
    """Read what :func:`~lightning_sparse.measure.measure_robustness` returned before; raise if it is of other images."""
    if found is None:
        return Known()
    arrays = found.arrays
    if "eps" not in arrays:
        return Known(rows=found.records)
    if not torch.equal(torch.as_tensor(arrays["labels"]), labels):
        raise SparsityError(
            "known= was measured on other images (its labels differ): leave it out, or give the same data"
        )
    columns = torch.as_tensor(arrays["survives"]).T
    survives = {float(eps): column for eps, column in zip(arrays["eps"], columns, strict=True)}
    return Known(survives, found.records)
