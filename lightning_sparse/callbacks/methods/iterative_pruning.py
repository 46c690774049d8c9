"""Iterative pruning: train, remove, train on, several times."""

from __future__ import annotations

from typing import Any

from lightning_sparse.callbacks.methods.arguments import check_trainings
from lightning_sparse.callbacks.sparse_training import SparseTraining
from lightning_sparse.engine.schedules import Curve
from lightning_sparse.engine.scores.of_layer import Score
from lightning_sparse.errors import check_share


class IterativePruning(SparseTraining):
    """Several trainings in one fit, each from where the last one ended: after each the lowest scores die.

    Han et al. 2015, "Learning both weights and connections" (arXiv 1506.02626): the same share of the living dies each time.
    The lottery ticket without its rewinding; :class:`OneShot` is one round of it.

    Args:
        final_sparsity: share of connections that are dead in the last training, in [0, 1).
        trainings: how many trainings of equal length the fit holds, the first, dense one among them; at least 2.
        criterion: which die: ``"magnitude"``, or any drop score.
        others: the other arguments of :class:`~lightning_sparse.SparseTraining`.

    Example:
        >>> plan = IterativePruning(0.75, trainings=3).recipe.resolve(900)
        >>> [(step, plan.sparsity(step)) for step in (299, 300, 599, 600, 899)]
        [(299, 0.0), (300, 0.5), (599, 0.5), (600, 0.75), (899, 0.75)]
    """

    def __init__(
        self, final_sparsity: float, *, trainings: int = 4, criterion: str | Score = "magnitude", **others: Any
    ) -> None:
        check_share("final_sparsity", final_sparsity, one_allowed=False)
        check_trainings(trainings)
        rounds = trainings - 1
        stairs = Curve(0.0).stairs(rounds / trainings, final_sparsity, rounds, "exponential", name="round")
        super().__init__(stairs, drop=criterion, **others)
