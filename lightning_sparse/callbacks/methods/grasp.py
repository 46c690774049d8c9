"""GraSP: pruning at birth by gradient flow."""

from __future__ import annotations

from typing import Any

from lightning_sparse.callbacks.methods.one_shot import OneShot


class GraSP(OneShot):
    """Before the first step, keep the connections whose loss would hurt the gradient flow most, and train those.

    Wang et al. 2020, "Picking winning tickets before training by preserving gradient flow" (arXiv 2002.07376): ``w (H g)``
    over a few batches, one ranking for all layers. They read ten images a class: one batch of about 100 for ten classes.

    Args:
        final_sparsity: share of connections that are dead from birth on, in [0, 1).
        rounds: in how many rounds.
        score_batches: how many training batches the score reads.
        others: the other arguments of :class:`~lightning_sparse.SparseTraining`; ``loss_fn`` too.

    Example:
        >>> GraSP(0.9).recipe.drop
        'grasp'
    """

    def __init__(self, final_sparsity: float, *, rounds: int = 1, score_batches: int = 1, **others: Any) -> None:
        super().__init__(final_sparsity, at=0, criterion="grasp", rounds=rounds, score_batches=score_batches, **others)
