"""Train one model, then measure it: what a job does, given its objects."""

from __future__ import annotations

import os

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_sparse.callbacks.sparse_training import SparseTraining
from lightning_sparse.data import ImageData
from lightning_sparse.errors import SparsityError, check_choice
from lightning_sparse.jobs import Job, Measurement
from lightning_sparse.masks import Masks, load_masks
from lightning_sparse.measure import measure_accuracy, measure_robustness, measure_saliency
from lightning_sparse.measure.attributions import ATTRIBUTIONS
from lightning_sparse.measure.projected_gradient import check_steps
from lightning_sparse.measure.robustness import check_attacks, check_radii
from lightning_sparse.records import Record


def check(data: ImageData, wanted: list[Measurement]) -> None:
    """Refuse what cannot be measured before anything is spent on training.

    Raises:
        SparsityError: for settings out of range, and data that cannot be read.
    """
    for measurement in wanted:
        settings = measurement.settings
        data.sample("test", settings.get("images"))
        if measurement.kind == "robust":
            check_radii(settings["eps"])
            check_attacks(settings["attacks"])
            check_steps(settings["steps"])
        elif measurement.kind == "saliency":
            for method in settings["methods"]:
                check_choice("saliency.methods", method, ATTRIBUTIONS)


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
    job: Job,
    model: LightningModule,
    data: ImageData,
    device: torch.device,
    sparsity: float,
    wanted: list[Measurement],
) -> list[Record]:
    """Measure what is not on disk yet, and put each measurement there the moment it is known.

    Args:
        job: whose rows they are.
        model: the trained model.
        data: its data; only the test split is measured, and the validation split calibrates.
        device: where to measure.
        sparsity: the sparsity of the model.
        wanted: what to measure.

    Returns:
        All rows of these measurements, old and new.
    """
    model.to(device)
    measured = job.measured()

    def split(name: str, most: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = data.split(name, most)
        return images.to(device), labels.to(device)

    for measurement in wanted:
        if measurement.key in measured:
            continue
        settings = dict(measurement.settings)
        test = split("test", settings.pop("images", None))
        if measurement.kind == "clean":
            rows = measure_accuracy(model, *test)
        elif measurement.kind == "robust":
            rows = measure_robustness(model, *test, **settings)
        else:
            rows, arrays = measure_saliency(model, *test, calibration=split("validation"), **settings)
            part = job.folder / "maps.part.npz"
            np.savez_compressed(part, **arrays)  # type: ignore[arg-type]
            os.replace(part, job.folder / job.maps)
        job.record(rows, measurement.key, sparsity)
    return job.current_rows()
