"""Measure a trained model: what of it is asked for and not on disk yet."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from lightning.pytorch import Callback

from lightning_sparse import measuring
from lightning_sparse.callbacks.variance_of_gradients import VarianceOfGradients
from lightning_sparse.data import ImageData
from lightning_sparse.jobs import Job
from lightning_sparse.measuring import MEASUREMENTS, Trained
from lightning_sparse.records import Record
from lightning_sparse.wanted import Measurement


def check(data: ImageData, wanted: list[Measurement]) -> None:
    """Refuse what cannot be measured before anything is spent on training.

    Raises:
        SparsityError: for settings out of range, and data that cannot be read.
    """
    for measurement in wanted:
        measuring.check(measurement.kind, measurement.settings, data)


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
        job.record(found.records, measurement.key, sparsity)  # last, because it says that the measurement is done
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
