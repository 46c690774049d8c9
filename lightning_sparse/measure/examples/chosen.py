"""The images of each class with the highest scores."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lightning_sparse.measure.forgetting.gradient_variance import Floats


def chosen_in_classes(scores: Floats, labels: Tensor, share: float) -> Tensor:
    """Choose of every class the ``round(share * count)`` images with the highest scores, but never all of a class.

    Of equal scores the earlier image is chosen, and NaN, which is undefined, comes last.

    Example:
        >>> chosen_in_classes(np.array([1.0, 2.0, 9.0, 8.0]), torch.tensor([0, 0, 1, 1]), 0.5)
        tensor([False,  True,  True, False])
    """
    chosen = np.zeros(len(scores), dtype=bool)
    values, classes = np.where(np.isnan(scores), -np.inf, scores), labels.numpy()
    for label in np.unique(classes):
        own = np.flatnonzero(classes == label)
        count = min(round(share * len(own)), len(own) - 1)
        chosen[own[np.argsort(-values[own], kind="stable")[:count]]] = True
    return torch.from_numpy(chosen)
