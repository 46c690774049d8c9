"""Train one model, then measure it: what a job does, given its objects."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.nn.parameter import UninitializedParameter

from lightning_sparse import measuring
from lightning_sparse.callbacks.sparse_training import SparseTraining
from lightning_sparse.callbacks.variance_of_gradients import VarianceOfGradients
from lightning_sparse.data import ImageData
from lightning_sparse.errors import SparsityError
from lightning_sparse.isolation import untouched
from lightning_sparse.jobs import Job, Measurement
from lightning_sparse.masks import Masks, load_masks
from lightning_sparse.measure.checks import check_scores
from lightning_sparse.measuring import MEASUREMENTS, Trained
from lightning_sparse.records import Record


def check(data: ImageData, wanted: list[Measurement]) -> None:
    """Refuse what cannot be measured before anything is spent on training.

    Raises:
        SparsityError: for settings out of range, and data that cannot be read.
    """
    for measurement in wanted:
        measuring.check(measurement.kind, measurement.settings, data)


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


def train(job: Job, model: LightningModule, data: ImageData, trainer: Trainer) -> tuple[float | None, Masks | None]:
    """Fit the model, or load it where an earlier launch has fitted it.

    Returns:
        Validation accuracy of the trained model (None if the module logs no ``val_accuracy``), and its masks (None if it
        is dense).
    """
    if not job.checkpoint.exists():
        trainer.fit(model, datamodule=data)
        accuracy = trainer.callback_metrics.get("val_accuracy")
        part = job.checkpoint.with_suffix(".part")
        trainer.save_checkpoint(part, weights_only=False)
        job.save(objective=None if accuracy is None else float(accuracy))
        os.replace(part, job.checkpoint)  # last, so that a checkpoint means that its objective is known too
    # Of our own writing, and a module's hyperparameters may hold anything.
    content = torch.load(job.checkpoint, weights_only=False, map_location="cpu")
    model.load_state_dict(content["state_dict"])
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, VarianceOfGradients):
            callback.load_state_dict(content["callbacks"][callback.state_key])
    stored = job.stored()
    sparse = any(isinstance(callback, SparseTraining) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    return stored.objective if stored else None, load_masks(content) if sparse else None


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


def measure(
    job: Job, trained: Trained, sparsity: float, wanted: list[Measurement], callbacks: Mapping[str, Callback]
) -> list[Record]:
    """Measure what is not on disk yet, and put each measurement there the moment it is known.

    Args:
        job: whose rows they are.
        trained: the model and its data; only the test split is measured. The validation split calibrates, and the training
            split is what the model describes.
        sparsity: the sparsity of the model.
        wanted: what to measure.
        callbacks: by name; ``"vog"`` has followed the gradients through the training, if that is wanted.

    Returns:
        All rows of these measurements, old and new.
    """
    trained.model.to(trained.device)
    measured = job.measured()
    for measurement in wanted:
        if measurement.key in measured:
            continue
        if measurement.kind == "vog":
            vog = callbacks["vog"]
            assert isinstance(vog, VarianceOfGradients)
            found = vog.measured()
            chosen = np.array(measuring.places(trained.data, measurement.settings))
            found = replace(found, arrays=found.arrays | {"places": chosen})  # where in the test split they stand
        else:
            with prepared(trained, measurement.settings) as said:
                found = MEASUREMENTS[measurement.kind](trained, measurement.settings)
            rows = [replace(row, detail=f"{row.detail}; {said}") if said else row for row in found.records]
            found = replace(found, records=rows)
        if found.arrays:
            part = job.folder / f"{measurement.key}.part.npz"
            np.savez_compressed(part, **found.arrays)  # type: ignore[arg-type]
            os.replace(part, job.folder / f"{measurement.key}.npz")
        # Last, because rows mean that the measurement is done; one without rows of its own says that it was made.
        made = [Record("made_arrays", float(len(found.arrays)), 0, detail="numbers of single images, for comparisons")]
        job.record(found.records or made, measurement.key, sparsity)
    return job.current_rows()


@contextmanager
def prepared(trained: Trained, settings: Mapping[str, object]) -> Iterator[str]:
    """Put the model into the state that is to be measured, and back: with BatchNorm's statistics estimated anew if asked.

    Yields:
        In words which statistics BatchNorm uses; empty for a model without it that is measured as trained.
    """
    from lightning_sparse.measure.batchnorm import (
        RECALIBRATION,
        batchnorm_in_words,
        has_batchnorm,
        recalibrate_batchnorm,
    )

    if settings.get("batchnorm") != "recalibrated":
        yield batchnorm_in_words(True) if has_batchnorm(trained.model) else ""
        return

    before = copy.deepcopy(trained.model.state_dict())
    images = trained.other("train", RECALIBRATION)
    try:
        found = recalibrate_batchnorm(trained.model, images)
        yield batchnorm_in_words(found, len(images[1]))
    finally:
        trained.model.load_state_dict(before)
