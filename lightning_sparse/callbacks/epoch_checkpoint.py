"""A checkpoint of a training that may be killed at any moment, and that costs next to nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

COSTS_AT_MOST = 1 / 20


class EpochCheckpoint(Callback):
    """Save the whole training at the end of an epoch, into one file that is always whole.

    Lightning's ``ModelCheckpoint`` writes through a temporary folder, and where that is another disk a kill can halve the
    file. Saving is left out as long as it would cost more than a twentieth of the training: where epochs are that short,
    what a kill costs is short too.

    Args:
        path: the file; ``Trainer.fit(ckpt_path=path)`` goes on from it.

    Example:
        >>> callbacks = [EpochCheckpoint("outputs/training.ckpt")]
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._saved = 0.0
        self._cost = 0.0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, unless it is too early for that."""
        due = time.monotonic() - self._saved >= self._cost / COSTS_AT_MOST
        # On all ranks or on none, because saving is done together; a stop after this epoch needs no checkpoint any more.
        if not trainer.strategy.broadcast(due) or trainer.current_epoch + 1 == trainer.max_epochs:
            return
        start = time.monotonic()
        for logger in trainer.loggers:
            logger.save()  # the curves up to here
        part = self.path.with_name(f"{self.path.name}.part")
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            os.replace(part, self.path)
        self._saved = time.monotonic()
        self._cost = self._saved - start
