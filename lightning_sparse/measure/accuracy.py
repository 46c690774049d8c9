"""Clean accuracy: the share of images a model classifies as labelled, without anyone attacking it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from lightning_sparse.anatomy.isolation import untouched
from lightning_sparse.measure.classifier import as_classifier, logits_of
from lightning_sparse.measure.images_and_labels import Data, images_and_labels
from lightning_sparse.measure.rows import mean_row, share_row
from lightning_sparse.measure.smaller_batches import smaller_batches
from lightning_sparse.results.records import Measured


@smaller_batches
def measure_accuracy(model: nn.Module, data: Data, *, batch_size: int = 512) -> Measured:
    """Measure accuracy and cross-entropy on clean images.

    Args:
        model: pixels in [0, 1] to logits, see :func:`~lightning_sparse.measure.as_classifier`; it is left as it was.
        data: ``(images, labels)`` of shapes (n, C, H, W), floats in [0, 1], and (n,), integers in [0, classes); or a loader
            of such batches.
        batch_size: images per forward pass.

    Returns:
        Two records: ``clean_accuracy`` in [0, 1] with its Wilson interval, and ``clean_cross_entropy``, the mean over
        images in nats, with its normal interval. Arrays, each (n,): ``labels``, ``prediction``, and
        ``true_class_probability``, float32.

    Raises:
        SparsityError: if images, labels or the model's outputs are not what they should be.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> images, labels = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])
        >>> [(record.metric, record.n) for record in measure_accuracy(model, (images, labels)).records]
        [('clean_accuracy', 6), ('clean_cross_entropy', 6)]
    """
    images, labels = images_and_labels(data)
    classifier = as_classifier(model)
    with untouched(classifier), torch.no_grad():
        logits = logits_of(classifier, images, labels, batch_size=batch_size)
        targets = labels.cpu().long()
        prediction = logits.argmax(dim=1)
        losses = F.cross_entropy(logits, targets, reduction="none").double()
    hits = int((prediction == targets).sum())
    return Measured(
        [
            share_row("clean_accuracy", hits, len(targets), detail="top-1, eval mode, float32"),
            mean_row("clean_cross_entropy", losses.numpy(), detail="mean over images, nats"),
        ],
        {
            "labels": targets.numpy(),
            "prediction": prediction.numpy(),
            "true_class_probability": (-losses).exp().float().numpy(),
        },
    )
