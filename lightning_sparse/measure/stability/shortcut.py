"""Shortcut reliance: how much of a model's accuracy depends on a cue that happens to go with the class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.accuracy import measure_accuracy
from lightning_sparse.measure.images_and_labels import Data
from lightning_sparse.measure.rows import mean_row, share_row
from lightning_sparse.results.records import Measured

VERSIONS = {"aligned": "the cue of their own class", "absent": "no cue", "conflicting": "the cue of another class"}


def measure_shortcut(model: nn.Module, data: Mapping[str, Data], *, batch_size: int = 512) -> Measured:
    """Measure accuracy on the same images with the cue of their class, without a cue, and with the cue of another class.

    Args:
        model: pixels in [0, 1] to logits, see :func:`~lightning_sparse.measure.as_classifier`; it is left as it was.
        data: ``"aligned"``, ``"absent"`` and ``"conflicting"``: the same images in the same order, as
            :func:`lightning_sparse.data.shortcut_versions` makes them. Each ``(images, labels)`` or a loader.
        batch_size: images per forward pass.

    Returns:
        ``shortcut_accuracy_aligned``, ``shortcut_accuracy_absent`` and ``shortcut_accuracy_conflicting``, in [0, 1], with
        Wilson intervals; and ``shortcut_reliance``, aligned minus conflicting, in [-1, 1], with the normal interval of the
        differences of single images. Arrays (n,): ``labels`` and, for each version, ``prediction_VERSION``.

    Raises:
        SparsityError: if a version is missing, the labels of two differ, or as
            :func:`~lightning_sparse.measure.measure_accuracy`.

    Example:
        >>> import torch
        >>> model, labels = nn.Flatten(), torch.tensor([0, 1])
        >>> cue = torch.tensor([[0.9, 0.2], [0.2, 0.9]]).view(2, 1, 1, 2)
        >>> data = {"aligned": (cue, labels), "absent": (cue.sort(descending=True).values, labels)}
        >>> rows = measure_shortcut(model, data | {"conflicting": (1 - cue, labels)}).records
        >>> {row.metric: row.value for row in rows}["shortcut_reliance"]
        1.0
    """
    if not isinstance(data, Mapping) or set(data) != set(VERSIONS):
        what = ", ".join(map(str, data)) or "nothing" if isinstance(data, Mapping) else f"a {type(data).__name__}"
        raise SparsityError(f"data holds {what}: give a dict of {', '.join(VERSIONS)}")
    arrays: dict[str, npt.NDArray[Any]] = {}
    right: dict[str, npt.NDArray[np.bool_]] = {}
    rows = []
    for name, cue in VERSIONS.items():
        found = measure_accuracy(model, data[name], batch_size=batch_size).arrays
        if not np.array_equal(arrays.setdefault("labels", found["labels"]), found["labels"]):
            raise SparsityError(f"the labels of {name!r} are not those of 'aligned': give the same images in one order")
        arrays[f"prediction_{name}"] = found["prediction"]
        right[name] = found["prediction"] == found["labels"]
        hits, n = int(right[name].sum()), len(right[name])
        rows.append(share_row(f"shortcut_accuracy_{name}", hits, n, detail=f"images with {cue}"))
    difference = right["aligned"].astype(float) - right["conflicting"].astype(float)
    detail = "accuracy with the cue of the own class minus accuracy with that of another, the same images"
    rows.append(mean_row("shortcut_reliance", difference, detail=detail))
    return Measured(rows, arrays)
