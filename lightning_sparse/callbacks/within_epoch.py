"""Whether a training can go on from within an epoch as if it had never stopped, and how its loader starts there."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_sparse.anatomy.isolation import fork_random_states
from lightning_sparse.callbacks.sparse_training import SparseTraining
from lightning_sparse.callbacks.trainer.callbacks_of import callbacks_of
from lightning_sparse.callbacks.trainer.private import averaged_over_epoch, start_loaders, train_loaders

# What these do to objects of one's own is in no checkpoint, and the epoch that was cut does not call them again.
HOOKS = ("on_train_epoch_start", "on_train_batch_start", "on_train_batch_end", "on_train_epoch_end")
LIGHTNINGS = ("lightning.", "pytorch_lightning.", "lightning_sparse.")
LOOKS_ON = ("ProgressBar", "LearningRateMonitor")  # whose hook at an epoch's start changes nothing


def can_go_on_within(trainer: Trainer, module: LightningModule) -> bool:
    """Whether all that a training holds between two batches is in a checkpoint, so far as this can be known ahead.

    It is not known of loaders whose order is not a function of the epoch (``start_at`` of their sampler says that it is), of
    modules and callbacks with hooks of their own around batches and epochs, of several ranks, and of manual optimization.
    """
    return (
        trainer.world_size == 1
        and module.automatic_optimization
        and all(_can_start_anywhere(loader) for loader in train_loaders(trainer))
        and not any(_own(module, hook) for hook in HOOKS)
        and not any(_minds(callback) for callback in trainer.callbacks)  # type: ignore[attr-defined]
        and not any(config.reduce_on_plateau and config.interval == "step" for config in trainer.lr_scheduler_configs)
    )


def can_stop_after(trainer: Trainer, batch_idx: int) -> bool:
    """Whether a checkpoint made in ``on_train_batch_end`` of this batch holds everything, where :func:`can_go_on_within`."""
    done = batch_idx + 1
    validates = trainer.val_check_batch is None or done % trainer.val_check_batch == 0
    in_a_step = done % trainer.accumulate_grad_batches != 0
    ends = done >= trainer.num_training_batches or trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step
    if (
        validates
        or in_a_step
        or ends
        or any(_remembers(callback) for callback in callbacks_of(trainer, SparseTraining))
    ):
        return False
    # A mean over the epoch would be one over the rest of it.
    decides = [getattr(callback, "monitor", None) for callback in trainer.callbacks]  # type: ignore[attr-defined]
    decides += [config.monitor for config in trainer.lr_scheduler_configs if config.reduce_on_plateau]
    return averaged_over_epoch(trainer).isdisjoint(decides)


def start_within(trainer: Trainer, batches: int) -> None:
    """Let the loaders of a resumed run go on after so many batches of the present epoch, without reading those."""
    for loader in train_loaders(trainer):
        loader.sampler.start_at(batches * loader.batch_size, trainer.current_epoch)
    with fork_random_states(None):  # a loader draws a seed when it starts, and the run has drawn it before it was cut
        start_loaders(trainer)


def _can_start_anywhere(loader: Any) -> bool:
    return hasattr(getattr(loader, "sampler", None), "start_at") and bool(loader.batch_size)


def _remembers(callback: SparseTraining) -> bool:
    """Whether a score is still to be made of several batches, which no checkpoint holds."""
    recipe, engine = callback.recipe, callback.engine
    return bool(recipe.reads_batches and recipe.score_batches > 1 and engine is not None and engine.updates_to_come)


def _minds(callback: Any) -> bool:
    """Whether a callback may do something around a batch or an epoch that a resumed run would not do again."""
    if not type(callback).__module__.startswith(LIGHTNINGS):
        return any(_own(callback, hook) for hook in HOOKS)
    looks_on = any(base.__name__ in LOOKS_ON for base in type(callback).__mro__)
    home = type(callback).on_train_epoch_start.__qualname__
    return not looks_on and home != "Callback.on_train_epoch_start"


def _own(thing: Any, hook: str) -> bool:
    return not getattr(type(thing), hook).__module__.startswith(LIGHTNINGS)
