"""Static sparse training: the control that every dynamic method is compared with."""

from __future__ import annotations

from typing import Any

from lightning_sparse.callbacks.sparse_training import SparseTraining
from lightning_sparse.engine.schedules import Curve
from lightning_sparse.engine.scores.of_layer import Score
from lightning_sparse.errors import check_share


class Static(SparseTraining):
    """Choose the connections before the first step, at random, and keep them.

    What a method gains over this line, it gains by choosing connections. Mocanu et al. 2018 (arXiv 1707.04780) call it the
    fixed-probability network; Evci et al. 2020 (arXiv 1911.11134) "static".

    Args:
        final_sparsity: share of connections that are dead from birth on, in [0, 1).
        criterion: which die: ``"random"``, ``"magnitude"``, or a score that needs no training step.
        allocation: ``"erk"`` as in RigL, ``"uniform"``, ``"global"``, or a function of your own.
        others: the other arguments of :class:`~lightning_sparse.SparseTraining`.

    Example:
        >>> Static(0.9).recipe.resolve(1000).sparsity(0)
        0.9
    """

    def __init__(
        self, final_sparsity: float, *, criterion: str | Score = "random", allocation: Any = "erk", **others: Any
    ) -> None:
        check_share("final_sparsity", final_sparsity, one_allowed=False)
        super().__init__(Curve(final_sparsity), drop=criterion, allocation=allocation, **others)
