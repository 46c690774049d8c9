"""One-shot pruning: everything at once, then fine-tuning."""

from __future__ import annotations

from typing import Any

from lightning_sparse.callbacks.sparse_training import SparseTraining
from lightning_sparse.engine.schedules import Curve
from lightning_sparse.engine.scores.of_layer import Score
from lightning_sparse.engine.times import Time, check_time
from lightning_sparse.errors import check_share


class OneShot(SparseTraining):
    """Train, remove the lowest scores at one moment, train on.

    Han et al. 2015, "Learning both weights and connections" (arXiv 1506.02626), with one round. For a model that is
    trained already: ``at=0``, and a short fit with a small learning rate. Without any, a transformer loses least by
    ``reconstruct="obs"`` (SparseGPT); ``criterion="wanda"`` leaves weights as they are. Both read
    ``score_batches`` batches, with ``at=0`` before the first step.

    Args:
        final_sparsity: share of connections that die, in [0, 1).
        at: when, an ``int`` in optimizer steps or a ``float`` as a share of the training; 0 is before the first step.
        criterion: which die: ``"magnitude"``, or any drop score; with ``at=0`` one that needs no training step. None is
            ``"magnitude"``, or with ``reconstruct="obs"`` what optimal brain surgery chooses itself (``"obs"``).
        reconstruct: ``"obs"`` lets the weights that live on make up for those that die: see
            :class:`~lightning_sparse.SparseTraining`.
        score_batches: how many training batches ``reconstruct``, or a score that needs some, reads.
        others: the other arguments of :class:`~lightning_sparse.SparseTraining`.

    Example:
        >>> plan = OneShot(0.9).recipe.resolve(1000)
        >>> plan.sparsity(499), plan.sparsity(500)
        (0.0, 0.9)
        >>> OneShot(0.5, at=0, reconstruct="obs", granularity="2:4", score_batches=16).recipe.drop
        'obs'
    """

    reached_by = "at"

    def __init__(
        self,
        final_sparsity: float,
        *,
        at: Time = 0.5,
        criterion: str | Score | None = None,
        reconstruct: str | None = None,
        score_batches: int = 1,
        **others: Any,
    ) -> None:
        check_share("final_sparsity", final_sparsity, one_allowed=False)
        check_time("at", at)
        later = Curve(0.0).then(at, name="dense").then(at, final_sparsity, name="sparse")
        drop = criterion if criterion is not None else "magnitude" if reconstruct is None else "obs"
        sparsity = Curve(final_sparsity) if at == 0 else later
        super().__init__(sparsity, drop=drop, reconstruct=reconstruct, score_batches=score_batches, **others)
