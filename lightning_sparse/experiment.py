"""Train one model, then measure it: what a job does, given its objects."""

from __future__ import annotations

import os

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_sparse.callbacks.sparse_training import SparseTraining
from lightning_sparse.data import ImageData
from lightning_sparse.jobs import Job, Measurement
from lightning_sparse.masks import load_masks
from lightning_sparse.measure import measure_accuracy, measure_robustness, measure_saliency
from lightning_sparse.records import Record, read


def train(job: Job, model: LightningModule, data: ImageData, trainer: Trainer) -> tuple[float | None, float]:
    """Fit the model, or load it where an earlier launch has fitted it.

    Returns:
        Validation accuracy of the trained model (None if the module logs no ``val_accuracy``), and the sparsity achieved.
    """
    if not job.checkpoint.exists():
        trainer.fit(model, datamodule=data)
        accuracy = trainer.callback_metrics.get("val_accuracy")
        part = job.checkpoint.with_suffix(".part")
        trainer.save_checkpoint(part, weights_only=False)
        job.save(objective=None if accuracy is None else float(accuracy))
        os.replace(part, job.checkpoint)  # last, so that a checkpoint means that its objective is known too
    else:
        model.load_state_dict(torch.load(job.checkpoint, weights_only=True, map_location="cpu")["state_dict"])
    stored = job.stored()
    sparse = any(isinstance(callback, SparseTraining) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    return stored.objective if stored else None, load_masks(job.checkpoint).sparsity if sparse else 0.0


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
        All rows of the job, old and new.
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
            part = job.folder / "saliency.part.npz"
            np.savez_compressed(part, **arrays)  # type: ignore[arg-type]
            os.replace(part, job.folder / "saliency.npz")
        job.record(rows, measurement.key, sparsity)
    return read(job.rows)
