"""Dense-sparse-dense training: sparsity as a regulariser."""

from __future__ import annotations

from typing import Any

from lightning_sparse.callbacks.methods.arguments import check_order
from lightning_sparse.callbacks.sparse_training import SparseTraining
from lightning_sparse.engine.schedules import Curve
from lightning_sparse.engine.times import Time
from lightning_sparse.errors import check_share


class DenseSparseDense(SparseTraining):
    """Train dense, prune and train, then give every connection back (at zero) and train on. It ends dense.

    Han et al. 2017, "DSD: dense-sparse-dense training for deep neural networks" (arXiv 1607.04381), with 30 to 50 %
    sparsity in the middle. They divide the learning rate by ten for the last phase; leave that to your scheduler.

    Args:
        sparsity: share of connections that are dead in the middle, in [0, 1).
        sparse_from: when they die.
        dense_from: when all of them come back.
        others: the other arguments of :class:`~lightning_sparse.SparseTraining`.

    Example:
        >>> plan = DenseSparseDense(0.5).recipe.resolve(1000)
        >>> [plan.sparsity(step) for step in (0, 400, 700)]
        [0.0, 0.5, 0.0]
    """

    reached_by = "dense_from"

    def __init__(
        self, sparsity: float = 0.5, *, sparse_from: Time = 0.4, dense_from: Time = 0.7, **others: Any
    ) -> None:
        check_share("sparsity", sparsity, one_allowed=False)
        check_order(sparse_from=sparse_from, dense_from=dense_from)
        curve = Curve(0.0).then(sparse_from, name="dense").then(dense_from, sparsity, name="sparse")
        super().__init__(curve.then(dense_from, 0.0, name="dense again"), **others)
