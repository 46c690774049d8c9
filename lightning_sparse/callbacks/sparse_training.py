"""The engine as a Lightning callback."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.optim import Optimizer

from lightning_sparse.anatomy.parameters import sparsifiable
from lightning_sparse.callbacks.trainer.averages import Averages, mask_tensors
from lightning_sparse.callbacks.trainer.mailbox import Mailbox
from lightning_sparse.callbacks.trainer.private import steps_without_backward
from lightning_sparse.callbacks.trainer.refusals import (
    refuse_by_hand,
    refuse_rewinding_beside,
    refuse_sharded,
    refuse_shared,
)
from lightning_sparse.callbacks.trainer.rewound_schedulers import RewoundSchedulers
from lightning_sparse.callbacks.trainer.score_data import ScoreData
from lightning_sparse.callbacks.trainer.shortfalls import warn_of_shortfalls
from lightning_sparse.engine.allocation import Allocation
from lightning_sparse.engine.engine import Engine
from lightning_sparse.engine.granularity import Granularity
from lightning_sparse.engine.masks import Masks, load_masks
from lightning_sparse.engine.recipe import Recipe
from lightning_sparse.engine.rewinding import Rewind
from lightning_sparse.engine.schedules import Curve
from lightning_sparse.engine.scores.of_layer import Score
from lightning_sparse.engine.times import Time
from lightning_sparse.engine.update import Update
from lightning_sparse.errors import SparsityError, check_share

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class SparseTraining(Callback):
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
            ``"fisher"``, ``"snip"``, ``"grasp"``, ``"synflow"``, or a score of your own.
        birth: which connections die before the first step, if the network is born sparse: as ``drop``; None is ``drop``.
        grow: which missing ones are born first: ``"gradient"``, ``"momentum"``, ``"random"``, or a score of your own.
        allocation: how the living connections are shared between layers: ``"global"`` (one ranking), ``"uniform"``
            (equal density), ``"erk"``, or a function of your own.
        every: time between two updates, an ``int`` in optimizer steps or a ``float`` as a share of the training.
        granularity: what lives or dies as one: ``"weights"``, groups such as ``"2:4"``, blocks such as ``"1x4"``, or
            ``"channels"`` (of each layer's output: exclude the last layer, whose outputs are the classes).
        redistribute: whether what turnover frees moves to the layers whose living have the higher grow scores, instead of
            going back to the layer that it came from.
        rounds: in how many rounds of scoring and dropping an update that prunes gets to its density.
        score_batches: how many batches of the Trainer's loader a score of the whole network reads.
        loss_fn: ``loss_fn(module, batch)``, a scalar tensor, for such a score; None takes ``training_step`` with logging
            off, and manual optimization needs one.
        rewind: a :class:`~lightning_sparse.Rewind`, where the weights go after connections have died.
        include: shell-style patterns of parameter names to make sparse; None takes Linear and Conv weights.
        exclude: patterns of names to leave dense.
        seed: seed of the callback's own random generator; the global one is never drawn from.
        total_steps: optimizer steps of the training, needed only for shares where the Trainer cannot know its length
            (manual optimization, data without a length).
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
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        seed: int = 0,
        total_steps: int | None = None,
        compact_masks: bool = False,
    ) -> None:
        super().__init__()
        if loss_fn is not None and not callable(loss_fn):
            raise SparsityError(f"loss_fn={loss_fn!r} is no function: write loss_fn=(module, batch) -> scalar tensor")
        if rewind is not None and not isinstance(rewind, Rewind):
            raise SparsityError(f"rewind={rewind!r} is no Rewind: write rewind=Rewind(to=0)")
        if not isinstance(sparsity, Curve):
            sparsity = Curve(check_share("sparsity", sparsity, one_allowed=False))
        if not isinstance(turnover, Curve):
            turnover = Curve(check_share("turnover", turnover))
        self.recipe = Recipe(
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
            include=_names("include", include),
            exclude=_names("exclude", exclude),
            seed=seed,
            total_steps=total_steps,
            compact_masks=compact_masks,
        )
        self.loss_fn = loss_fn
        self.engine: Engine | None = None
        self._data: ScoreData | None = None
        self._schedulers: RewoundSchedulers | None = None
        self._restored: dict[str, Any] | None = None
        self._epochs: int | None = None
        self._averages: Averages | None = None
        self._clips = False
        self._mailbox = Mailbox()

    @property
    def masks(self) -> Masks:
        """Boolean mask of each sparse parameter, by name: True where a connection lives.

        Raises:
            SparsityError: before the first ``fit`` or restored checkpoint.
        """
        if self._state() is not None:
            return load_masks(self._restored or {})
        if self.engine is not None:
            return self.engine.masks
        raise SparsityError("there are no masks yet: they are made when training starts, or read from a checkpoint")

    @property
    def sparsity(self) -> float:
        """Sparsity achieved, in [0, 1], exact to one weight."""
        return self.masks.sparsity

    @property
    def history(self) -> list[Update]:
        """Every mask update so far, oldest first."""
        state = self._state()
        if state is not None:
            return [Update(**update) for update in state["history"]]
        return self.engine.history if self.engine else []

    @property
    def at_target(self) -> bool:
        """Whether the sparsity has reached its final value, in the training that runs or was the last."""
        return self.engine is not None and self.engine.at_target

    def plot(self, total_steps: int | None = 1000, axes: Axes | None = None) -> Axes:
        """Draw the density, the phases and the turnover over a training: :func:`~lightning_sparse.plot_schedule`."""
        from lightning_sparse.drawing.schedules import plot_schedule

        return plot_schedule(self.recipe, total_steps, axes)

    def table(self, total_steps: int | None = 1000, most: int | None = 20) -> str:
        """Write down every update of a training: :func:`~lightning_sparse.schedule_table`."""
        from lightning_sparse.drawing.schedules import schedule_table

        return schedule_table(self.recipe, total_steps, most)

    @property
    def state_key(self) -> str:
        """Keeps apart two callbacks on different parameters of one model."""
        return f"lightning_sparse[include={self.recipe.include}, exclude={self.recipe.exclude}]"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what does not fit the model or the Trainer, before anything is spent on training."""
        if stage != "fit":
            return
        refuse_sharded(trainer)
        refuse_rewinding_beside([self.recipe, *(other.recipe for other in self._others(trainer))])
        if trainer.ckpt_path is None:
            # What an earlier validate or test has read belongs to another model; the same Trainer's next fit goes on.
            self._restored = self.state_dict() or None if trainer.global_step > 0 else None
        if not pl_module.automatic_optimization:
            refuse_by_hand(self.recipe, self.loss_fn)
        self._epochs = trainer.max_epochs
        # What is made in these hooks does not exist yet: it is looked at when training starts.
        if not any(_overrides(pl_module, hook) for hook in ("setup", "configure_model")):
            self.recipe.check(self._parameters(pl_module))
        self.engine = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Build the engine, then take back a restored state or be born: only here is everything in place.

        Asked any earlier, the length of the training would make Lightning draw a seed for the loader out of turn.
        """
        total, recipe = self._total_steps(trainer, pl_module), self.recipe
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            total = int(trainer.fast_dev_run)  # type: ignore[attr-defined]
            recipe = recipe.in_short(total)
        parameters = self._parameters(pl_module)
        if self.recipe.network_scores:
            self._data = ScoreData(trainer, pl_module, parameters, self.loss_fn, self.recipe.score_batches)
        look = self._data.look if self._data else None
        self.engine = Engine(parameters, recipe, total, pl_module, look)
        if self.engine.plan.rewind is not None:
            self._schedulers = RewoundSchedulers(int(self.engine.plan.rewind.to))
        for other in self._others(trainer):
            refuse_shared(self.engine.parameters, other.engine.parameters if other.engine else {})
        self.engine.install(trainer.optimizers)
        if self._restored is not None and self._schedulers is not None:
            self._schedulers.load_state_dict(self._restored["schedulers"])
        if self._restored is None:
            self.engine.birth()
        elif not self.engine.load_state_dict(self._restored):
            warnings.warn(
                "the Trainer's length has changed since the checkpoint: the sparsity callback keeps the steps it had, up "
                f"to step {self.engine.plan.sparsity.end}",
                stacklevel=2,
            )
        self._restored = None
        self._clips = _overrides(pl_module, "configure_gradient_clipping")
        self._averages = Averages(trainer, pl_module, self.engine.masks)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Read dense gradients before Lightning clips them; where it clips, hide those of dead connections from it."""
        assert self.engine is not None
        self.engine.idle = steps_without_backward(trainer)
        self.engine.before_step(optimizer, zero_dead=self._clips or trainer.gradient_clip_val is not None)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Mask the averages of other callbacks, which may have just put them in the model's place; keep the batch."""
        if batch_idx == 0:
            self._mask_averages(trainer, pl_module)
        if self._data is not None and self.engine is not None and self.engine.updates_to_come:
            self._data.saw(batch)
        if self._schedulers is not None and self.engine is not None:
            self._schedulers.batch_start(trainer, self.engine.clock, self.engine.rewound)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Likewise: here every callback has put in place what is to be validated."""
        if batch_idx == 0:
            self._mask_averages(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Likewise: averages may be saved as the model, and may have been put into the checkpoint already."""
        self._mask_averages(trainer, pl_module)
        if self.engine is not None and self.engine.installed:
            mask_tensors(checkpoint["state_dict"], self.engine.masks)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mask averages for the last time, and say so if training stopped before the sparsity asked for was reached."""
        assert self.engine is not None
        self._mask_averages(trainer, pl_module)
        as_planned = not (trainer.should_stop or trainer.fast_dev_run)  # type: ignore[attr-defined]
        warn_of_shortfalls(self.engine, as_planned=as_planned)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mask once more what other callbacks have put in the model's place in the end."""
        self._mask_averages(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave true masks behind, where a step was left in the middle, and no hook."""
        self._mask_averages(trainer, pl_module)
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave no hook behind; if this is a spawned process, send the masks home."""
        if self.engine is not None:
            self.engine.detach()
            self._averages = None
            if self._data is not None:
                self._data.forget()
            if stage == "fit" and trainer.is_global_zero:
                self._mailbox.post(self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Masks at one bit a weight, clock, generator, scores and history, loadable with ``weights_only=True``."""
        state = self._state()
        if state is not None:
            return state
        if self.engine is None:
            return {}
        schedulers = {"schedulers": self._schedulers.state_dict()} if self._schedulers else {}
        return self.engine.state_dict() | schedulers

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until training starts: here neither model nor optimizers are complete."""
        self._restored = state_dict or None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint whose masks belong to other parameters: they would be silently lost."""
        saved = [key for key in checkpoint.get("callbacks", {}) if key.startswith("lightning_sparse[")]
        if saved and self.state_key not in saved:
            raise SparsityError(
                f"the checkpoint holds masks of {saved[0]}, this callback is {self.state_key}: resume with the same "
                "include and exclude, or start a new training from its weights (without ckpt_path)"
            )

    def __getstate__(self) -> dict[str, Any]:
        """A copy, or a spawned process, gets the state of the training, not its weights and optimizers."""
        return {**vars(self), "engine": None, "_averages": None, "_data": None, "_restored": self.state_dict() or None}

    def _state(self) -> dict[str, Any] | None:
        """The state that fits the weights but is not in the engine: read from a checkpoint, or sent by a spawned fit."""
        self._restored = self._mailbox.take() or self._restored
        return self._restored

    def _mask_averages(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.engine is not None and self.engine.installed and self._averages is not None:
            self.engine.masks.apply(self.engine.parameters)
            self._averages.mask()

    def _parameters(self, pl_module: LightningModule) -> dict[str, nn.Parameter]:
        return sparsifiable(pl_module, self.recipe.include, self.recipe.exclude)

    def _others(self, trainer: Trainer) -> list[SparseTraining]:
        return [c for c in trainer.callbacks if isinstance(c, SparseTraining) and c is not self]  # type: ignore[attr-defined]

    def _total_steps(self, trainer: Trainer, pl_module: LightningModule) -> int | None:
        """Optimizer steps of the whole training, or None where Lightning cannot know them."""
        if not self.recipe.needs_total or self.recipe.total_steps is not None or not pl_module.automatic_optimization:
            return None
        total = trainer.estimated_stepping_batches
        if not 0 < total < float("inf"):
            return None
        if total != trainer.max_steps and self._epochs and trainer.max_epochs:
            # Stochastic weight averaging adds an epoch that takes no step.
            return int(total) * self._epochs // trainer.max_epochs
        return int(total)


def _overrides(module: Any, method: str) -> bool:
    """Whether the user's module defines a hook itself; Lightning's own test knows one of its two namespaces only."""
    home = getattr(type(module), method).__module__
    return not home.startswith(("lightning.pytorch.", "pytorch_lightning."))


def _names(argument: str, patterns: Sequence[str] | None) -> tuple[str, ...] | None:
    if isinstance(patterns, str | Mapping) or not all(isinstance(pattern, str) for pattern in patterns or ()):
        raise SparsityError(f"{argument}={patterns!r} is not a list: write {argument}=['pattern', ...]")
    return None if patterns is None else tuple(patterns)
