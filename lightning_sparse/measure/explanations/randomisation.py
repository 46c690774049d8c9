"""The randomisation check: a map that shows what a network has learned must change when the weights are shuffled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.isolation import untouched
from lightning_sparse.errors import check_seed
from lightning_sparse.measure.classifier import as_classifier
from lightning_sparse.measure.explanations.agreement import rank_agreement
from lightning_sparse.measure.explanations.attributions import attribute
from lightning_sparse.measure.explanations.maps import complexity, quotient
from lightning_sparse.results.verdicts import verdict_of

LIMIT = 0.5
"""A method passes on a model if the mean similarity of its maps before and after is below this."""


@contextmanager
def shuffled_weights(model: nn.Module, seed: int = 0) -> Iterator[None]:
    """Shuffle each parameter's nonzero values among their places inside this context; afterwards they are back, bit for bit.

    What was learned is gone; each layer's distribution of weights, its sparsity and its mask stay. Done in place, because a
    copy of a Lightning module would copy its Trainer too.

    Example:
        >>> layer = nn.Linear(3, 1, bias=False)
        >>> layer.weight.data = torch.tensor([[1.0, 0.0, 2.0]])
        >>> with shuffled_weights(layer, seed=1):
        ...     print(layer.weight.data)
        tensor([[2., 0., 1.]])
        >>> layer.weight.data
        tensor([[1., 0., 2.]])
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode(False), torch.no_grad():
        saved = [(parameter, parameter.detach().clone()) for parameter in model.parameters()]
    try:
        with torch.inference_mode(False), torch.no_grad():
            for parameter, before in saved:
                values = before.flatten()
                places = values.nonzero().squeeze(1)
                order = torch.randperm(len(places), generator=generator).to(places.device)
                values = values.index_copy(0, places, values[places[order]])
                parameter.copy_(values.view_as(before))
        yield
    finally:
        with torch.inference_mode(False), torch.no_grad():
            for parameter, before in saved:
                parameter.copy_(before)


def randomisation_check(
    classifier: nn.Module,
    images: Tensor,
    targets: Tensor,
    maps: Tensor,
    method: str,
    *,
    seed: int = 0,
    layer: str | None = None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Compare maps with those of the same network after its weights are shuffled.

    Similarity is that of Adebayo et al. 2018 (arXiv 1810.03292), all layers at once; the rise of complexity is that of
    Hedstrom et al. 2024 (arXiv 2401.06465).

    Args:
        classifier: pixels in [0, 1] to logits; it is left as it was.
        images: (n, C, H, W), floats in [0, 1]; or texts (n, length), integers.
        targets: (n,), integers in [0, classes).
        maps: (n, H, W), of the trained network, by the same method and seed.
        method: a name from :data:`~lightning_sparse.measure.ATTRIBUTIONS`.
        seed: of the shuffling and of SmoothGrad's noise.
        layer: of ``"grad_cam"``, the one that made the maps.

    Returns:
        Similarity (n,): Spearman's correlation of the absolute maps, in [-1, 1], near 0 for a good method. And the relative
        rise of complexity (n,): (after - before) / before, above 0 for a good method. NaN where either map is constant.

    Raises:
        SparsityError: as :func:`~lightning_sparse.measure.attribute`.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 3))
        >>> images, targets = torch.rand(5, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1])
        >>> maps, _ = attribute(model, images, targets, "gradient")
        >>> similarity, rise = randomisation_check(model, images, targets, maps, "gradient")
        >>> similarity.shape, rise.shape
        ((5,), (5,))
    """
    classifier = as_classifier(classifier)
    # untouched is the outer one, so that buffers and modes are restored after the weights.
    seed = check_seed(seed)
    with untouched(classifier, seed), shuffled_weights(classifier, seed):
        after, _ = attribute(classifier, images, targets, method, seed=seed, layer=layer)
    before = complexity(maps)
    return rank_agreement(maps, after), quotient(complexity(after) - before, before, before > 0)


def verdict(similarity: float) -> str:
    """Judge a method on a model by the mean similarity: passed, failed, or nothing if it is undefined.

    Example:
        >>> verdict(0.1), verdict(0.8), verdict(float("nan"))
        ('passed', 'failed: maps alike', '')
    """
    if np.isnan(similarity):
        return ""
    return verdict_of([] if similarity < LIMIT else ["maps alike"])
