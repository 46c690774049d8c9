"""The numbers of single images that measurements leave beside their rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_sparse.results.jobs import Job

Arrays = Mapping[str, NDArray[Any]]


def load(job: Job, kind: str) -> Arrays | None:
    """The numbers of single images that a measurement of a job left, or None."""
    path = job.arrays(kind)
    if path is None:
        return None
    with np.load(path) as file:
        return dict(file)


def survivors(job: Job) -> dict[tuple[str, float], NDArray[np.bool_]]:
    """Which images stood, (n,), by key and eps of the robust accuracies last asked for; equal keys are equal images."""
    paths = [job.folder / f"{key}.npz" for key in job.keys if key.startswith("robust-")]
    found: dict[tuple[str, float], NDArray[np.bool_]] = {}
    for path in paths:
        if path.exists():
            with np.load(path) as file:
                columns = zip(file["eps"], file["survives"].T, strict=True)
                found |= {(path.stem, float(eps)): column for eps, column in columns}
    return found


def key_of_kind(job: Job, kind: str) -> str:
    """The key of a job's measurement of this kind: equal keys are equal settings, and so equal images."""
    return next((key for key in job.keys if key.rpartition("-")[0] == kind), "")


def forgotten_file(folder: Path, data: str, model: str, method: str) -> Path:
    """Where the forgotten images of a method lie, if there are any."""
    return folder / "forgotten" / (re.sub(r"[^\w.-]+", "-", f"{data}-{model}-{method}") + ".npz")
