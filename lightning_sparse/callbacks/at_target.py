"""Checkpoints and early stopping that count only at the target sparsity."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from lightning_sparse.callbacks.sparse_training import SparseTraining
from lightning_sparse.callbacks.trainer.callbacks_of import callbacks_of


class AtTargetSparsity:
    """A base class that makes a callback wait until every sparsity callback has reached its final sparsity.

    Before that the best score usually belongs to a network denser than the one asked for, and early stopping would stop
    at a dip caused by pruning. Validation runs as always; without a sparsity callback nothing changes.

    Example:
        >>> from lightning.pytorch.callbacks import EarlyStopping
        >>> class Mine(AtTargetSparsity, EarlyStopping):  # before the other class
        ...     pass
        >>> mine = Mine(monitor="loss", patience=5)
    """

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Pass on at the target sparsity."""
        if _reached(trainer):
            super().on_train_batch_end(trainer, pl_module, *args, **kwargs)  # type: ignore[misc]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pass on at the target sparsity."""
        if _reached(trainer):
            super().on_train_epoch_end(trainer, pl_module)  # type: ignore[misc]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pass on at the target sparsity."""
        if _reached(trainer):
            super().on_validation_end(trainer, pl_module)  # type: ignore[misc]


class CheckpointAtTarget(AtTargetSparsity, ModelCheckpoint):
    """Lightning's ModelCheckpoint, for networks at the final sparsity only: ``best_model_path`` is one of those.

    Takes the arguments of :class:`lightning.pytorch.callbacks.ModelCheckpoint`. To resume, put a plain ``ModelCheckpoint()``
    beside it: this one saves nothing before the final sparsity, and then only what is better.

    Example:
        >>> from lightning_sparse import CheckpointAtTarget, GradualPruning
        >>> callbacks = [GradualPruning(0.9), CheckpointAtTarget(monitor="accuracy", mode="max")]
    """

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last one, at the target sparsity."""
        if _reached(trainer):
            super().on_train_end(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save what is there, at the target sparsity."""
        if _reached(trainer):
            super().on_exception(trainer, pl_module, exception)


class StopAtTarget(AtTargetSparsity, EarlyStopping):
    """Lightning's EarlyStopping, counting only from the final sparsity on.

    Takes the arguments of :class:`lightning.pytorch.callbacks.EarlyStopping`.

    Example:
        >>> from lightning_sparse import GradualPruning, StopAtTarget
        >>> callbacks = [GradualPruning(0.9), StopAtTarget(monitor="loss", patience=5)]
    """


def _reached(trainer: Trainer) -> bool:
    return all(callback.at_target for callback in callbacks_of(trainer, SparseTraining))
