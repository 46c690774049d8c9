"""Sparse from birth to end, at one sparsity: Static, SET, RigL and SNFS."""

from __future__ import annotations

from typing import Any

from lightning_sparse.callbacks.methods.arguments import falling_turnover
from lightning_sparse.callbacks.sparse_training import SparseTraining
from lightning_sparse.engine.schedules import Curve
from lightning_sparse.engine.scores.of_layer import Score
from lightning_sparse.engine.times import Time, check_time
from lightning_sparse.errors import check_share


class Static(SparseTraining):
    """Choose the connections before the first step, at random, and keep them.

    The control for every dynamic method: what a method gains over it comes from choosing connections. Mocanu et al. 2018
    (arXiv 1707.04780) call it the fixed-probability network; Evci et al. 2020 (arXiv 1911.11134) "static".

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
        sparsity = check_share("final_sparsity", final_sparsity, one_allowed=False)
        super().__init__(sparsity, drop=criterion, allocation=allocation, **others)


class SET(SparseTraining):
    """Sparse from birth to end; at intervals the weakest connections are replaced by random ones.

    Mocanu et al. 2018, "Scalable training of artificial neural networks with adaptive sparse connectivity" (Nature
    Communications 9, 2383; arXiv 1707.04780): an Erdős–Rényi birth and 30 % turnover. They replace at every epoch's end, and
    rank positive and negative weights apart; here magnitude ranks both, as in RigL's comparison.

    Args:
        final_sparsity: share of connections that are dead, constant, in [0, 1).
        turnover: share of each layer's living connections replaced at an update, in [0, 1].
        turnover_until: when the turnover stops, so that the last newborns can learn.
        every: time between two updates.
        birth: which connections die before the first step: ``"random"``, ``"magnitude"`` for the smallest
            initial weights, or None for those of the lowest drop score.
        allocation: the densities of the layers at birth.
        others: the other arguments of :class:`~lightning_sparse.SparseTraining`.

    Example:
        >>> plan = SET(0.9).recipe.resolve(1000)
        >>> [(step, plan.turnover_at(step)) for step in (100, 150, 800, 900)]
        [(100, 0.3), (150, 0.0), (800, 0.3), (900, 0.0)]
    """

    def __init__(
        self,
        final_sparsity: float,
        *,
        turnover: float = 0.3,
        turnover_until: Time = 0.9,
        every: Time = 100,
        birth: str | Score | None = "random",
        allocation: Any = "erk",
        **others: Any,
    ) -> None:
        sparsity = check_share("final_sparsity", final_sparsity, one_allowed=False)
        check_time("turnover_until", turnover_until)
        constant = Curve(check_share("turnover", turnover)).then(turnover_until, name="turnover")
        constant = constant.then(turnover_until, 0.0, name="rest")
        super().__init__(
            sparsity, turnover=constant, grow="random", birth=birth, allocation=allocation, every=every, **others
        )


class RigL(SparseTraining):
    """Sparse from birth to end; the weakest connections give way to those with the largest gradient.

    Evci et al. 2020, "Rigging the lottery" (arXiv 1911.11134), with its defaults: ERK densities, 30 % turnover that falls
    by a cosine to zero at three quarters of the training, an update every 100 steps.

    Args:
        final_sparsity: share of connections that are dead, constant, in [0, 1).
        turnover: share of each layer's living connections replaced at the first update, in [0, 1].
        turnover_until: when it has fallen to zero.
        every: time between two updates.
        birth: which connections die before the first step: ``"random"``, ``"magnitude"`` for the smallest
            initial weights, or None for those of the lowest drop score.
        allocation: the densities of the layers at birth, which stay.
        others: the other arguments of :class:`~lightning_sparse.SparseTraining`.

    Example:
        >>> plan = RigL(0.9).recipe.resolve(1000)
        >>> [(step, round(plan.turnover_at(step), 3)) for step in (100, 400, 700, 800)]
        [(100, 0.287), (400, 0.134), (700, 0.003), (800, 0.0)]
    """

    def __init__(
        self,
        final_sparsity: float,
        *,
        turnover: float = 0.3,
        turnover_until: Time = 0.75,
        every: Time = 100,
        birth: str | Score | None = "random",
        allocation: Any = "erk",
        **others: Any,
    ) -> None:
        sparsity = check_share("final_sparsity", final_sparsity, one_allowed=False)
        falling = falling_turnover(turnover, turnover_until)
        super().__init__(
            sparsity, turnover=falling, grow="gradient", birth=birth, allocation=allocation, every=every, **others
        )


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
        birth: which connections die before the first step: ``"random"``, ``"magnitude"`` for the smallest
            initial weights, or None for those of the lowest drop score.
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
        birth: str | Score | None = "random",
        allocation: Any = "uniform",
        **others: Any,
    ) -> None:
        sparsity = check_share("final_sparsity", final_sparsity, one_allowed=False)
        super().__init__(
            sparsity,
            turnover=falling_turnover(turnover, turnover_until),
            grow="momentum",
            birth=birth,
            allocation=allocation,
            every=every,
            redistribute=True,
            **others,
        )
