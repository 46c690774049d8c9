"""The engine on the Trainer's hooks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim import Optimizer

from lightning_sparse.anatomy.parameters import Targets, sparsifiable
from lightning_sparse.callbacks.trainer.callbacks_of import callbacks_of
from lightning_sparse.callbacks.trainer.copies_in_module import without_copies
from lightning_sparse.callbacks.trainer.coverage import Coverage
from lightning_sparse.callbacks.trainer.one_of_a_kind import OneOfAKind
from lightning_sparse.callbacks.trainer.optimizer_steps import optimizer_steps
from lightning_sparse.callbacks.trainer.private import steps_without_backward
from lightning_sparse.callbacks.trainer.refusals import (
    refuse_by_hand,
    refuse_no_forward,
    refuse_rewinding_beside,
    refuse_sharded,
    refuse_shared,
)
from lightning_sparse.callbacks.trainer.resumed_from import explain_ckpt_path, stop_explaining
from lightning_sparse.callbacks.trainer.rewound_schedulers import RewoundSchedulers
from lightning_sparse.callbacks.trainer.score_batches import ScoreBatches
from lightning_sparse.callbacks.trainer.spawned_state import SpawnedState
from lightning_sparse.callbacks.trainer.unfinished import warn_if_unfinished
from lightning_sparse.callbacks.trainer.weight_averages import WeightAverages, mask_tensors
from lightning_sparse.engine.checkpoints import check_state
from lightning_sparse.engine.engine import Engine
from lightning_sparse.engine.masks import say_if_alive, unpack_bits
from lightning_sparse.engine.plan_check import foresee
from lightning_sparse.engine.recipe import Recipe
from lightning_sparse.errors import SparsityError


class EngineCallback(OneOfAKind):
    """Run an engine through a fit: build it, feed it, save its state, and leave no hook behind.

    :class:`~lightning_sparse.SparseTraining` is this with the choices of a recipe as its arguments. ``engine`` is None
    before training.

    Its clock starts with it. A callback that is not in the checkpoint from which a training goes on, or that is new to a
    Trainer's second fit, plans over the steps that remain.
    """

    reached_by: str | None = None  # the argument of a method that says when the final sparsity is reached

    def __init__(self, recipe: Recipe, loss_fn: Callable[[Any, Any], Any] | None) -> None:
        super().__init__()
        self.recipe, self.loss_fn = recipe, loss_fn
        self.engine: Engine | None = None
        self._batches: ScoreBatches | None = None
        self._schedulers: RewoundSchedulers | None = None
        self._restored: dict[str, Any] | None = None
        self._epochs: int | None = None
        self._begin = 0
        self._said_at_start = False
        self._averages: WeightAverages | None = None
        self._coverage: Coverage | None = None
        self._clips = False
        self._installed_on: list[Optimizer] = []
        self._spawned = SpawnedState()

    instead = (
        "both want the same parameters: leave one out, or give each parameter to one of them with include=[...] and "
        "exclude=[...]"
    )

    @property
    def kind(self) -> str:
        """The key of the state in a checkpoint: two callbacks on different parameters of one model have different ones."""
        return f"lightning_sparse[include={self.recipe.include}, exclude={self.recipe.exclude}]"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what does not fit the model or the Trainer, before any time is spent on training."""
        super().setup(trainer, pl_module, stage)
        explain_ckpt_path(trainer)
        if stage != "fit":
            return
        refuse_sharded(trainer, "connections cannot be ranked against those of the others")
        refuse_rewinding_beside([self.recipe, *(other.recipe for other in self._others(trainer))])
        # A state read by an earlier validate or test belongs to another model; the same Trainer's next fit goes on. What is
        # in the checkpoint is loaded after this.
        goes_on = trainer.ckpt_path is None and trainer.global_step > 0
        self._restored = self.state_dict() or None if goes_on else None
        if not pl_module.automatic_optimization:
            refuse_by_hand(self.recipe, self.loss_fn)
        self._epochs = trainer.max_epochs
        # These hooks make parameters later: those are checked when training starts.
        if not any(_overrides(pl_module, hook) for hook in ("setup", "configure_model")):
            self.recipe.check(self._parameters(pl_module))
            for other in self._others(trainer):
                refuse_shared(self._parameters(pl_module), other._parameters(pl_module), (self, other))
            refuse_no_forward(self.recipe, pl_module)
        self.engine = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Build the engine, and load a restored state or make the first masks.

        Everything it needs exists only now. Asking for the length of the training any earlier would make Lightning draw
        the loader's seed out of turn.
        """
        self._begin, self._said_at_start = self._begins_at(trainer), False
        total, recipe = self.steps_of(trainer), self.recipe
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            total = int(trainer.fast_dev_run)  # type: ignore[attr-defined]
            recipe = recipe.in_short(total)
        parameters = without_copies(self._parameters(pl_module), pl_module, trainer.optimizers)
        if self.recipe.reads_batches:
            self._batches = ScoreBatches(trainer, pl_module, parameters, self.loss_fn, self.recipe.score_batches)
        look = self._batches.look if self._batches else None
        self.engine = Engine(parameters, recipe, total, pl_module, look)
        if self.engine.plan.rewind is not None:
            self._schedulers = RewoundSchedulers(int(self.engine.plan.rewind.to))
        for other in self._others(trainer):
            refuse_shared(self.engine.parameters, other.engine.parameters if other.engine else {}, (self, other))
        self._install(trainer, pl_module)
        self.engine.watch(pl_module)
        if self._restored is not None and self._schedulers is not None:
            self._schedulers.load_state_dict(self._restored["schedulers"])
        if self._restored is None:
            self.engine.birth()
            self._say_what_is_planned(trainer, total)
        elif not self.engine.load_state_dict(self._restored):
            warnings.warn(
                "the Trainer's length has changed since the checkpoint: the sparsity callback keeps the steps it had, up "
                f"to step {self.engine.plan.sparsity.end}",
                stacklevel=2,
            )
        self._restored = None
        self._clips = _overrides(pl_module, "configure_gradient_clipping")
        self._averages = WeightAverages(trainer, pl_module, *self.engine.masked)
        others = {name for other in self._others(trainer) for name in other._parameters(pl_module)}
        who, include, exclude = type(self).__name__, self.recipe.include, self.recipe.exclude
        self._coverage = Coverage(trainer, pl_module, who, self.engine.parameters, others, include, exclude)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Read dense gradients before Lightning clips them; if it clips, zero those of dead connections first."""
        assert self.engine is not None
        self.engine.idle = steps_without_backward(trainer)
        self.engine.before_step(optimizer, zero_dead=self._clips or trainer.gradient_clip_val is not None)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Mask averages, which may have just been put in the model's place; remember the batch for scores."""
        if self._installed_on != trainer.optimizers:
            self._install(trainer, pl_module)  # the module has replaced them since
        if batch_idx == 0:
            self._mask_averages()
            if self._coverage is not None:
                self._coverage.look()
        if self.engine is not None and self.engine.moved():
            self._verify(trainer)
        if self._batches is not None and self.engine is not None and self.engine.updates_to_come:
            self._batches.remember(batch)
        if self._schedulers is not None and self.engine is not None:
            self._schedulers.batch_start(trainer, self.engine.clock, self.engine.rewound)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Stop the training if ``training_step`` itself has written to dead weights, before its loss is learned from."""
        if self.engine is not None and self.engine.moved():
            self._verify(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the training if a dead weight is not zero; mask averages, of which the module may make use now."""
        self._verify(trainer)
        self._mask_averages()

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Mask what is to be validated: by now an average may be in the model's place, known here or not."""
        if batch_idx == 0:
            self._mask_averages()
            if self.engine is not None and self.engine.moved():
                self.engine.zero_dead()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Mask averages again, and in the checkpoint, where they may have been saved as the model already."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        self._verify(trainer, averages_may_stand_in=True)
        self._mask_averages()
        if self.engine is not None and self.engine.installed:
            mask_tensors(checkpoint["state_dict"], self.engine.masked[1])
            self.engine.zero_dead()  # it was written to

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mask averages, and warn if training stopped before the sparsity asked for was reached."""
        assert self.engine is not None
        self._settle()
        if self._coverage is not None:
            self._coverage.look()
        as_planned = not (trainer.should_stop or trainer.fast_dev_run)  # type: ignore[attr-defined]
        if as_planned and self._said_at_start:
            return
        warn_if_unfinished(self.engine, as_planned=as_planned)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mask what has been put in the model's place at the very end."""
        self._settle()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave weights that fit the masks, even after half a step, and no hook."""
        if self.engine is not None and self.engine.installed:
            self.engine.zero_dead()
        self._mask_averages()
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave no hook behind; if this is a spawned process, send the masks home."""
        stop_explaining(trainer)
        if self.engine is not None:
            self.engine.detach()
            self._averages = self._coverage = None
            if self._batches is not None:
                self._batches.forget()
            if stage == "fit" and trainer.is_global_zero:
                self._spawned.send(self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Masks at one bit a weight, clock, generator, scores and history, loadable with ``weights_only=True``."""
        state = self._state()
        if state is not None or self.engine is None:
            return state or {}
        schedulers = {"schedulers": self._schedulers.state_dict()} if self._schedulers else {}
        return self.engine.state_dict() | {"begin": self._begin} | schedulers

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until training starts: here neither model nor optimizers are complete."""
        self._restored = state_dict or None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint whose masks belong to other parameters: they would be silently lost."""
        saved = [key for key in checkpoint.get("callbacks", {}) if key.startswith("lightning_sparse[")]
        if saved and self.kind not in saved:
            raise SparsityError(
                f"the checkpoint holds masks of {saved[0]}, this callback is {self.kind}: resume with the same "
                "include and exclude, or start a new training from its weights (without ckpt_path)"
            )
        state = checkpoint["callbacks"][self.state_key] if saved else {}
        if state != {}:  # saved before a fit
            check_state(state)
            masks = {name: unpack_bits(entry) for name, entry in state["masks"].items()}
            say_if_alive(masks, checkpoint.get("state_dict", {}))

    def __getstate__(self) -> dict[str, Any]:
        """A copy, or a spawned process, gets the state of the training, not its weights and optimizers."""
        gone: dict[str, Any] = {
            "engine": None,
            "_averages": None,
            "_coverage": None,
            "_batches": None,
            "_installed_on": [],
        }
        return {**vars(self), **gone, "_restored": self.state_dict() or None}

    def _state(self) -> dict[str, Any] | None:
        """The state that is newer than the engine's: read from a checkpoint, or sent by a spawned fit."""
        self._restored = self._spawned.receive() or self._restored
        return self._restored

    def _install(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self.engine is not None
        self._installed_on = list(trainer.optimizers)
        wrapped: Any = pl_module.optimizers()  # on which methods other than step (SAM's) are called
        self.engine.install([*trainer.optimizers, *(wrapped if isinstance(wrapped, list) else [wrapped])])

    def _verify(self, trainer: Trainer, *, averages_may_stand_in: bool = False) -> None:
        """Raise if a dead weight is not zero, unless a failure or an average in the model's place may have left it so."""
        if self.engine is not None and self.engine.installed:
            if trainer.interrupted or (averages_may_stand_in and self._averages and self._averages.may_stand_in()):
                self.engine.zero_dead()
            self.engine.verify()

    def _settle(self) -> None:
        """Zero the dead of a trained model, and say so if they were not: what is trained is not thrown away for it."""
        if self.engine is None or not self.engine.installed:
            return
        self._mask_averages()
        leaked = sum(self.engine.leaks().values())
        if leaked:
            self.engine.zero_dead()
            warnings.warn(
                f"{leaked} dead weights were not zero when training ended (an average, or weights of an earlier step, was "
                "put in the model's place): they are now",
                stacklevel=3,
            )

    def _mask_averages(self) -> None:
        if self.engine is None or not self.engine.installed or self._averages is None:
            return
        self._averages.mask()
        if self._averages.may_stand_in():
            self.engine.zero_dead()

    def _parameters(self, pl_module: LightningModule) -> Targets:
        return sparsifiable(pl_module, self.recipe.include, self.recipe.exclude)

    def _others(self, trainer: Trainer) -> list[EngineCallback]:
        return [callback for callback in callbacks_of(trainer, EngineCallback) if callback is not self]

    def steps_of(self, trainer: Trainer) -> int | None:
        """Optimizer steps of the training since this callback began, or None where Lightning cannot know them."""
        if not trainer.lightning_module.automatic_optimization:
            return None
        begin = self._begins_at(trainer)
        if begin == 0:
            return optimizer_steps(trainer, self._epochs)
        to_come = optimizer_steps(trainer, self._epochs, to_come=True)
        return None if to_come is None else trainer.global_step - begin + to_come

    def _begins_at(self, trainer: Trainer) -> int:
        """The step of the training at which the clock of this callback is or was at zero."""
        return trainer.global_step if self._restored is None else int(self._restored.get("begin", 0))

    def _say_what_is_planned(self, trainer: Trainer, total: int | None) -> None:
        """Say where the clock starts, if the training is under way, and what of the recipe this training is too short for."""
        assert self.engine is not None
        if self._begin:
            remain = f"shares are shares of the {total} steps that remain, and " if total else ""
            rank_zero_info(
                f"{type(self).__name__} starts at step {self._begin} of the training: {remain}steps count from here"
            )
        if total is None or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        foreseen = foresee(self.recipe, self.engine.plan, self.engine.masks, total, self.reached_by)
        if foreseen:
            self._said_at_start = True
            warnings.warn(foreseen, stacklevel=3)


def _overrides(module: Any, method: str) -> bool:
    """Whether the user's module defines a hook itself; Lightning's own test knows one of its two namespaces only."""
    home = getattr(type(module), method).__module__
    return not home.startswith(("lightning.pytorch.", "pytorch_lightning."))
