"""Shift consistency: whether a prediction stays the same when the image moves by a pixel or two."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from lightning_sparse.anatomy.isolation import untouched
from lightning_sparse.errors import check_count, check_seed
from lightning_sparse.measure.checks import check_are_images, check_images
from lightning_sparse.measure.classifier import as_classifier, logits_of
from lightning_sparse.measure.images_and_labels import Data, images_and_labels
from lightning_sparse.measure.rows import mean_row
from lightning_sparse.measure.smaller_batches import smaller_batches
from lightning_sparse.results.records import Measured


@smaller_batches
def measure_shift_consistency(
    model: nn.Module, data: Data, *, most: int = 2, batch_size: int = 512, seed: int = 0, progress: bool = False
) -> Measured:
    """Measure how often two shifted copies of an image get the same prediction, right or wrong (Zhang 2019, 1904.11486).

    The shifts are all (2 most + 1)^2 whole-pixel ones of at most ``most`` pixels along each axis, including none; zeros move
    in where the image moves out. The number of an image is the share of pairs of two different shifts whose predictions
    agree: exact, not sampled. Zhang draws the two shifts independently, and with few shifts many pairs are then one shift
    twice; leaving those out puts a model whose every prediction differs at 0.

    Args:
        model: pixels in [0, 1] to logits, see :func:`~lightning_sparse.measure.as_classifier`; it is left as it was.
        data: images and labels or a loader, as for :func:`~lightning_sparse.measure.measure_accuracy`.
        most: longest shift along each axis in pixels, at least 1 and less than the image's shorter side. The model runs
            (2 most + 1)^2 times: 25 for 2.
        batch_size: images per forward pass.
        seed: of the random states inside; it matters only for a model that is random in eval mode.
        progress: show a bar on stderr.

    Returns:
        One record, ``shift_consistency`` in [0, 1], the mean over images with its normal interval; 1 for a model that
        never changes its prediction, even one that always predicts the same class. Array ``shift_consistency`` (n,), float32.

    Raises:
        SparsityError: if an argument, the images, the labels or the model's outputs are not what they should be.

    Example:
        >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3))
        >>> images = torch.zeros(2, 1, 6, 6)
        >>> images[:, :, 2:4, 2:4] = 1.0  # no shift of 2 pixels pushes anything out
        >>> measure_shift_consistency(model, (images, torch.tensor([0, 1]))).records[0].value
        1.0
    """
    seed = check_seed(seed)
    images, labels = images_and_labels(data)
    check_are_images(images, "shifts")
    check_images(images, labels)
    height, width = images.shape[-2:]
    side = min(height, width)
    check_count("most", most, most=side - 1, write=f"fewer pixels than the {side} of the images' shorter side")
    classifier = as_classifier(model)
    padded = F.pad(images.detach(), (most, most, most, most))
    corners = [(top, left) for top in range(2 * most + 1) for left in range(2 * most + 1)]
    predictions = []
    with untouched(classifier, seed):
        for top, left in tqdm(corners, "shifts", disable=not progress, leave=False):
            window = padded[..., top : top + height, left : left + width]
            logits = logits_of(classifier, window, labels, batch_size=batch_size)
            predictions.append(logits.argmax(dim=1))
    consistency = _agreeing_pairs(torch.stack(predictions, dim=1), logits.shape[1]).numpy()
    n, shifts = len(labels), len(corners)
    detail = (
        f"share of pairs of different shifts with the same top-1 prediction, all {shifts} shifts of at most {most} pixels "
        "along each axis, zeros moved in, eval mode; right or wrong does not matter"
    )
    record = mean_row("shift_consistency", consistency, samples=n * shifts, detail=detail)
    return Measured([record], {"shift_consistency": consistency.astype("float32")})


def _agreeing_pairs(predictions: Tensor, classes: int) -> Tensor:
    """Share of pairs of different columns that agree, for each row of ``predictions`` (n, shifts)."""
    shifts = predictions.shape[1]
    votes = torch.zeros(len(predictions), classes, dtype=torch.float64)
    votes.scatter_add_(1, predictions, torch.ones_like(predictions, dtype=torch.float64))
    return (votes * (votes - 1)).sum(dim=1) / (shifts * (shifts - 1))
