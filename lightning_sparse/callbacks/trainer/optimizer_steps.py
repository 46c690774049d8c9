"""How many optimizer steps a Trainer takes in automatic optimization."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import Trainer


def optimizer_steps(trainer: Trainer, max_epochs: int | None, *, to_come: bool = False) -> int | None:
    """Return the optimizer steps of the whole training, or those still to come, or None where nobody can know them.

    The last batches of an epoch make a step even if they are fewer than are accumulated, and Lightning's
    GradientAccumulationScheduler may accumulate another number of them in each epoch.

    Args:
        trainer: the Trainer. If its data are not loaded yet, they will be.
        max_epochs: its ``max_epochs`` before the training: stochastic weight averaging adds an epoch that takes no step.
        to_come: count from where the training stands, as in ``on_train_start``, be it within an epoch.
    """
    estimate = trainer.estimated_stepping_batches
    if not 0 < estimate < math.inf:
        return None
    taken, batches = trainer.global_step if to_come else 0, trainer.num_training_batches
    if not max_epochs or max_epochs < 0 or math.isinf(batches):
        return max(0, int(estimate) - taken) or None  # the estimate is max_steps
    accumulated = _accumulated(trainer, max_epochs)[trainer.current_epoch if to_come else 0 :]
    done = _batches_done(trainer) if to_come else 0
    if done and accumulated and getattr(trainer.fit_loop, "restarted_mid_epoch", False):
        accumulated[0] = (
            trainer.accumulate_grad_batches
        )  # no on_train_epoch_start, at which the scheduler would change it
    steps = sum(math.ceil(batches / count) for count in accumulated)
    for count in accumulated[:1]:
        steps -= done // count if done < batches else math.ceil(batches / count)
    if trainer.max_steps != -1:
        steps = min(steps, trainer.max_steps - taken)
    return max(0, steps) or None


def _accumulated(trainer: Trainer, epochs: int) -> list[int]:
    """Batches to a step, for each epoch."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if hasattr(callback, "get_accumulate_grad_batches"):  # a GradientAccumulationScheduler, of either namespace
            return [callback.get_accumulate_grad_batches(epoch) for epoch in range(epochs)]
    return [trainer.accumulate_grad_batches] * epochs


def _batches_done(trainer: Trainer) -> int:
    """Batches of the current epoch that a checkpoint from within it has behind it."""
    loop: Any = trainer.fit_loop
    begun = loop.epoch_progress.current.ready > loop.epoch_progress.current.processed
    return loop.epoch_loop.batch_progress.current.processed if loop.restarting and begun else 0
