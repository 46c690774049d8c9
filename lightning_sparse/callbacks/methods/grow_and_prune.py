"""Grow, then prune: the connection growth and pruning of NeST."""

from __future__ import annotations

from typing import Any

from lightning_sparse.callbacks.methods.arguments import check_order, check_sparsities
from lightning_sparse.callbacks.sparse_training import SparseTraining
from lightning_sparse.engine.schedules import Curve
from lightning_sparse.engine.scores.of_layer import Score
from lightning_sparse.engine.times import Time


class GrowAndPrune(SparseTraining):
    """Start from a sparse seed, grow connections by gradient, then prune by magnitude.

    After Dai, Yin & Jha 2019, "NeST: a neural network synthesis tool based on a grow-and-prune paradigm" (arXiv
    1711.02017). Theirs grows neurons and feature maps too, and starts a newborn at a share of its gradient; this grows
    connections only, from zero.

    Args:
        final_sparsity: share of connections that are dead in the end, in [0, 1).
        seed_sparsity: share that is dead in the seed, in [sparsity_at_densest, 1).
        sparsity_at_densest: the sparsity when growth ends, in [0, final_sparsity].
        grown_at: when growth ends and pruning begins.
        pruned_by: when the final sparsity is reached.
        every: time between two updates.
        growth: which connections are born first: ``"gradient"``, ``"momentum"``, ``"random"``, or a score of your own.
        others: the other arguments of :class:`~lightning_sparse.SparseTraining`.

    Example:
        >>> plan = GrowAndPrune(0.9).recipe.resolve(1000)
        >>> [(step, round(plan.sparsity(step), 2)) for step in (0, 300, 500, 750)]
        [(0, 0.9), (300, 0.5), (500, 0.83), (750, 0.9)]
    """

    reached_by = "pruned_by"

    def __init__(
        self,
        final_sparsity: float,
        *,
        seed_sparsity: float = 0.9,
        sparsity_at_densest: float = 0.5,
        grown_at: Time = 0.3,
        pruned_by: Time = 0.75,
        every: Time = 0.01,
        growth: str | Score = "gradient",
        **others: Any,
    ) -> None:
        sparsities = {"final_sparsity": final_sparsity, "seed_sparsity": seed_sparsity}
        check_sparsities("sparsity_at_densest", **sparsities, sparsity_at_densest=sparsity_at_densest)
        check_order(grown_at=grown_at, pruned_by=pruned_by)
        curve = Curve(seed_sparsity).then(grown_at, sparsity_at_densest, "linear", name="grow")
        curve = curve.then(pruned_by, final_sparsity, "cubic", name="prune").then(pruned_by, name="rest")
        super().__init__(curve, grow=growth, every=every, **others)
