"""SNFS: sparse networks from scratch, by sparse momentum."""

from __future__ import annotations

from typing import Any

from lightning_sparse.callbacks.methods.arguments import falling_turnover
from lightning_sparse.callbacks.sparse_training import SparseTraining
from lightning_sparse.engine.schedules import Curve
from lightning_sparse.engine.scores.of_layer import Score
from lightning_sparse.engine.times import Time
from lightning_sparse.errors import check_share


class SNFS(SparseTraining):
    """Sparse from birth to end; connections are born, and move between layers, where the momentum is large.

    Dettmers & Zettlemoyer 2019, "Sparse networks from scratch: faster training without losing performance" (arXiv
    1907.04840): at intervals each layer loses a share of its weakest connections. As many are born, shared between the layers
    by the mean momentum of their living connections, where the momentum is largest. The paper starts from the same density
    in every layer, and updates once an epoch.

    Args:
        final_sparsity: share of connections that are dead, constant, in [0, 1).
        turnover: share of the living connections replaced at the first update, in [0, 1]; it falls by a cosine.
        turnover_until: when it has fallen to zero.
        every: time between two updates.
        birth: which connections die before the first step: ``"random"``, or ``"magnitude"`` for the smallest initial weights.
        allocation: the densities of the layers at birth.
        others: the other arguments of :class:`~lightning_sparse.SparseTraining`.

    Example:
        >>> SNFS(0.9).recipe.redistribute
        True
    """

    def __init__(
        self,
        final_sparsity: float,
        *,
        turnover: float = 0.5,
        turnover_until: Time = 0.9,
        every: Time = 100,
        birth: str | Score = "random",
        allocation: Any = "uniform",
        **others: Any,
    ) -> None:
        super().__init__(
            Curve(check_share("final_sparsity", final_sparsity, one_allowed=False)),
            turnover=falling_turnover(turnover, turnover_until),
            grow="momentum",
            birth=birth,
            allocation=allocation,
            every=every,
            redistribute=True,
            **others,
        )
