"""The numbers of single images that measurements leave beside their rows, in ``<key>.npz``.

Arrays that other modules read: ``images`` (n, C, H, W), or the numbers of a text's words (n, 1, 1, length), ``labels``,
``prediction`` and ``confidence`` (n,); from transfer ``adversarial`` (shaped as the images), ``adversarial_prediction``,
``eps`` and ``norm``; from saliency a map (n, H, W) under each attribution's name, and of texts ``words`` (n, length), those
``unknown`` to the vocabulary, and ``class_names``; from robust ``survives`` (n, radii) and ``eps``; from vog
``vog_in_class`` and ``places``; from biases ``first_layer`` (units, C, H, W), where it is fully connected to the pixels.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from lightning_sparse.results.jobs import Job

Arrays = Mapping[str, NDArray[Any]]

NEEDED = {
    "clean": {"labels": 1, "prediction": 1},
    "robust": {"survives": 2, "eps": 1},
    "saliency": {"images": 4, "labels": 1, "prediction": 1},
    "transfer": {"images": 4, "labels": 1, "adversarial": 4, "eps": 0, "norm": 0},
    "vog": {"vog_in_class": 1},
    "forgotten": {"images": 4, "labels": 1, "dense": 1, "sparse": 1, "sparsity": 0, "networks": 1},
}
"""What is read of each kind's arrays, and their numbers of dimensions."""
KINDS = dict.fromkeys(("labels", "prediction", "adversarial_prediction", "places", "dense", "sparse", "networks"), "iu")
KINDS |= {"survives": "b", "correct": "b", "norm": "U", "words": "U", "unknown": "b", "class_names": "U"}
"""numpy's kinds of numbers, where they are not any."""
FINITE = ("images", "adversarial", "eps")


def kind_of(key: str) -> str:
    """The kind of measurement that a key stands for: its first part.

    Example:
        >>> kind_of("saliency-f46fd981"), kind_of("robust-cd27487a-0.0625")
        ('saliency', 'robust')
    """
    return key.partition("-")[0]


def load(job: Job, kind: str) -> Arrays | None:
    """The arrays that a job's measurement of this kind left; None if there are none, or none that can be read."""
    return next((read(path, kind) for path in _files(job, kind).values()), None)


def survivors(job: Job) -> dict[tuple[str, float], NDArray[np.bool_]]:
    """Which images (n,) every attack left correct, by key and eps; equal keys mean equal images."""
    found: dict[tuple[str, float], NDArray[np.bool_]] = {}
    for key, path in _files(job, "robust").items():
        if arrays := read(path, "robust"):
            found |= {(key, float(eps)): stood for eps, stood in zip(arrays["eps"], arrays["survives"].T, strict=True)}
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


def read(path: Path, kind: str = "") -> Arrays | None:
    """Read one file of arrays; None if it cannot be read, or lacks what those of its kind have."""
    found = _opened(path)
    return None if isinstance(found, str) or _misfit(found, kind) else found


def problem(path: Path, kind: str = "") -> str:
    """Why :func:`read` cannot read a file; empty if it can."""
    found = _opened(path)
    return found if isinstance(found, str) else _misfit(found, kind)


def _opened(path: Path) -> Arrays | str:
    try:
        with path.open("rb") as opened:  # given the path, numpy would leave a torn file open
            loaded = np.load(opened)
            return dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else "one array, not a file of several"
    except OSError as error:
        return error.strerror or str(error)
    except (ValueError, EOFError, BadZipFile, zlib.error, KeyError, NotImplementedError, SyntaxError) as error:
        return (
            "objects, not numbers"
            if "allow_pickle" in str(error) and zipfile.is_zipfile(path)
            else "truncated, or no npz"
        )


def _misfit(arrays: Arrays, kind: str) -> str:
    """What is wrong with the arrays of a kind: those of single images are as long as the labels."""
    if kind not in NEEDED:
        return ""
    lacks = [name for name in NEEDED[kind] if name not in arrays]
    if lacks:
        return f"without {', '.join(lacks)}"
    wrong = [name for name, array in arrays.items() if not _fits(name, array, NEEDED[kind])]
    of_images = [name for name in arrays if arrays[name].ndim and name not in ("eps", "networks", "class_names")]
    n = len(arrays[of_images[0]]) if of_images else 0
    wrong += [name for name in of_images if len(arrays[name]) != n]
    if not wrong and "images" in arrays:
        size = arrays["images"].shape
        wrong = [name for name in attributions(arrays) if arrays[name].shape[1:] != size[2:]]
        wrong += [name for name in ("words", "unknown") if name in arrays and arrays[name].shape[1:] != size[3:]]
        wrong += ["adversarial"] if "adversarial" in arrays and arrays["adversarial"].shape != size else []
    if not wrong and kind == "robust" and arrays["survives"].shape[1:] != arrays["eps"].shape:
        wrong = ["eps"]
    return f"{wrong[0]} is of another shape or kind" if wrong else "no image" if n == 0 else ""


def _fits(name: str, array: NDArray[Any], needed: Mapping[str, int]) -> bool:
    if array.dtype.kind not in KINDS.get(name, "biuf"):
        return False
    finite = name not in FINITE or bool(np.isfinite(array).all())
    return finite and (array.ndim == needed[name] if name in needed else array.ndim > 0)
