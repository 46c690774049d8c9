"""Checkpoints of a training that may be killed at any moment, always whole, that cost next to nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

COSTS_AT_MOST = 1 / 20


def save_whole(trainer: Trainer, path: Path) -> None:
    """Save a checkpoint, on all ranks together, so that a kill leaves the old file or the new one."""
    part = path.with_name(f"{path.name}.part")
    trainer.save_checkpoint(part)
    if trainer.is_global_zero:
        os.replace(part, path)


class EndCheckpoint(Callback):
    """Save the whole training when it has ended, in whatever process that was: a spawned fit brings back only the weights.

    Args:
        path: the file.

    Example:
        >>> callbacks = [EndCheckpoint("outputs/end.ckpt")]
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save."""
        save_whole(trainer, self.path)


class EpochCheckpoint(Checkpoint):
    """Save the whole training at the end of an epoch, into one file that is always whole.

    Lightning's ``ModelCheckpoint`` writes through a temporary folder, and where that is another disk a kill can halve the
    file. Saving is left out as long as it would cost more than a twentieth of the training: where epochs are that short,
    what a kill costs is short too. Nothing is saved where the training ends, because a training that goes on from there would
    not know that it has ended.

    Args:
        path: the file; ``Trainer.fit(ckpt_path=path)`` goes on from it.

    Example:
        >>> callbacks = [EpochCheckpoint("outputs/training.ckpt")]
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._saved = 0.0
        self._cost = 0.0
        self._metrics: dict[str, float] = {}
        self._goes_on = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the steps of learning rates that wait for a metric: Lightning takes them after every checkpoint."""
        if self._goes_on:
            for of in trainer.lr_scheduler_configs:
                due = of.interval == "epoch" and trainer.current_epoch % of.frequency == 0
                if of.reduce_on_plateau and due and of.monitor in self._metrics:
                    of.scheduler.step(self._metrics[of.monitor])  # type: ignore[arg-type]
        self._goes_on = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, unless it is too early for that."""
        due = time.monotonic() - self._saved >= self._cost / COSTS_AT_MOST
        ends = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        ends = ends or 0 <= trainer.max_steps <= trainer.global_step
        if not trainer.strategy.broadcast(due) or ends:  # on all ranks or on none, because saving is done together
            return
        start = time.monotonic()
        for logger in trainer.loggers:
            logger.save()  # the curves up to here
        self._metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        save_whole(trainer, self.path)
        self._saved = time.monotonic()
        self._cost = self._saved - start

    def state_dict(self) -> dict[str, Any]:
        """What schedulers of learning rates look at."""
        return {"metrics": self._metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep it until training starts."""
        self._metrics, self._goes_on = state_dict["metrics"], True
