"""Cheap checkpoints of a training that may be killed at any moment: no file is ever half written."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lightning_sparse.callbacks.within_epoch import can_go_on_within, can_stop_after, start_within

COSTS_AT_MOST = 1 / 20
LONG = 60.0  # seconds: what a kill may cost where an epoch takes longer


def save_whole(trainer: Trainer, path: Path) -> None:
    """Save a checkpoint, called on all ranks, so that a kill leaves either the old file or the new one."""
    part = path.with_name(f"{path.name}.part")
    trainer.save_checkpoint(part)
    if trainer.is_global_zero:
        os.replace(part, path)


class EndCheckpoint(Callback):
    """Save the whole training at its end, in the process that trained: a spawned fit brings back only the weights.

    Example:
        >>> callbacks = [EndCheckpoint("outputs/end.ckpt")]
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save."""
        save_whole(trainer, self.path)


class EpochCheckpoint(Checkpoint):
    """Save the whole training at the end of an epoch, and within a long one, into one file that is never half written.

    Lightning's ``ModelCheckpoint`` writes through a temporary folder; if that is on another disk, a kill can leave half a
    file. An epoch is skipped if saving would cost more than a twentieth of the time since the last save: with epochs that
    short, a kill loses little. Nothing is saved when the training ends, because a training that goes on from there, by
    ``Trainer.fit(ckpt_path=path)``, would not know that it has ended.

    Within an epoch it saves after each minute, if a run that goes on from there is sure to equal the one that was never
    stopped (:func:`~lightning_sparse.callbacks.within_epoch.can_go_on_within`). Only in curves, the mean over such an epoch
    of what is logged is then one over its rest.

    Example:
        >>> callbacks = [EpochCheckpoint("outputs/training.ckpt")]
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._saved = self._cost = 0.0
        self._metrics: dict[str, float] = {}
        self._batches = 0  # of the epoch, where it was saved within one
        self._goes_on = self._within = False
        self._next = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the loader where the checkpoint was saved, and step the schedulers that wait for a metric.

        Lightning stepped those after the checkpoint was saved.
        """
        self._within, self._next = can_go_on_within(trainer, pl_module), time.monotonic() + LONG
        if self._goes_on and self._batches:
            start_within(trainer, self._batches)
        elif self._goes_on:
            for config in trainer.lr_scheduler_configs:
                due = config.interval == "epoch" and trainer.current_epoch % config.frequency == 0
                if config.reduce_on_plateau and due and config.monitor in self._metrics:
                    config.scheduler.step(self._metrics[config.monitor])  # type: ignore[arg-type]
        self._goes_on = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, unless saving now would cost too much or the training ends here."""
        due = time.monotonic() - self._saved >= self._cost / COSTS_AT_MOST
        ends = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        ends = ends or 0 <= trainer.max_steps <= trainer.global_step
        if not trainer.strategy.broadcast(due) or ends:  # on all ranks or on none, because saving is done together
            return
        self._save(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within an epoch, if the last time is long ago."""
        if self._within and time.monotonic() >= self._next and can_stop_after(trainer, batch_idx):
            self._save(trainer, batches=batch_idx + 1)

    def _save(self, trainer: Trainer, batches: int = 0) -> None:
        start, self._batches = time.monotonic(), batches
        for logger in trainer.loggers:
            logger.save()  # the curves up to here
        self._metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        save_whole(trainer, self.path)
        self._saved, self._batches = time.monotonic(), 0  # another callback may save a checkpoint too
        self._cost = self._saved - start
        self._next = self._saved + max(LONG, self._cost / COSTS_AT_MOST)

    def state_dict(self) -> dict[str, Any]:
        """The metrics that schedulers of learning rates read, and how many batches of the epoch are done."""
        return {"metrics": self._metrics, "batches": self._batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep them until training starts."""
        self._metrics, self._batches, self._goes_on = state_dict["metrics"], state_dict.get("batches", 0), True
