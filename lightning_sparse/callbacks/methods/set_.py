"""Sparse evolutionary training."""

from __future__ import annotations

from typing import Any

from lightning_sparse.callbacks.sparse_training import SparseTraining
from lightning_sparse.engine.schedules import Curve
from lightning_sparse.engine.scores.of_layer import Score
from lightning_sparse.engine.times import Time, check_time
from lightning_sparse.errors import check_share


class SET(SparseTraining):
    """Sparse from birth to end; at intervals the weakest connections are replaced by random ones.

    Mocanu et al. 2018, "Scalable training of artificial neural networks with adaptive sparse connectivity" (Nature
    Communications 9, 2383; arXiv 1707.04780): an Erdős–Rényi birth and 30 % turnover. They replace at every epoch's end, and
    rank positive and negative weights apart; here magnitude ranks both, as in RigL's comparison.

    Args:
        final_sparsity: share of connections that are dead, constant, in [0, 1).
        turnover: share of each layer's living connections replaced at an update, in [0, 1].
        turnover_until: when the turnover stops, so that the last newborns can learn.
        every: time between two updates.
        birth: which connections die before the first step: ``"random"``, or ``"magnitude"`` for the smallest initial weights.
        allocation: the densities of the layers at birth.
        others: the other arguments of :class:`~lightning_sparse.SparseTraining`.

    Example:
        >>> plan = SET(0.9).recipe.resolve(1000)
        >>> [(step, plan.turnover_at(step)) for step in (100, 150, 800, 900)]
        [(100, 0.3), (150, 0.0), (800, 0.3), (900, 0.0)]
    """

    def __init__(
        self,
        final_sparsity: float,
        *,
        turnover: float = 0.3,
        turnover_until: Time = 0.9,
        every: Time = 100,
        birth: str | Score = "random",
        allocation: Any = "erk",
        **others: Any,
    ) -> None:
        sparsity = Curve(check_share("final_sparsity", final_sparsity, one_allowed=False))
        check_time("turnover_until", turnover_until)
        constant = Curve(check_share("turnover", turnover)).then(turnover_until, name="turnover")
        constant = constant.then(turnover_until, 0.0, name="rest")
        super().__init__(
            sparsity, turnover=constant, grow="random", birth=birth, allocation=allocation, every=every, **others
        )
