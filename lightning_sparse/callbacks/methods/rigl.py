"""RigL: the rigged lottery."""

from __future__ import annotations

from typing import Any

from lightning_sparse.callbacks.methods.arguments import falling_turnover
from lightning_sparse.callbacks.sparse_training import SparseTraining
from lightning_sparse.engine.schedules import Curve
from lightning_sparse.engine.scores.of_layer import Score
from lightning_sparse.engine.times import Time
from lightning_sparse.errors import check_share


class RigL(SparseTraining):
    """Sparse from birth to end; the weakest connections give way to those with the largest gradient.

    Evci et al. 2020, "Rigging the lottery" (arXiv 1911.11134), with its defaults: ERK densities, 30 % turnover that falls
    by a cosine to zero at three quarters of the training, an update every 100 steps.

    Args:
        final_sparsity: share of connections that are dead, constant, in [0, 1).
        turnover: share of each layer's living connections replaced at the first update, in [0, 1].
        turnover_until: when it has fallen to zero.
        every: time between two updates.
        birth: which connections die before the first step: ``"random"``, or ``"magnitude"`` for the smallest initial weights.
        allocation: the densities of the layers.
        others: the other arguments of :class:`~lightning_sparse.SparseTraining`.

    Example:
        >>> plan = RigL(0.9).recipe.resolve(1000)
        >>> [(step, round(plan.turnover_at(step), 3)) for step in (100, 400, 700, 800)]
        [(100, 0.287), (400, 0.134), (700, 0.003), (800, 0.0)]
    """

    def __init__(
        self,
        final_sparsity: float,
        *,
        turnover: float = 0.3,
        turnover_until: Time = 0.75,
        every: Time = 100,
        birth: str | Score = "random",
        allocation: Any = "erk",
        **others: Any,
    ) -> None:
        sparsity = Curve(check_share("final_sparsity", final_sparsity, one_allowed=False))
        falling = falling_turnover(turnover, turnover_until)
        super().__init__(
            sparsity, turnover=falling, grow="gradient", birth=birth, allocation=allocation, every=every, **others
        )
