"""Train one model, or load what an earlier launch has trained of it."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.nn.parameter import UninitializedParameter

from lightning_sparse.anatomy.isolation import untouched
from lightning_sparse.callbacks.epoch_checkpoint import EndCheckpoint, EpochCheckpoint
from lightning_sparse.callbacks.random_state import RandomState
from lightning_sparse.callbacks.sparse_training import SparseTraining
from lightning_sparse.data.images import ImageData
from lightning_sparse.engine.masks import Masks, load_masks
from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.checks import check_scores
from lightning_sparse.results.jobs import Job


def check_classifier(model: LightningModule, data: ImageData) -> None:
    """Refuse a model that gives no logits before anything is spent on training, as far as that can be known by then.

    A module that builds its layers in ``setup`` or at its first batch can be called only later, and is measured later.

    Raises:
        SparsityError: saying what the model gives and what to write instead.
    """
    if any(isinstance(parameter, UninitializedParameter) for parameter in model.parameters()):
        return
    images, _ = data.split("test", max(data.classes, 16))
    with untouched(model), torch.no_grad():
        try:
            outputs = model(images)
        except Exception:
            return
        check_scores(outputs)


def survival(job: Job) -> list[Callback]:
    """The callbacks with which a training that is killed goes on from its last checkpoint as if nothing had happened."""
    # Last, for checkpoints hold what the other callbacks have become.
    return [RandomState(), EpochCheckpoint(job.half_done), EndCheckpoint(job.ended)]


def train(
    job: Job, model: LightningModule, data: ImageData, trainer: Trainer, following: Iterable[Callback]
) -> Masks | None:
    """Fit the model, go on with it, or load it where an earlier launch has fitted it.

    The validation accuracy of the trained model goes into ``job.json``, unless the module logs no ``val_accuracy``.

    Args:
        job: whose folder holds the checkpoints.
        model: as built.
        data: its data.
        trainer: with the callbacks of :func:`survival` among its own.
        following: those among its callbacks that measure the training; they too are as they were at its end.

    Returns:
        The model's masks; None if it is dense.
    """
    if not job.checkpoint.exists():
        # Of our own writing, and a module's hyperparameters may hold anything.
        goes_on = job.half_done if job.half_done.exists() else None
        trainer.fit(model, datamodule=data, ckpt_path=goes_on, weights_only=False)
        accuracy = trainer.callback_metrics.get("val_accuracy")
        if accuracy is None and goes_on:  # the last validation was before the kill
            trainer.validate(model, datamodule=data, verbose=False)
            accuracy = trainer.callback_metrics.get("val_accuracy")
        job.save(objective=None if accuracy is None else float(accuracy))
        os.replace(job.ended, job.checkpoint)  # last, so that a checkpoint means that its objective is known too
    job.half_done.unlink(missing_ok=True)
    content = torch.load(job.checkpoint, weights_only=False, map_location="cpu")
    model.load_state_dict(content["state_dict"])
    for callback in following:
        callback.load_state_dict(content["callbacks"][callback.state_key])
    sparse = any(isinstance(callback, SparseTraining) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    return load_masks(content) if sparse else None


def counted_sparsity(model: LightningModule, masks: Masks | None) -> float:
    """Count the masked connections in the model that is measured; 0 for a dense one.

    Raises:
        SparsityError: if a masked weight is not zero there.
    """
    if masks is None:
        return 0.0
    alive = sum(int(model.get_parameter(name)[~mask].count_nonzero()) for name, mask in masks.items())
    if alive:
        raise SparsityError(
            f"{alive} masked weights of the trained model are not zero: something rewrote the weights after the last step "
            "(weight averaging, perhaps); leave it out"
        )
    return masks.sparsity
