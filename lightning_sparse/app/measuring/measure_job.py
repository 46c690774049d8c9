"""Measure what is asked for of a trained model and not on disk yet."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from itertools import groupby

import numpy as np
from torch import nn
from tqdm import tqdm

from lightning_sparse.app.measuring.measurements import Measurement
from lightning_sparse.app.measuring.trained import Trained
from lightning_sparse.data.fixed_splits import FixedSplits
from lightning_sparse.measure.batchnorm import RECALIBRATION, batchnorm_in_words, has_batchnorm, recalibrate_batchnorm
from lightning_sparse.results.jobs import Job
from lightning_sparse.results.records import Record


def measure_job(
    job: Job, trained: Trained, sparsity: float, measurements: list[Measurement], *, progress: bool = False
) -> list[Record]:
    """Measure what is not on disk yet, write each measurement as soon as it is done, and return all rows, old and new.

    Args:
        job: whose rows they are.
        trained: the model, whose BatchNorm is left as it was measured, and its data: measurements are of the test split,
            the validation split calibrates, and the training split is what the model describes.
        sparsity: the sparsity of the model.
        measurements: what is asked for.
        progress: show a bar on stdout, below a sweep's line.
    """
    trained.model.to(trained.device)
    measured = job.measured()
    missing = [measurement for measurement in measurements if measurement.key not in measured]
    said = prepare(trained, missing)
    bar = tqdm(total=len(missing), desc="measuring", position=1, leave=False, disable=not progress, file=sys.stdout)
    for kind, some in groupby(missing, key=lambda measurement: measurement.kind):
        bar.set_postfix_str(kind.name)
        parts = list(some)
        told = "" if kind.callback else said
        for key, found in kind.measure(trained, parts[0].settings, job, {part.key for part in parts}):
            bar.update()
            rows = [replace(row, detail=f"{row.detail}; {told}") if told else row for row in found.records]
            if found.arrays:
                part = job.folder / f"{key}.part.npz"
                np.savez_compressed(part, **found.arrays)
                os.replace(part, job.folder / f"{key}.npz")
            job.record(rows, key, sparsity)  # last, because it says that the measurement is done
    bar.close()
    return job.current_rows()


def prepare(trained: Trained, missing: list[Measurement]) -> str:
    """Recalibrate BatchNorm if asked, and say which statistics it uses; empty for a model as trained that has none."""
    if any(measurement.settings.get("batchnorm") == "recalibrated" for measurement in missing):
        return recalibrated(trained.model, trained.data)
    return batchnorm_in_words(True) if has_batchnorm(trained.model) else ""


def recalibrated(model: nn.Module, data: FixedSplits) -> str:
    """Recalibrate BatchNorm on training images, and say so."""
    images = data.split("train", RECALIBRATION)
    return batchnorm_in_words(recalibrate_batchnorm(model, images), len(images[1]))
