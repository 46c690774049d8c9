"""The callback that takes every choice of a recipe as an argument."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lightning_sparse.callbacks.trainer.engine_callback import EngineCallback
from lightning_sparse.engine.allocation import Allocation
from lightning_sparse.engine.granularity import Granularity
from lightning_sparse.engine.masks import Masks, load_masks
from lightning_sparse.engine.recipe import Recipe
from lightning_sparse.engine.returned import check_loss_fn
from lightning_sparse.engine.rewinding import Rewind
from lightning_sparse.engine.schedules import Curve
from lightning_sparse.engine.scores.of_layer import Score
from lightning_sparse.engine.times import Time
from lightning_sparse.engine.update import Update
from lightning_sparse.errors import SparsityError, check_share

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class SparseTraining(EngineCallback):
    """Train a network with sparse connections: any density curve, any turnover, any scores, on any Trainer.

    The ready-made methods (:class:`~lightning_sparse.GradualPruning`, :class:`~lightning_sparse.BrainDevelopment`) are
    this callback with the curves filled in. Dead weights are exactly 0.0 in every forward pass; the model's state_dict,
    parameters and checkpoints are those of the dense model, and masks, clock and random generator travel in the
    callback's own state.

    Args:
        sparsity: share of dead connections over training: a :class:`~lightning_sparse.Curve`, or a number in [0, 1) for a
            constant.
        turnover: share of the living connections that is replaced at an update: a curve, or a number in [0, 1].
        drop: which connections die first: ``"magnitude"``, ``"random"``, ``"gradient"``, ``"taylor"``, ``"movement"``,
            ``"fisher"``, ``"snip"``, ``"grasp"``, ``"synflow"``, ``"wanda"``, or a score of your own.
        birth: which connections die before the first step, if the network is born sparse: as ``drop``; None is ``drop``.
        grow: which missing ones are born first: ``"gradient"``, ``"momentum"``, ``"random"``, or a score of your own.
        allocation: how the living connections are shared between layers: ``"global"`` (one ranking), ``"uniform"``
            (equal density), ``"erk"``, or a function of your own.
        every: time between two updates, an ``int`` in optimizer steps or a ``float`` as a share of the training. This and all
            other times count from where the callback begins: in a training that goes on from a checkpoint without it, shares
            are shares of the steps that remain.
        granularity: what lives or dies as one: ``"weights"``, groups such as ``"2:4"``, blocks such as ``"1x4"``,
            ``"channels"`` (of each layer's output: exclude the last layer, whose outputs are the classes), or
            ``"tied_channels"``, which can be removed from the network by :func:`~lightning_sparse.export.shrink`.
        redistribute: whether connections freed by turnover move to the layers whose living have the higher grow scores,
            instead of going back to the layer that they came from.
        rounds: in how many rounds of scoring and dropping an update that prunes gets to its density.
        score_batches: how many batches of the Trainer's loader a score of the whole network reads, or ``reconstruct``.
        loss_fn: ``loss_fn(module, batch)``, a scalar tensor, for such a score; None takes ``training_step`` with logging
            off, and manual optimization needs one.
        rewind: a :class:`~lightning_sparse.Rewind`, where the weights go after connections have died.
        reconstruct: ``"obs"`` lets the weights that live on make up for those that die, layer after layer (SparseGPT: Frantar
            & Alistarh 2023, arXiv 2301.00774), so that each layer still gives what it gave on ``score_batches`` batches, as
            far as it can; ``drop="obs"`` then also chooses which die. None leaves weights as they are.
        include: shell-style patterns of parameter names to make sparse; None takes the trainable weights of Linear and Conv
            layers, and of transformers' Conv1D. How many they are is logged when training starts.
        exclude: patterns of names to leave dense.
        seed: seed of the callback's own random generator; the global one is never drawn from.
        total_steps: optimizer steps of the training from where the callback begins, needed only for shares where the Trainer
            cannot know its length (manual optimization, data without a length).
        compact_masks: hold the masks at one byte a weight on a GPU too, where they are otherwise as wide as the weights.

    Raises:
        SparsityError: on arguments out of range here, and in ``setup``, before training, on what does not fit the model or
            the Trainer.

    Example:
        Static sparse training from birth, then RigL (Evci et al. 2020) as a choice of four arguments:

        >>> from lightning_sparse import Curve, SparseTraining
        >>> static = SparseTraining(0.9, allocation="erk")
        >>> rigl = SparseTraining(0.9, turnover=Curve(0.3).then(0.75, 0.0, "cosine"), allocation="erk", every=100)
    """

    def __init__(
        self,
        sparsity: Curve | float,
        *,
        turnover: Curve | float = 0.0,
        drop: str | Score = "magnitude",
        birth: str | Score | None = None,
        grow: str | Score = "gradient",
        allocation: str | Allocation = "global",
        every: Time = 0.01,
        granularity: str | Granularity = "weights",
        redistribute: bool = False,
        rounds: int = 1,
        score_batches: int = 1,
        loss_fn: Callable[[Any, Any], Any] | None = None,
        rewind: Rewind | None = None,
        reconstruct: str | None = None,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        seed: int = 0,
        total_steps: int | None = None,
        compact_masks: bool = False,
    ) -> None:
        check_loss_fn(loss_fn, "module")
        if not isinstance(sparsity, Curve):
            sparsity = Curve(check_share("sparsity", sparsity, one_allowed=False))
        if not isinstance(turnover, Curve):
            turnover = Curve(check_share("turnover", turnover))
        with _in_words_of(type(self)):
            recipe = Recipe(
                sparsity=sparsity,
                turnover=turnover,
                drop=drop,
                birth=birth,
                grow=grow,
                allocation=allocation,
                every=every,
                granularity=granularity,
                redistribute=redistribute,
                rounds=rounds,
                score_batches=score_batches,
                rewind=rewind,
                reconstruct=reconstruct,
                include=include,
                exclude=exclude,
                seed=seed,
                total_steps=total_steps,
                compact_masks=compact_masks,
            )
        super().__init__(recipe, loss_fn)

    @property
    def masks(self) -> Masks:
        """Boolean mask of each sparse parameter, by name: True where a connection lives.

        Raises:
            SparsityError: before the first ``fit`` or restored checkpoint.
        """
        if (state := self._state()) is not None:
            return load_masks(state)
        if self.engine is not None:
            return self.engine.masks
        raise SparsityError("there are no masks yet: they are made when training starts, or read from a checkpoint")

    @property
    def sparsity(self) -> float:
        """Share of the sparsifiable weights that are dead and zero, in [0, 1], counted in the weights themselves.

        Where there are masks and no weights (a checkpoint was read, and no training has begun) it is that of the masks.
        """
        return self.masks.sparsity if self._state() is not None or self.engine is None else self.engine.sparsity

    @property
    def history(self) -> list[Update]:
        """Every mask update so far, oldest first."""
        if (state := self._state()) is not None:
            return [Update(**update) for update in state["history"]]
        return self.engine.history if self.engine else []

    @property
    def at_target(self) -> bool:
        """Whether the sparsity has reached its final value, in the current or the last training."""
        return self.engine is not None and self.engine.at_target

    def plot(self, total_steps: int | None = 1000, axes: Axes | None = None) -> Axes:
        """Draw the density, the phases and the turnover over a training: :func:`~lightning_sparse.plot_schedule`."""
        from lightning_sparse.drawing.schedules import plot_schedule

        return plot_schedule(self.recipe, total_steps, axes)

    def table(self, total_steps: int | None = 1000, most: int | None = 20) -> str:
        """List every update of a training: :func:`~lightning_sparse.schedule_table`."""
        from lightning_sparse.drawing.schedules import schedule_table

        return schedule_table(self.recipe, total_steps, most)


@contextmanager
def _in_words_of(method: type) -> Iterator[None]:
    """Say what a method's arguments are called: where ``drop`` is its ``criterion``, a message says ``criterion=``."""
    try:
        yield
    except SparsityError as error:
        said, taken = str(error), inspect.signature(method).parameters
        for ours, theirs in (("drop", "criterion"), ("grow", "growth")):
            if theirs in taken:
                said = re.sub(rf"\b{ours}=", f"{theirs}=", said)
        raise SparsityError(said) from error.__cause__
