"""Pruning at birth, by a score of the whole network: SNIP, GraSP and SynFlow."""

from __future__ import annotations

from typing import Any

from lightning_sparse.callbacks.methods.one_shot import OneShot


class SNIP(OneShot):
    """Before the first step, keep the connections that the loss is most sensitive to, and train those.

    Lee et al. 2019, "SNIP: single-shot network pruning based on connection sensitivity" (arXiv 1810.02340):
    ``|w dL/dw|`` over one batch, one ranking for all layers. ``rounds`` above 1 scores again as connections fall away
    (iterative SNIP: de Jorge et al. 2021, arXiv 2006.09081).

    Args:
        final_sparsity: share of connections that are dead from birth on, in [0, 1).
        rounds: in how many rounds.
        score_batches: how many training batches the score reads.
        others: the other arguments of :class:`~lightning_sparse.SparseTraining`; ``loss_fn`` too.

    Example:
        >>> SNIP(0.9).recipe.drop
        'snip'
    """

    def __init__(self, final_sparsity: float, *, rounds: int = 1, score_batches: int = 1, **others: Any) -> None:
        super().__init__(final_sparsity, at=0, criterion="snip", rounds=rounds, score_batches=score_batches, **others)


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


class SynFlow(OneShot):
    """Before the first step, keep the connections that carry most of the paths through the network, in a hundred rounds.

    Tanaka et al. 2020, "Pruning neural networks without any data by iteratively conserving synaptic flow" (arXiv
    2006.05467): layers stay connected where other scores empty them.

    Args:
        final_sparsity: share of connections that are dead from birth on, in [0, 1).
        rounds: in how many rounds, the density falling by the same factor in each.
        others: the other arguments of :class:`~lightning_sparse.SparseTraining`.

    Example:
        >>> SynFlow(0.99).recipe.rounds
        100
    """

    def __init__(self, final_sparsity: float, *, rounds: int = 100, **others: Any) -> None:
        super().__init__(final_sparsity, at=0, criterion="synflow", rounds=rounds, **others)
