"""SynFlow: pruning at birth without data."""

from __future__ import annotations

from typing import Any

from lightning_sparse.callbacks.methods.one_shot import OneShot


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
