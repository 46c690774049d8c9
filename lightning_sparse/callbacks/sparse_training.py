"""The engine as a Lightning callback."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from lightning_sparse.allocation import Allocation
from lightning_sparse.criteria import Score
from lightning_sparse.engine import Engine
from lightning_sparse.errors import SparsityError, check_share
from lightning_sparse.masks import Masks, load_masks
from lightning_sparse.parameters import sparsifiable
from lightning_sparse.recipe import Recipe
from lightning_sparse.schedules import Curve
from lightning_sparse.times import Time
from lightning_sparse.update import Update


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
        drop: which connections die first: ``"magnitude"``, ``"random"``, ``"gradient"``, or a score of your own.
        grow: which missing ones are born first: ``"gradient"``, ``"momentum"``, ``"random"``, or a score of your own.
        allocation: how the living connections are shared between layers: ``"global"`` (one ranking), ``"uniform"``
            (equal density), ``"erk"``, or a function of your own.
        every: time between two updates, an ``int`` in optimizer steps or a ``float`` as a share of the training.
        include: shell-style patterns of parameter names to make sparse; None takes Linear and Conv weights.
        exclude: patterns of names to leave dense.
        seed: seed of the callback's own random generator; the global one is never drawn from.
        total_steps: optimizer steps of the training, needed only for shares where the Trainer cannot know its length
            (manual optimization, data without a length).

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
        grow: str | Score = "gradient",
        allocation: str | Allocation = "global",
        every: Time = 0.01,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        seed: int = 0,
        total_steps: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(sparsity, Curve):
            sparsity = Curve(check_share("sparsity", sparsity, one_allowed=False))
        if not isinstance(turnover, Curve):
            turnover = Curve(check_share("turnover", turnover))
        self.recipe = Recipe(
            sparsity=sparsity,
            turnover=turnover,
            drop=drop,
            grow=grow,
            allocation=allocation,
            every=every,
            include=_names("include", include),
            exclude=_names("exclude", exclude),
            seed=seed,
            total_steps=total_steps,
        )
        self.engine: Engine | None = None
        self._restored: dict[str, Any] | None = None

    @property
    def masks(self) -> Masks:
        """Boolean mask of each sparse parameter, by name: True where a connection lives.

        Raises:
            SparsityError: before the first ``fit`` or restored checkpoint.
        """
        if self._restored is not None:  # read from a checkpoint and not trained on yet: these fit the weights
            return load_masks(self._restored)
        if self.engine is not None:
            return self.engine.masks
        raise SparsityError("there are no masks yet: they are made when fit starts, or read from a checkpoint")

    @property
    def sparsity(self) -> float:
        """Sparsity achieved, in [0, 1], exact to one weight."""
        return self.masks.sparsity

    @property
    def history(self) -> list[Update]:
        """Every mask update so far, oldest first."""
        return self.engine.history if self.engine else []

    @property
    def state_key(self) -> str:
        """Keeps apart two callbacks on different parameters of one model."""
        return f"lightning_sparse[include={self.recipe.include}, exclude={self.recipe.exclude}]"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what does not fit the model, before anything is spent on training."""
        if stage != "fit":
            return
        if trainer.ckpt_path is None:
            # What an earlier validate or test has read belongs to another model; the same Trainer's next fit goes on.
            goes_on = self.engine is not None and trainer.global_step > 0
            self._restored = self.engine.state_dict() if goes_on and self.engine is not None else None
        # Modules and data that are made in these hooks do not exist yet: those are looked at in on_fit_start.
        if not any(_overrides(pl_module, hook) for hook in ("setup", "configure_model")):
            self._build(trainer, pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Build the engine anew on the parameters as the strategy has placed them."""
        self.engine = self._build(trainer, pl_module)
        mine = {id(parameter): name for name, parameter in self.engine.parameters.items()}
        for other in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(other, SparseTraining) and other is not self and other.engine is not None:
                shared = [
                    mine[id(parameter)] for parameter in other.engine.parameters.values() if id(parameter) in mine
                ]
                if shared:
                    raise SparsityError(
                        f"two sparsity callbacks both want {shared[0]!r}: give each parameter to one of them with include "
                        "and exclude"
                    )
        self.engine.install(trainer.optimizers)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take back a restored state, or be born: only here is everything of a checkpoint in place."""
        assert self.engine is not None
        if self._restored is None:
            self.engine.birth()
        elif not self.engine.load_state_dict(self._restored):
            warnings.warn(
                "the Trainer's length has changed since the checkpoint: the sparsity callback keeps the steps it had, up "
                f"to step {self.engine.plan.sparsity.end}",
                stacklevel=2,
            )
        self._restored = None

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Read dense gradients before Lightning clips them; where it clips, hide those of dead connections from it."""
        assert self.engine is not None
        clips = trainer.gradient_clip_val is not None or _overrides(pl_module, "configure_gradient_clipping")
        self.engine.before_step(optimizer, zero_dead=clips)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so if training stopped before the sparsity asked for was reached."""
        assert self.engine is not None
        asked = self.engine.plan.sparsity.final
        if self.engine.clock < self.engine.plan.sparsity.end and round(asked * self.masks.total) != (
            self.masks.total - self.masks.living
        ):
            warnings.warn(
                f"training stopped at step {self.engine.clock}, before step {self.engine.plan.sparsity.end} where the "
                f"sparsity asked for would have been reached: asked {asked:g}, achieved {self.sparsity:.4f}",
                stacklevel=2,
            )

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no hook behind."""
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave no hook behind."""
        if self.engine is not None:
            self.engine.detach()

    def state_dict(self) -> dict[str, Any]:
        """Masks at one bit a weight, clock, generator, scores and history, loadable with ``weights_only=True``."""
        if self._restored is not None or self.engine is None:
            return self._restored or {}
        return self.engine.state_dict()

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

    def _build(self, trainer: Trainer, pl_module: LightningModule) -> Engine:
        parameters = sparsifiable(pl_module, self.recipe.include, self.recipe.exclude)
        return Engine(parameters, self.recipe, self._total_steps(trainer, pl_module))

    def _total_steps(self, trainer: Trainer, pl_module: LightningModule) -> int | None:
        """Optimizer steps of the whole training, or None where Lightning cannot know them."""
        if not self.recipe.needs_total or self.recipe.total_steps is not None or not pl_module.automatic_optimization:
            return None
        total = trainer.estimated_stepping_batches
        return int(total) if 0 < total < float("inf") else None


def _overrides(module: Any, method: str) -> bool:
    """Whether the user's module defines a hook itself; Lightning's own test knows one of its two namespaces only."""
    home = getattr(type(module), method).__module__
    return not home.startswith(("lightning.pytorch.", "pytorch_lightning."))


def _names(argument: str, patterns: Sequence[str] | None) -> tuple[str, ...] | None:
    if isinstance(patterns, str | Mapping) or not all(isinstance(pattern, str) for pattern in patterns or ()):
        raise SparsityError(f"{argument}={patterns!r} is not a list: write {argument}=['pattern', ...]")
    return None if patterns is None else tuple(patterns)
