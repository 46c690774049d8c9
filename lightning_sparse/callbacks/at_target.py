"""Checkpoints and early stopping that count only at the target sparsity."""

from __future__ import annotations

import inspect
import os
import warnings
from datetime import timedelta
from difflib import get_close_matches
from functools import wraps
from numbers import Integral, Real
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor

from lightning_sparse.callbacks.sparse_training import SparseTraining
from lightning_sparse.callbacks.trainer.callbacks_of import callbacks_of
from lightning_sparse.errors import SparsityError, check_choice, check_count, check_flag


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

    _validated = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier training."""
        self._validated = False
        super().setup(trainer, pl_module, stage)  # type: ignore[misc]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Pass on at the target sparsity."""
        if _reached(trainer):
            super().on_train_batch_end(trainer, pl_module, *args, **kwargs)  # type: ignore[misc]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look whether the first epoch has logged the monitor; pass on at the target sparsity."""
        waits = trainer.enable_validation and not self._validated  # for the first validation
        if isinstance(self, ModelCheckpoint | EarlyStopping) and not waits:
            _check_monitor(self, trainer)
        if _reached(trainer):
            super().on_train_epoch_end(trainer, pl_module)  # type: ignore[misc]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pass on at the target sparsity."""
        self._validated = self._validated or not trainer.sanity_checking
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

    @wraps(ModelCheckpoint.__init__)  # type: ignore[misc]
    def __init__(self, *args: Any, **named: Any) -> None:
        _check_given(ModelCheckpoint, self, args, named)
        super().__init__(*args, **named)

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

    @wraps(EarlyStopping.__init__)  # type: ignore[misc]
    def __init__(self, *args: Any, **named: Any) -> None:
        _check_given(EarlyStopping, self, args, named)
        super().__init__(*args, **named)


# What is read of Lightning's arguments: kinds, what they are called, and what to write.
KINDS: dict[str, tuple[Any, str, str]] = {
    "monitor": (str, "a name", "'val_loss'"),
    "filename": (str, "a name", "'{epoch}'"),
    "dirpath": (str | os.PathLike, "a path", "'checkpoints'"),
    "min_delta": (Real, "a number", "0.01"),
    "stopping_threshold": (Real | Tensor, "a number", "0.9"),
    "divergence_threshold": (Real | Tensor, "a number", "5.0"),
    "train_time_interval": (timedelta, "a timedelta", "timedelta(minutes=10)"),
}
LEAST = {"save_top_k": -1, "every_n_train_steps": 0, "every_n_epochs": 0, "patience": 0}
FLAGS = (
    "save_weights_only",
    "auto_insert_metric_name",
    "save_on_exception",
    "save_on_train_epoch_end",
    "enable_version_counter",
    "strict",
    "check_finite",
    "check_on_train_epoch_end",
    "log_rank_zero_only",
)
LATE = ("robust/monitor/", "vog/")  # what our own monitors may log only after some epochs


def _check_given(kind: type, callback: object, args: Any, named: Any) -> None:
    """Refuse what Lightning would stumble over later, or take in silence."""
    who, given = type(callback).__name__, inspect.signature(kind).bind(*args, **named).arguments
    never_none = {"min_delta", "mode", "save_top_k", "patience"} | ({"monitor"} if kind is EarlyStopping else set())
    for name, value in given.items():
        if value is None and name not in never_none:
            continue
        if name in KINDS:
            kinds, what, write = KINDS[name]
            if isinstance(value, bool) or not isinstance(value, kinds) or value == "" or value != value:
                raise SparsityError(f"{name}={value!r} of {who} is not {what}: write {name}={write}")
        elif name in LEAST:
            whole = int(value) if isinstance(value, Integral) and not isinstance(value, bool) else value
            check_count(f"{name} of {who}", whole, LEAST[name], write=1)
        elif name == "mode":
            check_choice(f"mode of {who}", value, ("min", "max"))
        elif name in FLAGS:
            check_flag(f"{name} of {who}", value)
        elif name == "verbose" and not isinstance(value, int):  # 1 is as good as True
            check_flag(f"verbose of {who}", value)
        elif name == "save_last" and not (isinstance(value, str) and value == "link"):
            check_flag(f"save_last of {who}", value)


def _check_monitor(callback: Any, trainer: Trainer) -> None:
    """Warn of a metric that a whole epoch has not logged: Lightning would say so when the target is reached."""
    name, logged = callback.monitor, sorted(trainer.callback_metrics)
    if name is None or name in logged or name.startswith(LATE) or not getattr(callback, "strict", True):
        return
    if trainer.fast_dev_run or trainer.current_epoch > 0:  # type: ignore[attr-defined]
        return
    close = get_close_matches(name, logged, n=1, cutoff=0.8)
    said = (
        f"monitor={name!r} of {type(callback).__name__} was not logged in the first epoch (logged: {', '.join(logged)})"
    )
    guess = f"did you mean {close[0]!r}? " if close else ""
    warnings.warn(f"{said}: {guess}Unless it comes later, the run ends when it is looked for", stacklevel=2)


def _reached(trainer: Trainer) -> bool:
    return all(callback.at_target for callback in callbacks_of(trainer, SparseTraining))
