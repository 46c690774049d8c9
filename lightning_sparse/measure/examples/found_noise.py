"""How well scores find labels that are known to be wrong, and how many of these a network has learned by heart."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.examples.history import ExampleHistory
from lightning_sparse.measure.rows import share_row
from lightning_sparse.results.records import Record
from lightning_sparse.statistics.auroc import auroc


def noise_records(histories: Mapping[str, ExampleHistory], wrong: Tensor | None, *, seed: int = 0) -> list[Record]:
    """Record what histories of the same images say of planted label noise.

    Args:
        histories: by window: ``""`` is the whole training, which must be there.
        wrong: (n,), booleans; None if it is unknown.
        seed: of the score that is drawn at random.

    Returns:
        ``noise_right_learned`` and ``noise_wrong_learned``, in [0, 1] with Wilson intervals: of the images with right labels,
        and of those with wrong ones, the share that has the *given* label at the last look. ``noise_auroc``, in [0, 1] with
        the interval of Hanley & McNeil over images, of each score (condition ``loss``, ``loss early``, ...): the chance that
        a wrong label has a higher score than a right one; 0.5 tells nothing. Without noise only the first.

    Raises:
        SparsityError: if there is not one boolean for each image.
    """
    whole = histories[""]
    n = len(whole.labels)
    if wrong is not None and (wrong.dtype != torch.bool or wrong.shape != (n,)):
        raise SparsityError(
            f"wrong is {wrong.dtype} of shape {tuple(wrong.shape)}: give ({n},) booleans, one for each image looked at, as "
            "ImageData.wrong_labels(most) does"
        )
    known = torch.zeros(n, dtype=torch.bool) if wrong is None else wrong.cpu()
    rows = []
    for metric, group in (("noise_right_learned", ~known), ("noise_wrong_learned", known)):
        if bool(group.any()):
            hits = int((whole.right & group).sum())
            rows.append(share_row(metric, hits, int(group.sum()), detail="training images that have the given label"))
    if not bool(known.any()):
        return rows
    for window, history in histories.items():
        for name, values in history.scores(seed).items():
            area, low, high = auroc(values, known.numpy())
            detail = f"{history.count} looks, {int(known.sum())} wrong labels; interval: Hanley & McNeil over images"
            condition = f"{name} {window}".strip()
            measured = int((~np.isnan(values)).sum())
            rows.append(Record("noise_auroc", area, measured, low, high, condition=condition, detail=detail))
    return rows
