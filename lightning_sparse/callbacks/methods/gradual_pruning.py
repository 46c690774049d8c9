"""Gradual magnitude pruning."""

from __future__ import annotations

from typing import Any

from lightning_sparse.callbacks.methods.arguments import check_order, check_sparsities
from lightning_sparse.callbacks.sparse_training import SparseTraining
from lightning_sparse.engine.allocation import Allocation
from lightning_sparse.engine.schedules import cubic
from lightning_sparse.engine.scores.of_layer import Score
from lightning_sparse.engine.times import Time


class GradualPruning(SparseTraining):
    """Prune a network while it trains, fast first and slowly towards the end, then let it settle.

    Sparsity follows ``final + (initial - final) * (1 - progress) ** 3`` between ``begin`` and ``end``; at each update the
    connections with the lowest score die. Paper: Zhu & Gupta 2017, "To prune, or not to prune" (arXiv 1710.01878).
    Prune while the learning rate is still high enough for the rest to recover.

    Args:
        final_sparsity: share of connections that are dead in the end, in [0, 1).
        initial_sparsity: share that is dead from the first step on, in [0, final_sparsity];
            :class:`~lightning_sparse.BrainDevelopment` can grow connections too.
        begin: when pruning begins, an ``int`` in optimizer steps or a ``float`` as a share of the training.
        end: when the final sparsity is reached, likewise.
        every: time between two updates, likewise; at least one step.
        criterion: which connections die first: ``"magnitude"``, ``"random"``, ``"gradient"``, or a score of your own.
        allocation: ``"global"`` (one ranking for all layers), ``"uniform"``, ``"erk"``, or a function of your own.
        others: the other arguments of :class:`~lightning_sparse.SparseTraining`.

    Raises:
        SparsityError: on arguments out of range; before training, on what does not fit the model or the Trainer.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from lightning.pytorch.demos.boring_classes import BoringModel
        >>> from lightning_sparse import GradualPruning
        >>> pruning = GradualPruning(0.9)
        >>> trainer = Trainer(max_epochs=2, accelerator="cpu", barebones=True, callbacks=[pruning])
        >>> model = BoringModel()
        >>> trainer.fit(model)
        >>> pruning.sparsity, int((model.layer.weight == 0).sum()), model.layer.weight.numel()
        (0.90625, 58, 64)
    """

    reached_by = "end"

    def __init__(
        self,
        final_sparsity: float,
        *,
        initial_sparsity: float = 0.0,
        begin: Time = 0.0,
        end: Time = 0.75,
        every: Time = 0.01,
        criterion: str | Score = "magnitude",
        allocation: str | Allocation = "global",
        **others: Any,
    ) -> None:
        check_sparsities("initial_sparsity", final_sparsity=final_sparsity, initial_sparsity=initial_sparsity)
        check_order(begin=begin, end=end)
        sparsity = cubic(final_sparsity, initial=initial_sparsity, begin=begin, end=end)
        super().__init__(sparsity, drop=criterion, allocation=allocation, every=every, **others)
