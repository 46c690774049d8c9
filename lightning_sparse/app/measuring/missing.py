"""Measure a trained model: what of it is asked for and not on disk yet."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import groupby

import numpy as np
from lightning.pytorch import Callback
from tqdm import tqdm

from lightning_sparse.app.measuring import kinds as measuring
from lightning_sparse.app.measuring.asked import Measurement
from lightning_sparse.app.measuring.kinds import MEASUREMENTS, Trained
from lightning_sparse.app.measuring.robust import measure_curve
from lightning_sparse.callbacks.variance_of_gradients import VarianceOfGradients
from lightning_sparse.data.images import ImageData
from lightning_sparse.results.jobs import Job
from lightning_sparse.results.records import Measured, Record


def check(data: ImageData, wanted: list[Measurement]) -> None:
    """Refuse what cannot be measured before anything is spent on training.

    Raises:
        SparsityError: for settings out of range, and data that cannot be read.
    """
    for measurement in wanted:
        measuring.check(measurement.kind, measurement.settings, data)


def measure(
    job: Job,
    trained: Trained,
    sparsity: float,
    wanted: list[Measurement],
    callbacks: Mapping[str, Callback],
    *,
    progress: bool = False,
) -> list[Record]:
    """Measure what is not on disk yet, and put each measurement there the moment it is known.

    Args:
        job: whose rows they are.
        trained: the model and its data; only the test split is measured. The validation split calibrates, and the training
            split is what the model describes. Its BatchNorm is left as it was measured.
        sparsity: the sparsity of the model.
        wanted: what to measure.
        callbacks: by name; ``"vog"`` has followed the gradients through the training, if that is wanted.
        progress: show a bar on stdout, below a sweep's line.

    Returns:
        All rows of these measurements, old and new.
    """
    trained.model.to(trained.device)
    measured = job.measured()
    missing = [measurement for measurement in wanted if measurement.key not in measured]
    said = prepare(trained, missing)
    bar = tqdm(total=len(missing), desc="measuring", position=1, leave=False, disable=not progress, file=sys.stdout)
    for kind, some in groupby(missing, key=lambda measurement: measurement.kind):
        bar.set_postfix_str(kind)
        for key, found in _measured(kind, list(some), job, trained, callbacks):
            bar.update()
            told = said if kind != "vog" else ""
            rows = [replace(row, detail=f"{row.detail}; {told}") if told else row for row in found.records]
            if found.arrays:
                part = job.folder / f"{key}.part.npz"
                np.savez_compressed(part, **found.arrays)  # type: ignore[arg-type]
                os.replace(part, job.folder / f"{key}.npz")
            job.record(rows, key, sparsity)  # last, because it says that the measurement is done
    bar.close()
    return job.current_rows()


def _measured(
    kind: str, missing: list[Measurement], job: Job, trained: Trained, callbacks: Mapping[str, Callback]
) -> Iterator[tuple[str, Measured]]:
    """What the missing measurements of one kind find, each with its key."""
    settings = missing[0].settings
    if kind == "robust":
        yield from measure_curve(job, trained, settings, {measurement.key for measurement in missing})
    elif kind == "vog":
        vog = callbacks["vog"]
        assert isinstance(vog, VarianceOfGradients)
        found = vog.measured()
        chosen = np.array(measuring.places(trained.data, settings))
        # Where in the test split they stand.
        yield missing[0].key, replace(found, arrays=found.arrays | {"places": chosen})
    else:
        yield missing[0].key, MEASUREMENTS[kind](trained, settings)


def prepare(trained: Trained, missing: list[Measurement]) -> str:
    """Put the model into the state that is to be measured: with BatchNorm's statistics estimated anew if asked.

    Returns:
        In words which statistics BatchNorm uses; empty for a model without it that is measured as trained.
    """
    from lightning_sparse.measure.batchnorm import (
        RECALIBRATION,
        batchnorm_in_words,
        has_batchnorm,
        recalibrate_batchnorm,
    )

    if not any(measurement.settings.get("batchnorm") == "recalibrated" for measurement in missing):
        return batchnorm_in_words(True) if has_batchnorm(trained.model) else ""
    images = trained.other("train", RECALIBRATION)
    return batchnorm_in_words(recalibrate_batchnorm(trained.model, images), len(images[1]))
