"""One method's maps, measured: every number of every image that a row of saliency is a mean of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from lightning_sparse.measure.explanations.faithfulness import insertion_deletion_gap
from lightning_sparse.measure.explanations.localisation import chance, mass_accuracy, rank_accuracy
from lightning_sparse.measure.explanations.maps import gini
from lightning_sparse.measure.explanations.randomisation import randomisation_check
from lightning_sparse.measure.explanations.sensitivity import max_sensitivity

Numbers = dict[str, npt.NDArray[np.float64]]

MEASURES = (
    "gini",
    "insertion_deletion_gap",
    "max_sensitivity",
    "convergence_delta",
    "localisation",
    "randomisation",
)
"""What can be measured of maps. They contradict each other by construction, and are never averaged into one score."""


def numbers_of_maps(maps: Tensor, measures: Sequence[str], truth: Mapping[str, Tensor], seed: int) -> Numbers:
    """Measure maps by themselves, no model needed: ``gini``, ``localisation_rank_NAME``, ``localisation_mass_NAME``.

    Args:
        maps: (n, H, W).
        measures: names from :data:`MEASURES`.
        truth: masks (n, H, W), booleans, by name.
        seed: of the order of equal values.

    Returns:
        By metric (n,), NaN where undefined.

    Example:
        >>> import torch
        >>> sorted(numbers_of_maps(torch.rand(2, 3, 3), ["gini"], {}, seed=0))
        ['gini']
    """
    found: Numbers = {}
    if "gini" in measures:
        found["gini"] = gini(maps)
    if "localisation" in measures:
        for name, mask in truth.items():
            found[f"localisation_rank_{name}"] = rank_accuracy(maps, mask, seed=seed)
            found[f"localisation_mass_{name}"] = mass_accuracy(maps, mask)
    return found


def references(images: Tensor, measures: Sequence[str], truth: Mapping[str, Tensor], seed: int) -> dict[str, Numbers]:
    """Give the lines that maps are to be held against: what the images come to as maps, and what chance does.

    Returns:
        By attribution: ``"input"``, whose map is the absolute image, channels summed; and ``"uniform"``, where there are
        masks.

    Example:
        >>> import torch
        >>> references(torch.rand(2, 1, 3, 3), ["gini"], {}, seed=0)["input"]["gini"].shape
        (2,)
    """
    found = {"input": numbers_of_maps(images.detach().sum(dim=1).abs(), measures, truth, seed)}
    if "localisation" in measures and truth:
        found["uniform"] = {f"localisation_chance_{name}": chance(mask) for name, mask in truth.items()}
    return found


def numbers_of_model(
    classifier: nn.Module,
    images: Tensor,
    labels: Tensor,
    method: str,
    maps: Tensor,
    deltas: Tensor,
    *,
    measures: Sequence[str],
    temperature: float,
    seed: int,
) -> Numbers:
    """Measure maps together with the model that they explain: faithfulness, steadiness, exactness, the weights' part.

    Args:
        classifier: pixels in [0, 1] to logits; it is left as it was.
        images: (n, C, H, W), floats in [0, 1].
        labels: (n,), integers in [0, classes).
        method: what made the maps.
        maps: (n, H, W), from :func:`~lightning_sparse.measure.attribute` with the same seed.
        deltas: (n,), from there too.
        measures: names from :data:`MEASURES`.
        temperature: of the softmax in which insertion and deletion are followed.
        seed: of whatever is drawn.

    Returns:
        By metric (n,), NaN where undefined.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> images, labels, maps = torch.rand(2, 1, 2, 2), torch.tensor([0, 1]), torch.rand(2, 2, 2)
        >>> settings = {"measures": ["max_sensitivity"], "temperature": 1.0, "seed": 0}
        >>> numbers_of_model(model, images, labels, "gradient", maps, torch.zeros(2), **settings)
        {'max_sensitivity': array([0., 0.])}
    """
    found: Numbers = {}
    if "insertion_deletion_gap" in measures:
        found["insertion_deletion_gap"] = insertion_deletion_gap(
            classifier, images, labels, maps, temperature=temperature, seed=seed
        )
    if "max_sensitivity" in measures:
        found["max_sensitivity"] = max_sensitivity(classifier, images, labels, method, seed=seed)
    if "convergence_delta" in measures and not bool(deltas.isnan().all()):
        # A map of zeros sums to exactly what a dead network's logits differ by, which says nothing of the steps.
        zero = maps.flatten(1).amax(dim=1) == 0
        found["convergence_delta"] = deltas.abs().double().masked_fill(zero, float("nan")).numpy()
    if "randomisation" in measures:
        similarity, rise = randomisation_check(classifier, images, labels, maps, method, seed=seed)
        found["randomisation_similarity"] = similarity
        found["randomisation_complexity_rise"] = rise
    return found
