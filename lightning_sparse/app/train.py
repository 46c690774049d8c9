"""Train one model, resume its training, or load it if an earlier launch has trained it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.nn.parameter import UninitializedParameter

from lightning_sparse.anatomy.isolation import untouched
from lightning_sparse.app.measuring.measurements import Measurement, try_measurements
from lightning_sparse.callbacks.epoch_checkpoint import EndCheckpoint, EpochCheckpoint
from lightning_sparse.callbacks.random_state import RandomState
from lightning_sparse.callbacks.sparse_training import SparseTraining
from lightning_sparse.data.images import ImageData
from lightning_sparse.engine.masks import Masks, load_masks
from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.advice import COMMAND_LINE, advice_for
from lightning_sparse.measure.checks import check_images
from lightning_sparse.measure.classifier import about_size, size_refusal
from lightning_sparse.measure.outputs import check_logits
from lightning_sparse.results.jobs import Job


def check_classifier(model: LightningModule, data: ImageData, measurements: list[Measurement]) -> None:
    """Raise a SparsityError before the training if the model does not return logits, or cannot be measured as asked.

    A module that builds its layers in ``setup`` or at its first batch cannot be called yet, and is not checked here.
    """
    if any(isinstance(parameter, UninitializedParameter) for parameter in model.parameters()):
        return
    images, labels = data.split("test", max(data.classes, 16))
    with advice_for(COMMAND_LINE):
        with untouched(model), torch.no_grad():
            try:
                outputs = model(images)
            except Exception as error:
                if isinstance(error, NotImplementedError) or _takes_more(model):
                    raise SparsityError(
                        f"model={type(model).__name__} cannot be called as model(images) ({error}): let its forward() take "
                        "images alone and return logits, because every network's accuracy is measured by it"
                    ) from error
                if isinstance(error, RuntimeError | ValueError | AssertionError | IndexError) and about_size(error):
                    raise size_refusal(model, images, error) from error
                return
            check_images(images, labels, classes=check_logits(outputs).shape[1])
        try_measurements(measurements, model, (images[:2], labels[:2]))


def _takes_more(model: LightningModule) -> bool:
    try:
        inspect.signature(model.forward).bind(None)
    except TypeError:
        return True
    return False


def survival(job: Job) -> list[Callback]:
    """The callbacks with which a killed training resumes from its last checkpoint as if nothing had happened."""
    # They come last, because checkpoints hold the state of the other callbacks.
    return [RandomState(), EpochCheckpoint(job.half_done), EndCheckpoint(job.ended)]


def train(
    job: Job, model: LightningModule, data: ImageData, trainer: Trainer, following: Iterable[Callback]
) -> Masks | None:
    """Fit the model, resume its training, or load it if an earlier launch has trained it; return its masks, None if dense.

    The validation accuracy of the trained model goes into ``job.json``, unless the module logs no ``val_accuracy``. The
    trainer has the callbacks of :func:`survival`, and among its others ``following``, whose state is restored too.
    """
    if not job.checkpoint.exists():
        # We wrote it ourselves, and a module's hyperparameters may be of any type.
        goes_on = job.half_done if job.half_done.exists() else None
        trainer.fit(model, datamodule=data, ckpt_path=goes_on, weights_only=False)
        accuracy = trainer.callback_metrics.get("val_accuracy")
        if accuracy is None and goes_on:  # the last validation was before the kill
            trainer.validate(model, datamodule=data, verbose=False)
            accuracy = trainer.callback_metrics.get("val_accuracy")
        job.save(objective=None if accuracy is None else float(accuracy))
        os.replace(job.ended, job.checkpoint)  # last, so that where there is a checkpoint, the objective is known
    job.half_done.unlink(missing_ok=True)
    content = torch.load(job.checkpoint, weights_only=False, map_location="cpu")
    model.load_state_dict(content["state_dict"])
    for callback in following:
        callback.load_state_dict(content["callbacks"][callback.state_key])
    sparse = any(isinstance(callback, SparseTraining) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    return load_masks(content) if sparse else None


def counted_sparsity(model: LightningModule, masks: Masks | None) -> float:
    """The sparsity of the masks, 0 for a dense model; raises a SparsityError if a masked weight of the model is not 0."""
    if masks is None:
        return 0.0
    alive = sum(int(model.get_parameter(name)[~mask].count_nonzero()) for name, mask in masks.items())
    if alive:
        raise SparsityError(
            f"{alive} masked weights of the trained model are not zero: something rewrote the weights after the last step "
            "(weight averaging, perhaps); leave it out"
        )
    return masks.sparsity
