"""The numbers of single images that measurements leave beside their rows, in ``<key>.npz``.

Arrays that other modules read: ``images`` (n, C, H, W), ``labels``, ``prediction`` and ``confidence`` (n,); from transfer
``adversarial`` (shaped as the images), ``adversarial_prediction``, ``eps`` and ``norm``; from saliency a map (n, H, W) under
each attribution's name; from robust ``survives`` (n, radii) and ``eps``; from vog ``vog_in_class`` and ``places``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from lightning_sparse.results.jobs import Job

Arrays = Mapping[str, NDArray[Any]]


def kind_of(key: str) -> str:
    """The kind of measurement that a key stands for: its first part.

    Example:
        >>> kind_of("saliency-f46fd981"), kind_of("robust-cd27487a-0.0625")
        ('saliency', 'robust')
    """
    return key.partition("-")[0]


def load(job: Job, kind: str) -> Arrays | None:
    """The arrays that a job's measurement of this kind left, or None."""
    return next((_read(path) for path in _files(job, kind).values()), None)


def load_whole(job: Job, kind: str) -> Arrays:
    """Like :func:`load`, but empty if there are none, or if the file is torn because the job was killed."""
    try:
        return load(job, kind) or {}
    except (OSError, ValueError, EOFError, BadZipFile):
        return {}


def survivors(job: Job) -> dict[tuple[str, float], NDArray[np.bool_]]:
    """Which images (n,) every attack left correct, by key and eps; equal keys mean equal images."""
    found: dict[tuple[str, float], NDArray[np.bool_]] = {}
    for key, path in _files(job, "robust").items():
        arrays = _read(path)
        found |= {(key, float(eps)): column for eps, column in zip(arrays["eps"], arrays["survives"].T, strict=True)}
    return found


def key_of_kind(job: Job, kind: str) -> str:
    """The key of a job's measurement of this kind: equal keys mean equal settings, and so equal images."""
    return next((key for key in job.keys if kind_of(key) == kind), "")


def attributions(arrays: Arrays) -> list[str]:
    """Names of the attributions whose maps were stored."""
    return [name for name, array in arrays.items() if array.ndim == 3]


def forgotten_file(folder: Path, data: str, model: str, method: str) -> Path:
    """Where the forgotten images of a method lie, if there are any."""
    return folder / "forgotten" / (re.sub(r"[^\w.-]+", "-", f"{data}-{model}-{method}") + ".npz")


def _files(job: Job, kind: str) -> dict[str, Path]:
    paths = {key: job.folder / f"{key}.npz" for key in job.keys if kind_of(key) == kind}
    return {key: path for key, path in paths.items() if path.exists()}


def _read(path: Path) -> Arrays:
    with path.open("rb") as opened, np.load(opened) as file:  # given the path, numpy would leave a torn file open
        return dict(file)
