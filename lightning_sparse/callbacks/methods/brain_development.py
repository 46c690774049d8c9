"""Brain development: sparse birth, growth, massive pruning, and a plateau of living turnover."""

from __future__ import annotations

from typing import Any

from lightning_sparse.callbacks.methods.arguments import check_order, check_sparsities
from lightning_sparse.callbacks.sparse_training import SparseTraining
from lightning_sparse.engine.allocation import Allocation
from lightning_sparse.engine.schedules import Curve
from lightning_sparse.engine.scores.of_layer import Score
from lightning_sparse.engine.times import Time
from lightning_sparse.errors import check_share


class BrainDevelopment(SparseTraining):
    """Densify, then prune massively, then keep replacing connections at the final sparsity.

    A human brain is born sparse, grows far more synapses than it keeps, prunes about half of them through childhood and
    adolescence, and then stays at a stable density, at which synapses go on being replaced: up to
    40 % a day in one estimate (Hawkins 2017, "What intelligent machines need to learn from the neocortex", IEEE Spectrum
    54(6), as cited in the introduction of Hoefler et al. 2021, "Sparsity in deep learning", arXiv 2102.00554).

    The sparsity over the training, with the defaults and ``final_sparsity=0.9``::

        0.9 |                            *********************************
        0.8 |                       *****
        0.7 |**                  ***
        0.6 |  **              **
        0.5 |    **          **
        0.4 |      ***      *
        0.3 |         **  **
        0.2 |           **
            +-------------------------------------------------------------
             0           0.2                        0.65           0.9   1  share of training
             grow            prune                    turnover      rest

    Growth is linear, pruning cubic (Zhu & Gupta 2017), turnover per layer as in RigL (Evci et al. 2020) or SET (Mocanu et
    al. 2018), by ``growth``. On MNIST this does not beat plain gradual pruning, and the turnover costs accuracy
    (docs/mnist.md): measure both on your data.

    Args:
        final_sparsity: share of connections that are dead in the end, in [0, 1).
        birth_sparsity: share that is dead before the first step, in [sparsity_at_densest, 1).
        sparsity_at_densest: the sparsity at the densest point, in [0, final_sparsity]: 0.2 means that at its fullest the
            network has 80 % of its connections.
        densest_at: when the growth ends and the pruning begins, an ``int`` in optimizer steps or a ``float`` as a share of
            the training.
        pruned_by: when the final sparsity is reached, likewise.
        pruning_turnover: share of the living connections replaced at each update of the pruning phase, in [0, 1].
        turnover: the same on the plateau, in [0, 1]; up to 0.4 has its parallel in the brain.
        turnover_until: when the turnover stops, so that the last newborns can learn, likewise a time.
        every: time between two updates, likewise.
        growth: which connections are born first: ``"gradient"``, ``"momentum"``, ``"random"``, or a score of your own.
        criterion: which die first: ``"magnitude"``, ``"random"``, or a score of your own; without ``birth_sparsity`` (0.0
            here and in ``sparsity_at_densest``) ``"gradient"`` too, which does not exist before the first step.
        allocation: ``"global"`` (one ranking for all layers), ``"uniform"``, ``"erk"``, or a function of your own.
        others: the other arguments of :class:`~lightning_sparse.SparseTraining`.

    Raises:
        SparsityError: on arguments out of range or out of order; before training, on what does not fit the model or the
            Trainer.

    Example:
        >>> plan = BrainDevelopment(0.9).recipe.resolve(1000)
        >>> [(step, round(plan.sparsity(step), 2), plan.turnover_at(step)) for step in (0, 100, 200, 400, 650, 700, 900)]
        [(0, 0.7, 0.0), (100, 0.45, 0.0), (200, 0.2, 0.0), (400, 0.78, 0.0), (650, 0.9, 0.2), (700, 0.9, 0.2), (900, 0.9, 0.0)]
        >>> [plan.sparsity.phase(step) for step in (0, 300, 700, 950)]
        ['grow', 'prune', 'turnover', 'rest']
    """  # noqa: E501

    reached_by = "pruned_by"

    def __init__(
        self,
        final_sparsity: float,
        *,
        birth_sparsity: float = 0.7,
        sparsity_at_densest: float = 0.2,
        densest_at: Time = 0.2,
        pruned_by: Time = 0.65,
        pruning_turnover: float = 0.0,
        turnover: float = 0.2,
        turnover_until: Time = 0.9,
        every: Time = 0.01,
        growth: str | Score = "gradient",
        criterion: str | Score = "magnitude",
        allocation: str | Allocation = "global",
        **others: Any,
    ) -> None:
        sparsities = {"final_sparsity": final_sparsity, "birth_sparsity": birth_sparsity}
        check_sparsities("sparsity_at_densest", **sparsities, sparsity_at_densest=sparsity_at_densest)
        check_share("pruning_turnover", pruning_turnover)
        check_share("turnover", turnover)
        check_order(densest_at=densest_at, pruned_by=pruned_by, turnover_until=turnover_until)
        sparsity = (
            Curve(birth_sparsity)
            .then(densest_at, sparsity_at_densest, "linear", name="grow")
            .then(pruned_by, final_sparsity, "cubic", name="prune")
            .then(turnover_until, name="turnover" if turnover else "rest")
            .then(turnover_until, name="rest")
        )
        replaced = Curve(0.0).then(densest_at).then(pruned_by, pruning_turnover)
        replaced = replaced.then(turnover_until, turnover).then(turnover_until, 0.0)
        super().__init__(
            sparsity, turnover=replaced, drop=criterion, grow=growth, allocation=allocation, every=every, **others
        )
