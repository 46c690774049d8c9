"""GraNet: gradual pruning with regeneration."""

from __future__ import annotations

from typing import Any

from lightning_sparse.callbacks.methods.arguments import check_sparsities, falling_turnover
from lightning_sparse.callbacks.sparse_training import SparseTraining
from lightning_sparse.engine.schedules import cubic
from lightning_sparse.engine.scores.of_layer import Score
from lightning_sparse.engine.times import Time, check_time


class GraNet(SparseTraining):
    """Start half dense, prune along a cubic curve, and replace connections at every update.

    Liu et al. 2021, "Sparse training via boosting pruning plasticity with neuroregeneration" (arXiv 2106.10404): at every
    update the weakest connections die until the scheduled density, and a share of the rest is replaced by gradient.

    Args:
        final_sparsity: share of connections that are dead in the end, in [0, 1).
        initial_sparsity: share that is dead at birth, in [0, final_sparsity].
        end: when the final sparsity is reached.
        turnover: share of the living connections replaced at the first update, in [0, 1]; it falls by a cosine.
        turnover_until: when the turnover has fallen to zero.
        every: time between two updates.
        growth: which connections are born first: ``"gradient"``, ``"momentum"``, ``"random"``, or a score of your own.
        others: the other arguments of :class:`~lightning_sparse.SparseTraining`.

    Example:
        >>> plan = GraNet(0.9).recipe.resolve(1000)
        >>> [(step, round(plan.sparsity(step), 2), round(plan.turnover_at(step), 2)) for step in (0, 100, 300, 700)]
        [(0, 0.5, 0.0), (100, 0.65, 0.48), (300, 0.83, 0.31), (700, 0.9, 0.0)]
    """

    reached_by = "end"

    def __init__(
        self,
        final_sparsity: float,
        *,
        initial_sparsity: float = 0.5,
        end: Time = 0.7,
        turnover: float = 0.5,
        turnover_until: Time = 0.7,
        every: Time = 0.01,
        growth: str | Score = "gradient",
        **others: Any,
    ) -> None:
        check_sparsities("initial_sparsity", final_sparsity=final_sparsity, initial_sparsity=initial_sparsity)
        check_time("end", end)
        sparsity = cubic(final_sparsity, initial=initial_sparsity, end=end)
        falling = falling_turnover(turnover, turnover_until, name="regenerate")
        super().__init__(sparsity, turnover=falling, grow=growth, every=every, **others)
