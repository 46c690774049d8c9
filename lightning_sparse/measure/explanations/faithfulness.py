"""Faithfulness of a saliency map: do the pixels it puts first carry the model's decision?"""

from __future__ import annotations

from numbers import Real

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.isolation import device_of, untouched
from lightning_sparse.anatomy.tokens import PAD, are_tokens
from lightning_sparse.errors import SparsityError, check_seed
from lightning_sparse.measure.checks import check_images
from lightning_sparse.measure.classifier import as_classifier, batches
from lightning_sparse.measure.explanations.explained import shape_of_maps, without
from lightning_sparse.measure.explanations.maps import ranks, varied

_INTERVALS = 29  # odd, so that no count of pixels is a half and rounding is the same from either end
_ROWS = 512  # images per forward pass


def insertion_deletion_gap(
    classifier: nn.Module, images: Tensor, labels: Tensor, maps: Tensor, *, temperature: float, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Measure how much better a map's order of pixels is than a random one (Petsiuk et al. 2018, RISE).

    Insertion is the area under the true class's probability as pixels are added to a black image, highest first; deletion
    the same as they are blackened, highest first. The gap is insertion minus deletion: a faithful map has high insertion and
    low deletion. Each area alone moves with a model's confidence, so the probabilities are calibrated (``temperature``).

    No random order is run, because its gap is 0 by symmetry: adding in one order passes through the same images as
    blackening in the reverse order, which is as likely. The fractions of pixels are symmetric about a half, so that this
    holds exactly for any order and its reverse; subtracting a random draw would only add noise.

    The words of a text are removed by putting the unknown word in their place, one by one; padding stays.

    Args:
        classifier: pixels in [0, 1] to logits; it is left as it was.
        images: (n, C, H, W), floats in [0, 1]; or texts (n, length), integers.
        labels: (n,), integers in [0, classes): the class whose probability is followed.
        maps: (n, H, W), higher is more important; all channels of a pixel go together. Of texts (n, 1, length), NaN at
            padding.
        temperature: of the softmax, from :func:`~lightning_sparse.measure.fit_temperature`.
        seed: of the random order of equal values in a map.

    Returns:
        (n,), each in (-1, 1), 0 for an order no better than random; NaN for a constant map, which orders nothing.

    Raises:
        SparsityError: if the shapes do not fit, or ``temperature`` is not positive.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
        >>> _ = nn.init.zeros_(model[1].weight)
        >>> model[1].weight.data[1, 0] = 9.0  # class 1 is the first pixel
        >>> maps = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
        >>> gap = insertion_deletion_gap(model, torch.ones(1, 1, 2, 2), torch.tensor([1]), maps, temperature=1.0)
        >>> round(float(gap[0]), 2)  # at most 3/4 of the 1/2 between chance and certainty
        0.37
    """
    seed = check_seed(seed)
    check_images(images, labels)
    classifier = as_classifier(classifier)
    if isinstance(temperature, bool) or not isinstance(temperature, Real) or not 0 < temperature < np.inf:
        raise SparsityError(f"temperature={temperature!r} is not positive: write temperature=fit_temperature(...)")
    expected = shape_of_maps(images)
    if not isinstance(maps, Tensor) or maps.shape != expected:
        shape = tuple(getattr(maps, "shape", ()))
        raise SparsityError(f"maps have shape {shape}, not {expected}: give a tensor of one value per pixel")
    counts, weights = _words(images) if are_tokens(images) else _grid(images.shape[2] * images.shape[3])
    flat = maps.detach().flatten(1).double().cpu()
    gaps = []
    with untouched(classifier, seed), torch.no_grad():
        device = device_of(classifier)
        check_images(images, labels, classifier(next(batches(1, device, images))[0]).shape[1])
        counts = counts.to(device)
        chunk = max(1, _ROWS // max(1, len(counts)))
        for part, wanted, rank in batches(chunk, device, images, labels, ranks(flat, seed)):
            first = (rank.unsqueeze(1) < counts.unsqueeze(1)).view(len(part), len(counts), *_one_channel(part))
            whole, nothing = part.unsqueeze(1), without(part).unsqueeze(1)
            inserted, deleted = torch.where(first, whole, nothing), torch.where(first, nothing, whole)
            insertion, deletion = (
                _probability(classifier, masked.flatten(0, 1), wanted, temperature) for masked in (inserted, deleted)
            )
            gaps.append((insertion - deletion).cpu())
    result = (torch.cat(gaps) * weights).sum(dim=1).numpy()
    result[~varied(flat.numpy())] = np.nan
    return result


def _probability(classifier: nn.Module, images: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Probability of each label in its run of images: (n * points, C, H, W) and (n,) to (n, points)."""
    points = len(images) // len(labels)
    logits: Tensor = classifier(images)
    probabilities = torch.softmax(logits.double() / temperature, dim=1).view(len(labels), points, -1)
    return probabilities.gather(2, labels.view(-1, 1, 1).expand(-1, points, 1)).squeeze(2)


def _one_channel(inputs: Tensor) -> tuple[int, ...]:
    return tuple(inputs.shape[1:]) if are_tokens(inputs) else (1, *inputs.shape[2:])


def _words(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`_grid`, of single words: the weights (n, points) are 0 from a text's last word on."""
    counts = torch.arange(1, max(2, tokens.shape[1]))
    words = (tokens != PAD).sum(dim=1, keepdim=True).cpu()
    return counts, (counts < words).double() / words.clamp_min(1)


def _grid(pixels: int) -> tuple[Tensor, Tensor]:
    """Numbers of pixels at which the curves are read, and their weights in the trapezoidal area.

    The ends are left out: there both curves see the whole and the black image, which cancel in the difference.
    """
    intervals = min(_INTERVALS, pixels)
    counts = torch.tensor([round(step * pixels / intervals) for step in range(intervals + 1)])
    weights = (counts[2:] - counts[:-2]).double() / (2 * pixels)
    return counts[1:-1], weights
