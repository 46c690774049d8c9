"""Wrong labels that are planted, so that it is known which they are."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_STREAM = 0x6C6162656C  # another stream than the orders of training, which come from seeds of the same size


def noisy_labels(labels: Tensor, share: float, classes: int, seed: int) -> Tensor:
    """Draw the labels of a share of the images anew, each uniformly over *all* classes (Zhang et al. 2017).

    A label that is drawn anew may be the old one, so that a share of 1.0 is labels at random, which tell nothing. Wrong are
    ``share * (classes - 1) / classes`` of the labels on average: 18 % of ten classes at 0.2.

    Args:
        labels: (n,), integers in [0, classes). They are left as they are.
        share: of the images whose label is drawn anew, in [0, 1]: exactly ``round(share * n)`` of them.
        classes: how many there are.
        seed: decides which images, and their labels. The images of a smaller share are among those of a larger one, and get
            the same labels.

    Returns:
        (n,), of the same type.

    Example:
        >>> labels = torch.arange(10).repeat(100)
        >>> wrong = noisy_labels(labels, 0.2, 10, seed=0) != labels
        >>> int(wrong.sum())  # of 200 that were drawn
        179
    """
    draw = np.random.default_rng((_STREAM, seed))
    places = draw.permutation(len(labels))[: round(share * len(labels))]
    noisy = labels.clone()
    noisy[torch.from_numpy(places)] = torch.from_numpy(draw.integers(0, classes, len(labels))[: len(places)]).to(labels)
    return noisy
